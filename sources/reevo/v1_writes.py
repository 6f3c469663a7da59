"""Writes of Reevo v1: contacts by e-mail, accounts, opportunities with their stage, tasks and activities.

One record per request, no idempotency key. `account_contact` upserts and may be repeated; accounts,
opportunities, tasks and activities are created at most once. A lost account is looked for by its domain, a
lost opportunity by its name; tasks and activities cannot be read, so they stay open. A null is `not set` to
this API, so nothing can be cleared. A stage is shifted by a request of its own, after any other change; it
cannot be given to a new opportunity. Contacts cannot be changed by id: one whose address in the CRM is not
that of the model is held back.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sources.core.bodies import encode_json
from sources.core.client import Answer, Client
from sources.core.connector import Call, Connection, Lane, Option, Writable, Write
from sources.core.lanes import (
    ALWAYS,
    Check,
    decode_single,
    field_check,
    first_of,
    id_in,
    landed,
    left_open,
    look_by_id,
    met,
    path_of,
    record_in,
)
from sources.core.rows import Outcome, Row
from sources.reevo import v1_looks

OPTIONS = (
    Option("payload_type", "v1: send `payload_type=json` with every write, as the vendor asks", default=True),
    Option(
        "upsert_semantics",
        "v1: whether account_contact replaces a contact (bodies are completed) or merges (changes are sent)",
        default="replace",
        choices=("replace", "merge"),
    ),
    Option(
        "look_before_create",
        "v1: search for an account's domain before it is created, since the API may make a second one",
        default=True,
    ),
)

_PREFIX = v1_looks.PREFIX
_ACCOUNTS, _OPPORTUNITIES = v1_looks.ACCOUNTS, v1_looks.OPPORTUNITIES


def _text(*, readable: bool = True, required: bool = False, updatable: bool = True) -> Writable:
    return Writable(readable=readable, required=required, updatable=updatable, clearable=False)


def _later(kind: Any = "text", *, readable: bool = True) -> Writable:
    """Declare a field that only an update takes."""
    return Writable(kind, readable=readable, creatable=False, clearable=False)


_URLS = ("linkedin_url", "facebook_url", "zoominfo_url", "x_url")
_PROFILE = ("first_name", "last_name", "middle_name", "phone_number", "title", "department")
# What no documented answer shows under a name that the mirror has.
_UNREADABLE = (
    "company",
    "contact_owner_email",
    "account_owner_email",
    "account_website",
    *(f"{side}_{url}" for side in ("contact", "account") for url in _URLS),
)
_SHIFT = ("stage_name", "closed_reason_names", "closed_reason_custom_detail")


# -- saying it -----------------------------------------------------------------------------------


def _call(connection: Connection, method: str, path: str, body: Mapping[str, Any]) -> Call:
    asked = (("payload_type", "json"),) if connection.options.get("payload_type") else ()
    return Call(method, path, encode_json(body), params=asked)


def _spelt(value: Any) -> Any:
    """Spell a custom field's value as v1 takes it: a text or a list of texts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_spelt(each) for each in value]
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _body(row: Row, custom_name: str = "custom_fields") -> dict[str, Any]:
    """Lay out a row's fields; custom ones go out as the whole object, for its keys may be replaced."""
    body = {name: value for name, value in row.fields.items() if "." not in name}
    custom = {name.partition(".")[2]: value for name, value in row.fields.items() if "." in name}
    if custom:
        body[custom_name] = {name: _spelt(value) for name, value in {**_known_custom(row), **custom}.items()}
    return body


def _known_custom(row: Row) -> Mapping[str, Any]:
    known = row.known.get("custom_fields")
    return known if isinstance(known, Mapping) else {}


def _encode_contact(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    base: dict[str, Any] = {}
    if row.action == "update" and connection.options.get("upsert_semantics") != "merge":
        base = {name: row.known[name] for name in _PROFILE if row.known.get(name) is not None}
        if _known_custom(row):
            base["contact_custom_fields"] = {name: _spelt(each) for name, each in _known_custom(row).items()}
    email = row.known.get("email") or row.key
    body = {"email": email, **base, **_body(row, "contact_custom_fields")}
    return _call(connection, "POST", f"{_PREFIX}/account_contact", {**body, "email": body["email"].strip()})


def _encode_create(path: str) -> Callable[[Sequence[Row], Connection], Call]:
    def encode(rows: Sequence[Row], connection: Connection) -> Call:
        return _call(connection, "POST", path, _body(rows[0]))

    return encode


def _encode_patch(path: str) -> Callable[[Sequence[Row], Connection], Call]:
    def encode(rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        body = {name: value for name, value in _body(row).items() if name not in (*_SHIFT, "domain_name")}
        return _call(connection, "PATCH", path_of(path, row), body)

    return encode


def _encode_shift(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    whole = {name: row.fields.get(name, row.known.get(name)) for name in _SHIFT}
    body = {"target_stage_name": whole.pop("stage_name"), **whole}
    given = {name: value for name, value in body.items() if value is not None}
    return _call(connection, "POST", f"{path_of(_OPPORTUNITIES, row)}/shift_stage", given)


def _encode_activity(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    links = {name: value for name, value in row.fields.items() if "." not in name}
    metadata = {name.partition(".")[2]: value for name, value in row.fields.items() if "." in name}
    return _call(connection, "POST", f"{_PREFIX}/manual_activities", {"metadata": metadata, **links})


# -- reading the answer --------------------------------------------------------------------------


def _decode_contact(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Find the contact's id in an answer whose shape nobody documents; the account's is another one."""
    (row,) = rows
    body = record_in(answer.json())
    contact = body.get("contact")
    found = id_in(contact) if isinstance(contact, Mapping) else body.get("contact_id") or body.get("id")
    if not isinstance(found, str):
        return [left_open(row)]
    return [met(row, landed(row), found)]


def _decode_before_shift(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Take the row as not done yet: its stage is still to be shifted, in the lane to fall back to."""
    answer.json()
    return [Outcome(row.seq, "absent", row.crm_id) for row in rows]


# -- checks --------------------------------------------------------------------------------------


def _contact_check(client: Client, connection: Connection) -> Check:
    return first_of(field_check(CONTACTS.fields, custom_clearable=False), _has_its_address)


def _has_its_address(row: Row) -> str | None:
    if row.match != "id":
        return None
    return "its record has another address in the CRM, or shares it: v1 cannot change a contact by id"


def _account_check(client: Client, connection: Connection) -> Check:
    def is_new(row: Row) -> str | None:
        if row.action != "create" or not row.fields.get("domain_name"):
            return None
        found = v1_looks.account_at(client, row.key)
        return None if found is None else "already_in_crm: an account has this domain; pull it first"

    fields = field_check(ACCOUNTS.fields, custom_clearable=False)
    return first_of(fields, is_new) if connection.options.get("look_before_create") else fields


def _opportunity_check(client: Client, connection: Connection) -> Check:
    return field_check(OPPORTUNITIES.fields, custom_clearable=False)


# -- tables --------------------------------------------------------------------------------------


def _opportunity_lane(row: Row, connection: Connection) -> str:
    if row.action == "create":
        return "create"
    shifted = row.fields.keys() & set(_SHIFT)
    if not shifted:
        return "patch"
    return "shift" if shifted == row.fields.keys() else "patch_then_shift"


def _by_action(row: Row, connection: Connection) -> str:
    return "create" if row.action == "create" else "patch"


CONTACTS = Write(
    object="contacts",
    resource="contacts",
    key="email",
    fields={
        "email": _text(required=True),
        **{name: _text() for name in _PROFILE},
        **{name: _text(readable=False) for name in _UNREADABLE},
    },
    custom="custom_fields",
    custom_clearable=False,
    lanes={
        "upsert": Lane("upsert", 1, _encode_contact, _decode_contact, repeat_s=ALWAYS, look=v1_looks.contact)
    },
    lane=lambda row, connection: "upsert",
    takes_ids=False,
    upserts=True,
    inspect=_contact_check,
    replaces=lambda connection: connection.options.get("upsert_semantics") != "merge",
)

ACCOUNTS = Write(
    object="accounts",
    resource="accounts",
    key="domain_name",
    key_form="domain",
    fields={
        "name": _text(required=True),
        "domain_name": _text(updatable=False),
        **{name: _text() for name in ("owner_email", "official_website", *_URLS)},
    },
    custom="custom_fields",
    custom_clearable=False,
    lanes={
        "create": Lane("create", 1, _encode_create(_ACCOUNTS), decode_single, look=v1_looks.account),
        "patch": Lane(
            "patch", 1, _encode_patch(_ACCOUNTS), decode_single, repeat_s=ALWAYS, look=look_by_id(_ACCOUNTS)
        ),
    },
    lane=_by_action,
    inspect=_account_check,
)

_OPPORTUNITY_LOOK = look_by_id(_OPPORTUNITIES)
OPPORTUNITIES = Write(
    object="opportunities",
    resource="opportunities",
    key="id",
    key_form="none",
    fields={
        "display_name": _text(required=True),
        "account_id": _text(required=True),
        "owner_email": _text(),
        "primary_contact_email": _text(),
        "amount": Writable("decimal", clearable=False),
        "pipeline_name": _text(updatable=False),
        "additional_contact_emails": _later("json", readable=False),
        "next_step_details": _later(),
        "next_step_due_at": _later("timestamp"),
        "stage_name": _later(),
        "closed_reason_names": _later("json", readable=False),
        "closed_reason_custom_detail": _later(readable=False),
    },
    custom="custom_fields",
    custom_clearable=False,
    lanes={
        "create": Lane("create", 1, _encode_create(_OPPORTUNITIES), decode_single, look=v1_looks.opportunity),
        "patch": Lane(
            "patch",
            1,
            _encode_patch(_OPPORTUNITIES),
            decode_single,
            repeat_s=ALWAYS,
            look=_OPPORTUNITY_LOOK,
        ),
        "shift": Lane("shift", 1, _encode_shift, decode_single, repeat_s=ALWAYS, look=_OPPORTUNITY_LOOK),
        # Without a look: one that finds nothing changed would leave the first half undone.
        "patch_then_shift": Lane(
            "patch_then_shift",
            1,
            _encode_patch(_OPPORTUNITIES),
            _decode_before_shift,
            repeat_s=ALWAYS,
            fallback="shift",
            calls=2,
        ),
    },
    lane=_opportunity_lane,
    inspect=_opportunity_check,
)

TASKS = Write(
    object="tasks",
    resource="",
    key="id",
    key_form="none",
    modes=frozenset({"create"}),
    fields={
        **{name: _text(readable=False, required=True) for name in ("title", "owner_email")},
        **{
            name: _text(readable=False)
            for name in ("status", "priority", "type", "note", "account_id", "opportunity_name")
        },
        "due_at": Writable("timestamp", readable=False, clearable=False),
        "contact_emails": Writable("json", readable=False, clearable=False),
    },
    lanes={"create": Lane("create", 1, _encode_create(f"{_PREFIX}/tasks"), decode_single)},
    lane=lambda row, connection: "create",
)

ACTIVITIES = Write(
    object="activities",
    resource="",
    key="id",
    key_form="none",
    modes=frozenset({"create"}),
    fields={
        "metadata.activity_time": Writable("timestamp", readable=False, required=True, clearable=False),
        **{f"metadata.{name}": _text(readable=False, required=True) for name in ("subject", "description")},
        "metadata.category": _text(readable=False),
        **{name: _text(readable=False) for name in ("account_id", "pipeline_id", "sequence_id")},
        "contact_ids": Writable("json", readable=False, clearable=False),
    },
    lanes={"create": Lane("create", 1, _encode_activity, decode_single)},
    lane=lambda row, connection: "create",
)

WRITES = {each.object: each for each in (CONTACTS, ACCOUNTS, OPPORTUNITIES, TASKS, ACTIVITIES)}
