"""Read back what a push wrote, and tell where the CRM shows something else.

By which requests records are read is the CRM modules' knowledge.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from msgspec.structs import replace

from sources.core.bodies import is_echo, value_at
from sources.core.connector import Write
from sources.core.errors import ConnectorError
from sources.core.journal import Booked, Journal, Story, values_of
from sources.core.rows import Row, Sight
from sources.core.sights import is_readable
from sources.core.writing import Courier

VERDICTS = ("verified", "differs", "not_seen")
_READ_AT_ONCE = 500
_WRITTEN = ("created", "updated")


def verify(courier: Courier, story: Story, journal: Journal, *, in_flight: int) -> ConnectorError | None:
    """Read a push's written rows back, and keep with each what the CRM shows; give what stopped it early."""
    places = [place for place, row in enumerate(story.booked) if row.batch_id and row.status in _WRITTEN]
    parts = [places[start : start + _READ_AT_ONCE] for start in range(0, len(places), _READ_AT_ONCE)]

    def read(part: Sequence[int]) -> list[Booked] | ConnectorError:
        try:
            return _read_back(courier, [story.booked[place] for place in part])
        except ConnectorError as error:
            return error

    stopped: ConnectorError | None = None
    with ThreadPoolExecutor(in_flight, thread_name_prefix="verify") as pool:
        for part, seen in zip(parts, pool.map(read, parts), strict=True):
            if isinstance(seen, ConnectorError):
                stopped = seen
                continue
            journal.shown(seen)
            for place, row in zip(part, seen, strict=True):
                story.booked[place] = row
    return stopped


def differing(row: Booked) -> list[str]:
    """Name the fields for which the CRM shows something else than what was sent."""
    if row.verified != "differs":
        return []
    sent = values_of(row.sent)
    return [name for name, shown in row.shown.items() if not is_echo(sent[name], shown)]


def _read_back(courier: Courier, booked: Sequence[Booked]) -> list[Booked]:
    rows = [_row(each) for each in booked]
    since = min(datetime.fromisoformat(each.sent_at or each.pushed_at) for each in booked)
    sights = courier.reread(rows, since)
    return [_judged(courier.write, row, sight) for row, sight in zip(booked, sights, strict=True)]


def _row(booked: Booked) -> Row:
    return Row(
        seq=booked.seq or 0,
        key=booked.key or "",
        crm_id=booked.crm_id,
        action="update" if booked.crm_id else "create",
        fields=values_of(booked.sent),
        match="id" if booked.crm_id else "new",
    )


def _judged(write: Write, row: Booked, sight: Sight | None) -> Booked:
    if sight is None or sight.record is None:
        return replace(row, verified="not_seen")
    sent = values_of(row.sent)
    shown = {name: value_at(sight.record, name) for name in sent if is_readable(write, name)}
    if sent and not shown:  # the record is there, and nothing in it tells of what was sent
        return replace(row, verified="not_seen")
    is_clean = all(is_echo(sent[name], value) for name, value in shown.items())
    return replace(row, verified="verified" if is_clean else "differs", shown=shown)
