"""Ralivi (ralivi.com): contacts, deals, tasks, activities and the account's own organisation; read-only.

Vendor page: www.ralivi.com/help/integrations/api-access. Keys `rlv_live_…` as Bearer. The `www` host is
used literally: a redirect from the bare domain may drop the key.

Lists are cursor pages of at most 100 and end only with a null cursor; there is no since-filter, no sort, no
total and no single record to ask for, so every pull is a full pass, unchanged rows are dropped by hash, and a
missing record counts as gone only when a second complete pass does not show it either.
Oddities: `amount` has no currency; there is no closing date, so the moment a deal was first seen in a closed
stage is kept; no limit is documented, so the pace is our own. No key can write: refused as a target.
"""

from sources.core import probing
from sources.core.connector import (
    STAGE_OPTIONS,
    Connector,
    Contract,
    CursorPages,
    OneObject,
    Option,
    Probe,
    Resource,
    View,
    columns,
    pace_option,
)
from sources.core.reading import lazy_source

# -- tables --------------------------------------------------------------------------------------

_PAGES = CursorPages(limit=100, next="nextCursor")

CONTACTS = Resource(
    "contacts",
    "/contacts",
    columns(
        id="text",
        name="text",
        email="text",
        phone="text",
        company="text",
        status="text",
        tags="json",
        summary="text",
        createdAt="timestamp",
        updatedAt="timestamp",
        lastTouchedAt="timestamp",
    ),
    _PAGES,
    updated="updatedAt",
)

DEALS = Resource(
    "deals",
    "/deals",
    columns(
        id="text",
        title="text",
        stage="text",
        amount="decimal",
        probability="double",
        contactId="text",
        summary="text",
        createdAt="timestamp",
        updatedAt="timestamp",
        lastActivityAt="timestamp",
        nextActionDueAt="timestamp",
    ),
    _PAGES,
    updated="updatedAt",
    notes={
        "amount": "Value; the API tells no currency",
        "probability": "Chance of winning, taken as percent; the vendor states no scale",
    },
)

TASKS = Resource(
    "tasks",
    "/tasks",
    columns(
        id="text",
        title="text",
        description="text",
        status="text",
        priority="text",
        dueDate="timestamp",  # shown as a plain date, possibly a full time stamp (fact sheet C13)
        dealId="text",
        contactId="text",
        assignedTo="text",
        createdAt="timestamp",
        updatedAt="timestamp",
    ),
    _PAGES,
    updated="updatedAt",
)

ACTIVITIES = Resource(
    "activities",
    "/activities",
    columns(
        id="text",
        type="text",
        subject="text",
        body="text",
        dealId="text",
        contactId="text",
        createdAt="timestamp",
        createdBy="text",
    ),
    _PAGES,
)

# One object: the account's own organisation, not a customer.
ORGANIZATIONS = Resource(
    "organizations",
    "/organizations",
    columns(id="text", name="text", website="text", industry="text", createdAt="timestamp"),
    OneObject(),
)

# -- unified views -------------------------------------------------------------------------------

# `closed-lost` is a guess: the product has the stage, the API's list of stage ids lacks it (fact sheet C9).
_DEAL_STATUS = "case stage when 'closed-won' then 'won' when 'closed-lost' then 'lost' else 'open' end"

VIEWS = {
    "contacts": (
        View(
            "contacts",
            {
                "email": "email",
                "full_name": "name",
                "phone": "phone",
                "company": "company",
                "stage": "status",
                "tags": "tags",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "deals": (
        View(
            "deals",
            {
                "title": "title",
                "stage": "stage",
                "status": _DEAL_STATUS,
                "amount": "amount",
                "currency": "{currency}",
                "probability": "probability / case {probability_scale} when 'percent' then 100 else 1 end",
                "contact_id": "contact_id",
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
                "description": "description",
                "status": "status",
                "priority": "priority",
                "due_at": "due_date",
                "contact_id": "contact_id",
                "deal_id": "deal_id",
                "owner": "assigned_to",
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
                "owner": "created_by",
                "occurred_at": "created_at",
                "created_at": "created_at",
            },
        ),
    ),
}

# -- open questions ------------------------------------------------------------------------------

# Numbers are those of the vendor sheet's section 9.
PROBES = (
    Probe("C1", "order of listings", probing.order("/contacts", ("createdAt", "updatedAt"))),
    Probe(
        "C6", "null or left out", probing.nulls("/contacts", ("phone", "tags", "summary", "lastTouchedAt"))
    ),
    Probe("C9", "stages of deals", probing.values_seen("/deals", "stage")),
    Probe("C12", "scale of probabilities", probing.values_seen("/deals", "probability")),
    Probe("C13", "form of due dates", probing.values_seen("/tasks", "dueDate", limit=5)),
    Probe("C14", "values of a contact's status", probing.values_seen("/contacts", "status")),
    Probe("C14", "values of a task's status", probing.values_seen("/tasks", "status")),
    Probe("C14", "types of activities", probing.values_seen("/activities", "type")),
    Probe("C19", "limits told in answers", probing.limits_told("/contacts")),
)

# -- connector -----------------------------------------------------------------------------------

OPTIONS = (
    Option("currency", "currency of all amounts, which the API does not tell (C11)"),
    Option(
        "probability_scale",
        "what the API's probabilities are: `percent` (0 to 100) or `fraction` (0 to 1) (C12)",
        default="percent",
        choices=("percent", "fraction"),
    ),
    pace_option(180),
    *STAGE_OPTIONS,
)

CONTRACT = Contract(
    "v1", resources=(CONTACTS, DEALS, TASKS, ACTIVITIES, ORGANIZATIONS), views=VIEWS, probes=PROBES
)

CONNECTOR = Connector(
    crm="ralivi",
    title="Ralivi",
    base_url="https://www.ralivi.com/api/v1",
    contracts={"v1": CONTRACT},
    contract=lambda connection: CONTRACT,
    options=OPTIONS,
)

ralivi = lazy_source(CONNECTOR)
