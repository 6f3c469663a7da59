"""Writes of Rally's companies, deals and activities.

Companies are upserted by domain and deals by name and pipeline, new ones in bulks of 100. A known deal is met
by its id, since the vendor does not say which of two deals of one name an upsert takes; a move to another
stage alone goes by the stage's own endpoint. Activities have no natural key and no upsert: what a bulk left
undone is sent again one by one, and a bulk whose answer was lost is looked for by what it carried.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sources.core.bodies import encode_json
from sources.core.connector import Call, Connection, Lane, Option, Writable, Write
from sources.core.lanes import ALWAYS, DELETE, decode_change, delete_lane, path_of
from sources.core.rows import Row
from sources.rally.lanes import (
    BULK_SIZE,
    Records,
    completed,
    decode_bulk,
    decode_bulk_of_one,
    decode_upsert,
    replaces,
    with_key,
)

OPTIONS = (
    Option(
        "new_deal_stage",
        "the id of the stage of a new deal whose model has none; empty: such rows are held back",
        default="",
    ),
)

_ADDRESS = ("address", "city", "state", "country", "postalCode")


def _texts(*names: str) -> dict[str, Writable]:
    return {name: Writable() for name in names}


def _lanes(records: Records) -> dict[str, Lane]:
    """Give the lanes of a resource with a natural key."""
    return {
        "bulk": Lane(
            "bulk", BULK_SIZE, records.encode_bulk, decode_bulk, look=records.look, fallback="upsert"
        ),
        "upsert": Lane(
            "upsert", 1, records.encode_upsert, decode_upsert, repeat_s=ALWAYS, look=records.look_by_id
        ),
        "put": Lane("put", 1, records.encode_put, decode_change, repeat_s=ALWAYS, look=records.look_by_id),
        DELETE: delete_lane(f"/{records.name}"),
    }


# -- companies -----------------------------------------------------------------------------------


def _company(row: Row, connection: Connection) -> dict[str, Any]:
    return with_key(completed(row, connection, ("name", "domain")), "domain", row)


def _domain(record: Mapping[str, Any]) -> Hashable | None:
    return str(record.get("domain") or "").strip().lower() or None


def _company_lane(row: Row, connection: Connection) -> str:
    if row.match == "id" and row.crm_id and row.action == "update":
        return "put"
    return "bulk" if row.match == "new" else "upsert"


_COMPANIES = Records("companies", _company, _domain)

COMPANIES = Write(
    object="companies",
    resource="companies",
    key="domain",
    key_form="domain",
    fields={
        "name": Writable(required=True, clearable=False),
        "domain": Writable(required=True, clearable=False),
        **_texts("industry", "description"),
        "employeeCount": Writable("bigint"),
        "annualRevenue": Writable("decimal"),
        **_texts("phone", "website", "linkedInUrl", *_ADDRESS),
        "tags": Writable("json", clearable=False),  # a list that may be empty, never null
        **_texts("notes", "ownerId"),
    },
    lanes=_lanes(_COMPANIES),
    lane=_company_lane,
    replaces=replaces,
    reread=_COMPANIES.reread,
    upserts=True,
    arrivals=_COMPANIES.arrivals(),
)

# -- deals ---------------------------------------------------------------------------------------


def _deal(row: Row, connection: Connection) -> dict[str, Any]:
    """Make a deal's body; a deal that moves takes its new stage's probability, unless told one."""
    body = completed(row, connection, ("pipelineId", "stageId", "name"))
    if "stageId" in row.fields and "probability" not in row.fields:
        body.pop("probability", None)
    return body


def _name_and_pipeline(record: Mapping[str, Any]) -> Hashable | None:
    return " ".join(str(record.get("name") or "").split()).lower(), record.get("pipelineId")


def _encode_stage(rows: Sequence[Row], connection: Connection) -> Call:
    (row,) = rows
    return Call("PATCH", f"{path_of('/deals', row)}/stage", encode_json({"stageId": row.fields["stageId"]}))


def _deal_lane(row: Row, connection: Connection) -> str:
    if row.action == "update" and row.crm_id:
        return "stage" if set(row.fields) == {"stageId"} else "put"
    return "bulk" if row.match == "new" else "upsert"


_DEALS = Records("deals", _deal, _name_and_pipeline)

DEALS = Write(
    object="deals",
    resource="deals",
    key="name",
    also_key=("pipelineId",),
    key_form="text",
    fields={
        **{name: Writable(required=True, clearable=False) for name in ("name", "pipelineId", "stageId")},
        **_texts("contactId", "companyId"),
        "value": Writable("decimal"),
        "currency": Writable(clearable=False, given="USD"),
        "probability": Writable("bigint", given="*"),  # the stage's
        "expectedCloseDate": Writable("timestamp"),
        **_texts("notes", "ownerId"),
    },
    lanes={
        **_lanes(_DEALS),
        "stage": Lane("stage", 1, _encode_stage, decode_change, repeat_s=ALWAYS, look=_DEALS.look_by_id),
    },
    lane=_deal_lane,
    defaults=lambda connection: {"stageId": connection.options.get("new_deal_stage") or None},
    replaces=replaces,
    reread=_DEALS.reread,
    upserts=True,
    arrivals=_DEALS.arrivals(),
)

# -- activities ----------------------------------------------------------------------------------


def _activity(row: Row, connection: Connection) -> dict[str, Any]:
    return completed(row, connection, ("activityType", "subject"))


_ACTIVITIES = Records("activities", _activity, mark="subject")

ACTIVITIES = Write(
    object="activities",
    resource="activities",
    key="id",
    key_form="none",
    fields={
        "activityType": Writable(required=True, clearable=False),
        "subject": Writable(required=True, clearable=False),
        **_texts("body", "contactId", "companyId", "dealId"),
        "scheduledAt": Writable("timestamp"),
        "dueDate": Writable("timestamp"),
        "priority": Writable(),
        "status": Writable(clearable=False, given="pending"),
        **_texts("callDirection", "callOutcome"),
        "callDurationSeconds": Writable("bigint"),
        "durationMinutes": Writable("bigint"),
        **_texts("location", "meetingUrl", "ownerId"),
    },
    lanes={
        "bulk": Lane(
            "bulk", BULK_SIZE, _ACTIVITIES.encode_bulk, decode_bulk, look=_ACTIVITIES.look, fallback="single"
        ),
        "single": Lane("single", 1, _ACTIVITIES.encode_bulk, decode_bulk_of_one, look=_ACTIVITIES.look),
        "put": Lane(
            "put", 1, _ACTIVITIES.encode_put, decode_change, repeat_s=ALWAYS, look=_ACTIVITIES.look_by_id
        ),
        DELETE: delete_lane("/activities"),
    },
    lane=lambda row, connection: "bulk" if row.action == "create" else "put",
    replaces=replaces,
    reread=_ACTIVITIES.reread,
)
