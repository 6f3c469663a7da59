"""Relm Classic: the contract of relmcrm.com/docs, paths below `/v1`.

Lists are cursor pages of at most 200 without a total and without a stated order. No record has a
documented change stamp; the filter `filter[updated_at][gte]` is used only where a probe found that it
works. Deletions show only as absence from a complete pass, confirmed by GET.
"""

from sources.core.connector import (
    STAGE_OPTIONS,
    Contract,
    CursorPages,
    Option,
    Resource,
    Since,
    View,
    columns,
)
from sources.relm import classic_records, classic_writes, probes

OPTIONS: tuple[Option, ...] = (*classic_writes.OPTIONS, *STAGE_OPTIONS)

_PAGES = CursorPages(limit=200, has_more="has_more")
_SINCE = Since("filter[updated_at][gte]", updated="updated_at", probed=True)

CONTACTS = Resource(
    "contacts",
    "/v1/contacts",
    columns(
        id="text",
        object="text",
        email="text",
        first_name="text",
        last_name="text",
        phone="text",
        company_id="text",
        metadata="json",
        created_at="timestamp",
        updated_at="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updated_at",
    one="/v1/contacts/{id}",
)

COMPANIES = Resource(
    "companies",
    "/v1/companies",
    columns(
        id="text",
        object="text",
        name="text",
        domain="text",
        metadata="json",
        created_at="timestamp",
        updated_at="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updated_at",
    one="/v1/companies/{id}",
)

DEALS = Resource(
    "deals",
    "/v1/deals",
    columns(
        id="text",
        object="text",
        title="text",
        value_cents="bigint",
        currency="text",
        stage="text",
        close_date="text",
        company_id="text",
        primary_contact_id="text",
        metadata="json",
        created_at="timestamp",
        updated_at="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updated_at",
    one="/v1/deals/{id}",
)

ACTIVITIES = Resource(
    "activities",
    "/v1/activities",
    columns(
        id="text",
        object="text",
        type="text",
        subject="text",
        body="text",
        contact_id="text",
        deal_id="text",
        company_id="text",
        occurred_at="timestamp",
        metadata="json",
        created_at="timestamp",
        updated_at="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updated_at",
    one="/v1/activities/{id}",
)

ASSOCIATIONS = Resource(
    "associations",
    "/v1/associations",
    columns(
        id="text",
        object="text",
        from_type="text",
        from_id="text",
        to_type="text",
        to_id="text",
        label="text",
        created_at="timestamp",
        updated_at="timestamp",
    ),
    _PAGES,
)

# The registry is asked per object type, as the vendor's example does.
FIELDS = Resource(
    "fields",
    "/v1/schema/fields",
    columns(
        id="text",
        object="text",
        object_type="text",
        key="text",
        label="text",
        type="text",
        required="bool",
        options="json",
        created_at="timestamp",
        updated_at="timestamp",
    ),
    _PAGES,
    variants=tuple((("object_type", each),) for each in ("contact", "company", "deal", "activity")),
)

_DEAL_STATUS = "case lower(stage) when 'won' then 'won' when 'lost' then 'lost' else 'open' end"

VIEWS = {
    "contacts": (
        View(
            "contacts",
            {
                "email": "email",
                "full_name": "nullif(trim(concat_ws(' ', first_name, last_name)), '')",
                "first_name": "first_name",
                "last_name": "last_name",
                "phone": "phone",
                "company_id": "company_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "companies": (
        View(
            "companies",
            {"name": "name", "domain": "domain", "created_at": "created_at", "updated_at": "updated_at"},
        ),
    ),
    "deals": (
        View(
            "deals",
            {
                "title": "title",
                "stage": "stage",
                "status": _DEAL_STATUS,
                "amount": "value_cents / 100",
                "currency": "currency",
                "contact_id": "primary_contact_id",
                "company_id": "company_id",
                "expected_close_at": "try_cast(close_date as timestamptz)",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "activities": (
        View(
            "activities",
            {
                "type": "type",
                "subject": "subject",
                "body": "body",
                "contact_id": "contact_id",
                "deal_id": "deal_id",
                "company_id": "company_id",
                "occurred_at": "occurred_at",
                "created_at": "created_at",
            },
        ),
    ),
}

WRITES = {
    each.object: each
    for each in (
        classic_writes.CONTACTS,
        classic_records.COMPANIES,
        classic_records.DEALS,
        classic_records.ACTIVITIES,
    )
}

CONTRACT = Contract(
    "classic",
    resources=(CONTACTS, COMPANIES, DEALS, ACTIVITIES, ASSOCIATIONS, FIELDS),
    views=VIEWS,
    writes=WRITES,
    probes=probes.CLASSIC,
)
