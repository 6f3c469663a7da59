"""What to ask for and what an answer proves: watermarks, the change feed, and the deletion guard.

Pure rules, but for `read_feed`, which asks. Nothing here knows a warehouse.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sources.core.connector import Feed, FeedEntry
from sources.core.errors import GoneError, ProtocolError
from sources.core.passes import timestamp_text
from sources.core.sessions import Session

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)  # some systems write the year 1 where there is no time
_RESOLUTION = timedelta(seconds=2)  # stamps have whole seconds, and `since` may exclude its own second
_MAX_FEED_LIMIT = 64_000


def watermark(started: datetime, newest: datetime | None, now: datetime, lookback: timedelta) -> datetime:
    """Give the moment from which the next pull re-reads.

    `started` is the pass's start by the server's clock, `newest` the newest change stamp seen that was not
    ahead of the clock. The mark never runs ahead of any of the three; what happened within the resolution
    of a stamp is always read again.
    """
    mark = min(moment for moment in (started, newest, now) if moment is not None)
    return mark - max(lookback, _RESOLUTION)


def is_mass_deletion(missing: int, live: int, *, max_share: float, max_number: int) -> bool:
    """Tell whether so many records are missing that a person must say that they are really gone."""
    return missing > max_number or missing > live * max_share


@dataclass(slots=True)
class FeedReading:
    """What a change feed told: the last entry per entity and id, and the newest moment reached.

    An id is the same in any case: a GUID is often written otherwise in a feed than in the lists.
    """

    last: dict[tuple[str, str], FeedEntry] = field(default_factory=dict)
    newest: datetime | None = None
    pages: int = 0

    def note(self, entry: FeedEntry) -> None:
        """Keep an entry where it is the last one of its record; a page may show an earlier one late."""
        place = (entry.entity, entry.id.lower())
        known = self.last.get(place)
        if known is None or known.seq < entry.seq:
            self.last[place] = entry

    def ids(self, entity: str, actions: Collection[str]) -> set[str]:
        """List the ids of an entity whose last action is one of these, in the feed's spelling."""
        return {
            entry.id for entry in self.last.values() if entry.entity == entity and entry.action in actions
        }


def read_feed(session: Session, feed: Feed, since: datetime) -> FeedReading:
    """Read a change feed from a moment to its end.

    The feed resumes by time only and its stamps have whole seconds, so each page is asked for with an
    overlap and entries are told apart by their number. Fewer entries than the documented default page are
    the end; a full page without a new entry is asked for again with a larger limit, since time alone
    cannot pass it. Where the server gives no more than that page however much is asked for, the feed has a
    gap: `GoneError` with status 410.
    """
    reading = FeedReading()
    seen: set[int] = set()
    limit = feed.limit
    while True:
        entries = _feed_page(session, feed, since, limit)
        reading.pages += 1
        fresh = [entry for entry in entries if entry.seq not in seen]
        for entry in fresh:
            seen.add(entry.seq)
            reading.note(entry)
            reading.newest = max(reading.newest or _EARLIEST, entry.at)
        if not fresh and (len(entries) < feed.limit or feed.limit < len(entries) < limit):
            return reading
        # An entry dated ahead of the clock must not carry the reading past those that come after it.
        now = session.client.server_time() or datetime.now(UTC)
        following = max(min(max(entry.at for entry in entries), now), _EARLIEST) - _RESOLUTION
        if following <= since and not fresh:
            limit = _raise_limit(limit)
        since = max(since, following)


def _feed_page(session: Session, feed: Feed, since: datetime, limit: int) -> list[FeedEntry]:
    params = (
        (feed.param, timestamp_text(since)),
        ("entities", ",".join(feed.entities)),
        (feed.limit_param, str(limit)),
    )
    answer = session.client.get(feed.path, params, resource="changes")
    body = answer.json()
    if not isinstance(body, list):
        raise ProtocolError(
            "the change feed is not a list", connection=session.connection.name, resource="changes"
        )
    entries: list[Any] = body
    return [feed.parse(entry) for entry in entries]


def _raise_limit(limit: int) -> int:
    if limit >= _MAX_FEED_LIMIT:
        raise GoneError(
            "more changes share one moment than the change feed shows at once",
            resource="changes",
            status=410,
            hint="Run a full pull: `roundtrip pull --full`.",
        )
    return limit * 4
