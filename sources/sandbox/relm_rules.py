"""What Relm (classic) accepts: its switches, the fields of each record and the custom field registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sources.sandbox.echo import KEPT_AS_SENT, Echo
from sources.sandbox.exchange import Refusal
from sources.sandbox.store import Tenant


@dataclass(frozen=True, slots=True)
class RelmSwitches:
    """Hold an answer for everything Relm's page leaves open; the defaults are assumptions."""

    # Lists
    updated_at: Literal["shown", "hidden"] = "shown"
    updated_at_filter: Literal["as_shown", "works", "ignored", "refused"] = "as_shown"
    unknown_filter: Literal["refused", "ignored"] = "refused"
    metadata_filter: bool = True
    order: Literal["created_asc", "created_desc"] = "created_asc"
    default_limit: int = 50
    max_limit: int = 200
    over_limit: Literal["clamped", "refused"] = "clamped"
    cursor_ttl_s: float | None = None
    cursor_carries_filters: bool = False
    cursor_binds_filters: bool = False
    in_separator: str = ","
    ilike: Literal["wildcards", "contains"] = "wildcards"
    list_lag_s: float = 0.0
    fraction_digits: int = 0
    # Single records
    single: Literal["flat", "data"] = "flat"
    create_status: int = 201
    delete_answer: Literal["body", "empty"] = "body"
    second_delete: int = 404
    email_match: Literal["folded", "exact"] = "folded"
    email_required: bool = False
    email_checked: bool = True
    duplicate_create: Literal["conflict", "allowed", "existing"] = "conflict"
    references_checked: bool = True
    unknown_field: Literal["ignored", "refused"] = "ignored"
    null_clears: bool = True
    metadata_write: Literal["replaces", "merges"] = "replaces"
    required_in: Literal["result", "body"] = "result"
    unknown_metadata: Literal["kept", "refused"] = "kept"
    duplicate_edge: Literal["conflict", "allowed"] = "conflict"
    echo: Echo = KEPT_AS_SENT
    # Batch
    batch_max: int = 500
    batch_over_max_status: int = 400
    batch_atomic: bool = False
    batch_atomic_names_row: bool = False
    batch_partial_status: int = 200
    batch_answer: Literal["rows", "results", "contacts", "counts", "empty"] = "rows"
    dedup_update: Literal["merges", "replaces"] = "merges"
    # Idempotency and limits
    idempotency_window_s: float = 86_400.0
    idempotency_path_counts: bool = False
    replays: Literal["all", "successes"] = "all"
    rate_limit: int | None = 6_000
    rate_window_s: float = 60.0
    rate_window: Literal["fixed", "sliding"] = "fixed"
    refused_requests_count: bool = False
    retry_after: bool = True


PREFIX = {
    "contacts": "con",
    "companies": "cmp",
    "deals": "deal",
    "activities": "act",
    "associations": "asc",
    "fields": "fld",
    "webhooks": "wh",
}
OBJECT = {
    "contacts": "contact",
    "companies": "company",
    "deals": "deal",
    "activities": "activity",
    "associations": "association",
    "fields": "field",
    "webhooks": "webhook",
}
TABLE_OF = {name: resource for resource, name in OBJECT.items()}
RECORDS = ("contacts", "companies", "deals", "activities")

# Field -> what it takes. A reference names the resource it points at.
FIELDS: dict[str, dict[str, str]] = {
    "contacts": {
        "email": "email",
        "first_name": "text",
        "last_name": "text",
        "phone": "text",
        "company_id": "companies",
        "metadata": "object",
    },
    "companies": {"name": "text", "domain": "text", "metadata": "object"},
    "deals": {
        "title": "text",
        "value_cents": "integer",
        "currency": "text",
        "stage": "text",
        "close_date": "date",
        "company_id": "companies",
        "primary_contact_id": "contacts",
        "metadata": "object",
    },
    "activities": {
        "type": "text",
        "subject": "text",
        "body": "text",
        "contact_id": "contacts",
        "deal_id": "deals",
        "company_id": "companies",
        "occurred_at": "time",
        "metadata": "object",
    },
    "associations": {
        "from_type": "text",
        "from_id": "text",
        "to_type": "text",
        "to_id": "text",
        "label": "text",
    },
    "fields": {
        "object_type": "text",
        "key": "text",
        "label": "text",
        "type": "text",
        "required": "bool",
        "options": "object",
    },
    "webhooks": {"url": "text", "event_types": "list"},
}


def blanks() -> dict[str, dict[str, Any]]:
    """Return the fields a new record of each resource starts from."""
    made: dict[str, dict[str, Any]] = {
        resource: {name: {} if kind == "object" else None for name, kind in fields.items()}
        for resource, fields in FIELDS.items()
    }
    made["fields"]["required"] = False
    made["webhooks"]["secret"] = None
    return made


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_date(value: Any) -> bool:
    """Say whether a JSON value is a date or a time in ISO 8601."""
    return _reads(date.fromisoformat, value) or is_time(value)


def is_time(value: Any) -> bool:
    """Say whether a JSON value is a time in ISO 8601."""
    return _reads(datetime.fromisoformat, value)


_TAKES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "email": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": is_number,
    "bool": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "date": is_date,
    "time": is_time,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """Judge what is to be written against the fields, the registry and the other records."""

    tenant: Tenant
    switches: RelmSwitches

    def known(self, resource: str, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sent fields that may be written, as the CRM keeps them."""
        fields = FIELDS[resource]
        if self.switches.unknown_field == "refused" and (strange := sorted(set(sent) - set(fields))):
            raise invalid(f"Unknown field: {strange[0]}")
        taken = {name: value for name, value in sent.items() if name in fields}
        if not self.switches.null_clears:
            taken = {name: value for name, value in taken.items() if value is not None}
        for name, value in taken.items():
            self._check_value(name, fields[name], value)
        return self.switches.echo.fields(taken)

    def checked(self, resource: str, result: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """Raise `Refusal` 422 when the registry forbids a record as it would become."""
        if resource == "contacts" and self.switches.email_required and not result.get("email"):
            raise invalid("email is required")
        held = result.get("metadata") or {}
        counted = held if self.switches.required_in == "result" else sent.get("metadata") or {}
        registry = self.registry(OBJECT[resource])
        for definition in registry.values():
            key = definition["key"]
            if definition["required"] and counted.get(key) in (None, ""):
                raise invalid(f"metadata.{key} is required")
            if held.get(key) is not None:
                _check_custom(definition, held[key])
        strange = sorted(set(held) - set(registry))
        if strange and self.switches.unknown_metadata == "refused":
            raise invalid(f"metadata.{strange[0]} is not a field of this workspace")

    def registry(self, object_type: str) -> dict[str, dict[str, Any]]:
        """Return the custom field definitions of an object by key."""
        rows = (record.fields for record in self.tenant.tables["fields"])
        return {row["key"]: row for row in rows if row["object_type"] == object_type}

    def _check_value(self, name: str, kind: str, value: Any) -> None:
        if value is None and kind != "object":
            return
        if kind in PREFIX:
            self._check_reference(name, kind, value)
        elif not _TAKES[kind](value):
            raise invalid(f"{name} must be {kind}")
        elif kind == "email" and self.switches.email_checked and not _is_address(value):
            raise invalid(f"{name} is not a valid email address")

    def _check_reference(self, name: str, resource: str, value: Any) -> None:
        if not isinstance(value, str):
            raise invalid(f"{name} must be an id")
        if self.switches.references_checked and value not in self.tenant.tables[resource].records:
            raise invalid(f"{name} names no {OBJECT[resource]}")


def check_definition(sent: Mapping[str, Any]) -> None:
    """Raise `Refusal` 422 when a custom field definition cannot stand."""
    if sent.get("object_type") not in {OBJECT[resource] for resource in RECORDS}:
        raise invalid("object_type must be contact, company, deal or activity")
    if sent.get("type") not in ("text", "number", "date", "bool", "select"):
        raise invalid("type must be text, number, date, bool or select")
    if not sent.get("key") or not isinstance(sent["key"], str):
        raise invalid("key is required")
    if sent["type"] == "select" and not (sent.get("options") or {}).get("choices"):
        raise invalid("options.choices is required for select")


def invalid(message: str) -> Refusal:
    """Return the refusal of a record that breaks a rule."""
    return Refusal(422, "validation_failed", message)


def _check_custom(definition: Mapping[str, Any], value: Any) -> None:
    key, kind = definition["key"], definition["type"]
    if kind == "select":
        if value not in definition["options"]["choices"]:
            raise invalid(f"metadata.{key} is not one of its choices")
    elif not _TAKES[kind](value):
        raise invalid(f"metadata.{key} must be {kind}")


def _is_address(text: str) -> bool:
    name, at, domain = text.strip().rpartition("@")
    return bool(name and at and "." in domain and " " not in text.strip())


def _reads(parse: Callable[[str], object], value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parse(value)
    except ValueError:
        return False
    return True
