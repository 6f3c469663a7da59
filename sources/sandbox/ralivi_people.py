"""The made-up people as Ralivi spells them: one name field, stage ids, tasks apart from activities."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sources.sandbox.people import Activity, Deal, Person, World, company_name, person_email
from sources.sandbox.ralivi_rules import CUSTOM_STAGE, ODDS, RaliviSwitches, stamp
from sources.sandbox.store import Tenant
from sources.sandbox.table import Record

Ids: TypeAlias = dict[int, str]

_TEAM = (("u_2kd", "Anneke Vos"), ("u_9qa", "Sam Adeyemi"), ("u_m41", "Ida Lind"))
_STATUS = ("active", "active", "inactive", "Prospect", None)
_TASK_STATUS = ("open", "in-progress", "done")
_PRIORITY = ("high", "medium", "low", None)
_STAGE = {"won": "closed-won"}


def fill(tenant: Tenant, world: World, switches: RaliviSwitches) -> None:
    """Load contacts, deals, tasks, activities and the account's own organisation."""
    contacts: Ids = {}
    deals: Ids = {}
    tenant.load("organizations", [_organization(tenant, world.now)])
    tenant.load("contacts", list(_contacts(tenant, world, contacts, switches)))
    tenant.load("deals", list(_deals(tenant, world, contacts, deals, switches)))
    things = list(_things(tenant, world, contacts, deals, _members(switches)))
    for resource in ("tasks", "activities"):
        tenant.load(resource, [record for kind, record in things if kind == resource])


def _organization(tenant: Tenant, now: datetime) -> Record:
    fields = {"name": "Harbour & Sons", "website": None, "industry": "Manufacturing"}
    at = now.replace(microsecond=0) - timedelta(days=800)
    return Record(tenant.make_id("organizations"), fields, at, at)


def _contacts(tenant: Tenant, world: World, ids: Ids, switches: RaliviSwitches) -> Iterator[Record]:
    for person in world.people():
        ids[person.number] = id = tenant.make_id("contacts")
        fields = {
            **tenant.blanks["contacts"],
            "name": f"{person.first_name} {person.last_name or ''}".removesuffix(" "),
            "email": _email(person, world, switches),
            "phone": person.phone,
            "company": None if person.company is None else company_name(person.company),
            "status": _STATUS[person.number % len(_STATUS)],
            "tags": person.tags,
            "summary": person.notes,
            "lastTouchedAt": stamp(person.updated_at) if person.number % 2 else None,
        }
        yield Record(id, fields, person.created_at, _in_ms(person.updated_at, person))


def _email(person: Person, world: World, switches: RaliviSwitches) -> str:
    is_twin = switches.emails == "repeated" and person.number % 10 == 7 and person.number - 1 in world.numbers
    return person_email(person.number - 1).upper() if is_twin else person.email


def _deals(
    tenant: Tenant, world: World, contacts: Ids, ids: Ids, switches: RaliviSwitches
) -> Iterator[Record]:
    for deal in world.deals():
        ids[deal.number] = id = tenant.make_id("deals")
        stage = _stage(deal, switches)
        is_open = stage not in ("closed-won", switches.lost_stage)
        fields = {
            **tenant.blanks["deals"],
            "title": deal.title,
            "stage": stage,
            "amount": _major(deal.cents),
            "probability": ODDS.get(stage, 0),
            "contactId": contacts[deal.person],
            "lastActivityAt": stamp(deal.updated_at) if deal.number % 8 == 0 else None,
            "nextActionDueAt": stamp(deal.closes_on) if is_open else None,
        }
        yield Record(id, fields, deal.created_at, _in_ms(deal.updated_at, deal))


def _stage(deal: Deal, switches: RaliviSwitches) -> str:
    if deal.stage == "lost":
        return switches.lost_stage
    if deal.stage == "negotiation" and deal.number % 48 == 12:
        return CUSTOM_STAGE
    return _STAGE.get(deal.stage, deal.stage)


def _things(
    tenant: Tenant, world: World, contacts: Ids, deals: Ids, member: Callable[[int], str]
) -> Iterator[tuple[str, Record]]:
    """Yield what happened with people, tasks among it, each with its resource."""
    for activity in world.activities():
        resource, make = ("tasks", _task) if activity.kind == "task" else ("activities", _activity)
        fields = {
            **tenant.blanks[resource],
            **make(activity, member),
            "contactId": contacts[activity.person],
            "dealId": None if activity.deal is None else deals[activity.deal],
        }
        at = activity.occurred_at
        yield resource, Record(tenant.make_id(resource), fields, at, at)


def _task(activity: Activity, member: Callable[[int], str]) -> dict[str, Any]:
    due = activity.occurred_at + timedelta(days=activity.minutes % 30)
    return {
        "title": activity.subject,
        "description": activity.body,
        "status": _TASK_STATUS[activity.minutes % len(_TASK_STATUS)],
        "priority": _PRIORITY[activity.number % len(_PRIORITY)],
        "dueDate": due.date().isoformat() if activity.minutes % 7 else None,
        "assignedTo": member(activity.number),
    }


def _activity(activity: Activity, member: Callable[[int], str]) -> dict[str, Any]:
    return {
        "type": activity.kind,
        "subject": activity.subject,
        "body": activity.body,
        "createdBy": member(activity.number),
    }


def _members(switches: RaliviSwitches) -> Callable[[int], str]:
    """Return how a member of the team is named, by any number."""
    spelt = [
        {"id": id, "name": name, "email": f"{name.split()[0].lower()}@harbour.example"}[switches.people]
        for id, name in _TEAM
    ]
    return lambda number: spelt[number % len(spelt)]


def _major(cents: int | None) -> float | None:
    if cents is None:
        return None
    return cents / 100 if cents % 100 else cents // 100


def _in_ms(moment: datetime, thing: Person | Deal) -> datetime:
    """Return an update's moment with milliseconds; what was never touched keeps its own."""
    if moment == thing.created_at:
        return moment
    return moment + timedelta(milliseconds=thing.number * 37 % 1000)
