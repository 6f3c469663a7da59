"""Writes of Relm Modern: batches of 100 operations on contacts, companies, deals and activities.

A batch takes no idempotency key and succeeds in part; each of its operations counts against the monthly
quota, and none of them sets off webhooks or automations. A batch whose answer was lost is never sent again:
its rows are looked up. An update that goes alone, because nothing else is to be sent or by the setting
`update_by`, names the version it was planned against, so that an edit made since is not overwritten; it does
set off automations. Custom values go out whole, and names with every change, since the vendor does not state
that an update merges or does without.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sources.core.bodies import encode_json, with_fields
from sources.core.client import Client
from sources.core.connector import Call, Connection, KeyForm, Lane, Option, Writable, Write
from sources.core.lanes import DELETE, Check, delete_lane, field_check, path_of
from sources.core.rows import Row
from sources.relm.modern_looks import Look
from sources.relm.modern_results import blame, decode_batch

OPTIONS = (
    Option(
        "update_by",
        "modern: whether updates share batches or go one by one, each under the version it was planned on",
        default="batch",
        choices=("batch", "patch"),
    ),
    Option(
        "if_match",
        "modern: how the version stands in If-Match, bare or quoted",
        default="bare",
        choices=("bare", "quoted"),
    ),
)

_MOST_OPERATIONS = 100
_OBJECT = {"contacts": "contact", "companies": "company", "deals": "deal", "activities": "activity"}
_NAMED = {"companies": "name", "deals": "title"}  # required by the input schemas, which also serve PATCH


class _Lanes:
    """The requests that carry rows of one object."""

    def __init__(self, name: str, look: Look) -> None:
        self.name = name
        self.lanes = {
            "batch": Lane("batch", _MOST_OPERATIONS, self.encode, decode_batch, blame=blame, look=look),
            "patch": Lane("patch", 1, self.encode, decode_batch, blame=blame, look=look),
            DELETE: delete_lane(f"/{name}", gone_flag="deleted"),
        }

    def encode(self, rows: Sequence[Row], connection: Connection) -> Call:
        if len(rows) == 1 and rows[0].action == "update":
            return self._patch(rows[0], connection)
        return Call("POST", "/batch", encode_json({"operations": [self._operation(row) for row in rows]}))

    def _operation(self, row: Row) -> dict[str, Any]:
        kind = _OBJECT[self.name]
        if row.action == "create":
            return {"object": kind, "method": "create", "data": with_fields({}, _trimmed(row.fields))}
        return {"object": kind, "method": "update", "id": row.crm_id, "patch": self._changes(row)}

    def _patch(self, row: Row, connection: Connection) -> Call:
        version = row.known.get("version")
        text = f'"{version}"' if connection.options.get("if_match") == "quoted" else str(version)
        headers = {} if version is None else {"If-Match": text}
        return Call("PATCH", path_of(f"/{self.name}", row), encode_json(self._changes(row)), headers)

    def _changes(self, row: Row) -> dict[str, Any]:
        named = _NAMED.get(self.name)
        base = {named: row.known[named]} if named and row.known.get(named) else {}
        if any(name.startswith("custom_fields.") for name in row.fields):
            base["custom_fields"] = row.known.get("custom_fields") or {}
        return with_fields(base, _trimmed(row.fields))


def _trimmed(fields: Mapping[str, Any]) -> dict[str, Any]:
    keys = {name: fields[name].strip() for name in ("email", "domain") if isinstance(fields.get(name), str)}
    return {**fields, **keys}


def _lane(row: Row, connection: Connection) -> str:
    is_alone = row.action == "update" and connection.options.get("update_by") == "patch"
    return "patch" if is_alone else "batch"


def _write(
    look: Look, fields: Mapping[str, Writable], *, key: str = "id", key_form: KeyForm = "none"
) -> Write:
    def inspect(client: Client, connection: Connection) -> Check:
        return field_check(fields)

    return Write(
        object=look.name,
        resource=look.name,
        key=key,
        key_form=key_form,
        fields=fields,
        custom="custom_fields",
        also_known=("version",),
        lanes=_Lanes(look.name, look).lanes,
        lane=_lane,
        inspect=inspect,
        replaces=lambda connection: False,
    )


def _texts(*names: str) -> dict[str, Writable]:
    return {name: Writable() for name in names}


CONTACTS = _write(
    Look("contacts", {"email": "email"}, key="email"),
    _texts("email", "first_name", "last_name", "phone", "linkedin_url", "type", "company_id"),
    key="email",
    key_form="email",
)

COMPANIES = _write(
    Look("companies", {"domain": "domain"}, key="domain"),
    {"name": Writable(required=True, clearable=False), "domain": Writable()},
    key="domain",
    key_form="domain",
)

# A stage's key repeats across pipelines: a deal's stage means one of the pipeline it stands in or is given.
DEALS = _write(
    Look(
        "deals",
        {"primary_contact_id": "primary_contact_id", "company_id": "company_id", "title": "q"},
        mark="title",
    ),
    {
        "title": Writable(required=True, clearable=False),
        "value_cents": Writable("bigint"),
        "currency": Writable(clearable=False),
        **_texts("pipeline", "stage", "company_id", "primary_contact_id", "close_date"),
    },
)

ACTIVITIES = _write(
    Look("activities", {"contact_id": "contact_id", "deal_id": "deal_id"}, mark="body"),
    {
        **_texts("type", "body", "contact_id", "deal_id"),
        "occurred_at": Writable("timestamp", clearable=False),
    },
)

WRITES = {each.object: each for each in (CONTACTS, COMPANIES, DEALS, ACTIVITIES)}
