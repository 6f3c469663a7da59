"""The made-up people as Reevo keeps them, with users, mailboxes, sequences and custom fields."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sources.sandbox.people import Activity, Company, Deal, Person, World
from sources.sandbox.reevo_rules import CLOSED_REASONS, PIPELINE, opportunity_state
from sources.sandbox.reevo_state import Workspace
from sources.sandbox.table import Fields, Record

USERS = (
    ("sam@ourfirm.example", "Sam", "Ibáñez"),
    ("dana@ourfirm.example", "Dana", "Roth"),
    ("kit@ourfirm.example", "Kit", None),
)
_SEQUENCES = ("Warm welcome", "After the trade show")
_FIELDS: tuple[dict[str, Any], ...] = (
    {"record_type": "contact", "api_name": "cus_field__Region", "value_type": "string"},
    {"record_type": "contact", "api_name": "cus_field__Score", "value_type": "number"},
    {"record_type": "contact", "api_name": "cus_field__Topics", "value_type": "select", "is_array": True},
    {"record_type": "contact", "api_name": "cus_field__Ref", "value_type": "string", "is_unique": True},
    {"record_type": "account", "api_name": "cus_field__Segment", "value_type": "string"},
    {"record_type": "account", "api_name": "cus_field__Spend", "value_type": "currency"},
    {"record_type": "opportunity", "api_name": "cus_field__Risk", "value_type": "select"},
    {"record_type": "opportunity", "api_name": "cus_field__RenewsOn", "value_type": "date"},
    {"record_type": "opportunity", "api_name": "cus_field__ExternalId", "value_type": "string"},
)
_OPTIONS = {"cus_field__Topics": ["emea", "priority", "newsletter"], "cus_field__Risk": ["low", "medium"]}
_STAGES = ("target", "prospect", "customer", "former")
_CATEGORY = {"call": "CALL", "meeting": "EVENT", "note": "OTHER", "email": "TEXT", "task": "OTHER"}


def fill(space: Workspace, world: World) -> None:
    """Load users, custom fields, accounts, contacts, opportunities, tasks, notes, meetings and activities."""
    users = _fixed(space, world)
    accounts: dict[int, str] = {}
    contacts: dict[int, str] = {}
    deals: dict[int, str] = {}
    space.load("accounts", list(_accounts(space, world, users, accounts)))
    space.load("contacts", list(_contacts(space, world, users, contacts)))
    space.load("opportunities", list(_opportunities(space, world, users, (accounts, contacts, deals))))
    space.load("edges", list(_edges(space, world, (accounts, contacts, deals))))
    _load_talk(space, world, users, (accounts, contacts, deals))
    at = world.now.replace(microsecond=0)
    sites: list[Fields] = [
        {"display_name": "Leeds yard", "city": "Leeds"},
        {"display_name": "Zürich", "city": None},
    ]
    space.load("sites", [_record(space, "sites", fields, at, at) for fields in sites])


def _fixed(space: Workspace, world: World) -> list[str]:
    at = world.now.replace(microsecond=0) - timedelta(days=900)
    names = ("email", "first_name", "last_name")
    users = [_record(space, "users", dict(zip(names, user, strict=True)), at, at) for user in USERS]
    space.load("users", users)
    boxes = [{"email": user.fields["email"], "owner_user_id": user.id} for user in users[:2]]
    space.load("mailboxes", [_record(space, "mailboxes", box, at, at) for box in boxes])
    sequences = [{"display_name": name} for name in _SEQUENCES]
    space.load("sequences", [_record(space, "sequences", row, at, at) for row in sequences])
    space.load("fields", [_record(space, "fields", _definition(row), at, at) for row in _FIELDS])
    return [user.id for user in users]


def _definition(row: Fields) -> Fields:
    name = row["api_name"].removeprefix("cus_field__")
    return {**row, "display_name": name, "options": _OPTIONS.get(row["api_name"], [])}


def _accounts(space: Workspace, world: World, users: list[str], ids: dict[int, str]) -> Iterator[Record]:
    for company in world.companies():
        fields = _account(company, users)
        record = _record(space, "accounts", fields, company.created_at, company.updated_at)
        ids[company.number] = record.id
        yield record


def _account(company: Company, users: list[str]) -> Fields:
    # One in ten has no domain, so that a search for a dot misses it; one has two.
    domains = [] if company.number % 10 == 7 else [{"domain_name": company.domain, "is_primary": True}]
    if company.number % 10 == 2:
        domains.append({"domain_name": f"old-{company.domain}", "is_primary": False})
    return {
        "display_name": company.name,
        "description": company.notes,
        "current_stage_id": _STAGES[company.number % 4],
        "domains": domains,
        "official_website": f"https://{company.domain}" if domains else None,
        "linkedin_url": f"https://social.example/company/{company.number}" if company.number % 3 else None,
        "websites": [f"https://{row['domain_name']}" for row in domains],
        "address": {"city": company.city, "country": company.country},
        "estimated_annual_revenue": f"{company.revenue}.25" if company.number % 5 else None,
        "owner_user_id": _owner(users, company.number),
        "cus_field__Segment": company.industry if company.number % 2 else None,
        "cus_field__Spend": str(company.employees) if company.number % 3 else None,
    }


def _contacts(space: Workspace, world: World, users: list[str], ids: dict[int, str]) -> Iterator[Record]:
    for person in world.people():
        fields = _contact(space, person, users)
        record = _record(space, "contacts", fields, person.created_at, person.updated_at)
        ids[person.number] = record.id
        yield record


def _contact(space: Workspace, person: Person, users: list[str]) -> Fields:
    emails = [space.item("email", person.email, is_primary=True, labels=["WORK"])]
    if person.number % 10 == 4:
        second = f"private.{person.number}@mail.example"
        emails.append(space.item("email", second, is_primary=False, labels=["PERSONAL"]))
    given = [(person.phone, "WORK"), (person.mobile, "MOBILE")]
    numbers = [(text, label) for text, label in given if text]
    phones = [
        space.item("phone_number", text, is_primary=not place, labels=[label])
        for place, (text, label) in enumerate(numbers)
    ]
    topics = _OPTIONS["cus_field__Topics"]
    return {
        "first_name": person.first_name,
        "last_name": person.last_name,
        "title": person.title,
        "stage": person.stage,
        "primary_email": person.email,
        "contact_emails": emails,
        "primary_phone_number": phones[0]["phone_number"] if phones else None,
        "contact_phone_numbers": phones,
        "owner_user_id": _owner(users, person.number),
        "participant_user_id_list": users[:2] if person.number % 8 == 0 else [],
        "address": {"city": person.city, "country": person.country},
        "cus_field__Region": person.country,
        "cus_field__Score": person.score if person.score is None or person.number % 3 else person.score + 0.5,
        "cus_field__Topics": [tag for tag in person.tags if tag in topics],
    }


def _opportunities(
    space: Workspace, world: World, users: list[str], ids: tuple[dict[int, str], ...]
) -> Iterator[Record]:
    accounts, contacts, deals = ids
    for deal in world.deals():
        fields = _opportunity(space, deal, accounts)
        fields["owner_user_id"] = _owner(users, deal.number)
        person = space.contacts.records[contacts[deal.person]]
        fields["primary_contact_email"] = person.fields["primary_email"]
        record = _record(space, "opportunities", fields, deal.created_at, deal.updated_at)
        deals[deal.number] = record.id
        yield record


def _opportunity(space: Workspace, deal: Deal, accounts: dict[int, str]) -> Fields:
    state = opportunity_state(deal.stage)
    is_open = state["outcome"] == "OPEN"
    return {
        "display_name": deal.title,
        "amount": None if deal.cents is None else f"{deal.cents // 100}.{deal.cents % 100:02d}",
        "stage": deal.stage,
        **state,
        "account_id": None if deal.company is None else accounts[deal.company],
        "pipeline_name": PIPELINE,
        "next_step_details": "Send the offer" if is_open and deal.number % 8 == 0 else None,
        "next_step_due_at": space.stamp(deal.closes_on) if is_open else None,
        "closed_at": None if is_open else space.stamp(deal.updated_at),
        "closed_reason_names": [] if is_open else [CLOSED_REASONS[deal.number % 4]],
        "stage_last_shifted_at": space.stamp(deal.updated_at),
        "cus_field__Risk": _OPTIONS["cus_field__Risk"][deal.number % 2],
        "cus_field__RenewsOn": deal.closes_on.date().isoformat(),
    }


def _edges(space: Workspace, world: World, ids: tuple[dict[int, str], ...]) -> Iterator[Record]:
    accounts, contacts, deals = ids
    for person in world.people():
        if person.company is not None:
            ends = (contacts[person.number], accounts[person.company])
            yield _edge(space, "contact_account", ends, person.title, person.created_at)
    for deal in world.deals():
        ends = (contacts[deal.person], deals[deal.number])
        yield _edge(space, "contact_opportunity", ends, "Decision maker", deal.created_at)


def _edge(space: Workspace, kind: str, ends: tuple[str, str], role: str | None, at: datetime) -> Record:
    fields = {"kind": kind, "from_id": ends[0], "to_id": ends[1], "role": role, "is_primary": True}
    return _record(space, "edges", fields, at, at)


def _load_talk(space: Workspace, world: World, users: list[str], ids: tuple[dict[int, str], ...]) -> None:
    made: dict[str, list[Record]] = {"activities": [], "tasks": [], "notes": [], "meetings": []}
    for talk in world.activities():
        at, owner = talk.occurred_at, {"owner_user_id": _owner(users, talk.person)}
        activity = _activity(space, talk, ids) | owner
        made["activities"].append(_record(space, "activities", activity, at, at))
        table, fields = _beside(space, talk)
        if table:
            made[table].append(_record(space, table, fields | owner, at, at))
    for table, records in made.items():
        space.load(table, records)


def _activity(space: Workspace, talk: Activity, ids: tuple[dict[int, str], ...]) -> Fields:
    accounts, contacts, deals = ids
    at, category = space.stamp(talk.occurred_at), _CATEGORY[talk.kind]
    texts = {"subject": talk.subject, "description": talk.body or ""}
    return {
        "type": "MANUAL",
        "sub_type": category,
        "status": "COMPLETED",
        "display_name": talk.subject,
        "metadata": {**texts, "activity_time": at, "category": category},
        "contact_ids": [contacts[talk.person]],
        "account_id": None if talk.company is None else accounts[talk.company],
        "opportunity_id": None if talk.deal is None else deals[talk.deal],
    }


def _beside(space: Workspace, talk: Activity) -> tuple[str, Fields]:
    """Return the table and the fields of what a talk leaves beside its activity; no table for some."""
    at = talk.occurred_at
    if talk.kind == "task":
        due_at = space.stamp(at + timedelta(days=3))
        return "tasks", {"title": talk.subject, "note": talk.body, "due_at": due_at}
    if talk.kind == "note":
        return "notes", {"title": talk.subject if at.day % 2 else None, "note_html": f"<p>{talk.body}</p>"}
    if talk.kind == "meeting":
        ends_at = space.stamp(at + timedelta(minutes=talk.minutes))
        return "meetings", {"title": talk.subject, "starts_at": space.stamp(at), "ends_at": ends_at}
    return "", {}


def _owner(users: list[str], number: int) -> str | None:
    """Return who owns a thing; one in seven has no owner."""
    return None if number % 7 == 6 else users[number % len(users)]


def _record(
    space: Workspace, table: str, fields: Fields, created_at: datetime, updated_at: datetime
) -> Record:
    return Record(space.make_id(table), {**space.blanks[table], **fields}, created_at, updated_at)
