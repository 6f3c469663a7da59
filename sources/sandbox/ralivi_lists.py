"""How Ralivi lists: opaque cursors that hold a key or a position, filters by stage, deal or contact."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sources.sandbox.exchange import Refusal, Request, decode, encode
from sources.sandbox.ralivi_rules import ODDS, RaliviSwitches, is_shown
from sources.sandbox.store import Tenant
from sources.sandbox.table import Record, Stamp

FILTERS = {
    "contacts": (),
    "deals": ("stage",),
    "tasks": ("dealId", "contactId"),
    "activities": ("dealId", "contactId"),
}
_START = datetime(1970, 1, 1, tzinfo=UTC)


class Cursor(NamedTuple):
    """Hold what an opaque cursor says: where to go on, and for which listing it was issued."""

    at: str
    id: str
    place: int
    page: int
    issued_at: float
    bonds: str

    def text(self) -> str:
        return urlsafe_b64encode(encode(list(self))).decode().rstrip("=")

    @property
    def stamp(self) -> Stamp:
        return datetime.fromisoformat(self.at), self.id

    @classmethod
    def read(cls, text: str) -> "Cursor | None":
        """Return the cursor in a text, or None when it is none."""
        try:
            cursor = cls(*decode(urlsafe_b64decode(text + "=" * (-len(text) % 4))))
            datetime.fromisoformat(cursor.at)
        except (Refusal, ValueError, TypeError):
            return None
        return cursor


@dataclass(frozen=True, slots=True)
class Listing:
    """Hold what a list request asks for."""

    resource: str
    limit: int
    filters: dict[str, str]
    cursor: Cursor | None
    bonds: str

    @property
    def page(self) -> int:
        return self.cursor.page if self.cursor else 1


@dataclass(frozen=True, slots=True)
class Page:
    """Hold one page of records and the cursor after it."""

    records: list[Record]
    next_cursor: str | None


@dataclass(slots=True)
class Lists:
    """Pick the records a list request asks for."""

    tenant: Tenant
    switches: RaliviSwitches
    _sorted: dict[str, tuple[int, list[Stamp]]] = field(default_factory=dict)

    def page(self, request: Request, resource: str, now: datetime) -> Page:
        """Return one page; raises `Refusal` for what the switches do not allow."""
        limit = self._limit(request.param("limit"))
        filters = self._filters(request, resource)
        bonds = self._bonds(request, resource, limit, filters)
        text = request.param("cursor")
        cursor = Cursor.read(text) if text else None
        if text and (cursor is None or self._is_stale(cursor, bonds, now)):
            cursor = None
            if self.switches.bad_cursor != "first_page":
                return self._no_page()
        return self._filled(Listing(resource, limit, filters, cursor, bonds), text, now)

    def _filled(self, listing: Listing, text: str | None, now: datetime) -> Page:
        quota = self._quota(listing)
        records: list[Record] = []
        end = listing.cursor
        for place, stamp, record in self._wanted(listing, now):
            if len(records) == quota:
                return Page(records, self._next(listing, end, text, now))
            records.append(record)
            end = Cursor(stamp[0].isoformat(), stamp[1], place + 1, 0, 0, "")
        is_followed = bool(records) and self.switches.ends_with_empty_page
        return Page(records, self._next(listing, end, text, now) if is_followed else None)

    def _quota(self, listing: Listing) -> int:
        every = self.switches.short_page_every
        return listing.limit // 2 if every and listing.page % every == 0 else listing.limit

    def _next(self, listing: Listing, end: Cursor | None, text: str | None, now: datetime) -> str | None:
        if listing.page == self.switches.cursor_repeats_on_page:
            return text
        # An empty first page goes on from where nothing has been seen yet.
        end = end or Cursor(_START.isoformat(), "", 0, 0, 0, "")
        return end._replace(page=listing.page + 1, issued_at=now.timestamp(), bonds=listing.bonds).text()

    def _wanted(self, listing: Listing, now: datetime) -> Iterator[tuple[int, Stamp, Record]]:
        """Yield the records after the cursor, with their place in the whole order."""
        stamps = self._stamps(listing.resource)
        records = self.tenant.tables[listing.resource].records
        is_lagging = bool(self.tenant.lag) and listing.resource in self.switches.lagging
        is_descending = self.switches.order.endswith("_desc")
        for place in range(self._first_place(listing.cursor, stamps), len(stamps)):
            stamp = stamps[-1 - place] if is_descending else stamps[place]
            record: Record | None = records[stamp[1]]
            if is_lagging:
                record = self.tenant.listed(records[stamp[1]], now)
            if record and is_shown(record.fields, self.switches) and self._fits(record, listing.filters):
                yield place, stamp, record

    def _first_place(self, cursor: Cursor | None, stamps: list[Stamp]) -> int:
        if cursor is None:
            return 0
        if self.switches.cursor == "position" or not cursor.id:
            return cursor.place
        if self.switches.order.endswith("_desc"):
            return len(stamps) - bisect_left(stamps, cursor.stamp)
        return bisect_right(stamps, cursor.stamp)

    def _stamps(self, resource: str) -> list[Stamp]:
        """Return what the order goes by, ascending; kept until the next write."""
        table = self.tenant.tables[resource]
        version, stamps = self._sorted.get(resource, (-1, []))
        if version != table.version:
            stamps = sorted((self._sorts_by(record), record.id) for record in table)
            self._sorted[resource] = table.version, stamps
        return stamps

    def _sorts_by(self, record: Record) -> datetime:
        if self.switches.order == "id":
            return _START
        return record.created_at if self.switches.order.startswith("created") else record.updated_at

    def _fits(self, record: Record, filters: dict[str, str]) -> bool:
        if not filters:
            return True
        met = [self._meets(record.fields[name], name, text) for name, text in filters.items()]
        return any(met) if self.switches.both_ids == "or" else all(met)

    def _meets(self, held: Any, name: str, text: str) -> bool:
        if name == "stage" and self.switches.stage_filter == "commas":
            return held in text.split(",")
        return bool(held == text)

    def _filters(self, request: Request, resource: str) -> dict[str, str]:
        filters = {name: text for name in FILTERS[resource] if (text := request.param(name))}
        if len(filters) > 1 and self.switches.both_ids == "refused":
            raise Refusal(400, "invalid_filter", "Give dealId or contactId, not both")
        if "stage" in filters and self.switches.unknown_stage == "refused":
            known = {*ODDS, self.switches.lost_stage}
            if not known.issuperset(self._stages(filters["stage"])):
                raise Refusal(400, "invalid_stage", "There is no such stage")
        return filters

    def _stages(self, text: str) -> list[str]:
        return text.split(",") if self.switches.stage_filter == "commas" else [text]

    def _limit(self, text: str | None) -> int:
        if text is None:
            return self.switches.default_limit
        if not text.isdecimal() or int(text) < 1:
            if self.switches.under_limit == "refused":
                raise Refusal(400, "invalid_limit", "limit must be a positive whole number")
            return self.switches.default_limit
        if int(text) > self.switches.max_limit and self.switches.over_limit == "refused":
            raise Refusal(400, "invalid_limit", f"limit must be at most {self.switches.max_limit}")
        return min(int(text), self.switches.max_limit)

    def _bonds(self, request: Request, resource: str, limit: int, filters: dict[str, str]) -> str:
        """Return what a cursor stays tied to; another resource's is always foreign."""
        ties: dict[str, Callable[[], Any]] = {
            "limit": lambda: limit,
            "filters": lambda: sorted(filters.items()),
            "key": lambda: request.headers.get("authorization", ""),
        }
        tied = [resource, *(ties[bond]() for bond in self.switches.cursor_bound_to)]
        return sha256(encode(tied)).hexdigest()[:12]

    def _is_stale(self, cursor: Cursor, bonds: str, now: datetime) -> bool:
        ttl_s = self.switches.cursor_ttl_s
        return cursor.bonds != bonds or (ttl_s is not None and now.timestamp() - cursor.issued_at > ttl_s)

    def _no_page(self) -> Page:
        if self.switches.bad_cursor == "empty":
            return Page([], None)
        status = 404 if self.switches.bad_cursor == "not_found" else 400
        raise Refusal(status, "invalid_cursor", "The cursor is not valid")
