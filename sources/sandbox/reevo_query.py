"""How Reevo's v2 pages: filters, up to three sort fields, a limit, a cursor tied to filters and sort."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, TypeAlias

from sources.sandbox.exchange import Refusal, decode, encode
from sources.sandbox.reevo_contract import Contract
from sources.sandbox.reevo_filters import Filters, Getter, Test, is_sortable
from sources.sandbox.reevo_rules import TABLE_OF
from sources.sandbox.table import Fields, Order, Record, Stamp

# A field and whether it descends.
Sort: TypeAlias = tuple[str, bool]
Page: TypeAlias = tuple[list[Record], str | None]

_STAMPED: dict[str, Order] = {"created_at": "created", "updated_at": "updated"}


@dataclass(frozen=True, slots=True)
class Cursor:
    """Hold what an opaque cursor says: the query it goes on with, the last row seen, when it was issued."""

    query: list[Any]
    created_at: str
    updated_at: str
    id: str
    values: list[Any]
    issued_at: float

    def text(self) -> str:
        kept = [self.query, self.created_at, self.updated_at, self.id, self.values, self.issued_at]
        return urlsafe_b64encode(encode(kept)).decode().rstrip("=")

    def stamp(self, order: Order) -> Stamp:
        """Return the place of the last row in an order of time."""
        return datetime.fromisoformat(self.created_at if order == "created" else self.updated_at), self.id


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold a query as it was read."""

    record_type: str
    query: list[Any]
    is_wanted: Test
    sort: list[Sort]
    getters: list[Getter]
    limit: int
    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class Queries:
    """Answer queries over one record type."""

    contract: Contract

    def page(self, record_type: str, sent: Fields) -> Page:
        """Return the rows of a page and the cursor of the next; raises `Refusal`."""
        return self.rows(self.plan(record_type, sent))

    def plan(self, record_type: str, sent: Fields, *, scope: Callable[[Fields], Test] | None = None) -> Plan:
        """Read a query; `scope` makes the test where a record type takes no filters."""
        cursor = self._cursor(sent.get("cursor"))
        query: list[Any] = [record_type, {"filters": [], "sort": []} | _without(sent)]
        if cursor:
            query = self._checked(cursor, query, is_bare=not _without(sent))
        asked = query[1]
        test = scope(asked) if scope else Filters(self.contract).read(record_type, asked["filters"])
        sort = [] if scope else self._sort(record_type, asked["sort"])
        getters = [Filters(self.contract).getter(record_type, name)[1] for name, _ in sort]
        return Plan(record_type, query, test, sort, getters, self._limit(sent.get("limit")), cursor)

    def rows(self, plan: Plan) -> Page:
        """Return the page that a query asks for."""
        found: list[Record] = []
        for record in self._wanted(plan):
            if len(found) == plan.limit:
                return found, self._next(plan, found[-1])
            found.append(record)
        return found, None

    def _wanted(self, plan: Plan) -> Iterator[Record]:
        order, is_descending = self._order(plan.sort)
        if order is None:
            return self._sorted(plan)
        stamp = plan.cursor.stamp(order) if plan.cursor else self._start(plan, order, is_descending)
        table = self.contract.tenant.tables[TABLE_OF[plan.record_type]]
        rows = table.after(stamp, is_descending=is_descending, order=order)
        return (seen for seen in map(self._seen, rows) if seen and plan.is_wanted(seen))

    def _seen(self, record: Record) -> Record | None:
        return self.contract.space.listed(record, self.contract.now())

    def _order(self, sort: list[Sort]) -> tuple[Order | None, bool]:
        """Return the order of time that a sort comes to, if it does, and whether it descends."""
        if not sort:
            return "created", False
        name, is_descending = sort[0]
        is_plain = sort[1:] in ([], [("id", is_descending)])
        return (_STAMPED.get(name) if is_plain else None), is_descending

    def _start(self, plan: Plan, order: Order, is_descending: bool) -> Stamp | None:
        """Return where to start for a filter on the time that is sorted by, without reading what is older."""
        if is_descending or order == "created":
            return None
        for node in plan.query[1]["filters"]:
            if node.get("field") == "updated_at" and node.get("operator") in ("gt", "gte"):
                return datetime.fromisoformat(node["value"]), ""
        return None

    def _sorted(self, plan: Plan) -> Iterator[Record]:
        table = self.contract.tenant.tables[TABLE_OF[plan.record_type]]
        rows = [seen for seen in map(self._seen, table) if seen and plan.is_wanted(seen)]
        directions = [is_descending for _, is_descending in plan.sort]

        def compare(one: tuple[list[Any], str], other: tuple[list[Any], str]) -> int:
            return _compared(one, other, directions)

        placed = sorted(
            ((self._place(plan, row), row) for row in rows), key=lambda pair: _key(pair[0], compare)
        )
        last = (plan.cursor.values, plan.cursor.id) if plan.cursor else None
        return (row for place, row in placed if last is None or compare(place, last) > 0)

    def _place(self, plan: Plan, record: Record) -> tuple[list[Any], str]:
        return [_plain(next(iter(get(record)), None)) for get in plan.getters], record.id

    def _next(self, plan: Plan, last: Record) -> str:
        stamps = last.created_at.isoformat(), last.updated_at.isoformat()
        now = self.contract.now().timestamp()
        return Cursor(plan.query, *stamps, last.id, self._place(plan, last)[0], now).text()

    def _cursor(self, text: Any) -> Cursor | None:
        if text is None:
            return None
        try:
            cursor = Cursor(*decode(urlsafe_b64decode(text + "=" * (-len(text) % 4))))
            cursor.stamp("updated")
        except (ValueError, TypeError) as error:
            raise self._invalid_cursor() from error
        ttl_s = self.contract.s.cursor_ttl_s
        if ttl_s is not None and self.contract.now().timestamp() - cursor.issued_at > ttl_s:
            raise self._invalid_cursor()
        return cursor

    def _checked(self, cursor: Cursor, query: list[Any], *, is_bare: bool) -> list[Any]:
        """Return the query a cursor goes on with; what is sent beside it must be what made it."""
        is_same = query == cursor.query
        may_be_bare = is_bare and not self.contract.s.cursor_needs_query and query[0] == cursor.query[0]
        if not is_same and not may_be_bare:
            raise self._invalid_cursor()
        return cursor.query

    def _invalid_cursor(self) -> Refusal:
        message = "The cursor is not valid here or has expired; start from the first page"
        return Refusal(self.contract.s.filter_status, "invalid_cursor", message)

    def _sort(self, record_type: str, sort: Any) -> list[Sort]:
        status, known = self.contract.s.filter_status, self.contract.attributes(record_type)
        if not isinstance(sort, list) or not all(isinstance(one, dict) for one in sort):
            raise Refusal(status, "unsortable_field", "sort must be a list of objects")
        if len(sort) > 3:
            raise Refusal(status, "sort_too_many_fields", "Sort by three fields at most")
        for one in sort:
            name = one.get("field")
            has_id = self.contract.s.id_sortable
            if (
                not isinstance(name, str)
                or name not in known
                or not is_sortable(name, known[name], has_id=has_id)
            ):
                raise Refusal(status, "unsortable_field", "Not sortable", errors={"field": name})
            if one.get("direction", "asc") not in ("asc", "desc"):
                raise Refusal(status, "unsortable_field", "direction is asc or desc", errors={"field": name})
        return [(one["field"], one.get("direction") == "desc") for one in sort]

    def _limit(self, limit: Any) -> int:
        s = self.contract.s
        if limit is None:
            return s.v2_default_limit
        is_whole = isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
        if not is_whole or (limit > s.v2_max_limit and s.over_limit == "refused"):
            message = f"limit must be a whole number from 1 to {s.v2_max_limit}"
            raise Refusal(s.filter_status, "invalid_filter_value", message, errors={"field": "limit"})
        return min(int(limit), s.v2_max_limit)


def _without(sent: Fields) -> Fields:
    """Return what of a query the cursor is tied to."""
    return {name: value for name, value in sent.items() if name not in ("limit", "cursor")}


def _plain(value: Any) -> Any:
    """Return a comparable value as a cursor can carry it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return float(value) if isinstance(value, Decimal) else value


def _key(place: tuple[list[Any], str], compare: Any) -> Any:
    return cmp_to_key(compare)(place)


def _compared(one: tuple[list[Any], str], other: tuple[list[Any], str], directions: list[bool]) -> int:
    """Compare two rows by their sort values, empty ones last, then by id."""
    for mine, theirs, is_descending in zip(one[0], other[0], directions, strict=True):
        if mine == theirs:
            continue
        if mine is None or theirs is None:
            return 1 if mine is None else -1
        return -1 if (mine < theirs) != is_descending else 1
    return (one[1] > other[1]) - (one[1] < other[1])
