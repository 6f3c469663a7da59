"""The made-up people as Relm's modern contract spells them, and the set-up of a new workspace."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sources.sandbox.people import LIFECYCLE, World
from sources.sandbox.store import Tenant
from sources.sandbox.table import Fields, Record

_TYPES = tuple(sorted({"note", "email", "call", "meeting", "task"}))
_VALUES = {
    "contact.type": LIFECYCLE,
    "activity.type": _TYPES,
    "contact.tier": ("bronze", "silver", "gold"),
    "deal.renewal_risk": ("low", "medium", "high"),
}
_DEFINITIONS: tuple[Fields, ...] = (
    {"object": "contact", "key": "tier", "data_type": "select", "enum_group": "contact.tier"},
    {"object": "contact", "key": "lead_score", "data_type": "number"},
    {"object": "contact", "key": "opted_in", "data_type": "boolean"},
    {"object": "company", "key": "segment", "data_type": "text"},
    {"object": "deal", "key": "renewal_risk", "data_type": "select", "enum_group": "deal.renewal_risk"},
    {"object": "deal", "key": "renews_on", "data_type": "date"},
)
# Two pipelines share stage keys: only pipeline and stage together say where a deal stands.
_SALES = ("lead", "qualified", "proposal", "negotiation", "won", "lost")
_PARTNERS = ("lead", "proposal", "won", "lost")


def set_up(tenant: Tenant, now: datetime) -> None:
    """Load pipelines, value sets and custom fields, which both modes of a workspace start with."""
    at = now.astimezone(UTC).replace(month=1, day=1, hour=9, minute=0, second=0, microsecond=0)
    rows: dict[str, list[Fields]] = {
        "pipelines": [
            _pipeline("sales", "Sales", _SALES, is_default=True),
            _pipeline("partners", "Partner & reseller", _PARTNERS, is_default=False),
        ],
        "enums": [_value(group, value) for group, values in _VALUES.items() for value in values],
        "fields": [{**row, "label": _label(row["key"])} for row in _DEFINITIONS],
    }
    for resource, made in rows.items():
        blank = tenant.blanks[resource]
        tenant.load(resource, [Record(tenant.make_id(resource), {**blank, **row}, at, at) for row in made])


def fill(tenant: Tenant, world: World) -> None:
    """Load companies, contacts, deals and activities."""
    companies: dict[int, str] = {}
    contacts: dict[int, str] = {}
    deals: dict[int, str] = {}
    tenant.load("companies", list(_companies(tenant, world, companies)))
    tenant.load("contacts", list(_contacts(tenant, world, companies, contacts)))
    tenant.load("deals", list(_deals(tenant, world, companies, contacts, deals)))
    tenant.load("activities", list(_activities(tenant, world, contacts, deals)))


def _companies(tenant: Tenant, world: World, ids: dict[int, str]) -> Iterator[Record]:
    for company in world.companies():
        custom = {"segment": company.industry} if company.number % 2 else {}
        fields = {"name": company.name, "domain": company.domain, "custom_fields": custom}
        record = _record(tenant, "companies", fields, company.created_at, company.updated_at)
        ids[company.number] = record.id
        yield record


def _contacts(
    tenant: Tenant, world: World, companies: dict[int, str], ids: dict[int, str]
) -> Iterator[Record]:
    for person in world.people():
        number = person.number
        custom: dict[str, Any] = {"tier": _VALUES["contact.tier"][number % 3]}
        if person.score is not None:
            custom["lead_score"] = person.score
        fields = {
            "first_name": person.first_name,
            "last_name": person.last_name,
            # A contact may be known by its profile alone.
            "email": None if number % 100 == 10 else person.email,
            "phone": person.phone,
            "linkedin_url": f"https://linkedin.example/in/p{number}" if number % 5 == 0 else None,
            "type": None if number % 100 == 7 else person.stage,
            "company_id": None if person.company is None else companies[person.company],
            "custom_fields": custom,
        }
        record = _record(tenant, "contacts", fields, person.created_at, person.updated_at)
        ids[number] = record.id
        yield record


def _deals(
    tenant: Tenant, world: World, companies: dict[int, str], contacts: dict[int, str], ids: dict[int, str]
) -> Iterator[Record]:
    for deal in world.deals():
        turn = deal.number // 4 + deal.number // 24
        is_partners = deal.stage in _PARTNERS and turn % 5 == 0
        fields = {
            "title": deal.title,
            "value_cents": deal.cents,
            "currency": deal.currency,
            "pipeline": "partners" if is_partners else "sales",
            "stage": deal.stage,
            "company_id": None if deal.company is None else companies[deal.company],
            "primary_contact_id": contacts[deal.person],
            "close_date": deal.closes_on.date().isoformat(),
            "custom_fields": {"renewal_risk": _VALUES["deal.renewal_risk"][turn % 3]},
        }
        record = _record(tenant, "deals", fields, deal.created_at, deal.updated_at)
        ids[deal.number] = record.id
        yield record


def _activities(
    tenant: Tenant, world: World, contacts: dict[int, str], deals: dict[int, str]
) -> Iterator[Record]:
    for activity in world.activities():
        at = activity.occurred_at
        fields = {
            "type": activity.kind,
            "body": activity.body,
            "contact_id": contacts[activity.person],
            "deal_id": None if activity.deal is None else deals[activity.deal],
            "occurred_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        yield _record(tenant, "activities", fields, at, at)


def _record(
    tenant: Tenant, resource: str, fields: Fields, created_at: datetime, updated_at: datetime
) -> Record:
    """Return a record that was always there; one that was touched since stands at its second version."""
    blank = {**tenant.blanks[resource], "custom_fields": {}}
    version = 1 if created_at == updated_at else 2
    made = {**blank, **fields, "version": version}
    return Record(tenant.make_id(resource), made, created_at, updated_at)


def _pipeline(key: str, name: str, stages: tuple[str, ...], *, is_default: bool) -> Fields:
    made = [
        {"key": stage, "label": _label(stage), "ordinal": place, "type": _stage_type(stage)}
        for place, stage in enumerate(stages)
    ]
    return {"key": key, "name": name, "is_default": is_default, "stages": made}


def _stage_type(key: str) -> str:
    return key if key in ("won", "lost") else "open"


def _value(group: str, value: str) -> Fields:
    return {"group": group, "value": value, "label": _label(value)}


def _label(key: str) -> str:
    return key.replace("_", " ").capitalize()
