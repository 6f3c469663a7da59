"""The made-up people as Vivre spells them: one name, company as text, four stages, money in paise."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from sources.sandbox.people import World, company_name
from sources.sandbox.store import Tenant
from sources.sandbox.table import Record
from sources.sandbox.vivre_rules import stamp

Ids: TypeAlias = dict[int, str]

_CONTACT_STAGE = {
    "lead": "new",
    "qualified": "qualified",
    "opportunity": "proposal",
    "customer": "won",
    "evangelist": "won",
}
# There is no lost stage: such deals stay where they were.
_DEAL_STAGE = {"lead": "new", "negotiation": "proposal", "lost": "qualified"}


def fill(tenant: Tenant, world: World) -> None:
    """Load contacts, deals and activities."""
    contacts: Ids = {}
    deals: Ids = {}
    tenant.load("contacts", list(_contacts(tenant, world, contacts)))
    tenant.load("deals", list(_deals(tenant, world, contacts, deals)))
    tenant.load("activities", list(_activities(tenant, world, contacts, deals)))


def _contacts(tenant: Tenant, world: World, ids: Ids) -> Iterator[Record]:
    for person in world.people():
        ids[person.number] = id = tenant.make_id("contacts")
        fields = {
            **tenant.blanks["contacts"],
            "name": f"{person.first_name} {person.last_name or ''}".removesuffix(" "),
            "email": person.email,
            "company": None if person.company is None else company_name(person.company),
            "ai_score": person.score,
            "stage": _CONTACT_STAGE[person.stage],
            "tags": person.tags,
            "phone": person.phone,
            "source": person.source,
        }
        yield Record(id, fields, person.created_at, person.updated_at)


def _deals(tenant: Tenant, world: World, contacts: Ids, ids: Ids) -> Iterator[Record]:
    for deal in world.deals():
        ids[deal.number] = id = tenant.make_id("deals")
        stage = _DEAL_STAGE.get(deal.stage, deal.stage)
        fields: dict[str, Any] = {
            **tenant.blanks["deals"],
            "contact_id": contacts[deal.person],
            "title": deal.title,
            "value": deal.cents,
            "stage": stage,
            "closed_at": stamp(deal.updated_at) if stage == "won" else None,
        }
        yield Record(id, fields, deal.created_at, deal.updated_at)


def _activities(tenant: Tenant, world: World, contacts: Ids, deals: Ids) -> Iterator[Record]:
    for activity in world.activities():
        fields = {
            **tenant.blanks["activities"],
            "contact_id": contacts[activity.person],
            "deal_id": None if activity.deal is None else deals[activity.deal],
            "type": "note" if activity.kind == "task" else activity.kind,
            "note": activity.body,
        }
        at = activity.occurred_at
        yield Record(tenant.make_id("activities"), fields, at, at)
