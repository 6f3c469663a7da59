"""Writes of Reevo v2: contacts asserted by address, accounts by domain, the rest created; all changed by id.

One record per request, no idempotency key. `_assert` may be repeated; opportunities, tasks and activities are
created at most once, and one whose answer was lost is looked for by what was sent, or exactly by the sync's
own key where `own_key_field` names an attribute that takes it. Attributes go out raw; a currency is an object
with the amount as text. Every attribute of the schema can be written as `attributes.NAME`, custom ones
included; the schema is asked before a push, so that what it does not take is told before it is sent.
A contact's address is what it is matched by, and is not sent again: writing the list would drop the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sources.core.bodies import encode_json
from sources.core.client import Answer, Client
from sources.core.connector import Call, Connection, Lane, Option, Writable, Write
from sources.core.errors import ConfigError, RefusedError
from sources.core.lanes import (
    ALWAYS,
    DELETE,
    Check,
    decode_single,
    delete_lane,
    field_check,
    first_of,
    id_in,
    landed,
    left_open,
    met,
    path_of,
    record_in,
)
from sources.core.rows import Outcome, Row, Verdict
from sources.reevo import v2_looks
from sources.reevo.v2_looks import PREFIX

OPTIONS = (
    Option(
        "contact_match",
        "v2: what a contact is matched by: any of its addresses, or its primary one",
        default="contact_emails",
        choices=("contact_emails", "primary_email"),
    ),
    Option(
        "own_key_field",
        "v2: a unique text attribute of opportunities and tasks that takes the sync's key, so that a lost"
        " creation can be told for certain",
        default="",
    ),
)

_MATCHED = {"primary_email": "contact_emails", "domain_name": "domains"}
_OTHERS = {"contact_emails": "$[*].value.email", "domains": "$[*].value.domain_name"}
_OWN_KEYED = frozenset({"opportunity", "task"})
_ARCHIVED = frozenset({"opportunity"})  # of those that are created; of a task the vendor does not say
_MONEY = frozenset({"amount", "estimated_annual_revenue"})


# -- saying it -----------------------------------------------------------------------------------


def _attributes(row: Row) -> dict[str, Any]:
    return dict(_attribute(name, value) for name, value in row.fields.items())


def _attribute(name: str, value: Any) -> tuple[str, Any]:
    """Give an attribute as it is sent; a user may be named by e-mail address."""
    if name == "owner_email":
        return "owner_user_id", value and {"related_record_match": {"email": value}}
    if name in _MONEY and value is not None:
        return name, {"amount": f"{value:f}" if isinstance(value, Decimal) else str(value)}
    return name.removeprefix("attributes."), value


def _encode_assert(record_type: str, key: str) -> Callable[[Sequence[Row], Connection], Call]:
    def encode(rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        name = str(connection.options.get("contact_match")) if record_type == "contact" else key
        attributes = {field: value for field, value in _attributes(row).items() if field != key}
        body = {"match": {name: _spelling(row, key)}, "attributes": attributes}
        return Call("POST", f"{PREFIX}/{record_type}/_assert", encode_json(body))

    return encode


def _spelling(row: Row, key: str) -> str:
    """Give the key as the CRM has it, or as the model spells it for a record that is new."""
    return str(row.known.get(key) or row.fields.get(key) or row.key).strip()


def _encode_create(record_type: str) -> Callable[[Sequence[Row], Connection], Call]:
    def encode(rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        own = str(connection.options.get("own_key_field") or "")
        attributes = _attributes(row) | ({own: row.key} if own else {})
        return Call("POST", f"{PREFIX}/{record_type}", encode_json({"attributes": attributes}))

    return encode


def _encode_patch(record_type: str) -> Callable[[Sequence[Row], Connection], Call]:
    def encode(rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        body = {"attributes": _attributes(row)}
        return Call("PATCH", path_of(f"{PREFIX}/{record_type}", row), encode_json(body))

    return encode


def _encode_activity(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    links = {name: value for name, value in row.fields.items() if "." not in name}
    metadata = {name.partition(".")[2]: value for name, value in row.fields.items() if "." in name}
    body = {"attributes": {"metadata": metadata, **links}}
    return Call("POST", f"{PREFIX}/activity", encode_json(body))


# -- reading the answer --------------------------------------------------------------------------


def _decode_assert(key: str) -> Callable[[Sequence[Row], Answer], list[Outcome]]:
    """Read what an assert did; a new record without what it was matched by is not taken as done."""

    def decode(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
        (row,) = rows
        body = answer.json()
        crm_id = id_in(body)
        if crm_id is None:
            return [left_open(row, "the answer names no record")]
        verdict = _verdict(row, answer.status, body)
        if verdict == "created" and not _has_key(record_in(body), row, key):
            return [left_open(row, f"the CRM made a record without its {key}")]
        return [met(row, verdict, crm_id)]

    return decode


def _verdict(row: Row, status: int, body: Mapping[str, Any]) -> Verdict:
    meta = body.get("meta")
    told = meta.get("action") if isinstance(meta, Mapping) else None
    verdicts: dict[Any, Verdict] = {
        "created": "created",
        "updated": "updated",
        201: "created",
        200: "updated",
    }
    return verdicts.get(told) or verdicts.get(status) or landed(row)


def _has_key(record: Mapping[str, Any], row: Row, key: str) -> bool:
    """Tell whether a new record shows its key; one that shows no such attribute is not doubted."""
    attributes = record.get("attributes")
    if not isinstance(attributes, Mapping) or not attributes.keys() & {key, _MATCHED[key]}:
        return True
    shown = str(attributes.get(key)) + str(attributes.get(_MATCHED[key]))
    return row.key in shown.lower()


# -- checks --------------------------------------------------------------------------------------


def _inspect(record_type: str, fields: Mapping[str, Writable]) -> Callable[[Client, Connection], Check]:
    """Make the check of rows against the schema that the workspace publishes for a type."""

    def inspect(client: Client, connection: Connection) -> Check:
        try:
            body = client.get(f"{PREFIX}/_schema/{record_type}", resource="schema").json()
        except RefusedError:
            return field_check(fields)
        listed = body.get("attributes") if isinstance(body, Mapping) else None
        schema = {str(each.get("api_name")): each for each in listed or [] if isinstance(each, Mapping)}
        if not schema:
            return field_check(fields)
        _require_own_key(connection, record_type, schema)
        return first_of(field_check(fields), _schema_check(schema))

    return inspect


def _require_own_key(connection: Connection, record_type: str, schema: Mapping[str, Any]) -> None:
    own = str(connection.options.get("own_key_field") or "")
    if own and record_type in _OWN_KEYED and own not in schema:
        raise ConfigError(
            f"the schema of {record_type} has no attribute '{own}'",
            connection=connection.name,
            hint=f"Make it, unique, or unset sources.{connection.name}.own_key_field.",
        )


def _schema_check(schema: Mapping[str, Mapping[str, Any]]) -> Check:
    def check(row: Row) -> str | None:
        return next(_misfits(row, schema), None)

    return check


def _misfits(row: Row, schema: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    flag, can = ("is_creatable", "set") if row.action == "create" else ("is_updatable", "changed")
    sent = {_attribute(name, value)[0]: value for name, value in row.fields.items()}
    for name in sent:
        if name in _MATCHED:
            continue
        if name not in schema:
            yield f"unknown_field: the schema has no attribute {name}"
        elif schema[name].get(flag) is False:
            yield f"{name}: the schema says that it cannot be {can}"
    for name, told in schema.items():
        is_lacking = told.get("is_required_on_create") and sent.get(name) in (None, "")
        if row.action == "create" and is_lacking and name not in (*_MATCHED, *_MATCHED.values()):
            yield f"missing_required: {name} (required by the workspace)"


# -- tables --------------------------------------------------------------------------------------


def _texts(*names: str) -> dict[str, Writable]:
    return {name: Writable() for name in names}


def _asserted(name: str, record_type: str, key: str, fields: Mapping[str, Writable]) -> Write:
    def lane(row: Row, connection: Connection) -> str:
        return "patch" if row.match == "id" and row.crm_id else "assert"

    look = v2_looks.contact if record_type == "contact" else v2_looks.by_id(f"{PREFIX}/{record_type}")
    asserting = Lane(
        "assert", 1, _encode_assert(record_type, key), _decode_assert(key), repeat_s=ALWAYS, look=look
    )
    return Write(
        object=name,
        resource=name,
        key=key,
        key_form="email" if record_type == "contact" else "domain",
        fields=fields,
        custom="attributes",
        custom_column="_extra",
        upserts=True,
        lanes={"assert": asserting, "patch": _patch(record_type), DELETE: _archive(record_type)},
        lane=lane,
        inspect=_inspect(record_type, fields),
        replaces=lambda connection: False,
        also_found=_also_found(record_type, key),
    )


def _also_found(record_type: str, key: str) -> Callable[[Connection], tuple[str, str] | None]:
    """Tell where a record's other keys stand, those that an assert takes for it."""

    def place(connection: Connection) -> tuple[str, str] | None:
        column = str(connection.options.get("contact_match")) if record_type == "contact" else _MATCHED[key]
        return (column, _OTHERS[column]) if column in _OTHERS else None

    return place


def _patch(record_type: str) -> Lane:
    look = v2_looks.by_id(f"{PREFIX}/{record_type}")
    return Lane("patch", 1, _encode_patch(record_type), decode_single, repeat_s=ALWAYS, look=look)


def _archive(record_type: str) -> Lane:
    return delete_lane(f"{PREFIX}/{record_type}", gone_flag="is_archived")


def _created(name: str, record_type: str, mark: str, fields: Mapping[str, Writable]) -> Write:
    look = v2_looks.created(record_type, mark, fields)
    lanes = {"create": Lane("create", 1, _encode_create(record_type), decode_single, look=look)}
    if record_type in _ARCHIVED:
        lanes[DELETE] = _archive(record_type)
    return Write(
        object=name,
        resource=name,
        key="id",
        key_form="none",
        fields=fields,
        custom="attributes",
        custom_column="_extra",
        lanes={**lanes, "patch": _patch(record_type)},
        lane=lambda row, connection: "create" if row.action == "create" else "patch",
        inspect=_inspect(record_type, fields),
        replaces=lambda connection: False,
    )


_OWNER = {"owner_user_id": Writable(), "owner_email": Writable(readable=False)}

CONTACTS = _asserted(
    "contacts",
    "contact",
    "primary_email",
    {
        "primary_email": Writable(required=True, clearable=False),
        **_texts("first_name", "last_name", "middle_name", "title", "department", "stage"),
        "primary_phone_number": Writable(),
        "sms_consent": Writable("bool"),
        "address": Writable("json"),
        **_OWNER,
    },
)

ACCOUNTS = _asserted(
    "accounts",
    "account",
    "domain_name",
    {
        "domain_name": Writable(updatable=False, clearable=False),
        # Which of the two names an account has is for the schema to say.
        **_texts("display_name", "name", "description", "current_stage_id", "official_website"),
        **_texts("linkedin_url", "x_url", "facebook_url", "zoominfo_url"),
        "address": Writable("json"),
        "estimated_annual_revenue": Writable("decimal"),
        **_OWNER,
    },
)

OPPORTUNITIES = _created(
    "opportunities",
    "opportunity",
    "display_name",
    {
        **{
            name: Writable(required=True, clearable=False) for name in ("display_name", "stage", "account_id")
        },
        "amount": Writable("decimal"),
        "next_step_details": Writable(),
        "next_step_due_at": Writable("timestamp"),
        "next_meeting_date": Writable("timestamp"),
        **_OWNER,
    },
)

TASKS = _created(
    "tasks",
    "task",
    "title",
    {
        "title": Writable(required=True, clearable=False),
        **_texts("status", "priority", "type", "note"),
        "due_at": Writable("timestamp"),
        **_OWNER,
    },
)

ACTIVITIES = Write(
    object="activities",
    resource="activities",
    key="id",
    key_form="none",
    modes=frozenset({"create"}),
    custom="metadata",
    fields={
        "metadata.activity_time": Writable("timestamp", required=True),
        "metadata.subject": Writable(required=True),
        "metadata.description": Writable(required=True),
        "metadata.category": Writable(),
        **{name: Writable(readable=False) for name in ("account_id", "opportunity_id", "sequence_id")},
        "contact_ids": Writable("json", readable=False),
    },
    lanes={"create": Lane("create", 1, _encode_activity, decode_single, look=v2_looks.activity)},
    lane=lambda row, connection: "create",
)

WRITES = {each.object: each for each in (CONTACTS, ACCOUNTS, OPPORTUNITIES, TASKS, ACTIVITIES)}
