"""How Vivre lists: limit and offset with a total, full-text search, a least score."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zlib import crc32

from sources.sandbox.exchange import Request
from sources.sandbox.store import Tenant
from sources.sandbox.table import Fields, Record
from sources.sandbox.vivre_rules import VivreSwitches, invalid

_SEARCHED = ("name", "email", "company")
_WORD = re.compile(r"\w+")


class Wanted(NamedTuple):
    """Hold what narrows a list of contacts."""

    search: str = ""
    score_min: int | None = None


class Page(NamedTuple):
    """Hold one page of records and what the envelope says of it."""

    records: list[Record]
    total: int
    limit: int
    offset: int


@dataclass(slots=True)
class Lists:
    """Pick the records a list request asks for."""

    tenant: Tenant
    switches: VivreSwitches
    _answered: int = 0
    _kept: dict[str, tuple[tuple[int, Wanted], list[Record]]] = field(default_factory=dict)

    def page(self, request: Request, resource: str, now: datetime) -> Page:
        """Return one page; raises `Refusal` 400 for parameters that make no sense."""
        asked = self._limit(request.param("limit"))
        limit = min(asked, self.switches.max_limit)
        offset = self._offset(request.param("offset"))
        wanted = self._wanted(request) if resource == "contacts" else Wanted()
        records = self._rows(resource, wanted, now)
        echo = asked if self.switches.limit_echo == "asked" else limit
        return Page(records[offset : offset + limit], len(records), echo, offset)

    def _rows(self, resource: str, wanted: Wanted, now: datetime) -> list[Record]:
        """Return all rows in order; kept until the next write, for page after page."""
        version = self.tenant.tables[resource].version
        is_fleeting = self.switches.ties == "shuffled" or (wanted.search and self.switches.search_lag_s)
        kept = self._kept.get(resource)
        if kept and kept[0] == (version, wanted) and not is_fleeting:
            return kept[1]
        rows = self._found(resource, wanted, now)
        self._kept[resource] = (version, wanted), rows
        return rows

    def _found(self, resource: str, wanted: Wanted, now: datetime) -> list[Record]:
        rows = list(self.tenant.tables[resource])
        if wanted.score_min is not None:
            scored = (row for row in rows if row.fields["ai_score"] is not None)
            rows = [row for row in scored if row.fields["ai_score"] >= wanted.score_min]
        if wanted.search:
            is_hit = self._search(wanted.search)
            newest = now - timedelta(seconds=self.switches.search_lag_s)
            rows = [row for row in rows if row.updated_at <= newest and is_hit(row.fields)]
        return self._ordered(rows)

    def _ordered(self, rows: list[Record]) -> list[Record]:
        is_by_update = self.switches.order == "updated_desc"
        self._answered += 1
        serial = self._answered if self.switches.ties == "shuffled" else 0

        def place(row: Record) -> tuple[datetime, int, str]:
            at = row.updated_at if is_by_update else row.created_at
            return at, crc32(f"{serial} {row.id}".encode()) if serial else 0, row.id

        return sorted(rows, key=place, reverse=self.switches.order != "created_asc")

    def _search(self, text: str) -> Callable[[Fields], bool]:
        """Return what tells a hit: the text anywhere, or each of its words somewhere."""
        fold = str.casefold if self.switches.search_folds_case else str

        def held(fields: Fields) -> str:
            return fold("\n".join(fields[name] or "" for name in _SEARCHED))

        if self.switches.search == "contains":
            return lambda fields: fold(text) in held(fields)
        words = set(_WORD.findall(fold(text)))
        return lambda fields: words.issubset(_WORD.findall(held(fields)))

    def _wanted(self, request: Request) -> Wanted:
        text = request.param("score_min")
        if text is None:
            return Wanted(request.param("search") or "")
        if not text.isdecimal() or int(text) > 100:
            raise invalid("score_min", "must be a whole number from 0 to 100")
        return Wanted(request.param("search") or "", int(text))

    def _limit(self, text: str | None) -> int:
        if text is None:
            return self.switches.default_limit
        if not text.isdecimal() or int(text) < 1:
            raise invalid("limit", "must be a positive whole number")
        if int(text) > self.switches.max_limit and self.switches.over_limit == "refused":
            raise invalid("limit", f"must be at most {self.switches.max_limit}")
        return int(text)

    def _offset(self, text: str | None) -> int:
        if text is None:
            return 0
        if text.startswith("-") and text[1:].isdecimal() and self.switches.negative_offset == "zero":
            return 0
        if not text.isdecimal():
            raise invalid("offset", "must be a whole number from 0")
        if self.switches.max_offset is not None and int(text) > self.switches.max_offset:
            raise invalid("offset", f"must be at most {self.switches.max_offset}")
        return int(text)


def envelope(rows: list[bytes], page: Page) -> bytes:
    """Return the documented list envelope around rendered records."""
    told: tuple[Any, ...] = (b",".join(rows), page.total, page.limit, page.offset)
    return b'{"data":[%b],"total":%d,"limit":%d,"offset":%d}' % told
