"""What both of Reevo's contracts share: the attributes of each record type, stages, permissions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5


@dataclass(frozen=True, slots=True)
class Attribute:
    """Describe one attribute of a record type."""

    value_type: str
    is_array: bool = False
    target: str = ""
    is_creatable: bool = True
    is_updatable: bool = True
    is_required: bool = False
    is_unique: bool = False
    is_custom: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relationship:
    """Describe one end of a relationship: edges of `kind` lead to records of `target`."""

    kind: str
    target: str
    is_typed: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """Describe a stage of contacts, accounts or opportunities."""

    api_name: str
    display_value: str
    color: str = "#3355AA"
    closing_probability: str | None = None
    expected_days: int | None = None

    @property
    def id(self) -> str:
        return fixed_id(f"stage {self.api_name}")


def fixed_id(text: str) -> str:
    """Return the UUID of something that every workspace has."""
    return str(uuid5(NAMESPACE_URL, f"reevo {text}"))


CUSTOM_OBJECT = "cus_object__Site"
TABLE_OF = {
    "contact": "contacts",
    "account": "accounts",
    "opportunity": "opportunities",
    "task": "tasks",
    "note": "notes",
    "meeting": "meetings",
    "activity": "activities",
    CUSTOM_OBJECT: "sites",
}
TYPE_OF = {table: record_type for record_type, table in TABLE_OF.items()} | {"users": "user"}
PIPELINE = "Sales"
CLOSED_REASONS = ("Good fit", "Price", "No decision", "Competitor")
FREE_MAIL = frozenset({"gmail.com", "outlook.com", "yahoo.com", "mail.example"})
LABELS = frozenset({"PERSONAL", "WORK", "MOBILE"})

_WON, _LOST = ("won", "Closed Won", "#228833"), ("lost", "Closed Lost", "#AA3333")
STAGES: dict[str, tuple[Stage, ...]] = {
    "contact_stage": tuple(
        Stage(name, name.title()) for name in ("lead", "qualified", "opportunity", "customer", "evangelist")
    ),
    "account_stage": tuple(
        Stage(name, name.title()) for name in ("target", "prospect", "customer", "former")
    ),
    "opportunity_stage": (
        Stage("lead", "Lead", closing_probability="10", expected_days=14),
        Stage("qualified", "Qualified", closing_probability="25", expected_days=14),
        Stage("proposal", "Proposal", closing_probability="50", expected_days=21),
        Stage("negotiation", "Negotiation", closing_probability="75", expected_days=10),
        Stage(*_WON, closing_probability="100", expected_days=0),
        Stage(*_LOST, closing_probability="0", expected_days=0),
    ),
}
TASK_WORDS = {
    "status": ("OPEN", "IN_PROGRESS", "BLOCKED", "COMPLETED", "CLOSED"),
    "priority": ("URGENT", "HIGH", "MEDIUM", "LOW"),
    "type": tuple(
        "ACTION_ITEM LINKEDIN_MESSAGE REMINDER SCHEDULING EMAIL VOICE_CALL LINKEDIN_CONNECT_REQUEST"
        " SMS_MESSAGE CUSTOM_TASK".split()
    ),
}
CATEGORIES = tuple("TEXT LINKEDIN SOCIAL_MEDIA EVENT CONFERENCE WEBINAR CALL OTHER".split())


def _kept(value_type: str, *, is_array: bool = False, target: str = "") -> Attribute:
    """Return an attribute that the CRM keeps by itself."""
    return Attribute(value_type, is_array, target, is_creatable=False, is_updatable=False)


_TEXT, _URL, _TIME = Attribute("string"), Attribute("string"), Attribute("timestamp")
_LONG = Attribute("long_text")
_USER = Attribute("record_reference", target="user")
_USERS = Attribute("record_reference", is_array=True, target="user")
_ACCOUNT = Attribute("record_reference", target="account")
_COMMON = {
    "id": _kept("uuid"),
    "organization_id": _kept("uuid"),
    "created_at": _kept("timestamp"),
    "updated_at": _kept("timestamp"),
}
_MADE_BY = _kept("record_reference", target="user")
_ENUM_KEPT = _kept("enum")
_LINKS = dict.fromkeys(("linkedin_url", "x_url", "facebook_url", "zoominfo_url"), _URL)

ATTRIBUTES: dict[str, dict[str, Attribute]] = {
    "contact": {
        **_COMMON,
        "display_name": _kept("string"),
        **dict.fromkeys(("first_name", "last_name", "middle_name", "title", "department"), _TEXT),
        "stage": Attribute("contact_stage"),
        "primary_email": Attribute("email"),
        "primary_phone_number": Attribute("phone_number"),
        "contact_emails": Attribute("contact_email", is_array=True, is_unique=True),
        "contact_phone_numbers": Attribute("contact_phone_number", is_array=True),
        "owner_user_id": _USER,
        "created_by_user_id": _MADE_BY,
        "participant_user_id_list": _USERS,
        "sms_consent": Attribute("boolean"),
        "address": Attribute("address"),
        **_LINKS,
    },
    "account": {
        **_COMMON,
        "display_name": Attribute("string", is_required=True),
        "description": _LONG,
        "current_stage_id": Attribute("account_stage"),
        "domains": _kept("account_domain", is_array=True),
        "official_website": _URL,
        **_LINKS,
        "websites": Attribute("url", is_array=True),
        "address": Attribute("address"),
        "estimated_annual_revenue": Attribute("currency"),
        "owner_user_id": _USER,
        "created_by_user_id": _MADE_BY,
    },
    "opportunity": {
        **_COMMON,
        "display_name": Attribute("string", is_required=True),
        "amount": Attribute("currency"),
        "stage": Attribute("opportunity_stage", is_required=True),
        "account_id": Attribute("record_reference", target="account", is_required=True),
        "owner_user_id": _USER,
        "created_by_user_id": _MADE_BY,
        "participant_user_id_list": _USERS,
        "next_step_details": _LONG,
        "next_step_due_at": _TIME,
        "next_meeting_date": _TIME,
        "status": _ENUM_KEPT,
        "outcome": _ENUM_KEPT,
        "closed_at": _kept("timestamp"),
        "stage_last_shifted_at": _kept("timestamp"),
    },
    "task": {
        **_COMMON,
        "title": Attribute("string", is_required=True),
        **{name: Attribute("enum", options=words) for name, words in TASK_WORDS.items()},
        "source_type": _ENUM_KEPT,
        "owner_user_id": _USER,
        "participant_user_id_list": _USERS,
        "note": _LONG,
        "due_at": _TIME,
    },
    "note": {
        **_COMMON,
        "note_html": Attribute("rich_text", is_required=True),
        "title": _TEXT,
        "is_private": Attribute("boolean"),
        "owner_user_id": _USER,
        "owner_team_id": Attribute("uuid"),
        "participant_user_id_list": _USERS,
        "created_by_user_id": _MADE_BY,
    },
    "meeting": {
        **_COMMON,
        "title": _kept("string"),
        "starts_at": _kept("timestamp"),
        "ends_at": _kept("timestamp"),
        "owner_user_id": _MADE_BY,
    },
    "activity": {
        "type": _ENUM_KEPT,
        "sub_type": _ENUM_KEPT,
        "status": _ENUM_KEPT,
        "priority": _ENUM_KEPT,
        "display_name": _kept("string"),
        "badge_status": _kept("string"),
        "location": _kept("string"),
        "owner_user_id": _MADE_BY,
        "ended_at": _kept("timestamp"),
    },
    CUSTOM_OBJECT: {
        **_COMMON,
        "display_name": Attribute("string", is_required=True),
        "city": _TEXT,
        "account_id": _ACCOUNT,
    },
}
# What v1 takes or shows beside the attributes, kept with the record.
ALSO_KEPT: dict[str, dict[str, Any]] = {
    "contacts": {},
    "accounts": {},
    "opportunities": {
        "pipeline_name": PIPELINE,
        "primary_contact_email": None,
        "additional_contact_emails": [],
        "closed_reason_names": [],
        "closed_reason_custom_detail": None,
    },
    "tasks": {"account_id": None, "contact_emails": None, "opportunity_name": None},
    "activities": {
        "metadata": None,
        "account_id": None,
        "contact_ids": [],
        "opportunity_id": None,
        "sequence_id": None,
    },
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "contacts": {"stage": "lead", "sms_consent": False},
    "accounts": {"current_stage_id": "target"},
    "opportunities": {"stage": "lead"},
    "tasks": {"status": "OPEN", "priority": "MEDIUM", "type": "REMINDER", "source_type": "MANUAL"},
    "notes": {"is_private": False},
}
OTHERS: dict[str, dict[str, Any]] = {
    "users": {"email": None, "first_name": None, "last_name": None},
    "mailboxes": {"email": None, "owner_user_id": None},
    "sequences": {"display_name": None},
    "enrollments": {"contact_id": None, "sequence_id": None, "mailbox_id": None},
    "fields": {
        "record_type": None,
        "api_name": None,
        "display_name": None,
        "value_type": "string",
        "is_array": False,
        "is_unique": False,
        "is_required": False,
        "options": [],
    },
    "edges": {"kind": None, "from_id": None, "to_id": None, "role": None, "is_primary": False},
}
_CONTACT_ACCOUNT, _CONTACT_OPPORTUNITY = "contact_account", "contact_opportunity"
RELATIONSHIPS: dict[str, dict[str, Relationship]] = {
    "contact": {
        "accounts": Relationship(_CONTACT_ACCOUNT, "account", is_typed=True),
        "opportunities": Relationship(_CONTACT_OPPORTUNITY, "opportunity", is_typed=True),
    },
    "account": {"contacts": Relationship(_CONTACT_ACCOUNT, "contact", is_typed=True)},
    "opportunity": {"contacts": Relationship(_CONTACT_OPPORTUNITY, "contact", is_typed=True)},
    "task": {f"{name}s": Relationship(f"task_{name}", name) for name in ("contact", "account")},
    "note": {f"{name}s": Relationship(f"note_{name}", name) for name in ("contact", "account")},
    "meeting": {"contacts": Relationship("meeting_contact", "contact")},
    "activity": {},
    CUSTOM_OBJECT: {"contacts": Relationship("site_contact", "contact")},
}
WRITE_ACTIONS: dict[str, frozenset[str]] = {
    record_type: frozenset({"create", "patch", "archive"}) for record_type in TABLE_OF
} | {"meeting": frozenset(), "activity": frozenset({"create"})}

_BOTH = ("accounts", "contacts", "opportunities", "tasks", "sequence_enrollments", "webhooks")
PERMISSIONS = frozenset(
    {f"{name}.{act}" for name in _BOTH for act in ("read", "write")}
    | {"activities.write", "users.read", "mailboxes.read"}
)


def lacking(held: frozenset[str], needed: tuple[str, ...]) -> list[str]:
    """Return the permissions a key lacks; write implies read on the same resource."""
    implied = {f"{scope.removesuffix('.write')}.read" for scope in held if scope.endswith(".write")}
    return [scope for scope in needed if scope not in held | implied]


def blanks() -> dict[str, dict[str, Any]]:
    """Return the fields a new record of each resource starts from."""
    made = {
        table: {
            **{name: _blank(held) for name, held in ATTRIBUTES[kind].items() if name not in _COMMON},
            **ALSO_KEPT.get(table, {}),
            **DEFAULTS.get(table, {}),
        }
        for kind, table in TABLE_OF.items()
    }
    return made | OTHERS


def stage_named(value_type: str, text: Any) -> Stage | None:
    """Return the stage with an id, an API name or a display value, or None."""
    stages = STAGES[value_type]
    return next((stage for stage in stages if text in (stage.id, stage.api_name, stage.display_value)), None)


def opportunity_state(stage: str) -> dict[str, str]:
    """Return the read-only status and outcome that a stage implies."""
    outcome = {"won": "WON", "lost": "LOST"}.get(stage, "OPEN")
    return {"status": "PROSPECT" if stage in ("lead", "qualified") else "DEAL", "outcome": outcome}


def domain_of(text: Any) -> str | None:
    """Return the domain in a website or a domain as people type it, or None."""
    if not isinstance(text, str):
        return None
    host = text.strip().lower().partition("://")[2] or text.strip().lower()
    return host.partition("/")[0].removeprefix("www.") or None


def primary(items: Any, name: str) -> Any:
    """Return what the primary item of a list holds, else the first item's, else None."""
    rows: list[Mapping[str, Any]] = items or []
    return next((row[name] for row in rows if row.get("is_primary")), rows[0][name] if rows else None)


def _blank(attribute: Attribute) -> Any:
    return [] if attribute.is_array else None
