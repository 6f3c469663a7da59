"""Reevo's attribute values: the envelopes in which v2 shows them, and what writes may send for them."""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias
from uuid import UUID

from sources.sandbox.exchange import Refusal
from sources.sandbox.reevo_rules import LABELS, Attribute, Stage, fixed_id, stage_named
from sources.sandbox.reevo_switches import ReevoSwitches

# Finds the id that a reference means, from the type of its target and what was sent.
Resolve: TypeAlias = Callable[[str, Any], str | None]

TEXTS = frozenset({"string", "long_text", "rich_text", "email", "phone_number", "url"})
STAGE_TYPES = frozenset({"contact_stage", "account_stage", "opportunity_stage"})
NUMBERS = frozenset({"number", "percent", "currency"})
TIMES = frozenset({"timestamp", "date", "time"})
ITEMS = {"contact_email": "email", "contact_phone_number": "phone_number", "account_domain": "domain_name"}
_MAX_DIGITS = 30
_ADDRESS = ("street_one", "street_two", "city", "state", "country", "zip_code")


def show(attribute: Attribute, value: Any, switches: ReevoSwitches) -> Any:
    """Return a kept value as v2 shows it."""
    kind = attribute.value_type
    if attribute.is_array:
        return [{"value_type": kind, "value": _shown(attribute, item, switches)} for item in value or []]
    if value is None and switches.null_attributes == "bare":
        return None
    shown = None if value is None else _shown(attribute, value, switches)
    return {"value_type": kind, "value": shown}


def _shown(attribute: Attribute, value: Any, switches: ReevoSwitches) -> Any:
    kind = attribute.value_type
    if kind == "record_reference":
        return {"related_record_id": value, "related_record_type": attribute.target}
    if kind in STAGE_TYPES:
        stage = stage_named(kind, value)
        return _stage(stage) if stage else None
    if kind == "select":
        return _stage(Stage(value, value.replace("_", " ").title()))
    if kind == "currency":
        return {"amount": str(value)}
    if kind in NUMBERS and switches.numbers == "string":
        return str(value)
    if kind == "address":
        return dict.fromkeys(_ADDRESS) | value
    return value


def _stage(stage: Stage) -> dict[str, Any]:
    shown = {"id": stage.id, "api_name": stage.api_name, "display_value": stage.display_value}
    shown["color"] = stage.color
    if stage.closing_probability is None:
        return shown
    return shown | {"closing_probability": stage.closing_probability, "expected_days": stage.expected_days}


def read(name: str, attribute: Attribute, sent: Any, resolve: Resolve) -> Any:
    """Return what is kept for a sent value, raw or in an envelope; raises `Refusal` for one that won't do."""
    if attribute.is_array:
        if sent is None:
            return []
        if not isinstance(sent, list):
            raise bad_value(name, "a list is needed")
        return [_read(name, attribute, _bare(item), resolve) for item in sent]
    bare = _bare(sent)
    if bare is None:
        if attribute.is_required:
            raise bad_value(name, "it cannot be cleared")
        return None
    return _read(name, attribute, bare, resolve)


def bad_value(name: str, why: str) -> Refusal:
    """Return the refusal of a value."""
    return Refusal(422, "field_value_invalid", f"{name}: {why}", errors={"field": name})


def from_text(name: str, attribute: Attribute, sent: Any) -> Any:
    """Return what is kept for a custom field's text or list of texts, as v1 sends them."""
    if attribute.value_type in ("number", "percent") and isinstance(sent, str):
        number = _amount(name, sent)
        sent = int(number) if "." not in number else float(number)
    elif attribute.value_type == "boolean" and isinstance(sent, str):
        sent = {"true": True, "false": False}.get(sent.strip().lower(), sent)
    if attribute.is_array and isinstance(sent, str):
        sent = [sent]
    return read(name, attribute, sent, _no_reference)


def to_text(value: Any) -> str | list[str] | None:
    """Return a custom field's kept value as v1 shows it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bare(sent: Any) -> Any:
    return sent["value"] if isinstance(sent, dict) and "value_type" in sent and "value" in sent else sent


def _read(name: str, attribute: Attribute, sent: Any, resolve: Resolve) -> Any:
    kind = attribute.value_type
    if kind == "record_reference":
        return resolve(attribute.target, sent)
    if kind in STAGE_TYPES:
        return _stage_read(name, kind, sent)
    if kind in ("select", "enum"):
        return _option(name, attribute, sent)
    if kind == "currency":
        return _amount(name, sent["amount"] if isinstance(sent, dict) and "amount" in sent else sent)
    if kind in ITEMS:
        return _item(name, ITEMS[kind], sent)
    if not _FITS.get(kind, _is_text)(sent):
        raise bad_value(name, f"it is not of type {kind}")
    return sent


def _stage_read(name: str, kind: str, sent: Any) -> str:
    stage = stage_named(kind, sent.get("id") if isinstance(sent, dict) else sent)
    if stage is None:
        raise bad_value(name, "there is no such stage")
    return stage.api_name


def _option(name: str, attribute: Attribute, sent: Any) -> str:
    text = sent.get("api_name") if isinstance(sent, dict) else sent
    found = next((one for one in attribute.options if text in (one, option_id(one))), None)
    if found is None:
        raise bad_value(name, "it is not one of the options")
    return found


def option_id(option: str) -> str:
    """Return the id of an option of a select."""
    return fixed_id(f"stage {option}")


def _amount(name: str, sent: Any) -> str:
    if not is_amount(sent):
        raise bad_value(name, "a number is needed")
    return f"{Decimal(str(sent)):f}"


def _item(name: str, inner: str, sent: Any) -> dict[str, Any]:
    item: Mapping[str, Any] = {inner: sent, "is_primary": False} if isinstance(sent, str) else sent
    if not isinstance(item, dict) or not isinstance(item.get(inner), str) or not item[inner].strip():
        raise bad_value(name, f"{inner} is needed")
    if inner == "email" and not is_address(item[inner]):
        raise bad_value(name, "it is not an e-mail address")
    labels = item.get("labels") or []
    if not isinstance(labels, list) or not LABELS.issuperset(map(str, labels)):
        raise bad_value(name, "labels are PERSONAL, WORK, MOBILE")
    return {inner: item[inner], "is_primary": bool(item.get("is_primary")), "labels": labels}


def is_amount(value: Any) -> bool:
    """Say whether a value is a number, or a text that is one, of a size that money has."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return False
    return amount.is_finite() and abs(amount.adjusted()) <= _MAX_DIGITS


def is_address(value: Any) -> bool:
    """Say whether a value is an e-mail address."""
    text = value.strip() if isinstance(value, str) else ""
    name, at, domain = text.rpartition("@")
    return bool(name and at and "." in domain and " " not in text)


def is_zoned(value: Any) -> bool:
    """Say whether a value is a time in ISO 8601 with an offset or Z."""
    return isinstance(value, str) and _parses(datetime.fromisoformat, value, is_zoned=True)


def is_uuid(value: Any) -> bool:
    """Say whether a value is a UUID."""
    return isinstance(value, str) and _parses(UUID, value)


def _parses(parse: Callable[[str], Any], text: str, *, is_zoned: bool = False) -> bool:
    try:
        parsed = parse(text)
    except ValueError:
        return False
    return not is_zoned or parsed.tzinfo is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _no_reference(target: str, sent: Any) -> str | None:
    raise bad_value(target, f"{type(sent).__name__} is no reference here")


_FITS: dict[str, Callable[[Any], bool]] = {
    "email": is_address,
    "number": _is_number,
    "percent": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "timestamp": is_zoned,
    "date": lambda value: isinstance(value, str) and _parses(date.fromisoformat, value),
    "time": lambda value: isinstance(value, str) and _parses(time.fromisoformat, value),
    "uuid": is_uuid,
    "address": lambda value: isinstance(value, dict) and set(value) <= set(_ADDRESS),
}
