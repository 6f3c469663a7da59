"""How Rally lists: offsets over a bare array, `updatedSince`, and the change feed."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sources.sandbox.exchange import Refusal, Request
from sources.sandbox.rally_rules import RECORDS, SINGULAR, RallySwitches, moment, refused, stamp
from sources.sandbox.store import Change, Tenant
from sources.sandbox.table import Record


@dataclass(frozen=True, slots=True)
class Lists:
    """Pick the records a list request asks for."""

    tenant: Tenant
    switches: RallySwitches

    def rows(self, request: Request, resource: str, now: datetime) -> list[Record]:
        """Return one page of records; raises `Refusal` 400 for parameters that make no sense."""
        limit, offset = self._limit(request), self._offset(request)
        since = _moment(request, "updatedSince")
        table, order = self.tenant.tables[resource], self.switches.list_order
        if self.tenant.lag:
            return self._lagging(resource, since, now)[offset : offset + limit]
        if since is None:
            return table.slice(offset, offset + limit, order=order)
        ids = table.updated_since(since, is_inclusive=self.switches.since_inclusive, order=order)
        return [table.records[id] for id in ids[offset : offset + limit]]

    def _lagging(self, resource: str, since: datetime | None, now: datetime) -> list[Record]:
        seen = (self.tenant.listed(record, now) for record in self.tenant.tables[resource])
        rows = [record for record in seen if record and self._is_after(record.updated_at, since)]
        if self.switches.list_order == "updated":
            rows.sort(key=lambda record: (record.updated_at, record.id))
        return rows

    def _is_after(self, at: datetime, since: datetime | None) -> bool:
        return since is None or at > since or (self.switches.since_inclusive and at == since)

    def _limit(self, request: Request) -> int:
        limit = number(request, "limit", self.switches.default_limit, least=1)
        if limit > self.switches.max_limit and self.switches.over_limit == "refused":
            raise refused("limit", f"The limit must be at most {self.switches.max_limit}.")
        return min(limit, self.switches.max_limit)

    def _offset(self, request: Request) -> int:
        offset = number(request, "offset", 0, least=0)
        if self.switches.max_offset is not None and offset > self.switches.max_offset:
            raise refused("offset", f"The offset must be at most {self.switches.max_offset}.")
        return offset


@dataclass(frozen=True, slots=True)
class Feed:
    """Answer `/sync/changes`: entries without record bodies, in the order they happened."""

    tenant: Tenant
    switches: RallySwitches

    def entries(self, request: Request, now: datetime) -> list[dict[str, Any]]:
        """Return the entries after `since`; raises `Refusal` 400 when it is missing."""
        since = _moment(request, "since")
        if since is None:
            raise refused("since", "The since field is required.")
        limit = number(request, "limit", self.switches.feed_default_limit, least=1)
        entities = self._entities(request.param("entities"))
        ceiling = now - timedelta(seconds=self.switches.feed_lag_s)
        found: list[dict[str, Any]] = []
        for change in self._after(since, now):
            if len(found) == min(limit, self.switches.feed_max_limit) or change.at > ceiling:
                break
            if change.resource in entities:
                found.append(self._entry(change))
        return found

    def _after(self, since: datetime, now: datetime) -> Iterator[Change]:
        feed = self.tenant.feed
        bisect = bisect_left if self.switches.feed_inclusive else bisect_right
        start = bisect(feed, since, key=lambda change: change.at)
        if self.switches.feed_retention_days is not None:
            floor = now - timedelta(days=self.switches.feed_retention_days)
            if since < floor and self.switches.feed_gap == "refused":
                raise Refusal(410, "gone", "The feed does not reach back that far")
            start = max(start, bisect_left(feed, floor, key=lambda change: change.at))
        return (feed[place] for place in range(start, len(feed)))

    def _entities(self, text: str | None) -> set[str]:
        if text is None:
            return set(RECORDS)
        asked = {name.strip() for name in text.split(",")}
        if self.switches.feed_unknown_entities == "refused" and not asked <= set(RECORDS):
            raise refused("entities", "The entities field names something unknown.")
        return asked & set(RECORDS)

    def _entry(self, change: Change) -> dict[str, Any]:
        return {
            "id": change.id,
            "entityType": SINGULAR[change.resource],
            "entityId": change.record_id,
            "action": change.action,
            "changedAt": stamp(change.at, self.switches.fraction_digits),
            "changedBy": change.by if self.switches.feed_names_author else None,
        }


def number(request: Request, name: str, default: int, *, least: int) -> int:
    """Return a whole number from the query; raises `Refusal` 400 when it is none or too small."""
    text = request.param(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < least:
        raise refused(name, f"The value '{text}' is not valid.")
    return int(text)


def _moment(request: Request, name: str) -> datetime | None:
    text = request.param(name)
    if text is None:
        return None
    # A plus sign that was not escaped arrives as a blank.
    read = moment(text.replace(" ", "+") if "T" in text else text)
    if read is None:
        raise refused(name, f"The value '{text}' is not a date and time.")
    return read
