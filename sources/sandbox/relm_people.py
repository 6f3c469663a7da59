"""The made-up people as Relm (classic) spells them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sources.sandbox.people import World
from sources.sandbox.store import Tenant
from sources.sandbox.table import Record

_DEFINITIONS: tuple[dict[str, Any], ...] = (
    {"object_type": "contact", "key": "tier", "label": "Tier", "type": "select"},
    {"object_type": "contact", "key": "lead_score", "label": "Lead score", "type": "number"},
    {"object_type": "contact", "key": "opted_in", "label": "Opted in", "type": "bool"},
    {"object_type": "company", "key": "segment", "label": "Segment", "type": "text"},
    {"object_type": "deal", "key": "renewal_risk", "label": "Renewal risk", "type": "select"},
    {"object_type": "deal", "key": "renews_on", "label": "Renews on", "type": "date"},
)
_CHOICES = {"tier": ["bronze", "silver", "gold"], "renewal_risk": ["low", "medium", "high"]}


def fill(tenant: Tenant, world: World) -> None:
    """Load companies, contacts, deals, activities, their associations and the custom field registry."""
    tenant.load("fields", _definitions(tenant, world.now))
    companies: dict[int, str] = {}
    contacts: dict[int, str] = {}
    deals: dict[int, str] = {}
    tenant.load("companies", list(_companies(tenant, world, companies)))
    tenant.load("contacts", list(_contacts(tenant, world, companies, contacts)))
    tenant.load("deals", list(_deals(tenant, world, companies, contacts, deals)))
    ids = {"company_id": companies, "contact_id": contacts, "deal_id": deals}
    tenant.load("activities", list(_activities(tenant, world, ids)))
    tenant.load("associations", _edges(tenant))


def _definitions(tenant: Tenant, now: datetime) -> list[Record]:
    at = now.astimezone(UTC).replace(month=1, day=1, hour=9, minute=0, second=0, microsecond=0)
    blank = tenant.blanks["fields"]
    rows = [
        {**blank, **row, "options": {"choices": _CHOICES[row["key"]]} if row["type"] == "select" else {}}
        for row in _DEFINITIONS
    ]
    return [Record(tenant.make_id("fields"), row, at, at) for row in rows]


def _companies(tenant: Tenant, world: World, ids: dict[int, str]) -> Iterator[Record]:
    for company in world.companies():
        ids[company.number] = id = tenant.make_id("companies")
        metadata = {"segment": company.industry} if company.number % 2 else {}
        fields = {"name": company.name, "domain": company.domain, "metadata": metadata}
        yield Record(id, fields, company.created_at, company.updated_at)


def _contacts(
    tenant: Tenant, world: World, companies: dict[int, str], ids: dict[int, str]
) -> Iterator[Record]:
    for person in world.people():
        ids[person.number] = id = tenant.make_id("contacts")
        metadata: dict[str, Any] = {"tier": _CHOICES["tier"][person.number % 3]}
        if person.score is not None:
            metadata["lead_score"] = person.score
        fields = {
            "email": person.email,
            "first_name": person.first_name,
            "last_name": person.last_name,
            "phone": person.phone,
            "company_id": None if person.company is None else companies[person.company],
            "metadata": metadata,
        }
        yield Record(id, fields, person.created_at, person.updated_at)


def _deals(
    tenant: Tenant, world: World, companies: dict[int, str], contacts: dict[int, str], ids: dict[int, str]
) -> Iterator[Record]:
    for deal in world.deals():
        ids[deal.number] = id = tenant.make_id("deals")
        risk = deal.number // 4 + deal.number // 24
        fields = {
            "title": deal.title,
            "value_cents": deal.cents,
            "currency": deal.currency,
            "stage": deal.stage,
            "close_date": deal.closes_on.date().isoformat(),
            "company_id": None if deal.company is None else companies[deal.company],
            "primary_contact_id": contacts[deal.person],
            "metadata": {"renewal_risk": _CHOICES["renewal_risk"][risk % 3]},
        }
        yield Record(id, fields, deal.created_at, deal.updated_at)


def _activities(tenant: Tenant, world: World, ids: dict[str, dict[int, str]]) -> Iterator[Record]:
    for activity in world.activities():
        at = activity.occurred_at
        fields: dict[str, Any] = {
            "type": activity.kind,
            "subject": activity.subject,
            "body": activity.body,
            "contact_id": ids["contact_id"][activity.person],
            "deal_id": None if activity.deal is None else ids["deal_id"][activity.deal],
            "company_id": None if activity.company is None else ids["company_id"][activity.company],
            "occurred_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "metadata": {},
        }
        yield Record(tenant.make_id("activities"), fields, at, at)


def _edges(tenant: Tenant) -> list[Record]:
    """Join each deal to its contact, as a second way beside the foreign key."""
    labels = ("economic buyer", "champion", None)
    return [
        Record(
            tenant.make_id("associations"),
            {
                "from_type": "contact",
                "from_id": deal.fields["primary_contact_id"],
                "to_type": "deal",
                "to_id": deal.id,
                "label": labels[place % 3],
            },
            deal.created_at,
            deal.created_at,
        )
        for place, deal in enumerate(tenant.tables["deals"])
    ]
