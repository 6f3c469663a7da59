"""Writes of Vivre: contacts, deals and activities created one by one, deals changed by id.

No create may be repeated, and nothing can be asked about a deal or an activity afterwards: one whose answer
was lost stays open. A contact is searched for by its address, and compared exactly, before it is created and
after its answer was lost; where the search shows nothing yet, the whole list is read. Contacts cannot be
changed, no page tells how. Money goes out as whole numbers of the smallest unit; a value that would change by
exactly the size of that unit is held back as scaled twice. Stages and types are checked before sending.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sources.core.bodies import encode_json
from sources.core.client import Client
from sources.core.connector import Call, Connection, Lane, Option, Writable, Write
from sources.core.errors import RefusedError
from sources.core.lanes import ALWAYS, Check, decode_single, field_check, first_of, look_by_id, path_of
from sources.core.looking import address_key, is_certain
from sources.core.rows import Row, Sight

OPTIONS = (
    Option(
        "look_before_create",
        "search for a contact's address before it is created, since the API may make a second one (B4)",
        default=True,
    ),
    Option(
        "deals_listed",
        "whether the API lists deals, as `roundtrip check` finds out (B1): they are then compared with what"
        " was pulled before they are changed",
        default=False,
    ),
    Option(
        "deal_update",
        "the request that changes a deal, which no page spells out (B2)",
        default="PATCH /deals/{id}",
        choices=("PATCH /deals/{id}", "PUT /deals/{id}"),
    ),
    Option(
        "deal_stages",
        "the stages a deal may be given, comma-separated; others are refused before sending (B15)",
        default="new,qualified,proposal,won",
    ),
    Option(
        "scale_guard",
        "hold a deal back whose value would change by exactly the size of the smallest unit (B14)",
        default=True,
    ),
)

_PAGE = 500
_CONTACT_STAGES = ("new", "qualified", "proposal", "won")
_TYPES = ("call", "email", "meeting", "note")


# -- saying it -----------------------------------------------------------------------------------


def _encode_contact(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    body = {**row.fields, "email": str(row.fields.get("email") or row.key).strip()}
    return Call("POST", "/contacts", encode_json(body))


def _encode_deal(rows: Sequence[Row], connection: Connection) -> Call:
    return Call("POST", "/deals", encode_json(_in_smallest_unit(rows[0].fields)))


def _encode_change(rows: Sequence[Row], connection: Connection) -> Call:
    """Change a deal; a PUT may replace it, so it carries what is known of it."""
    (row,) = rows
    method, _, path = str(connection.options["deal_update"]).partition(" ")
    known = {name: value for name, value in row.known.items() if name in DEALS.fields and value is not None}
    body = {**known, **row.fields} if method == "PUT" else row.fields
    return Call(method, path_of(path.removesuffix("/{id}"), row), encode_json(_in_smallest_unit(body)))


def _encode_activity(rows: Sequence[Row], connection: Connection) -> Call:
    return Call("POST", "/activities", encode_json(rows[0].fields))


def _in_smallest_unit(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _whole(each) if name == "value" else each for name, each in fields.items()}


def _whole(value: Any) -> Any:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else value


def _number(value: Any) -> Decimal | None:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# -- looking -------------------------------------------------------------------------------------


def _contacts(client: Client, search: str = "") -> Iterator[Mapping[str, Any]]:
    params = {"limit": str(_PAGE)} | ({"search": search} if search else {})
    offset = 0
    while True:
        body = client.get("/contacts", {**params, "offset": str(offset)}, resource="look").json()
        rows = body.get("data") if isinstance(body, Mapping) else None
        if not isinstance(rows, list) or not rows:
            return
        yield from (each for each in rows if isinstance(each, Mapping))
        offset += len(rows)
        total = body.get("total")
        if isinstance(total, int) and offset >= total:
            return


def _at_addresses(client: Client, keys: Collection[str], search: str = "") -> dict[str, list[Sight]]:
    """Give the contacts with exactly these addresses; the search itself finds parts of texts."""
    found: dict[str, dict[str, Sight]] = {}
    for each in _contacts(client, search):
        key, crm_id = address_key(str(each.get("email") or "")), str(each.get("id"))
        if key in keys:
            found.setdefault(key, {})[crm_id] = Sight(crm_id, each)
    return {key: list(sights.values()) for key, sights in found.items()}


def _look_contacts(
    client: Client, connection: Connection, rows: Sequence[Row], since: datetime
) -> list[Sight | None]:
    """Look for contacts by search, then for all others at once in the whole list: an index may lag behind."""
    found: dict[str, list[Sight]] = {}
    for row in rows:
        found |= _at_addresses(client, {row.key}, row.key)
    if unseen := {row.key for row in rows} - found.keys():
        found |= _at_addresses(client, unseen)
    absent = Sight() if is_certain(client, since) else None
    return [_only(found[row.key]) if row.key in found else absent for row in rows]


def _only(sights: Sequence[Sight]) -> Sight | None:
    return sights[0] if len(sights) == 1 else None


# -- checks --------------------------------------------------------------------------------------


def _inspect_contacts(client: Client, connection: Connection) -> Check:
    def is_new(row: Row) -> str | None:
        try:
            found = _at_addresses(client, {row.key}, row.key)
        except RefusedError:  # a text that the search does not take tells nothing
            return None
        return "already_in_crm: a contact has this address; pull contacts first" if found else None

    checks = (field_check(CONTACTS.fields), _one_of("stage", _CONTACT_STAGES))
    return first_of(*checks, is_new) if connection.options["look_before_create"] else first_of(*checks)


def _inspect_deals(client: Client, connection: Connection) -> Check:
    stages = tuple(each.strip() for each in str(connection.options["deal_stages"]).split(",") if each.strip())
    checks = (field_check(DEALS.fields), _one_of("stage", stages), _is_whole)
    if not connection.options["scale_guard"]:
        return first_of(*checks)
    return first_of(*checks, _scaled_once(10 ** int(connection.options["minor_units"])))


def _inspect_activities(client: Client, connection: Connection) -> Check:
    return first_of(field_check(ACTIVITIES.fields), _one_of("type", _TYPES))


def _one_of(name: str, words: Sequence[str]) -> Check:
    def check(row: Row) -> str | None:
        value = row.fields.get(name)
        if value is None or value in words:
            return None
        return f"{name}: the value is none of {', '.join(words)}"

    return check


def _is_whole(row: Row) -> str | None:
    value = row.fields.get("value")
    number = _number(value)
    if value is None or (number is not None and number == int(number)):
        return None
    return "value: it is sent in the smallest unit, and this is no whole number of it"


def _scaled_once(unit: int) -> Check:
    """Make the check against a value that was scaled once too often or not at all."""

    def check(row: Row) -> str | None:
        old, new = _number(row.before.get("value")), _number(row.fields.get("value"))
        if unit == 1 or not old or not new or (new != old * unit and new * unit != old):
            return None
        return (
            f"value: it would change by exactly {unit} times, as if scaled twice or not at all; it is sent in"
            " the smallest unit (scale_guard = false sends it)"
        )

    return check


# -- tables --------------------------------------------------------------------------------------

_ONCE = frozenset({"create"})

CONTACTS = Write(
    object="contacts",
    resource="contacts",
    key="email",
    modes=_ONCE,
    fields={
        **{name: Writable(required=True, updatable=False) for name in ("name", "email")},
        **{name: Writable(updatable=False) for name in ("company", "stage")},
        "tags": Writable("json", readable=False, updatable=False),
    },
    lanes={"create": Lane("create", 1, _encode_contact, decode_single, look=_look_contacts)},
    lane=lambda row, connection: "create",
    inspect=_inspect_contacts,
)

DEALS = Write(
    object="deals",
    resource="",
    key="id",
    key_form="none",
    fields={
        **{name: Writable(required=True, clearable=False) for name in ("contact_id", "title")},
        "value": Writable("bigint"),
        "stage": Writable(),
        "closed_at": Writable("timestamp", creatable=False),
    },
    lanes={
        "create": Lane("create", 1, _encode_deal, decode_single),
        "change": Lane(
            "change",
            1,
            _encode_change,
            decode_single,
            repeat_s=ALWAYS,
            look=look_by_id("/deals", is_documented=False),
        ),
    },
    lane=lambda row, connection: "create" if row.action == "create" else "change",
    inspect=_inspect_deals,
    replaces=lambda connection: str(connection.options["deal_update"]).startswith("PUT"),
)

ACTIVITIES = Write(
    object="activities",
    resource="",
    key="id",
    key_form="none",
    modes=_ONCE,
    fields={
        **{name: Writable(required=True, updatable=False) for name in ("contact_id", "type")},
        **{name: Writable(updatable=False) for name in ("note", "deal_id")},
    },
    lanes={"create": Lane("create", 1, _encode_activity, decode_single)},
    lane=lambda row, connection: "create",
    inspect=_inspect_activities,
)

WRITES = {each.object: each for each in (CONTACTS, DEALS, ACTIVITIES)}
# Where deals can be read, what was pulled of them is compared before they are changed.
WRITES_WITH_DEALS_LISTED = {**WRITES, "deals": replace(DEALS, resource="deals")}
