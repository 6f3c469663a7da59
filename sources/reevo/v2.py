"""Reevo v2: records with typed attributes under `/api/v2`, queried with filters on `updated_at`.

Each attribute is an envelope `{"value_type", "value"}`, a list attribute a list of envelopes; a null may be
an envelope with a null value, a bare null or a missing key. Known attributes become plain columns, all
others, custom ones included, stand unwrapped in `_extra`. Archived records are not returned, so a daily
pass over everything finds them, confirmed by GET. Activities have no unscoped list: they are asked for per
account and opportunity, by time of creation; those that hang on a contact alone only where `activity_scopes`
says so, since that costs a request per contact.
"""

from collections.abc import Mapping
from typing import Any

from sources.core.connector import (
    Column,
    Contract,
    CursorPages,
    FanOut,
    Kind,
    Resource,
    Since,
    View,
)
from sources.reevo import probes, v2_writes

_PREFIX = "/api/v2"
# 100 is the largest limit in the vendor's examples; default and maximum are not stated.
_PAGES = CursorPages(limit=100, in_body=True)


def _attribute(name: str, kind: Kind = "text", below: str = "") -> Column:
    """Declare an attribute's value, or a part of it."""
    return Column(name, kind, path=f'$.attributes."{name}".value{below}')


def _reference(name: str) -> Column:
    kind = "user" if name.endswith("_user_id") else name.removeprefix("primary_").removesuffix("_id")
    path = f'$.attributes."{name}".value.related_record_id'
    return Column(name, path=path, implied=("related_record_type", kind))


def _stage(name: str) -> Column:
    return _attribute(name, below=".display_value")


def _list(name: str) -> Column:
    return Column(name, "json", path=f'$.attributes."{name}"')


_RECORD = (
    Column("id"),
    Column("record_type"),
    Column("created_at", "timestamp"),
    Column("updated_at", "timestamp"),
    _attribute("organization_id"),
)


def _changed_since(moment: str) -> Mapping[str, Any]:
    return {"filters": [{"field": "updated_at", "operator": "gte", "value": moment}]}


def _created_since(moment: str) -> Mapping[str, Any]:
    return {"created_from": moment}


def _records(name: str, record_type: str, *attributes: Column, optional: bool = False) -> Resource:
    """Declare a record type that is queried by the vendor's sync recipe: ascending by change stamp."""
    return Resource(
        name,
        f"{_PREFIX}/{record_type}/_query",
        (*_RECORD, *attributes),
        _PAGES,
        strategy=Since("", updated="updated_at", body=_changed_since),
        updated="updated_at",
        one=f"{_PREFIX}/{record_type}/{{id}}",
        method="POST",
        body={"sort": [{"field": "updated_at", "direction": "asc"}]},
        optional=optional,
        envelope="attributes",
    )


ACCOUNTS = _records(
    "accounts",
    "account",
    _attribute("display_name"),
    _attribute("name"),
    _attribute("description"),
    _stage("current_stage_id"),
    _list("domains"),
    # What an account is matched by when it is written; the primary one stands first, as far as is seen.
    Column("domain_name", path="$.attributes.domains[0].value.domain_name"),
    _attribute("official_website"),
    _attribute("linkedin_url"),
    _attribute("x_url"),
    _attribute("facebook_url"),
    _attribute("zoominfo_url"),
    _list("websites"),
    _attribute("address", "json"),
    _attribute("estimated_annual_revenue", "decimal", ".amount"),
    _reference("owner_user_id"),
    _reference("created_by_user_id"),
)

CONTACTS = _records(
    "contacts",
    "contact",
    _attribute("display_name"),
    _attribute("first_name"),
    _attribute("last_name"),
    _attribute("middle_name"),
    _attribute("title"),
    _attribute("department"),
    _stage("stage"),
    _attribute("primary_email"),
    _attribute("primary_phone_number"),
    _list("contact_emails"),
    _list("contact_phone_numbers"),
    _reference("account_id"),
    _reference("owner_user_id"),
    _reference("created_by_user_id"),
    _list("participant_user_id_list"),
    _attribute("sms_consent", "bool"),
    _attribute("address", "json"),
)

OPPORTUNITIES = _records(
    "opportunities",
    "opportunity",
    _attribute("display_name"),
    _attribute("amount", "decimal", ".amount"),
    _stage("stage"),
    Column("closing_probability", "double", path="$.attributes.stage.value.closing_probability"),
    _reference("account_id"),
    _reference("primary_contact_id"),
    _reference("owner_user_id"),
    _reference("created_by_user_id"),
    _list("participant_user_id_list"),
    _attribute("next_step_details"),
    _attribute("next_step_due_at", "timestamp"),
    _attribute("next_meeting_date", "timestamp"),
    _attribute("status"),
    _attribute("outcome"),
    _attribute("closed_at", "timestamp"),
    _attribute("stage_last_shifted_at", "timestamp"),
)

TASKS = _records(
    "tasks",
    "task",
    _attribute("title"),
    _attribute("status"),
    _attribute("priority"),
    _attribute("type"),
    _attribute("source_type"),
    _reference("owner_user_id"),
    _list("participant_user_id_list"),
    _attribute("note"),
    _attribute("due_at", "timestamp"),
    _reference("account_id"),
    _reference("contact_id"),
    _reference("opportunity_id"),
    optional=True,
)

NOTES = _records(
    "notes",
    "note",
    _attribute("title"),
    _attribute("note_html"),
    _attribute("is_private", "bool"),
    _reference("owner_user_id"),
    _attribute("owner_team_id"),
    _list("participant_user_id_list"),
    _reference("created_by_user_id"),
    _reference("account_id"),
    _reference("contact_id"),
    _reference("opportunity_id"),
    optional=True,
)

ACTIVITIES = Resource(
    "activities",
    f"{_PREFIX}/activity/_query",
    (
        *_RECORD,
        _attribute("type"),
        _attribute("sub_type"),
        _attribute("status"),
        _attribute("priority"),
        _attribute("display_name"),
        _attribute("badge_status"),
        _attribute("location"),
        _reference("owner_user_id"),
        _attribute("ended_at", "timestamp"),
        _reference("account_id"),
        _reference("contact_id"),
        _reference("opportunity_id"),
        Column("metadata", "json"),
    ),
    _PAGES,
    strategy=Since("", updated="updated_at", body=_created_since),
    updated="updated_at",
    method="POST",
    body={},
    optional=True,
    fan_out=(
        FanOut("accounts", "id", "account_id", in_body=True, option="activity_scopes"),
        FanOut("opportunities", "id", "opportunity_id", in_body=True, option="activity_scopes"),
        FanOut("contacts", "id", "contact_id", in_body=True, option="activity_scopes"),
    ),
    envelope="attributes",
)

_STATUS = """
case
    when lower(coalesce(outcome, '')) in ('won', 'closed_won') then 'won'
    when lower(coalesce(outcome, '')) in ('lost', 'closed_lost') then 'lost'
    when lower(stage) in ('closed won', 'won') then 'won'
    when lower(stage) in ('closed lost', 'lost') then 'lost'
    else 'open'
end
"""

VIEWS = {
    "contacts": (
        View(
            "contacts",
            {
                "email": "primary_email",
                "full_name": "coalesce(display_name,"
                " nullif(trim(concat_ws(' ', first_name, last_name)), ''))",
                "first_name": "first_name",
                "last_name": "last_name",
                "phone": "primary_phone_number",
                "title": "title",
                "company_id": "account_id",
                "stage": "stage",
                "owner": "owner_user_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "companies": (
        View(
            "accounts",
            {
                "name": "coalesce(display_name, name)",
                "domain": "domain_name",
                "website": "official_website",
                "owner": "owner_user_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "deals": (
        View(
            "opportunities",
            {
                "title": "display_name",
                "stage": "stage",
                "status": _STATUS,
                "amount": "amount",
                "currency": "{currency}",
                "probability": "closing_probability / case when closing_probability > 1 then 100 else 1 end",
                "contact_id": "primary_contact_id",
                "company_id": "account_id",
                "owner": "owner_user_id",
                "closed_at": "closed_at",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "tasks": (
        View(
            "tasks",
            {
                "title": "title",
                "description": "note",
                "status": "status",
                "priority": "priority",
                "due_at": "due_at",
                "contact_id": "contact_id",
                "deal_id": "opportunity_id",
                "company_id": "account_id",
                "owner": "owner_user_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "activities": (
        View(
            "activities",
            {
                "type": "coalesce(sub_type, type)",
                "subject": "coalesce(json_extract_string(metadata, '$.subject'), display_name)",
                "body": "json_extract_string(metadata, '$.description')",
                "contact_id": "contact_id",
                "deal_id": "opportunity_id",
                "company_id": "account_id",
                "owner": "owner_user_id",
                "occurred_at": "coalesce(try_cast(json_extract_string(metadata, '$.activity_time')"
                " as timestamptz), created_at)",
                "created_at": "created_at",
            },
        ),
    ),
}

CONTRACT = Contract(
    "v2",
    resources=(ACCOUNTS, CONTACTS, OPPORTUNITIES, TASKS, ACTIVITIES, NOTES),
    views=VIEWS,
    writes=v2_writes.WRITES,
    probes=probes.V2,
)
