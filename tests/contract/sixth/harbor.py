"""Harbor, a made-up CRM: people in one cursor list with a since-filter, written one by one by e-mail."""

import json
from collections.abc import Sequence

from sources.core import connector as is_a
from sources.core.client import Answer
from sources.core.connector import Call, Connection, Writable
from sources.core.reading import lazy_source
from sources.core.rows import Outcome, Row

PEOPLE = is_a.Resource(
    "people",
    "/people",
    is_a.columns(id="text", mail="text", name="text", rank="bigint", changedAt="timestamp"),
    is_a.CursorPages(limit=3, data="items", next="after", param="after"),
    strategy=is_a.Since("changedSince", updated="changedAt"),
    updated="changedAt",
    one="/people/{id}",
)
VIEW = is_a.View(
    "people", {"email": "mail", "full_name": "name", "score": "rank", "updated_at": "changed_at"}
)


def _encode(rows: Sequence[Row], connection: Connection) -> Call:
    return Call("PUT", "/people", json.dumps({"mail": rows[0].key, **rows[0].fields}).encode())


def _decode(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    told = answer.json()
    return [Outcome(rows[0].seq, "created" if told["isNew"] else "updated", crm_id=told["id"])]


WRITE = is_a.Write(
    "people",
    "people",
    "mail",
    {"mail": Writable(), "name": Writable(), "rank": Writable("bigint")},
    {"upsert": is_a.Lane("upsert", size=1, encode=_encode, decode=_decode, repeat_s=86_400)},
    lambda row, connection: "upsert",
)
CONTRACT = is_a.Contract("v1", (PEOPLE,), {"contacts": (VIEW,)}, {"people": WRITE})
CONNECTOR = is_a.Connector(
    "harbor", "Harbor", {"v1": CONTRACT}, lambda connection: CONTRACT, "https://api.harbor.example"
)

harbor = lazy_source(CONNECTOR)
