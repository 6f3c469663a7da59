"""How Relm (classic) lists: `filter[field][op]=value`, opaque cursors, the envelopes."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from operator import ge, gt, le, lt
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, decode, encode, reply
from sources.sandbox.relm_rules import FIELDS, RelmSwitches, is_number
from sources.sandbox.table import Record, Stamp

_FILTER = re.compile(r"filter\[([^\]]+)\](?:\[([^\]]+)\])?")
_NOT_FILTERS = frozenset({"limit", "cursor"})
_COMPARES: dict[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
OPERATORS = ("eq", "neq", *_COMPARES, "ilike", "in")


@dataclass(frozen=True, slots=True)
class Filter:
    """Hold one condition of a list request."""

    field: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Hold what an opaque cursor says: the last row seen, when it was issued and for which filters."""

    stamp: Stamp
    issued_at: float
    filters: str

    def text(self) -> str:
        created_at, id = self.stamp
        packed = encode([created_at.isoformat(), id, self.issued_at, self.filters])
        return urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """Return the cursor in a text; raises `Refusal` 400 when it is none."""
        try:
            packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            created_at, id, issued_at, filters = decode(packed)
            return cls((datetime.fromisoformat(created_at), id), issued_at, filters)
        except (ValueError, TypeError) as error:
            raise invalid_cursor() from error


def invalid_cursor() -> Refusal:
    """Return the refusal of a cursor."""
    return Refusal(400, "invalid_cursor", "The cursor is not valid or has expired; start without one")


@dataclass(frozen=True, slots=True)
class Listing:
    """Read a list request under the switches."""

    switches: RelmSwitches
    resource: str
    filters: list[Filter]
    limit: int
    cursor: Cursor | None

    @classmethod
    def of(cls, request: Request, resource: str, switches: RelmSwitches, now: datetime) -> "Listing":
        """Return what a request asks for; raises `Refusal` 400 for what the switches do not allow."""
        query = request.query
        text = next((value for name, value in query if name == "cursor" and value), None)
        cursor = Cursor.read(text) if text else None
        pairs = [[name, value] for name, value in query if name not in _NOT_FILTERS]
        pairs = _checked_against(cursor, pairs, switches, now) if cursor else pairs
        filters = [one for name, value in pairs if (one := _filter(resource, name, value, switches))]
        return cls(switches, resource, filters, _limit(request.param("limit"), switches), cursor)

    def next_cursor(self, last: Record, request: Request, now: datetime) -> str:
        """Return the cursor that goes on after a row."""
        if self.cursor and self.switches.cursor_carries_filters:
            filters = self.cursor.filters
        else:
            pairs = [[name, value] for name, value in request.query if name not in _NOT_FILTERS]
            filters = _packed(pairs, self.switches)
        # Without a lifetime the same page gives the same cursor.
        issued_at = 0.0 if self.switches.cursor_ttl_s is None else now.timestamp()
        return Cursor((last.created_at, last.id), issued_at, filters).text()

    def is_wanted(self, shown: dict[str, Any]) -> bool:
        """Say whether a rendered record meets every filter."""
        return all(_meets(shown, one, self.switches) for one in self.filters)


def page(rows: Iterable[bytes], next_cursor: str | None) -> Response:
    """Return the list envelope around rendered records."""
    data = b",".join(rows)
    more, after = (b"true", encode(next_cursor)) if next_cursor else (b"false", b"null")
    body = b'{"object":"list","data":[%b],"has_more":%b,"next_cursor":%b}' % (data, more, after)
    return Response(200, body)


def batch_answer(results: list[dict[str, Any]], switches: RelmSwitches) -> Response:
    """Return what a contact batch answers, as far as the switches let it tell."""
    has_failed = any(row["status"] == "failed" for row in results)
    status = switches.batch_partial_status if has_failed else 200
    if switches.batch_answer == "empty":
        return reply({}, status)
    if switches.batch_answer == "counts":
        counts = dict.fromkeys(("created", "updated", "failed"), 0)
        for row in results:
            counts[row["status"]] += 1
        return reply({"object": "batch", **counts}, status)
    name = {"rows": "data"}.get(switches.batch_answer, switches.batch_answer)
    return reply({"object": "batch", name: results}, status)


def _limit(text: str | None, switches: RelmSwitches) -> int:
    if text is None:
        return switches.default_limit
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(400, "invalid_request", "limit must be a positive whole number")
    if int(text) > switches.max_limit and switches.over_limit == "refused":
        raise Refusal(400, "invalid_request", f"limit must be at most {switches.max_limit}")
    return min(int(text), switches.max_limit)


def _checked_against(
    cursor: Cursor, pairs: list[list[str]], switches: RelmSwitches, now: datetime
) -> list[list[str]]:
    if switches.cursor_ttl_s is not None and now.timestamp() - cursor.issued_at > switches.cursor_ttl_s:
        raise invalid_cursor()
    if switches.cursor_carries_filters:
        carried: list[list[str]] = decode(cursor.filters.encode())
        return carried
    if switches.cursor_binds_filters and cursor.filters != _packed(pairs, switches):
        raise invalid_cursor()
    return pairs


def _packed(pairs: list[list[str]], switches: RelmSwitches) -> str:
    if switches.cursor_carries_filters:
        return encode(pairs).decode()
    return sha256(encode(sorted(pairs))).hexdigest()[:12] if switches.cursor_binds_filters else ""


def _filter(resource: str, name: str, value: str, switches: RelmSwitches) -> Filter | None:
    match = _FILTER.fullmatch(name)
    field, op = (match[1], match[2] or "eq") if match else (name, "eq")
    if op not in OPERATORS:
        raise Refusal(400, "invalid_filter", f"Unknown operator: {op}")
    state = _state(resource, field, switches)
    if state == "refused":
        raise Refusal(400, "invalid_filter", f"Unknown field: {field}")
    return Filter(field, op, value) if state == "works" else None


def _state(resource: str, field: str, switches: RelmSwitches) -> str:
    """Say whether a filter on a field works, is ignored or is refused."""
    if field in ("updated_at", "created_at"):
        if switches.updated_at_filter != "as_shown":
            return switches.updated_at_filter
        return "works" if switches.updated_at == "shown" else switches.unknown_filter
    if field.startswith("metadata."):
        return "works" if switches.metadata_filter else switches.unknown_filter
    is_known = field == "id" or FIELDS[resource].get(field, "object") != "object"
    return "works" if is_known else switches.unknown_filter


def _meets(shown: dict[str, Any], one: Filter, switches: RelmSwitches) -> bool:
    held = _held(shown, one.field)
    if one.op == "in":
        return any(_equals(held, value) for value in one.value.split(switches.in_separator))
    if one.op == "eq":
        return _equals(held, one.value)
    if one.op == "neq":
        return held is not None and not _equals(held, one.value)
    if one.op == "ilike":
        return isinstance(held, str) and _is_like(held, one.value, switches)
    return _compares(held, one)


def _held(shown: dict[str, Any], field: str) -> Any:
    if field.startswith("metadata."):
        return (shown.get("metadata") or {}).get(field.removeprefix("metadata."))
    return shown.get(field)


def _equals(held: Any, text: str) -> bool:
    if isinstance(held, bool):
        return text.lower() == str(held).lower()
    if is_number(held):
        return bool(_number(text) == held)
    return bool(held == text)


def _compares(held: Any, one: Filter) -> bool:
    compare = _COMPARES[one.op]
    if is_number(held):
        number = _number(one.value)
        return number is not None and bool(compare(held, number))
    if not isinstance(held, str):
        return False
    if one.field in ("created_at", "updated_at", "occurred_at"):
        return bool(compare(_moment(held), _moment(one.value)))
    return bool(compare(held, one.value))


def _is_like(held: str, pattern: str, switches: RelmSwitches) -> bool:
    if switches.ilike == "contains":
        return pattern.casefold() in held.casefold()
    parts = {"%": ".*", "_": "."}
    expression = "".join(parts.get(letter) or re.escape(letter) for letter in pattern)
    return re.fullmatch(expression, held, re.IGNORECASE | re.DOTALL) is not None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refusal(400, "invalid_filter", "A time must be in ISO 8601") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
