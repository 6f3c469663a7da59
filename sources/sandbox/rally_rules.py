"""What Rally accepts: its switches, the fields of each record and how values are judged and kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sources.sandbox.echo import KEPT_AS_SENT, Echo
from sources.sandbox.exchange import Refusal
from sources.sandbox.store import Tenant


@dataclass(frozen=True, slots=True)
class RallySwitches:
    """Hold an answer for everything Rally's pages leave open; A-numbers are those of the vendor sheet."""

    # Lists
    default_limit: int = 50  # A2
    max_limit: int = 200  # A2
    over_limit: Literal["capped", "refused"] = "capped"  # A2
    list_order: Literal["created", "updated"] = "created"  # A3
    since_inclusive: bool = False  # A4
    fields_always: tuple[str, ...] = ()  # A5
    max_offset: int | None = None  # A28
    list_lag_s: float = 0.0
    fraction_digits: int = 0
    has_deal_stamps: bool = True  # A16
    has_activity_stamps: bool = True  # A16
    decimals: Literal["number", "string"] = "number"  # A24
    # Writes
    required_contact: tuple[str, ...] = ("firstName", "lastName", "email")  # A1
    create_existing: Literal["conflict", "merges", "duplicates"] = "conflict"  # A6
    email_match: Literal["folded", "exact"] = "folded"  # A6
    email_checked: bool = True  # A27
    create_status: int = 201
    put: Literal["replaces", "merges"] = "replaces"  # A10
    null_clears: bool = True  # A10
    upsert_update: Literal["replaces", "merges"] = "replaces"  # A11
    lifecycle_reset: bool = True  # A11
    upsert_reply: Literal["action", "record"] = "action"  # A11
    company_without_domain: Literal["refused", "created"] = "refused"  # A12
    deal_name_match: Literal["exact", "folded"] = "exact"  # A13
    status_follows_stage: bool = True  # A15
    closed_lifecycle: bool = False
    references_checked: bool = True
    delete_status: int = 204
    gone_status: int = 404  # A20
    second_delete: int = 404  # A20
    echo: Echo = KEPT_AS_SENT
    # Bulk
    bulk_max: int = 100  # A9
    bulk_over_max_status: int = 400  # A9
    bulk_existing: Literal["fails", "updates", "duplicates"] = "fails"  # A7
    bulk_body: Literal["array", "object", "either"] = "array"  # A8
    bulk_errors: Literal["strings", "objects"] = "strings"  # A8
    bulk_errors_name_row: bool = False  # A8
    bulk_atomic: bool = False  # A8
    bulk_partial_status: int = 200  # A8
    # Change feed, A18 and A19
    feed_inclusive: bool = False
    feed_default_limit: int = 1_000
    feed_max_limit: int = 10_000
    feed_retention_days: float | None = None
    feed_gap: Literal["silent", "refused"] = "silent"
    feed_lag_s: float = 0.0
    feed_names_author: bool = True
    feed_unknown_entities: Literal["ignored", "refused"] = "ignored"
    # Limits, A22
    rate_limit: int | None = 1_000
    rate_window_s: float = 60.0
    rate_window: Literal["fixed", "sliding"] = "fixed"
    refused_requests_count: bool = False
    retry_after: bool = False


RECORDS = ("contacts", "companies", "deals", "activities")
SINGULAR = {"contacts": "contact", "companies": "company", "deals": "deal", "activities": "activity"}
WRITE_ONLY = frozenset(
    "linkedInUrl twitterHandle address city state country postalCode notes".split()  # of contacts
)
_ADDRESS = dict.fromkeys(("address", "city", "state", "country", "postalCode"), "text")

# Field -> what it takes. A reference names the resource it points at.
FIELDS: dict[str, dict[str, str]] = {
    "contacts": {
        "firstName": "text",
        "lastName": "text",
        "email": "email",
        "phone": "text",
        "mobile": "text",
        "title": "text",
        "department": "text",
        "linkedInUrl": "text",
        "twitterHandle": "text",
        **_ADDRESS,
        "companyId": "companies",
        "lifecycleStage": "lifecycle",
        "leadSource": "text",
        "leadScore": "percent",
        "tags": "text",
        "notes": "text",
        "ownerId": "guid",
    },
    "companies": {
        "name": "text",
        "domain": "text",
        "industry": "text",
        "description": "text",
        "employeeCount": "integer",
        "annualRevenue": "number",
        "phone": "text",
        "website": "text",
        "linkedInUrl": "text",
        **_ADDRESS,
        "tags": "list",
        "notes": "text",
        "ownerId": "guid",
    },
    "deals": {
        "pipelineId": "pipelines",
        "stageId": "stages",
        "name": "text",
        "contactId": "contacts",
        "companyId": "companies",
        "value": "number",
        "currency": "text",
        "probability": "percent",
        "expectedCloseDate": "time",
        "notes": "text",
        "ownerId": "guid",
    },
    "activities": {
        "activityType": "note task call meeting",
        "subject": "text",
        "body": "text",
        "contactId": "contacts",
        "companyId": "companies",
        "dealId": "deals",
        "scheduledAt": "time",
        "dueDate": "time",
        "priority": "low normal high urgent",
        "status": "pending completed",
        "callDirection": "inbound outbound",
        "callOutcome": "text",
        "callDurationSeconds": "integer",
        "durationMinutes": "integer",
        "location": "text",
        "meetingUrl": "text",
        "ownerId": "guid",
    },
    "webhooks": {"name": "text", "url": "text", "events": "list", "isActive": "flag"},
}
REQUIRED = {
    "companies": ("name",),
    "deals": ("pipelineId", "stageId", "name"),
    "activities": ("activityType", "subject"),
    "webhooks": ("name", "url", "events"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "contacts": {"lifecycleStage": "lead"},
    "companies": {"tags": []},
    "deals": {"currency": "USD"},
    "activities": {"status": "pending"},
    "webhooks": {"isActive": True},
}
# Kept by the CRM itself; a write does not reach them.
KEPT: dict[str, dict[str, Any]] = {
    "contacts": {"isUnsubscribed": False, "lastContactedAt": None},
    "companies": {},
    "deals": {"actualCloseDate": None, "status": "open", "lastActivityAt": None},
    "activities": {},
    "webhooks": {"secret": None, "lastTriggeredAt": None, "failureCount": 0},
}
LIFECYCLE = frozenset({"lead", "qualified", "opportunity", "customer", "evangelist"})


def blanks() -> dict[str, dict[str, Any]]:
    """Return the fields a new record of each resource starts from."""
    made = {
        resource: {**dict.fromkeys(fields), **DEFAULTS[resource], **KEPT[resource]}
        for resource, fields in FIELDS.items()
    }
    made["pipelines"] = {"name": None}
    made["stages"] = {"pipelineId": None, "name": None, "probability": None, "position": None}
    return made


def moment(text: Any) -> datetime | None:
    """Return the moment an ISO 8601 text names, UTC where it names no zone; None when it is none."""
    if not isinstance(text, str):
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def stamp(at: datetime, digits: int = 0) -> str:
    """Return a moment as Rally writes it."""
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text[: 20 + digits if digits else 19] + "Z"


def refused(field: str, message: str) -> Refusal:
    """Return the 400 of a field."""
    return Refusal(400, "validation", "One or more validation errors occurred.", errors={field: [message]})


@dataclass(frozen=True, slots=True)
class Rules:
    """Judge the body of a write against the fields and the other records."""

    tenant: Tenant
    switches: RallySwitches

    def known(self, resource: str, sent: Any) -> dict[str, Any]:
        """Return the sent fields that may be written, as the CRM keeps them; unknown ones are dropped."""
        if not isinstance(sent, dict):
            raise refused("", "The body must be an object.")
        fields = FIELDS[resource]
        taken = {name: value for name, value in sent.items() if name in fields}
        for name, value in taken.items():
            self._check(name, fields[name], value)
        kept = self.switches.echo.fields(_normalised(resource, taken))
        for name, default in DEFAULTS[resource].items():
            if name in kept and kept[name] is None:
                kept[name] = default
        return kept

    def checked(self, resource: str, result: Mapping[str, Any]) -> None:
        """Raise `Refusal` 400 when a record as it would become lacks a required field."""
        required = self.switches.required_contact if resource == "contacts" else REQUIRED[resource]
        for name in required:
            if result.get(name) in (None, "", []):
                raise refused(name, f"The {name} field is required.")
        if resource == "deals" and self.switches.references_checked:
            stage = self.tenant.tables["stages"].records.get(result["stageId"])
            if stage is None or stage.fields["pipelineId"] != result["pipelineId"]:
                raise refused("stageId", "The stage is not one of the pipeline's.")

    def _check(self, name: str, kind: str, value: Any) -> None:
        if value is None:
            return
        if kind in self.tenant.tables:
            self._check_reference(name, kind, value)
        elif kind == "email":
            self._check_email(name, value)
        elif kind == "lifecycle" and self.switches.closed_lifecycle:
            if value not in LIFECYCLE:
                raise refused(name, f"The {name} field is not a known stage.")
        elif not _takes(kind, value):
            raise refused(name, f"The {name} field is not a valid value.")

    def _check_reference(self, name: str, resource: str, value: Any) -> None:
        if not _is_guid(value):
            raise refused(name, f"The {name} field is not a Guid.")
        if self.switches.references_checked and value not in self.tenant.tables[resource].records:
            raise refused(name, f"The {name} field names no record.")

    def _check_email(self, name: str, value: Any) -> None:
        text = value.strip() if isinstance(value, str) else ""
        before, at, domain = text.rpartition("@")
        if not isinstance(value, str) or (
            self.switches.email_checked and not (before and at and domain and " " not in text)
        ):
            raise refused(name, f"The {name} field is not a valid e-mail address.")


def _normalised(resource: str, taken: dict[str, Any]) -> dict[str, Any]:
    fields = FIELDS[resource]
    return {
        name: stamp(at) if fields[name] == "time" and (at := moment(value)) else value
        for name, value in taken.items()
    }


def _is_guid(value: Any) -> bool:
    try:
        UUID(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TAKES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "lifecycle": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "percent": lambda value: _is_integer(value) and 0 <= value <= 100,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "flag": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "time": lambda value: moment(value) is not None,
    "guid": _is_guid,
}


def _takes(kind: str, value: Any) -> bool:
    """Say whether a value is of a kind; a kind that is no type lists the words it allows."""
    return _TAKES[kind](value) if kind in _TAKES else value in kind.split()
