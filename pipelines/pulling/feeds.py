"""The change feed's part in a pull: read once per connection, it tells deletions and checks the lists."""

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb

from pipelines.pulling import deltas
from pipelines.pulling.fetching import Reading
from sources.core.answers import split
from sources.core.changes import FeedReading, read_feed
from sources.core.connector import OneObject
from sources.core.errors import ConnectorError, GoneError, ProtocolError
from sources.core.sessions import Session
from sources.core.spool import Spool, type_rows

_MAX_SINGLE_READS = 200


class Feeds:
    """Read each connection's feed at most once in a run, and only after its lists."""

    def __init__(self, *, lookback: timedelta, say: Callable[[str], None]) -> None:
        self._lookback = lookback
        self._say = say
        self._read: dict[int, FeedReading | None] = {}
        self._gaps: dict[int, bool] = {}

    def consult(self, reading: Reading, siblings: Sequence[Reading]) -> FeedReading | None:
        """Give the feed's word on a finished reading, or None where there is no feed to be had.

        Sets the reading's feed watermark, or its error when the feed could not be read.
        """
        if not reading.has_feed or reading.error is not None or not reading.complete or reading.backfill:
            return None
        assert reading.started is not None
        if reading.is_full:  # absence tells what is gone, and the feed can be followed from here on
            reading.feed_watermark = reading.started - self._lookback
        if reading.is_full or reading.state.feed_watermark is None:
            return None
        try:
            feed = self._reading(reading, siblings)
        except ConnectorError as error:
            reading.error = error
            return None
        reading.feed_watermark = self._mark(reading, feed)
        reading.has_gap = feed is None and self._gaps[id(reading.session)]
        return feed

    def _reading(self, reading: Reading, siblings: Sequence[Reading]) -> FeedReading | None:
        key = id(reading.session)
        if key not in self._read:
            marks = (each.state.feed_watermark for each in siblings if _asks_feed(each, reading.session))
            since = min(mark for mark in marks if mark is not None)
            feed = reading.session.contract.feed
            assert feed is not None
            try:
                self._read[key] = read_feed(reading.session, feed, since)
            except GoneError as error:
                # 404: a tenant without the feed, passes find deletions. 410: it does not reach back so far.
                self._read[key], self._gaps[key] = None, error.status == 410
                self._say_gap(reading, since)
        return self._read[key]

    def _say_gap(self, reading: Reading, since: datetime) -> None:
        if self._gaps[id(reading.session)]:
            self._say(
                f"{reading.connection}: the change feed does not reach back to {since:%Y-%m-%d %H:%M} UTC, so"
                " the next pull reads everything"
            )

    def _mark(self, reading: Reading, feed: FeedReading | None) -> datetime | None:
        before = reading.state.feed_watermark
        if feed is None:
            return None
        if feed.newest is None or before is None:
            return before
        return max(before, min(feed.newest, reading.now()) - self._lookback)


def _asks_feed(reading: Reading, session: Session) -> bool:
    """Tell whether a reading may need the feed; one that reads the whole list anew goes without its past."""
    is_part = reading.since is not None or reading.token is not None
    return reading.session is session and is_part and not reading.backfill


def fetch_unlisted(
    con: duckdb.DuckDBPyConnection, reading: Reading, feed: FeedReading, folder: Path
) -> Path | None:
    """Ask one by one for records that the feed calls changed and the list did not show.

    Gives a typed file, or None when there are none. Past a bound the resource is left to a full pass.
    """
    assert reading.session.contract.feed is not None
    entity = reading.session.contract.feed.entities[reading.resource.name]
    ids = deltas.keep_unseen(con, reading, feed.ids(entity, {"inserted", "updated"}))
    if not ids or reading.since is None or reading.resource.one is None:
        return None
    if len(ids) > _MAX_SINGLE_READS:
        reading.unlisted = len(ids)
        return None
    spool = Spool(folder / reading.connection / f"{reading.resource.name}.unlisted.ndjson", reading.shield)
    with contextlib.closing(spool):
        for each in sorted(ids):
            _fetch_one(reading, each, spool)
    if not spool.rows:
        return None
    target = spool.path.with_suffix(".parquet")
    type_rows([spool.path], reading.resource, target, now=reading.now())
    reading.rows += spool.rows
    return target


def _fetch_one(reading: Reading, record_id: str, spool: Spool) -> None:
    assert reading.resource.one is not None
    try:
        answer = reading.session.client.get(
            reading.resource.one.format(id=quote(record_id, safe="")), resource=reading.resource.name
        )
    except GoneError:
        return
    try:
        part = split(answer, OneObject(data=None), reading.resource.key)
    except ProtocolError:
        part = split(answer, OneObject(), reading.resource.key)
    if [each.lower() for each in part.ids] != [record_id.lower()]:
        raise ProtocolError(
            "asked for one record, the CRM showed another",
            connection=reading.connection,
            resource=reading.resource.name,
        )
    spool.append(part.rows)
