"""Writes of Rally: contacts created in bulks of 100, existing ones upserted one by one.

Three things the vendor leaves open shape this module. Whether a bulk updates a contact that exists is not
stated, so it carries only contacts known to be new. Its answer has counts but no rows, so anything but a
clean count is looked up. Whether PUT replaces the record is not stated, so bodies are completed: with what
was pulled, and for the eight fields that no answer shows with what we sent ourselves. A value that somebody
typed into one of those eight is out of our sight: set `put_semantics = "merge"` for a tenant known to merge.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sources.core.bodies import encode_json
from sources.core.client import Answer, Client
from sources.core.connector import (
    Call,
    Connection,
    Lane,
    Option,
    Outcome,
    Row,
    Sight,
    Verdict,
    Writable,
    Write,
)
from sources.core.errors import GoneError

OPTIONS = (
    Option(
        "put_semantics",
        "whether PUT replaces a contact (bodies are completed) or merges (only changes are sent)",
        default="replace",
        choices=("replace", "merge"),
    ),
    Option(
        "bulk_existing",
        "what a bulk does with an e-mail that exists; only with `updates` are existing contacts sent in bulk",
        default="unknown",
        choices=("unknown", "updates", "fails", "duplicates"),
    ),
    Option(
        "bulk_body",
        "whether a bulk's body is a bare array or an object with the array under `contacts`",
        default="array",
        choices=("array", "object"),
    ),
    Option(
        "fallback_last_name",
        "the last name of a new contact whose model has none; empty: such rows are held back",
        default="",
    ),
)

_PAGE = 200
_SPARE_PAGES = 10  # contacts that others change while we push

UNREADABLE = ("linkedInUrl", "twitterHandle", "address", "city", "state", "country", "postalCode", "notes")
_READABLE = (
    "phone",
    "mobile",
    "title",
    "department",
    "companyId",
    "lifecycleStage",
    "leadSource",
    "tags",
    "ownerId",
)

FIELDS: dict[str, Writable] = {
    **{name: Writable(required=True) for name in ("firstName", "lastName", "email")},
    **{name: Writable() for name in _READABLE},
    "leadScore": Writable("bigint"),
    **{name: Writable(readable=False) for name in UNREADABLE},
}


# -- saying it -----------------------------------------------------------------------------------


def _contact(row: Row, connection: Connection) -> dict[str, Any]:
    """Make a contact's body; a known stage always goes out, for leaving it out may reset it to `lead`."""
    base: dict[str, Any] = {"email": row.key}
    if row.action == "update" and connection.options.get("put_semantics") == "merge":
        kept = (
            "firstName",
            "lastName",
            "email",
            "lifecycleStage",
        )  # required ones, as far as the vendor tells
        base |= {name: row.known[name] for name in kept if row.known.get(name) is not None}
    else:
        base |= {name: value for name, value in row.known.items() if value is not None}
    body = {**base, **row.fields}
    return {**body, "email": str(body["email"]).strip()}


def _encode_bulk(rows: Sequence[Row], connection: Connection) -> Call:
    contacts = [_contact(row, connection) for row in rows]
    body: Any = {"contacts": contacts} if connection.options.get("bulk_body") == "object" else contacts
    return Call("POST", "/contacts/bulk", encode_json(body))


def _encode_upsert(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    return Call("PUT", "/contacts/upsert", encode_json(_contact(row, connection)))


def _encode_put(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    return Call("PUT", _record_path(row), encode_json(_contact(row, connection)))


def _record_path(row: Row) -> str:
    return f"/contacts/{quote(row.crm_id or '', safe='')}"


# -- reading the answer --------------------------------------------------------------------------


def _decode_bulk(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Take a clean count as proof for every row; anything else leaves all of them open."""
    body = answer.json()
    if not isinstance(body, Mapping) or not _is_clean(rows, body):
        return [Outcome(row.seq, "unknown", reason="the bulk's answer names no rows") for row in rows]
    ids = body.get("createdIds")
    crm_id = str(ids[0]) if len(rows) == 1 and isinstance(ids, list) and len(ids) == 1 else None
    return [Outcome(row.seq, _landed(row), row.crm_id or crm_id) for row in rows]


def _is_clean(rows: Sequence[Row], body: Mapping[str, Any]) -> bool:
    created, updated, failed = (body.get(name, 0) for name in ("created", "updated", "failed"))
    new = sum(row.action == "create" for row in rows)
    return (created, updated, failed) == (new, len(rows) - new, 0) and not body.get("errors")


def _decode_upsert(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Read either documented reply: `{action, id}` or the whole record."""
    (row,) = rows
    body = answer.json()
    crm_id = body.get("id") if isinstance(body, Mapping) else None
    if not isinstance(crm_id, str):
        return [Outcome(row.seq, "unknown", reason="the answer names no record")]
    told: dict[Any, Verdict] = {"created": "created", "updated": "updated"}
    return [Outcome(row.seq, told.get(body.get("action"), _landed(row)), crm_id)]


def _decode_put(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    (row,) = rows
    return [Outcome(row.seq, "updated", row.crm_id)]


def _landed(row: Row) -> Verdict:
    return "created" if row.action == "create" else "updated"


# -- looking -------------------------------------------------------------------------------------


def _look(client: Client, connection: Connection, rows: Sequence[Row], since: datetime) -> list[Sight | None]:
    """List what changed since the rows were sent; a row whose contact is not in it had no effect."""
    by_key: dict[str, Mapping[str, Any]] = {}
    by_id: dict[str, Mapping[str, Any]] = {}
    params = {"limit": str(_PAGE), "updatedSince": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    offset = 0
    for _ in range(2 * len(rows) // _PAGE + _SPARE_PAGES):
        page = client.get("/contacts", {**params, "offset": str(offset)}, resource="contacts").json()
        if not isinstance(page, list):
            return [None] * len(rows)
        for record in page:
            by_id[str(record.get("id"))] = record
            by_key[str(record.get("email") or "").strip().lower()] = record
        if not page:
            return [_sight(by_id.get(row.crm_id or "") or by_key.get(row.key)) for row in rows]
        offset += max(1, len(page) - 5)  # rows move while we read: each page overlaps the one before
        if len(page) <= 5:
            offset += 5
    return [None] * len(rows)


def _look_by_id(
    client: Client, connection: Connection, rows: Sequence[Row], since: datetime
) -> list[Sight | None]:
    sights: list[Sight | None] = []
    for row in rows:
        if row.crm_id is None:
            sights += _look(client, connection, [row], since)
            continue
        try:
            sights.append(_sight(client.get(_record_path(row), resource="contacts").json()))
        except GoneError:
            sights.append(Sight())
    return sights


def _sight(record: Any) -> Sight | None:
    if record is None:
        return Sight()
    return Sight(str(record["id"]), record) if isinstance(record, Mapping) and record.get("id") else None


def _lane(row: Row, connection: Connection) -> str:
    if row.match == "id" and row.crm_id:
        return "put"
    if row.match == "new" or connection.options.get("bulk_existing") == "updates":
        return "bulk"
    return "upsert"


def _defaults(connection: Connection) -> Mapping[str, Any]:
    return {"lastName": connection.options.get("fallback_last_name") or None}


_ALWAYS = float("inf")

CONTACTS = Write(
    object="contacts",
    resource="contacts",
    key="email",
    fields=FIELDS,
    lanes={
        "bulk": Lane("bulk", 100, _encode_bulk, _decode_bulk, look=_look, fallback="upsert"),
        "upsert": Lane("upsert", 1, _encode_upsert, _decode_upsert, repeat_s=_ALWAYS, look=_look_by_id),
        "put": Lane("put", 1, _encode_put, _decode_put, repeat_s=_ALWAYS, look=_look_by_id),
    },
    lane=_lane,
    defaults=_defaults,
)

WRITES = {"contacts": CONTACTS}
