"""The made-up people as Rally spells them, in one default pipeline."""

from collections.abc import Iterator
from typing import Any

from sources.sandbox.people import STAGES, Deal, World
from sources.sandbox.rally_rules import stamp
from sources.sandbox.store import Tenant
from sources.sandbox.table import Record

PIPELINE = (
    ("Lead", 10),
    ("Qualified", 25),
    ("Proposal", 50),
    ("Negotiation", 75),
    ("Closed Won", 100),
    ("Closed Lost", 0),
)
_ACTIVITY = {"email": "note"}


def fill(tenant: Tenant, world: World) -> None:
    """Load the default pipeline, then companies, contacts, deals and activities."""
    stages = _pipeline(tenant, world)
    companies: dict[int, str] = {}
    contacts: dict[int, str] = {}
    deals: dict[int, str] = {}
    tenant.load("companies", list(_companies(tenant, world, companies)))
    tenant.load("contacts", list(_contacts(tenant, world, companies, contacts)))
    tenant.load("deals", list(_deals(tenant, world, stages, (companies, contacts, deals))))
    ids = {"companyId": companies, "contactId": contacts, "dealId": deals}
    tenant.load("activities", list(_activities(tenant, world, ids)))


def _pipeline(tenant: Tenant, world: World) -> list[Record]:
    at = world.now
    pipeline = Record(tenant.make_id("pipelines"), {"name": "Sales"}, at, at)
    tenant.load("pipelines", [pipeline])
    stages = []
    for position, (name, probability) in enumerate(PIPELINE):
        fields = {"pipelineId": pipeline.id, "name": name, "probability": probability, "position": position}
        stages.append(Record(tenant.make_id("stages"), fields, at, at))
    tenant.load("stages", stages)
    return stages


def _companies(tenant: Tenant, world: World, ids: dict[int, str]) -> Iterator[Record]:
    for company in world.companies():
        ids[company.number] = id = tenant.make_id("companies")
        fields = {
            **tenant.blanks["companies"],
            "name": company.name,
            "domain": company.domain,
            "industry": company.industry,
            "employeeCount": company.employees,
            "annualRevenue": company.revenue + 0.25,
            "website": f"https://{company.domain}",
            "city": company.city,
            "country": company.country,
            "tags": company.tags,
            "notes": company.notes,
        }
        yield Record(id, fields, company.created_at, company.updated_at)


def _contacts(
    tenant: Tenant, world: World, companies: dict[int, str], ids: dict[int, str]
) -> Iterator[Record]:
    for person in world.people():
        ids[person.number] = id = tenant.make_id("contacts")
        fields = {
            **tenant.blanks["contacts"],
            "firstName": person.first_name,
            "lastName": person.last_name or "Unknown",
            "email": person.email.lower(),
            "phone": person.phone,
            "mobile": person.mobile,
            "title": person.title,
            "twitterHandle": f"@p{person.number}" if person.number % 3 == 0 else None,
            "city": person.city,
            "country": person.country,
            "companyId": None if person.company is None else companies[person.company],
            "lifecycleStage": person.stage,
            "leadSource": person.source,
            "leadScore": person.score,
            "tags": person.tag_text,
            "notes": person.notes,
            "isUnsubscribed": person.number % 17 == 0,
            "lastContactedAt": stamp(person.updated_at) if person.number % 2 else None,
        }
        yield Record(id, fields, person.created_at, person.updated_at)


def _deals(
    tenant: Tenant, world: World, stages: list[Record], ids: tuple[dict[int, str], ...]
) -> Iterator[Record]:
    companies, contacts, deals = ids
    for deal in world.deals():
        deals[deal.number] = id = tenant.make_id("deals")
        fields = {
            **tenant.blanks["deals"],
            **_stage_of(deal, stages),
            "name": deal.title,
            "contactId": contacts[deal.person],
            "companyId": None if deal.company is None else companies[deal.company],
            "value": None if deal.cents is None else deal.cents / 100,
            "currency": deal.currency,
            "expectedCloseDate": stamp(deal.closes_on),
        }
        yield Record(id, fields, deal.created_at, deal.updated_at)


def _stage_of(deal: Deal, stages: list[Record]) -> dict[str, Any]:
    stage = stages[STAGES.index(deal.stage)]
    is_closed = deal.stage in ("won", "lost")
    return {
        "pipelineId": stage.fields["pipelineId"],
        "stageId": stage.id,
        "probability": stage.fields["probability"],
        "status": deal.stage if is_closed else "open",
        "actualCloseDate": stamp(deal.updated_at) if is_closed else None,
        "lastActivityAt": stamp(deal.updated_at) if deal.number % 8 == 0 else None,
    }


def _activities(tenant: Tenant, world: World, ids: dict[str, dict[int, str]]) -> Iterator[Record]:
    for activity in world.activities():
        at, kind = activity.occurred_at, _ACTIVITY.get(activity.kind, activity.kind)
        fields = {
            **tenant.blanks["activities"],
            "activityType": kind,
            "subject": activity.subject,
            "body": activity.body,
            "contactId": ids["contactId"][activity.person],
            "dealId": None if activity.deal is None else ids["dealId"][activity.deal],
            "companyId": None if activity.company is None else ids["companyId"][activity.company],
            "scheduledAt": stamp(at),
            "status": "pending" if activity.number % 5 == 0 else "completed",
            **_extras(kind, activity.minutes, stamp(at)),
        }
        yield Record(tenant.make_id("activities"), fields, at, at)


def _extras(kind: str, minutes: int, at: str) -> dict[str, Any]:
    if kind == "call":
        outcome = ("connected", "voicemail", "no_answer")[minutes % 3]
        return {"callDirection": "outbound", "callOutcome": outcome, "callDurationSeconds": minutes * 60}
    if kind == "meeting":
        return {"durationMinutes": minutes, "location": "Room 2"}
    return {"dueDate": at, "priority": "normal"} if kind == "task" else {}
