"""What Ralivi shows: its switches, the fields of each record and how they are spelled."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from sources.sandbox.store import Tenant
from sources.sandbox.table import Fields, Record

ListOrder: TypeAlias = Literal["id", "created_asc", "created_desc", "updated_asc", "updated_desc"]
Bond: TypeAlias = Literal["limit", "filters", "key"]

RECORDS = ("contacts", "deals", "tasks", "activities")


@dataclass(frozen=True, slots=True)
class RaliviSwitches:
    """Hold an answer for everything Ralivi's page leaves open; the defaults are assumptions."""

    # Lists
    order: ListOrder = "id"
    default_limit: int = 50
    max_limit: int = 100
    over_limit: Literal["capped", "refused"] = "capped"
    under_limit: Literal["default", "refused"] = "refused"
    cursor: Literal["key", "position"] = "key"
    cursor_ttl_s: float | None = None
    cursor_bound_to: tuple[Bond, ...] = ()
    bad_cursor: Literal["refused", "not_found", "empty", "first_page"] = "refused"
    ends_with_empty_page: bool = False
    short_page_every: int = 0
    cursor_repeats_on_page: int | None = None
    stage_filter: Literal["single", "commas"] = "single"
    unknown_stage: Literal["empty", "refused"] = "empty"
    both_ids: Literal["and", "or", "refused"] = "and"
    lists_lost: bool = True
    lists_archived: bool = False
    lists_private: bool = True
    list_lag_s: float = 0.0
    lagging: tuple[str, ...] = RECORDS
    # Values
    nulls: Literal["null", "missing"] = "null"
    empty_tags: Literal["list", "null"] = "list"
    silent_fields: tuple[str, ...] = ()
    stamp_step_ms: int = 1
    lost_stage: str = "closed-lost"
    amount: Literal["major", "minor"] = "major"
    amount_form: Literal["number", "string"] = "number"
    probability: Literal["percent", "fraction"] = "percent"
    due_date: Literal["date", "timestamp", "mixed"] = "date"
    people: Literal["id", "email", "name"] = "id"
    emails: Literal["unique", "repeated"] = "unique"
    dangling: Literal["kept", "nulled"] = "kept"
    # Refusals and limits
    error_body: Literal["json", "text", "html", "empty"] = "json"
    html_404: bool = True
    plan_lapse_status: int | None = None
    rate_limit: int | None = 6_000
    rate_window_s: float = 60.0
    retry_after: bool = False


# Fields that a screen of the product knows and the API does not show.
HIDDEN = ("isArchived", "isPrivate")

_SHOWN = {
    "contacts": "name email phone company status tags summary lastTouchedAt",
    "deals": "title stage amount probability contactId summary lastActivityAt nextActionDueAt",
    "tasks": "title description status priority dueDate dealId contactId assignedTo",
    "activities": "type subject body dealId contactId createdBy",
    "organizations": "name website industry",
}
STAGES = ("lead", "qualified", "proposal", "negotiation", "closed-won")
CUSTOM_STAGE = "stg_legal_review"
ODDS = {"lead": 10, "qualified": 25, "proposal": 50, "negotiation": 75, "closed-won": 100, CUSTOM_STAGE: 60}


def blanks() -> dict[str, dict[str, Any]]:
    """Return the fields a new record of each resource starts from."""
    made: dict[str, dict[str, Any]] = {
        resource: dict.fromkeys(names.split()) for resource, names in _SHOWN.items()
    }
    made["contacts"]["tags"] = []
    for resource in RECORDS:
        made[resource] |= dict.fromkeys(HIDDEN, False)
    return made


def stamp(moment: datetime) -> str:
    """Return a time as Ralivi writes it: UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:23] + "Z"


def is_shown(fields: Mapping[str, Any], switches: RaliviSwitches) -> bool:
    """Say whether lists hold a record of these fields at all."""
    if fields["isArchived"] and not switches.lists_archived:
        return False
    if fields["isPrivate"] and not switches.lists_private:
        return False
    return switches.lists_lost or fields.get("stage") != switches.lost_stage


@dataclass(frozen=True, slots=True)
class Shape:
    """Render records under the switches."""

    tenant: Tenant
    switches: RaliviSwitches

    def show(self, resource: str, record: Record) -> Fields:
        """Return a record as the API shows it."""
        values = {name: value for name, value in record.fields.items() if name not in HIDDEN}
        shown = {"id": record.id, **values, "createdAt": stamp(record.created_at)}
        if resource not in ("activities", "organizations"):
            shown["updatedAt"] = stamp(record.updated_at)
        shown |= self._bent(shown, record)
        if self.switches.nulls == "missing":
            return {name: value for name, value in shown.items() if value is not None}
        return shown

    def _bent(self, shown: Fields, record: Record) -> Fields:
        """Return the fields whose spelling the page leaves open."""
        bent: Fields = {}
        if shown.get("tags") == [] and self.switches.empty_tags == "null":
            bent["tags"] = None
        if shown.get("amount") is not None:
            bent["amount"] = self._amount(shown["amount"])
        if shown.get("probability") is not None and self.switches.probability == "fraction":
            bent["probability"] = shown["probability"] / 100
        if shown.get("dueDate"):
            bent["dueDate"] = self._due(shown["dueDate"], record)
        return bent | self._references(shown)

    def _amount(self, major: float) -> Any:
        amount = round(major * 100) if self.switches.amount == "minor" else major
        return str(amount) if self.switches.amount_form == "string" else amount

    def _due(self, text: str, record: Record) -> str:
        is_exact = self.switches.due_date == "timestamp"
        if self.switches.due_date == "mixed":
            is_exact = ord(record.id[-1]) % 2 == 0
        return f"{text}T17:00:00.000Z" if is_exact and "T" not in text else text

    def _references(self, shown: Fields) -> Fields:
        if self.switches.dangling == "kept":
            return {}
        return {
            name: None
            for name, target in (("contactId", "contacts"), ("dealId", "deals"))
            if name in shown and shown[name] not in self.tenant.tables[target].records
        }
