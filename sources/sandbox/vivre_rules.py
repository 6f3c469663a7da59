"""What Vivre accepts and shows: its switches, the fields of each record and what a write must hold."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from sources.sandbox.echo import KEPT_AS_SENT, Echo
from sources.sandbox.exchange import Refusal
from sources.sandbox.store import Tenant
from sources.sandbox.table import Fields, Record

ListOrder: TypeAlias = Literal["created_desc", "created_asc", "updated_desc"]
Envelope: TypeAlias = Literal["data", "bare", "id", "empty"]

STAGES = ("new", "qualified", "proposal", "won")
TYPES = ("call", "email", "meeting", "note")


@dataclass(frozen=True, slots=True)
class VivreSwitches:
    """Hold an answer for everything Vivre's page leaves open; the defaults are assumptions."""

    # What there is beyond the page
    deals_listed: bool = False
    deal_by_id: bool = False
    activities_listed: bool = False
    absent_status: int = 404
    deal_update: str = "PATCH /deals/{id}"
    contact_update: tuple[Literal["PATCH", "PUT"], ...] = ()
    put: Literal["merges", "replaces"] = "merges"
    # Lists
    order: ListOrder = "created_desc"
    ties: Literal["stable", "shuffled"] = "stable"
    default_limit: int = 50
    max_limit: int = 500
    over_limit: Literal["capped", "refused"] = "capped"
    limit_echo: Literal["used", "asked"] = "used"
    negative_offset: Literal["refused", "zero"] = "refused"
    max_offset: int | None = None
    search: Literal["contains", "words"] = "contains"
    search_folds_case: bool = True
    search_lag_s: float = 0.0
    # Values
    updated_at: Literal["hidden", "shown"] = "hidden"
    also_shown: tuple[str, ...] = ()
    shown_by_id: tuple[str, ...] = ()
    nulls: Literal["null", "missing"] = "null"
    new_score: int | None = None
    # Writes
    single: Literal["data", "bare"] = "data"
    created: Envelope = "data"
    create_status: int = 200
    existing_email: Literal["refused", "merged", "duplicated"] = "refused"
    email_match: Literal["folded", "exact"] = "folded"
    email_checked: bool = True
    unknown_field: Literal["ignored", "refused"] = "ignored"
    max_text: int | None = None
    references_checked: bool = True
    pair_checked: bool = False
    deal_stages: tuple[str, ...] = STAGES
    other_stage: Literal["refused", "kept"] = "refused"
    fractional_value: Literal["refused", "rounded", "kept"] = "refused"
    negative_value: Literal["refused", "kept"] = "refused"
    deal_update_fields: tuple[str, ...] = ("contact_id", "title", "value", "stage", "closed_at")
    closed_at_missing: Literal["now", "null", "refused"] = "now"
    closed_at_unless_won: Literal["kept", "dropped", "refused"] = "kept"
    past_closed_at: Literal["kept", "refused"] = "kept"
    won_moves_contact: bool = False
    activity_moves_score: bool = True
    echo: Echo = KEPT_AS_SENT
    # Keys, refusals and limits
    workspace_header: Literal["ignored", "checked", "required"] = "checked"
    workspace_status: int = 403
    permission_status: int = 403
    write_reads: bool = True
    error_body: Literal["error", "errors", "text"] = "error"
    rate_limit: int | None = 6_000
    rate_window_s: float = 60.0
    rate_scope: Literal["workspace", "key"] = "workspace"
    rate_headers: bool = False
    retry_after: bool = True


# Field -> what it takes; a reference names the resource it points at.
FIELDS: dict[str, dict[str, str]] = {
    "contacts": {"name": "text", "email": "email", "company": "text", "stage": "stage", "tags": "list"},
    "deals": {
        "contact_id": "contacts",
        "title": "text",
        "value": "money",
        "stage": "stage",
        "closed_at": "time",
    },
    "activities": {"contact_id": "contacts", "deal_id": "deals", "type": "type", "note": "text"},
}
# A deal can be closed by an update only.
CREATABLE = {resource: tuple(name for name in FIELDS[resource] if name != "closed_at") for resource in FIELDS}
REQUIRED = {
    "contacts": ("name", "email"),
    "deals": ("contact_id", "title"),
    "activities": ("contact_id", "type"),
}
# Fields a screen of the product knows; the API shows them only under a switch, and takes none but tags.
HIDDEN = ("tags", "phone", "owner", "source")


def blanks() -> dict[str, dict[str, Any]]:
    """Return the fields a new record of each resource starts from."""
    made: dict[str, dict[str, Any]] = {resource: dict.fromkeys(names) for resource, names in FIELDS.items()}
    contact = {"name": None, "email": None, "company": None, "ai_score": None, "stage": "new"}
    made["contacts"] = {**contact, **dict.fromkeys(HIDDEN), "tags": []}
    made["deals"]["stage"] = "new"
    return made


def stamp(moment: datetime) -> str:
    """Return a time as Vivre writes it: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show(resource: str, record: Record, switches: VivreSwitches, *, is_by_id: bool = False) -> Fields:
    """Return a record as the API shows it, in a list or by its id."""
    also = {*switches.also_shown, *(switches.shown_by_id if is_by_id else ())}
    values = {
        name: value
        for name, value in record.fields.items()
        if resource != "contacts" or name not in HIDDEN or name in also
    }
    shown = {"id": record.id, **values, "created_at": stamp(record.created_at)}
    if switches.updated_at == "shown":
        shown["updated_at"] = stamp(record.updated_at)
    if switches.nulls == "missing":
        return {name: value for name, value in shown.items() if value is not None}
    return shown


@dataclass(frozen=True, slots=True)
class Rules:
    """Judge what is to be written."""

    tenant: Tenant
    switches: VivreSwitches

    def known(self, resource: str, sent: Mapping[str, Any], *, writable: Iterable[str]) -> Fields:
        """Return the sent fields that may be written, as the CRM keeps them; raises `Refusal` 400."""
        fields = frozenset(writable)
        strange = sorted(set(sent) - fields)
        if strange and self.switches.unknown_field == "refused":
            raise invalid(strange[0], "is not a field")
        taken = {name: self._taken(resource, name, sent[name]) for name in sent if name in fields}
        return self.switches.echo.fields(taken)

    def complete(self, resource: str, fields: Mapping[str, Any]) -> None:
        """Raise `Refusal` 400 when a required field is empty, or a deal is not its contact's."""
        for name in REQUIRED[resource]:
            if fields.get(name) in (None, ""):
                raise invalid(name, "is required")
        if resource == "activities" and self.switches.pair_checked:
            self._check_pair(fields)

    def closed(self, before: Mapping[str, Any], known: Fields, now: datetime) -> Fields:
        """Return what becomes of `closed_at` when a deal is updated, as far as it is not kept as sent."""
        is_won = known.get("stage", before["stage"]) == "won"
        closed_at = known.get("closed_at")
        if is_won and closed_at is None and before["closed_at"] is None:
            return self._closed_without_time(now)
        if closed_at is None:
            return {}
        if not is_won and self.switches.closed_at_unless_won == "refused":
            raise invalid("closed_at", "is only for deals that are won")
        if self.switches.past_closed_at == "refused" and _moment(closed_at) < now:
            raise invalid("closed_at", "lies in the past")
        is_dropped = not is_won and self.switches.closed_at_unless_won == "dropped"
        return {"closed_at": before["closed_at"]} if is_dropped else {}

    def _closed_without_time(self, now: datetime) -> Fields:
        if self.switches.closed_at_missing == "refused":
            raise invalid("closed_at", "is required for deals that are won")
        return {"closed_at": stamp(now)} if self.switches.closed_at_missing == "now" else {}

    def _check_pair(self, fields: Mapping[str, Any]) -> None:
        deal = self.tenant.tables["deals"].records.get(fields.get("deal_id") or "")
        if deal and deal.fields["contact_id"] != fields["contact_id"]:
            raise invalid("deal_id", "is no deal of this contact")

    def _taken(self, resource: str, name: str, value: Any) -> Any:
        if value is None:
            return None
        kind = FIELDS[resource][name]
        if kind == "money":
            return self._money(name, value)
        if kind in FIELDS:
            self._check_reference(name, kind, value)
        elif not _TAKES[kind](value):
            raise invalid(name, f"must be {kind}")
        elif kind == "email" and self.switches.email_checked and not _is_address(value):
            raise invalid(name, "is not a valid address")
        elif kind == "stage":
            self._check_stage(resource, name, value)
        self._check_length(name, value)
        return value

    def _money(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(name, "must be a number")
        if value < 0 and self.switches.negative_value == "refused":
            raise invalid(name, "must not be negative")
        if value == int(value):
            return int(value)
        if self.switches.fractional_value == "refused":
            raise invalid(name, "must be a whole number of the smallest unit")
        return round(value) if self.switches.fractional_value == "rounded" else value

    def _check_reference(self, name: str, resource: str, value: Any) -> None:
        if not isinstance(value, str):
            raise invalid(name, "must be an id")
        if self.switches.references_checked and value not in self.tenant.tables[resource].records:
            raise invalid(name, "names no record")

    def _check_stage(self, resource: str, name: str, value: str) -> None:
        stages = self.switches.deal_stages if resource == "deals" else STAGES
        if value not in stages and self.switches.other_stage == "refused":
            raise invalid(name, f"must be one of {', '.join(stages)}")

    def _check_length(self, name: str, value: Any) -> None:
        longest = self.switches.max_text
        if longest is not None and isinstance(value, str) and len(value) > longest:
            raise invalid(name, f"is longer than {longest} characters")


def invalid(field: str, problem: str) -> Refusal:
    """Return the refusal of a field."""
    return Refusal(400, "validation", f"{field} {problem}", errors={field: [problem]})


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_TAKES: dict[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "email": _is_text,
    "stage": _is_text,
    "type": lambda value: value in TYPES,
    "list": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "time": lambda value: _is_text(value) and _is_moment(value),
}


def _is_moment(text: str) -> bool:
    try:
        _moment(text)
    except ValueError:
        return False
    return True


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_address(text: str) -> bool:
    name, at, domain = text.strip().rpartition("@")
    return bool(name and at and "." in domain and " " not in text.strip())
