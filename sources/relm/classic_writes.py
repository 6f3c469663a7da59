"""Writes of Relm Classic: contacts in batches of 500 that update by e-mail, single PATCH by id.

The vendor documents no answer to a batch, neither whether an update merges or overwrites, nor what a
partial failure looks like. So answers are read in every plausible shape and never guessed at, rows that an
answer leaves open are looked up by e-mail, and bodies are completed from what the CRM is known to hold.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sources.core.bodies import decode_json, encode_json, with_fields
from sources.core.client import Answer, Client
from sources.core.connector import Call, Connection, Lane, Option, Writable, Write
from sources.core.errors import ProtocolError
from sources.core.lanes import (
    ALWAYS,
    DELETE,
    decode_change,
    delete_lane,
    landed,
    left_open,
    look_by_id,
    met,
    path_of,
)
from sources.core.looking import address_key
from sources.core.rows import Outcome, Row, Sight, Verdict
from sources.relm import classic_fields
from sources.relm.classic_lists import walk

OPTIONS = (
    Option(
        "batch_update",
        "whether a batch update replaces the record (bodies are completed) or merges (only changes are sent)",
        default="replace",
        choices=("replace", "merge"),
    ),
    Option("batch_size", "contacts in one batch; the vendor allows 500", default=500),
    Option("in_separator", "what separates the values of filter[field][in]", default=","),
)

_BATCH = "/v1/contacts/batch"
_ADDRESSES = 40  # per look-up, so that the query stays well below the usual 8 kB
_KEY_ALIVE_S = (
    23 * 3600
)  # the vendor keeps idempotency keys for 24 hours; an hour is left for clocks that differ
_FAILED = {"failed", "error", "rejected", "invalid", "refused"}
_TOLD: Mapping[Any, Verdict] = {
    "created": "created",
    "updated": "updated",
    "unchanged": "unchanged",
    201: "created",
}
_LISTS = ("data", "results", "contacts")
_NAMED_ROW = re.compile(r"(?:contacts\[|\bindex |\brow )(\d+)")


# -- saying it -----------------------------------------------------------------------------------


def _contact(row: Row, connection: Connection) -> dict[str, Any]:
    """Make a contact's body; custom values go out as the whole object, for it may be replaced."""
    base = _completing(row, connection) if row.known else row.known
    return with_fields({"email": row.key, **base}, row.fields)


def _completing(row: Row, connection: Connection) -> dict[str, Any]:
    if row.action == "update" and connection.options.get("batch_update") == "merge":
        has_custom = _touches_metadata(row)
        names = ("email", "metadata") if has_custom else ("email",)
        return {name: row.known[name] for name in names if row.known.get(name) is not None}
    return {name: value for name, value in row.known.items() if value is not None}


def _encode_batch(rows: Sequence[Row], connection: Connection) -> Call:
    body = {"contacts": [_contact(row, connection) for row in rows], "dedup_on": ["email"]}
    return Call("POST", _BATCH, encode_json(body))


def _encode_patch(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    metadata = {"metadata": row.known.get("metadata") or {}} if _touches_metadata(row) else {}
    return Call("PATCH", path_of("/v1/contacts", row), encode_json(with_fields(metadata, row.fields)))


def _touches_metadata(row: Row) -> bool:
    return any(name.startswith("metadata.") for name in row.fields)


# -- reading the answer --------------------------------------------------------------------------


def _decode_batch(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    body = answer.json()
    entries = _entries(body)
    if entries:
        return _by_entry(rows, entries)
    if isinstance(body, Mapping) and _all_landed(rows, body):
        return [Outcome(row.seq, landed(row)) for row in rows]
    return [left_open(row) for row in rows]


def _entries(body: Any) -> list[Mapping[str, Any]]:
    """Find the entries per row: one list, or one list each for created, updated and errors."""
    if isinstance(body, list):
        return [entry for entry in body if isinstance(entry, Mapping)]
    if not isinstance(body, Mapping):
        return []
    for name in _LISTS:
        if isinstance(body.get(name), list):
            return _entries(body[name])
    sorted_out = {"created": "created", "updated": "updated", "errors": "failed", "failed": "failed"}
    return [
        {"status": status, **entry}
        for name, status in sorted_out.items()
        if isinstance(body.get(name), list)
        for entry in _entries(body[name])
    ]


def _by_entry(rows: Sequence[Row], entries: list[Mapping[str, Any]]) -> list[Outcome]:
    """Match rows with entries by index, else by e-mail; a row that is matched by neither stays open.

    An entry that has the address of another row is that row's, whatever its index says.
    """
    keys = {row.key for row in rows}
    by_index = {entry["index"]: entry for entry in entries if type(entry.get("index")) is int}
    by_email: dict[str | None, Mapping[str, Any]] | None = None
    outcomes = []
    for index, row in enumerate(rows):
        entry = by_index.get(index)
        if entry is None or ((email := _email_key(entry)) != row.key and email in keys):
            by_email = {_email_key(each): each for each in entries} if by_email is None else by_email
            entry = by_email.get(row.key)
        outcomes.append(left_open(row) if entry is None else _of_entry(row, entry))
    return outcomes


def _of_entry(row: Row, entry: Mapping[str, Any]) -> Outcome:
    status, crm_id = entry.get("status"), entry.get("id")
    error = entry.get("error") or entry.get("errors")
    told = None if error else _TOLD.get(status)
    if told is not None:
        return met(row, told, crm_id if isinstance(crm_id, str) else None)
    if error or str(status).lower() in _FAILED or (type(status) is int and status >= 400):
        reason = _error_text(error or entry.get("message"))
        return Outcome(row.seq, "rejected", reason=reason or "refused without a reason")
    if not isinstance(crm_id, str) and status is None:
        return left_open(row)
    return met(row, landed(row), crm_id if isinstance(crm_id, str) else None)


def _all_landed(rows: Sequence[Row], body: Mapping[str, Any]) -> bool:
    created, updated, failed = (body.get(name) for name in ("created", "updated", "failed"))
    if type(created) is not int or type(updated) is not int or failed not in (None, 0) or body.get("errors"):
        return False
    return created + updated == len(rows) and created == sum(row.action == "create" for row in rows)


def _blame(rows: Sequence[Row], body: bytes) -> Mapping[int, str]:
    """Read which rows a refusal of the whole batch is about, from entries or from its message."""
    try:
        answer = decode_json(body)
    except ProtocolError:
        return {}
    outcomes = _by_entry(rows, _entries(answer))
    blamed = {
        index: outcome.reason or "" for index, outcome in enumerate(outcomes) if outcome.verdict == "rejected"
    }
    message = _error_text(answer.get("error")) if isinstance(answer, Mapping) else ""
    for number in _NAMED_ROW.findall(message):
        if int(number) < len(rows):
            blamed.setdefault(int(number), message)
    return blamed


def _error_text(error: Any) -> str:
    if isinstance(error, Mapping):
        return ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))[:300]
    if isinstance(error, list):
        return "; ".join(_error_text(each) for each in error)[:300]
    return "" if error is None else str(error)[:300]


def _email_key(entry: Mapping[str, Any]) -> str | None:
    contact = entry.get("contact")
    email = entry.get("email") or (contact.get("email") if isinstance(contact, Mapping) else None)
    return address_key(email) if isinstance(email, str) else None


# -- looking -------------------------------------------------------------------------------------


def _look(client: Client, connection: Connection, rows: Sequence[Row], since: datetime) -> list[Sight | None]:
    """Look contacts up by e-mail, a few dozen at a time; a filter that is ignored tells nothing."""
    sights: list[Sight | None] = []
    for start in range(0, len(rows), _ADDRESSES):
        part = rows[start : start + _ADDRESSES]
        found = _find(client, str(connection.options.get("in_separator") or ","), part)
        sights += [None if found is None else found.get(row.key, Sight()) for row in part]
    return sights


def _find(client: Client, separator: str, rows: Sequence[Row]) -> dict[str, Sight | None] | None:
    """Find contacts by their keys; None under a key that two of them share."""
    spellings = {text: None for row in rows for text in (_address(row), _address(row).strip(), row.key)}
    params = {"filter[email][in]": separator.join(spellings), "limit": "200"}
    wanted, found = {row.key for row in rows}, dict[str, Sight | None]()
    for record in walk(client, "/v1/contacts", params, resource="contacts"):
        key = _email_key(record)
        if key not in wanted:
            return None
        found[str(key)] = None if key in found else Sight(str(record.get("id")), record)
    return found


def _reread(
    client: Client, connection: Connection, rows: Sequence[Row], since: datetime
) -> list[Sight | None]:
    """Read contacts by e-mail, and by id where that does not show their record: its address was changed."""
    by_id = look_by_id("/v1/contacts")
    sights = _look(client, connection, rows, since)
    return [
        sight
        if not row.crm_id or (sight and sight.crm_id == row.crm_id)
        else by_id(client, connection, [row], since)[0]
        for row, sight in zip(rows, sights, strict=True)
    ]


def _address(row: Row) -> str:
    return str(row.fields.get("email") or row.known.get("email") or row.key)


def _lane(row: Row, connection: Connection) -> str:
    return "patch" if row.match == "id" and row.crm_id else "batch"


CONTACTS = Write(
    object="contacts",
    resource="contacts",
    key="email",
    fields={name: Writable() for name in ("email", "first_name", "last_name", "phone", "company_id")},
    custom="metadata",
    lanes={
        "batch": Lane(
            "batch",
            500,
            _encode_batch,
            _decode_batch,
            repeat_s=_KEY_ALIVE_S,
            key_header="Idempotency-Key",
            blame=_blame,
            look=_look,
        ),
        "patch": Lane(
            "patch", 1, _encode_patch, decode_change, repeat_s=ALWAYS, look=look_by_id("/v1/contacts")
        ),
        DELETE: delete_lane("/v1/contacts"),
    },
    lane=_lane,
    inspect=classic_fields.inspect("contacts"),
    registry=classic_fields.registry_of("contacts"),
    replaces=lambda connection: connection.options.get("batch_update") != "merge",
    reread=_reread,
    upserts=True,
)
