"""What to ask a CRM for: a window since the watermark, a whole pass, or the rest of one that was cut."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pipelines.progress import Progress
from pipelines.pulling.fetching import Reading
from sources.core.connector import Resource, Since
from sources.core.passes import honours_since
from sources.core.sessions import Session

_SWEEP_EVERY = timedelta(
    hours=24
)  # how often a windowed resource without a feed is read whole, for deletions


def choose(session: Session, names: Sequence[str], progress: Progress) -> Sequence[Resource]:
    """Give the resources to read: those named, or all, with the ones that they are asked for by."""
    contract = session.contract
    chosen = [contract.resource(each) for each in names]
    for resource in chosen.copy():
        for scope in resource.fan_out:
            needed = contract.resource(scope.resource)
            if scope.applies(session.connection) and needed not in chosen:
                progress.say(f"{session.connection.name}: {resource.name} need {needed.name}, read as well")
                chosen.append(needed)
    return chosen or contract.resources


def decide(
    reading: Reading, *, full: bool, since: datetime | None, now: datetime, progress: Progress
) -> None:
    """Fill in a reading's strategy, window and token.

    `full` forgets window and token; `since` asks for a window of the operator's own, which moves no
    watermark. Where the vendor does not document the filter, it is probed by reading.
    """
    reading.is_rebuild = full
    if isinstance(reading.resource.strategy, Since):
        reading.strategy = _strategy(reading, full=full, now=now)
    if reading.strategy == "since" and since is not None and not full:
        reading.since, reading.backfill = since, True
        return
    state = reading.state
    if reading.strategy == "since" and not full and not _must_read_all(reading, now, progress):
        reading.since = state.watermark
    # A place in one list means nothing in another: only the same window is resumed.
    if not full and state.page_token is not None and state.pass_since == reading.since:
        reading.token = state.page_token


def _strategy(reading: Reading, *, full: bool, now: datetime) -> str:
    strategy, known = reading.resource.strategy, reading.state.strategy
    assert isinstance(strategy, Since)
    if not strategy.probed:
        return "since"
    if known == "since" and not full:
        return known
    if known == "full" and not full and not _sweep_is_due(reading, now):
        return known
    return "since" if honours_since(reading.session, reading.resource) else "full"


def _must_read_all(reading: Reading, now: datetime, progress: Progress) -> bool:
    mark = reading.state.watermark
    if mark is None or mark > now + _SWEEP_EVERY:  # a clock was wrong when it was set: nothing would be seen
        return True
    if reading.has_feed and reading.state.feed_watermark is not None:
        return reading.state.last_full_at is None or _feed_is_too_old(reading, now, progress)
    return _sweep_is_due(reading, now)


def _feed_is_too_old(reading: Reading, now: datetime, progress: Progress) -> bool:
    days = int(reading.session.connection.options["feed_reach_days"])
    looked = reading.state.last_complete_at
    if looked is not None and now - looked <= timedelta(days=days):
        return False
    progress.say(
        f"{reading.connection} {reading.resource.name}: the last look is older than the {days} days for which"
        " the change feed is trusted, so everything is read again"
    )
    return True


def _sweep_is_due(reading: Reading, now: datetime) -> bool:
    last = reading.state.last_full_at
    return last is None or abs(now - last) >= _SWEEP_EVERY
