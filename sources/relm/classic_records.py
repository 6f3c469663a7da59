"""Writes of Relm Classic one by one: companies by domain, deals and activities by the id once given for them.

New records go by POST under an Idempotency-Key, which the vendor keeps for 24 hours; known ones by PATCH,
which takes no key and may be repeated. Whether a PATCH merges `metadata` or replaces it is not stated, so it
goes out whole. Deals and activities have no natural key: one whose answer was lost is recognised by what was
sent, among the records that share its links or its text; where the filters are not served it stays open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sources.core.bodies import encode_json, is_echo, with_fields
from sources.core.client import Answer, Client
from sources.core.connector import Call, Connection, KeyForm, Lane, Writable, Write
from sources.core.errors import RefusedError
from sources.core.lanes import (
    ALWAYS,
    DELETE,
    decode_change,
    delete_lane,
    id_in,
    left_open,
    look_by_id,
    path_of,
)
from sources.core.looking import claim, is_certain, may_be_new, sight_of
from sources.core.rows import Outcome, Row, Sight
from sources.relm import classic_fields
from sources.relm.classic_lists import walk

KEY_ALIVE_S = 23 * 3600  # of the vendor's 24 hours; an hour is left for clocks that differ
_MOST_LOOKED_AT = 1_000  # records that share a link or a text; more tell nothing


@dataclass(frozen=True, slots=True)
class _Records:
    """How records of one object are written and found again.

    `filters` are the fields a lost record is looked for by, the best first; `texts` are those among them
    that the CRM may show otherwise than sent: finding nothing proves nothing then. `mark` is as in `claim`.
    """

    name: str
    filters: tuple[str, ...]
    texts: frozenset[str]
    mark: str

    @property
    def path(self) -> str:
        return f"/v1/{self.name}"

    def encode_create(self, rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        return Call("POST", self.path, encode_json(with_fields({}, row.fields)))

    def encode_patch(self, rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        is_custom = any(name.startswith("metadata.") for name in row.fields)
        base = {"metadata": row.known.get("metadata") or {}} if is_custom else {}
        return Call("PATCH", path_of(self.path, row), encode_json(with_fields(base, row.fields)))

    def look_created(
        self, client: Client, connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        """Look for the record that a lost creation may have made."""
        (row,) = rows
        name = next((name for name in self.filters if row.fields.get(name)), None)
        records = None if name is None else self._sharing(client, name, row)
        if records is None:
            return [None]
        young = [each for each in records if may_be_new(each, "created_at", since)]
        (record,) = claim(rows, young, mark=self.mark)
        if record is None:
            return [sight_of(None, is_absent=name not in self.texts and is_certain(client, since))]
        # Without a stamp it may as well be an older record of the same content.
        return [sight_of(record, is_absent=False) if record.get("created_at") else None]

    def _sharing(self, client: Client, name: str, row: Row) -> list[Mapping[str, Any]] | None:
        """List the records that share a field with a row; None where the filter does not filter."""
        params = {f"filter[{name}][eq]": str(row.fields[name]), "limit": "200"}
        found = walk(client, self.path, params, resource=self.name)
        try:
            records = list(islice(found, _MOST_LOOKED_AT + 1))
        except RefusedError:
            return None
        is_filtered = all(is_echo(row.fields[name], record.get(name)) for record in records)
        return records if is_filtered and len(records) <= _MOST_LOOKED_AT else None


def _decode_create(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    (row,) = rows
    crm_id = id_in(answer.json())
    return [left_open(row) if crm_id is None else Outcome(row.seq, "created", crm_id)]


def _write(
    records: _Records, fields: Mapping[str, Writable], *, key: str = "id", key_form: KeyForm = "none"
) -> Write:
    return Write(
        object=records.name,
        resource=records.name,
        key=key,
        key_form=key_form,
        fields=fields,
        custom="metadata",
        lanes={
            "create": Lane(
                "create",
                1,
                records.encode_create,
                _decode_create,
                repeat_s=KEY_ALIVE_S,
                key_header="Idempotency-Key",
                look=records.look_created,
            ),
            "patch": Lane(
                "patch",
                1,
                records.encode_patch,
                decode_change,
                repeat_s=ALWAYS,
                look=look_by_id(records.path),
            ),
            DELETE: delete_lane(records.path),
        },
        lane=lambda row, connection: "create" if row.action == "create" else "patch",
        inspect=classic_fields.inspect(records.name),
        registry=classic_fields.registry_of(records.name),
        replaces=lambda connection: False,
    )


COMPANIES = _write(
    _Records("companies", ("domain",), frozenset({"domain"}), mark="name"),
    {"name": Writable(), "domain": Writable()},
    key="domain",
    key_form="domain",
)
DEALS = _write(
    _Records("deals", ("primary_contact_id", "company_id", "title"), frozenset({"title"}), mark="title"),
    {
        "title": Writable(),
        "value_cents": Writable("bigint"),
        **{
            name: Writable()
            for name in ("currency", "stage", "close_date", "company_id", "primary_contact_id")
        },
    },
)
ACTIVITIES = _write(
    _Records(
        "activities", ("contact_id", "deal_id", "company_id", "subject"), frozenset({"subject"}), "subject"
    ),
    {
        **{name: Writable() for name in ("type", "subject", "body", "contact_id", "deal_id", "company_id")},
        "occurred_at": Writable("timestamp"),
    },
)
