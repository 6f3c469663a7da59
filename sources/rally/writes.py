"""Writes of Rally's contacts: created in bulks of 100, existing ones upserted one by one.

Bodies are completed with what was pulled, and for the eight fields that no answer shows with what we sent
ourselves. A value that somebody typed into one of those eight is out of our sight: set `put_semantics =
"merge"` for a tenant known to merge.
"""

from collections.abc import Hashable, Mapping
from typing import Any

from sources.core.connector import Connection, Lane, Option, Writable, Write
from sources.core.lanes import ALWAYS, DELETE, decode_change, delete_lane
from sources.core.looking import address_key
from sources.core.rows import Row
from sources.rally.lanes import (
    BULK_SIZE,
    Records,
    completed,
    decode_bulk,
    decode_upsert,
    replaces,
    with_key,
)

OPTIONS = (
    Option(
        "put_semantics",
        "whether PUT replaces a record (bodies are completed) or merges (only changes are sent)",
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
        "whether a bulk's body is a bare array or an object with the array under the resource's name",
        default="array",
        choices=("array", "object"),
    ),
    Option(
        "fallback_last_name",
        "the last name of a new contact whose model has none; empty: such rows are held back",
        default="",
    ),
)

UNREADABLE = ("linkedInUrl", "twitterHandle", "address", "city", "state", "country", "postalCode", "notes")
_READABLE = (
    "phone",
    "mobile",
    "title",
    "department",
    "companyId",
    "leadSource",
    "tags",
    "ownerId",
)

FIELDS: dict[str, Writable] = {
    **{name: Writable(required=True) for name in ("firstName", "lastName", "email")},
    **{name: Writable() for name in _READABLE},
    "lifecycleStage": Writable(given="lead"),
    "leadScore": Writable("bigint"),
    **{name: Writable(readable=False) for name in UNREADABLE},
}


_KEPT = ("firstName", "lastName", "email", "lifecycleStage")  # required ones, as far as the vendor tells


def _contact(row: Row, connection: Connection) -> dict[str, Any]:
    """Make a contact's body; a known stage always goes out, for leaving it out may reset it to `lead`."""
    return with_key(completed(row, connection, _KEPT), "email", row)


def _address(record: Mapping[str, Any]) -> Hashable | None:
    return address_key(str(record.get("email") or "")) or None


def _lane(row: Row, connection: Connection) -> str:
    if row.match == "id" and row.crm_id:
        return "put"
    if row.match == "new" or connection.options.get("bulk_existing") == "updates":
        return "bulk"
    return "upsert"


def _defaults(connection: Connection) -> Mapping[str, Any]:
    return {"lastName": connection.options.get("fallback_last_name") or None}


_CONTACTS = Records("contacts", _contact, _address)

CONTACTS = Write(
    object="contacts",
    resource="contacts",
    key="email",
    fields=FIELDS,
    lanes={
        "bulk": Lane(
            "bulk", BULK_SIZE, _CONTACTS.encode_bulk, decode_bulk, look=_CONTACTS.look, fallback="upsert"
        ),
        "upsert": Lane(
            "upsert", 1, _CONTACTS.encode_upsert, decode_upsert, repeat_s=ALWAYS, look=_CONTACTS.look_by_id
        ),
        "put": Lane(
            "put", 1, _CONTACTS.encode_put, decode_change, repeat_s=ALWAYS, look=_CONTACTS.look_by_id
        ),
        DELETE: delete_lane("/contacts"),
    },
    lane=_lane,
    defaults=_defaults,
    find=_CONTACTS.find,
    replaces=replaces,
    reread=_CONTACTS.reread,
    upserts=True,
    arrivals=_CONTACTS.arrivals(),
)
