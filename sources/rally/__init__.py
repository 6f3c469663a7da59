"""Rally CRM (rallycrm.io): contacts, companies, deals and activities of one tenant.

Vendor pages: rallycrm.io/docs/api and below. Keys `rk_live_…` travel in `X-Api-Key`; the tenant is in the
host name, so `base_url` (`https://TENANT.rallycrm.io/api/v1`) has no default.

Lists are bare arrays by offset with `updatedSince`; the page size a server honours is learnt, and only an
empty array ends a list. Deletions come from the change feed `/sync/changes`, which carries no bodies.
Writes: contacts by e-mail, companies by domain, deals by name and pipeline, each upserted or made in bulks of
100; activities by bulk and, as they have no natural key, updated by the id once given for them.
Oddities: eight contact fields can be written but never read; whether PUT replaces or merges is unstated, so
bodies are completed; bulk is documented as create only and its answer has no row numbers; pipelines and
stages have no endpoint, so their ids come from the deals; a contact's tags are one text, a company's a list.
"""

from datetime import UTC, datetime
from typing import Any

from sources.core.connector import (
    STAGE_OPTIONS,
    Connector,
    Contract,
    Feed,
    FeedEntry,
    OffsetPages,
    Option,
    Resource,
    Since,
    View,
    columns,
)
from sources.core.destination import lazy_destination
from sources.core.errors import ProtocolError
from sources.core.reading import lazy_source
from sources.rally import records, writes
from sources.rally.probes import PROBES

# -- tables --------------------------------------------------------------------------------------

# The vendor states no maximum; 200 is asked for and what comes back is taken as the page size.
_PAGES = OffsetPages(limit=200)
_SINCE = Since("updatedSince", updated="updatedAt")

CONTACTS = Resource(
    "contacts",
    "/contacts",
    columns(
        id="text",
        tenantId="text",
        firstName="text",
        lastName="text",
        fullName="text",
        email="text",
        phone="text",
        mobile="text",
        title="text",
        department="text",
        companyId="text",
        lifecycleStage="text",
        leadSource="text",
        leadScore="bigint",
        tags="text",
        isUnsubscribed="bool",
        lastContactedAt="timestamp",
        ownerId="text",
        createdAt="timestamp",
        updatedAt="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updatedAt",
    one="/contacts/{id}",
    notes={"lifecycleStage": "lead, qualified, opportunity, customer or evangelist"},
)

COMPANIES = Resource(
    "companies",
    "/companies",
    columns(
        id="text",
        tenantId="text",
        name="text",
        domain="text",
        industry="text",
        description="text",
        employeeCount="bigint",
        annualRevenue="decimal",
        phone="text",
        website="text",
        linkedInUrl="text",
        address="text",
        city="text",
        state="text",
        country="text",
        postalCode="text",
        tags="json",
        notes="text",
        ownerId="text",
        createdAt="timestamp",
        updatedAt="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updatedAt",
    one="/companies/{id}",
)

DEALS = Resource(
    "deals",
    "/deals",
    columns(
        id="text",
        tenantId="text",
        pipelineId="text",
        stageId="text",
        stageName="text",
        contactId="text",
        contactName="text",
        companyId="text",
        companyName="text",
        name="text",
        value="decimal",
        currency="text",
        probability="double",
        expectedCloseDate="timestamp",
        actualCloseDate="timestamp",
        status="text",
        notes="text",
        ownerId="text",
        ownerName="text",
        lastActivityAt="timestamp",
        createdAt="timestamp",
        updatedAt="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updatedAt",
    one="/deals/{id}",
    notes={"probability": "Chance of winning in percent", "status": "open, won or lost"},
)

ACTIVITIES = Resource(
    "activities",
    "/activities",
    columns(
        id="text",
        tenantId="text",
        activityType="text",
        subject="text",
        body="text",
        contactId="text",
        companyId="text",
        dealId="text",
        scheduledAt="timestamp",
        dueDate="timestamp",
        priority="text",
        status="text",
        callDirection="text",
        callOutcome="text",
        callDurationSeconds="bigint",
        durationMinutes="bigint",
        location="text",
        meetingUrl="text",
        ownerId="text",
        createdAt="timestamp",
        updatedAt="timestamp",
    ),
    _PAGES,
    strategy=_SINCE,
    updated="updatedAt",
    one="/activities/{id}",
)


def _feed_entry(entry: Any) -> FeedEntry:
    try:
        at = datetime.fromisoformat(entry["changedAt"])
        return FeedEntry(
            seq=int(entry["id"]),
            entity=str(entry["entityType"]),
            id=str(entry["entityId"]),
            action=entry["action"],
            at=at if at.tzinfo else at.replace(tzinfo=UTC),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            "an entry of the change feed lacks a documented field", resource="changes"
        ) from error


# Entities are plural in the request and singular in the entries (vendor page: Sync & Changes).
FEED = Feed(
    "/sync/changes",
    param="since",
    entities={"contacts": "contact", "companies": "company", "deals": "deal", "activities": "activity"},
    limit=1000,
    parse=_feed_entry,
)

# -- unified views -------------------------------------------------------------------------------

# The vendor documents no values but `open`; a closed deal shows in its stage's name or its probability.
_DEAL_STATUS = """
case
    when lower(status) in ('won', 'lost') then lower(status)
    when lower(stage_name) in ('closed won', 'won') then 'won'
    when lower(stage_name) in ('closed lost', 'lost') then 'lost'
    else 'open'
end
"""

VIEWS = {
    "contacts": (
        View(
            "contacts",
            {
                "email": "email",
                "full_name": "full_name",
                "first_name": "first_name",
                "last_name": "last_name",
                "phone": "coalesce(phone, mobile)",
                "title": "title",
                "company_id": "company_id",
                "stage": "lifecycle_stage",
                "score": "lead_score",
                "tags": "list_filter(list_transform(string_split(tags, ','), lambda tag: trim(tag)),"
                " lambda tag: tag <> '')",
                "owner": "owner_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "companies": (
        View(
            "companies",
            {
                "name": "name",
                "domain": "domain",
                "industry": "industry",
                "website": "website",
                "owner": "owner_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "deals": (
        View(
            "deals",
            {
                "title": "name",
                "stage": "stage_name",
                "status": _DEAL_STATUS,
                "amount": "value",
                "currency": "currency",
                "probability": "probability / 100",
                "contact_id": "contact_id",
                "company_id": "company_id",
                "owner": "coalesce(owner_name, owner_id)",
                "expected_close_at": "expected_close_date",
                "closed_at": "actual_close_date",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
        ),
    ),
    "tasks": (
        View(
            "activities",
            {
                "title": "subject",
                "description": "body",
                "status": "status",
                "priority": "priority",
                "due_at": "due_date",
                "contact_id": "contact_id",
                "deal_id": "deal_id",
                "company_id": "company_id",
                "owner": "owner_id",
                "created_at": "created_at",
                "updated_at": "updated_at",
            },
            where="activity_type = 'task'",
        ),
    ),
    "activities": (
        View(
            "activities",
            {
                "type": "activity_type",
                "subject": "subject",
                "body": "body",
                "contact_id": "contact_id",
                "deal_id": "deal_id",
                "company_id": "company_id",
                "owner": "owner_id",
                "occurred_at": "coalesce(scheduled_at, created_at)",
                "created_at": "created_at",
            },
            where="activity_type <> 'task'",
        ),
    ),
}

# -- connector -----------------------------------------------------------------------------------

OPTIONS: tuple[Option, ...] = (
    Option(
        "feed_reach_days",
        "how far back the change feed is trusted; after a longer gap everything is read again",
        default=7,
    ),
    *writes.OPTIONS,
    *records.OPTIONS,
    *STAGE_OPTIONS,
)

CONTRACT = Contract(
    "v1",
    resources=(CONTACTS, COMPANIES, DEALS, ACTIVITIES),
    views=VIEWS,
    writes={
        each.object: each for each in (writes.CONTACTS, records.COMPANIES, records.DEALS, records.ACTIVITIES)
    },
    feed=FEED,
    probes=PROBES,
    per_minute=1_000,
)

CONNECTOR = Connector(
    crm="rally",
    title="Rally",
    base_url=None,
    auth_header="X-Api-Key",
    auth_prefix="",
    contracts={"v1": CONTRACT},
    contract=lambda connection: CONTRACT,
    options=OPTIONS,
)

rally = lazy_source(CONNECTOR)
rally_contacts = lazy_destination(CONNECTOR, "contacts")
