"""Which records are gone: told by a change feed, or absent from a pass that is proven complete.

Absence is confirmed record by record, or by a second pass where records cannot be asked for one by one.
Too many at once trip a guard: then nothing is marked.
"""

import duckdb

from pipelines.pulling import deltas
from pipelines.pulling.fetching import Reading
from sources.core.changes import FeedReading, is_mass_deletion
from sources.core.errors import GuardError
from sources.core.passes import Pass, is_gone


def find_gone(
    con: duckdb.DuckDBPyConnection,
    reading: Reading,
    feed: FeedReading | None,
    *,
    max_share: float | None,
    max_number: int,
) -> set[str]:
    """List the records to mark as deleted after a finished reading.

    `max_share` None accepts any number. Raises `GuardError` when too many are missing, and what the CRM
    raises while absence is confirmed. A reading that failed or was cut proves nothing.
    """
    if not reading.complete or reading.error is not None or reading.backfill:
        return set()
    told: set[str] = set()
    if feed is not None and reading.has_feed:
        told = deltas.keep_live(con, reading, feed.ids(_entity(reading), {"deleted"}))
    has_seen_all = reading.is_full and not reading.refused
    absent = deltas.find_absent(con, reading) - told if has_seen_all else set()
    check_number(con, reading, len(told | absent), max_share=max_share, max_number=max_number)
    return told | _confirm(reading, absent)


def check_number(
    con: duckdb.DuckDBPyConnection,
    reading: Reading,
    missing: int,
    *,
    max_share: float | None,
    max_number: int,
) -> None:
    """Raise `GuardError` when so many records are missing that a person must say that they are gone."""
    live = deltas.count_live(con, reading)
    if max_share is None or not is_mass_deletion(missing, live, max_share=max_share, max_number=max_number):
        return
    raise GuardError(
        f"{missing} of {live} records are missing in the CRM; none was marked as deleted",
        connection=reading.connection,
        resource=reading.resource.name,
        hint="If they are really gone, run the same command with --accept-deletes.",
    )


def _confirm(reading: Reading, absent: set[str]) -> set[str]:
    if not absent:
        return absent
    if reading.resource.one is not None:
        return {each for each in absent if is_gone(reading.session, reading.resource, each)}
    second = Pass(reading.session, reading.resource, scopes=reading.scopes)
    for page in second:
        absent = absent - set(page.ids)
    return absent if second.complete and not second.refused else set()


def _entity(reading: Reading) -> str:
    feed = reading.session.contract.feed
    assert feed is not None
    return feed.entities[reading.resource.name]
