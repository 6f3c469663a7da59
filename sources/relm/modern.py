"""Relm Modern: the contract of the vendor's OpenAPI document 0.17.1, `https://api.relmcrm.com/v1`.

Keys `relm_live_…` and `relm_test_…`. Lists are cursor pages of at most 100, a keyset over creation time, and
show deleted records as such when asked. Records carry `updated_at` and `version`, but no list takes a date
filter or a sort, so every pull is a full pass and unchanged rows are dropped by hash; the cost counts against
the monthly quota. In test mode records are erased seven days after their creation. All four objects are
written in batches (`sources.relm.modern_writes`); an address that is there already is refused, not updated.
"""

from sources.core.connector import Contract, CursorPages, Resource, View, columns
from sources.relm import modern_writes, probes

_PAGES = CursorPages(limit=100, has_more="has_more")
_WITH_DELETED = ((("include_deleted", "true"),),)

CONTACTS = Resource(
    "contacts",
    "/contacts",
    columns(
        id="text",
        object="text",
        first_name="text",
        last_name="text",
        email="text",
        phone="text",
        linkedin_url="text",
        type="text",
        company_id="text",
        custom_fields="json",
        version="bigint",
        mode="text",
        created_at="timestamp",
        updated_at="timestamp",
        deleted="bool",
    ),
    _PAGES,
    updated="updated_at",
    one="/contacts/{id}",
    variants=_WITH_DELETED,
    gone_flag="deleted",
)

COMPANIES = Resource(
    "companies",
    "/companies",
    columns(
        id="text",
        object="text",
        name="text",
        domain="text",
        custom_fields="json",
        version="bigint",
        mode="text",
        created_at="timestamp",
        updated_at="timestamp",
        deleted="bool",
    ),
    _PAGES,
    updated="updated_at",
    one="/companies/{id}",
    variants=_WITH_DELETED,
    gone_flag="deleted",
)

DEALS = Resource(
    "deals",
    "/deals",
    columns(
        id="text",
        object="text",
        title="text",
        value_cents="bigint",
        currency="text",
        pipeline="text",
        pipeline_name="text",
        stage="text",
        stage_label="text",
        stage_type="text",
        company_id="text",
        primary_contact_id="text",
        close_date="text",
        custom_fields="json",
        version="bigint",
        mode="text",
        created_at="timestamp",
        updated_at="timestamp",
        deleted="bool",
    ),
    _PAGES,
    updated="updated_at",
    one="/deals/{id}",
    variants=_WITH_DELETED,
    gone_flag="deleted",
)

ACTIVITIES = Resource(
    "activities",
    "/activities",
    columns(
        id="text",
        object="text",
        type="text",
        body="text",
        contact_id="text",
        deal_id="text",
        occurred_at="timestamp",
        custom_fields="json",
        version="bigint",
        mode="text",
        created_at="timestamp",
        updated_at="timestamp",
        deleted="bool",
    ),
    _PAGES,
    updated="updated_at",
    one="/activities/{id}",
    variants=_WITH_DELETED,
    gone_flag="deleted",
)

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
                "stage": "type",
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
    # Stage keys repeat across pipelines; the stage's type says what it means.
    "deals": (
        View(
            "deals",
            {
                "title": "title",
                "stage": "coalesce(stage_label, stage)",
                "status": "coalesce(stage_type, 'open')",
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
                "body": "body",
                "contact_id": "contact_id",
                "deal_id": "deal_id",
                "occurred_at": "occurred_at",
                "created_at": "created_at",
            },
        ),
    ),
}

OPTIONS = modern_writes.OPTIONS

CONTRACT = Contract(
    "modern",
    resources=(CONTACTS, COMPANIES, DEALS, ACTIVITIES),
    views=VIEWS,
    writes=modern_writes.WRITES,
    probes=probes.MODERN,
    quota="rows",
)
