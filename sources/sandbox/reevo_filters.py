"""What Reevo's v2 filters and sorts by: paths through records, operators, comparable values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any, TypeAlias

from sources.sandbox.exchange import Refusal
from sources.sandbox.reevo_contract import Contract
from sources.sandbox.reevo_rules import RELATIONSHIPS, TABLE_OF, Attribute, stage_named
from sources.sandbox.reevo_state import folded
from sources.sandbox.reevo_values import ITEMS, NUMBERS, STAGE_TYPES, TEXTS, TIMES, is_amount, is_zoned
from sources.sandbox.table import Record

Test: TypeAlias = Callable[[Record], bool]
Getter: TypeAlias = Callable[[Record], list[Any]]

_USER = {name: Attribute("string") for name in ("first_name", "last_name")} | {"email": Attribute("email")}
_PRESENCE = ("exists", "not_exists")
_EQUAL = ("eq", "ne", "in", "not_in")
_TEXT = ("contains", "starts_with", "ends_with")
_COMPARES: dict[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
OPERATORS = (*_EQUAL, *_TEXT, *_COMPARES, "between", *_PRESENCE)


def operators(attribute: Attribute) -> tuple[str, ...]:
    """Return the operators that an attribute's type takes."""
    kind = attribute.value_type
    if kind == "address":
        return ()
    if kind == "boolean":
        return ("eq", "ne", *_PRESENCE)
    if kind in TEXTS or kind in ITEMS:
        return (*_EQUAL, *_TEXT, *_PRESENCE)
    if kind in NUMBERS or kind in TIMES:
        return (*_EQUAL, *_COMPARES, "between", *_PRESENCE)
    return (*_EQUAL, *_PRESENCE)


def is_sortable(name: str, attribute: Attribute, *, has_id: bool) -> bool:
    """Say whether rows can be sorted by an attribute."""
    if attribute.is_array or (name == "id" and not has_id):
        return False
    return attribute.value_type in TEXTS | NUMBERS | TIMES | {"enum", "boolean", "uuid"}


def comparable(attribute: Attribute, value: Any) -> Any:
    """Return a kept value in the form in which values are compared."""
    kind = attribute.value_type
    if kind in NUMBERS:
        return Decimal(str(value))
    if kind == "timestamp":
        return datetime.fromisoformat(value).astimezone(UTC) if isinstance(value, str) else value
    if kind in ITEMS:
        return folded(value[ITEMS[kind]])
    return folded(value) if kind == "email" else value


@dataclass(frozen=True, slots=True)
class Filters:
    """Read the filters of a query into tests of records."""

    contract: Contract

    def read(self, record_type: str, filters: Any) -> Test:
        """Return the test that a list of filters makes, joined by and; raises `Refusal`."""
        if not isinstance(filters, list):
            raise self._refusal("invalid_filter_value", "filters must be a list")
        return self._all(record_type, filters, 1)

    def getter(self, record_type: str, path: str) -> tuple[Attribute, Getter]:
        """Return what a path leads to, and how to get there; raises `Refusal`."""
        if path.count(".") > self.contract.s.filter_depth:
            raise self._refusal("filter_depth_exceeded", "The path is too long", path)
        return self._getter(record_type, path, path)

    def _all(self, record_type: str, nodes: list[Any], depth: int) -> Test:
        tests = [self._node(record_type, node, depth) for node in nodes]
        return lambda record: all(test(record) for test in tests)

    def _node(self, record_type: str, node: Any, depth: int) -> Test:
        if not isinstance(node, dict):
            raise self._refusal("invalid_filter_value", "A filter must be an object")
        group = next((name for name in ("and", "or", "not") if name in node), None)
        if group is None:
            return self._condition(record_type, node)
        if depth > self.contract.s.filter_depth:
            raise self._refusal("filter_depth_exceeded", "Groups are nested too deep")
        inner = node[group] if isinstance(node[group], list) else [node[group]]
        tests = [self._node(record_type, one, depth + 1) for one in inner]
        if group == "or":
            return lambda record: any(test(record) for test in tests)
        if group == "not":
            return lambda record: not all(test(record) for test in tests)
        return lambda record: all(test(record) for test in tests)

    def _condition(self, record_type: str, node: Mapping[str, Any]) -> Test:
        field, operator, value = str(node.get("field")), node.get("operator"), node.get("value")
        attribute, get = self.getter(record_type, field)
        allowed = operators(attribute)
        if not allowed or (field == "updated_at" and not self.contract.s.updated_at_filter):
            raise self._refusal("invalid_filter_field", "This field cannot be filtered by", field)
        if operator not in allowed:
            raise self._refusal("invalid_filter_operator", f"The operator must be one of {allowed}", field)
        return self._test(str(operator), get, self._wanted(attribute, str(operator), value, field))

    def _test(self, operator: str, get: Getter, wanted: Any) -> Test:
        if operator in _PRESENCE:
            return lambda record: bool(get(record)) == (operator == "exists")
        if operator in _EQUAL:
            is_meant = operator in ("eq", "in")
            return lambda record: any(value in wanted for value in get(record)) == is_meant
        if operator == "between":
            return lambda record: any(wanted[0] <= value <= wanted[1] for value in get(record))
        if operator in _COMPARES:
            compare = _COMPARES[operator]
            return lambda record: any(compare(value, wanted) for value in get(record))
        return lambda record: any(_has(operator, value.casefold(), wanted) for value in get(record))

    def _wanted(self, attribute: Attribute, operator: str, value: Any, field: str) -> Any:
        if operator in _PRESENCE:
            return None
        if operator in ("in", "not_in", "between"):
            if not isinstance(value, list) or (operator == "between" and len(value) != 2):
                raise self._refusal("invalid_filter_value", "The value must be a list", field)
            return [self._one(attribute, item, field) for item in value]
        if operator in _TEXT:
            if not isinstance(value, str):
                raise self._refusal("invalid_filter_value", "The value must be a text", field)
            return value.casefold()
        one = self._one(attribute, value, field)
        return [one] if operator in _EQUAL else one

    def _one(self, attribute: Attribute, value: Any, field: str) -> Any:
        kind = attribute.value_type
        if kind in STAGE_TYPES:
            stage = stage_named(kind, value)
            if stage is None:
                raise self._refusal("invalid_filter_value", "There is no such stage", field)
            return stage.api_name
        value = value.get("amount") if kind == "currency" and isinstance(value, dict) else value
        if not _fits(kind, value):
            raise self._refusal("invalid_filter_value", f"The value does not fit {kind}", field)
        return comparable(attribute, {ITEMS[kind]: value} if kind in ITEMS else value)

    def _getter(self, record_type: str, path: str, whole: str) -> tuple[Attribute, Getter]:
        first, _, rest = path.partition(".")
        known = _USER if record_type == "user" else self.contract.attributes(record_type)
        attribute = known.get(first)
        if attribute is None:
            edges = {} if record_type == "user" else RELATIONSHIPS[record_type]
            if not rest or first not in edges:
                raise self._refusal("invalid_filter_field", "There is no such field", whole)
            kind, target = edges[first].kind, edges[first].target
            return self._through(target, rest, whole, lambda record: self._others(kind, record))
        held = self._held(record_type, first, attribute)
        if not rest or rest == ITEMS.get(attribute.value_type):
            return attribute, lambda record: [comparable(attribute, value) for value in held(record)]
        if attribute.value_type != "record_reference":
            raise self._refusal("invalid_filter_field", "There is no such field", whole)
        return self._through(attribute.target, rest, whole, held)

    def _through(self, target: str, rest: str, whole: str, ids: Getter) -> tuple[Attribute, Getter]:
        attribute, get = self._getter(target, rest, whole)
        records = self.contract.tenant.tables[TABLE_OF.get(target, "users")].records

        def values(record: Record) -> list[Any]:
            found = (records[id] for id in ids(record) if id in records)
            return [value for other in found for value in get(other)]

        return attribute, values

    def _others(self, kind: str, record: Record) -> list[Any]:
        return [id for _, id in self.contract.space.edges_of(kind, record.id)]

    def _held(self, record_type: str, name: str, attribute: Attribute) -> Getter:
        if name in ("id", "created_at", "updated_at"):
            return lambda record: [getattr(record, name)]
        if attribute.is_array:
            return lambda record: list(record.fields.get(name) or [])
        if name == "display_name" and record_type == "contact":
            return lambda record: [text] if (text := display_name(record)) else []
        kept = self.contract.kept_name(record_type, name)

        def values(record: Record) -> list[Any]:
            value = record.fields.get(kept)
            return [] if value is None or value == "" else [value]

        return values

    def _refusal(self, code: str, message: str, field: str | None = None) -> Refusal:
        return Refusal(self.contract.s.filter_status, code, message, errors={"field": field})


def display_name(record: Record) -> str | None:
    """Return the name that a contact is shown by."""
    parts = (record.fields.get(name) for name in ("first_name", "middle_name", "last_name"))
    return " ".join(part for part in parts if part) or record.fields.get("primary_email")


def _has(operator: str, text: str, wanted: str) -> bool:
    if operator == "contains":
        return wanted in text
    return text.startswith(wanted) if operator == "starts_with" else text.endswith(wanted)


def _fits(kind: str, value: Any) -> bool:
    if kind in NUMBERS:
        return is_amount(value)
    if kind == "timestamp":
        return is_zoned(value)
    return isinstance(value, bool) if kind == "boolean" else isinstance(value, str)
