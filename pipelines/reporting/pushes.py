"""The report's questions about pushes: what became of the records, and which were refused and why.

Keys are people's addresses mostly: they are masked unless the report is asked to show them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import WIDE_PX, Bar, bars
from pipelines.reporting.scope import Scope, rows
from pipelines.reporting.sections import Section, Table

OUTCOMES = {
    "created": "var(--s1)",
    "updated": "var(--s3)",
    "deleted": "var(--s4)",
    "skipped": "var(--s5)",
    "conflict": "var(--s2)",
    "rejected": "var(--bad)",
    "unknown": "var(--ink)",
}
_HELD = "('rejected', 'conflict', 'unknown')"
_WRITTEN = ("created", "updated", "deleted")
_SHOWN_REASONS = 50
_SHOWN_KEYS = 3
_SHOWN_SYNCS = 30

# A sync's last push is the last run that ended well or noted a record: one that a guard stopped is none.
_LAST = """
select sync, arg_max(run_id, ended_at) as run_id
from (
    select sync, run_id, max(pushed_at) as ended_at from roundtrip.push_log group by all
    union all
    select replace(command, 'push ', ''), run_id, finished_at
    from shown_runs where command like 'push %' and status = 'ok'
)
group by sync
"""


def outcomes(con: duckdb.DuckDBPyConnection, scope: Scope) -> Section:
    """Say what became of every record that was pushed, by sync."""
    anchor, topic = "pushes", "Pushes"
    since = wording.day(scope.since)
    counted = ", ".join(f"count(*) filter (status = '{name}')" for name in OUTCOMES)
    found = [
        _Pushed(sync, to, last_at, pushes, dict(zip(OUTCOMES, counts, strict=True)))
        for sync, to, last_at, pushes, *counts in rows(con, _pushed(counted))
    ]
    if not found:
        return Section(anchor, topic, f"Nothing has been pushed since {since}.")
    used = [name for name in OUTCOMES if any(each.counts[name] for each in found)]
    written = sum(each.counts[name] for each in found for name in _WRITTEN)
    return Section(
        anchor,
        topic,
        f"{wording.counted(written, 'record')} written since {since}",
        note="One record of one push counts once.",
        charts=[
            bars(
                "Pushed records by outcome",
                [part for each in found for part in each.parts(used)],
                unit="records",
                legend=[(name, OUTCOMES[name]) for name in used],
                width_px=WIDE_PX,
            )
        ],
        tables=[
            Table(
                "Pushes by sync and outcome",
                ["Sync", "To", "Last push (UTC)", "Pushes", *map(wording.capital, used)],
                [each.cells(used) for each in found],
                first_number=3,
            )
        ],
    )


def _pushed(counted: str) -> str:
    return f"""
    select sync, any_value(connection || ' ' || object), max(pushed_at), count(distinct run_id), {counted}
    from roundtrip.push_log
    where list_contains(getvariable('connections'), connection) and pushed_at >= getvariable('since')
    group by sync
    order by count(*) desc, sync
    limit {_SHOWN_SYNCS}
    """


class _Pushed(NamedTuple):
    """What one sync's pushes came to."""

    sync: str
    to: str
    last_at: datetime
    pushes: int
    counts: dict[str, int]

    def parts(self, used: Sequence[str]) -> list[Bar]:
        total = wording.whole(sum(self.counts.values()))
        return [
            Bar(self.sync, self.counts[name], total if name == used[-1] else "", OUTCOMES[name], name)
            for name in used
        ]

    def cells(self, used: Sequence[str]) -> list[str]:
        counts = [wording.whole(self.counts[name]) for name in used]
        return [self.sync, self.to, wording.minute(self.last_at), wording.whole(self.pushes), *counts]


# -- rejections ----------------------------------------------------------------------------------


class _Reason(NamedTuple):
    """Records that did not land for one reason: how many, how many still, and some of them."""

    sync: str
    status: str
    reason: str | None
    records: int
    open_records: int
    last_at: datetime
    keys: list[str | None]

    def cells(self) -> list[str]:
        keys = dict.fromkeys(key or "(no key)" for key in self.keys)
        examples = ", ".join(list(keys)[:_SHOWN_KEYS])
        numbers = [wording.whole(self.open_records), wording.whole(self.records)]
        return [self.sync, self.status, self.reason or "–", examples, wording.day(self.last_at), *numbers]


def rejections(con: duckdb.DuckDBPyConnection, scope: Scope) -> tuple[Section, int]:
    """Say which records did not land and why, and count those that the last pushes left."""
    anchor, topic = "rejections", "Rejections"
    since = wording.day(scope.since)
    found = [_Reason(*row) for row in rows(con, _reasons(show_keys=scope.show_keys))]
    if not found:
        return Section(
            anchor, topic, f"No record was rejected, in conflict or left unknown since {since}."
        ), 0
    open_count = sum(each.open_records for each in found)
    title = f"{wording.counted(open_count, 'record')} did not land in the last pushes"
    section = Section(
        anchor,
        topic,
        title if open_count else "The last pushes held nothing back",
        note=_rejections_note(scope, len(found)),
        tables=[
            Table(
                "Records that did not land, by reason",
                ["Sync", "Outcome", "Reason", "For example", "Last", "Still open", f"Since {since}"],
                [each.cells() for each in found[:_SHOWN_REASONS]],
                first_number=5,
            )
        ],
    )
    return section, open_count


def _reasons(*, show_keys: bool) -> str:
    reason = "clipped(min(error), 300)" if show_keys else "masked_text(min(error))"
    key = "clipped(key, 120)" if show_keys else "masked_key(key)"
    return f"""
    with last as ({_LAST})
    select log.sync, log.status, {reason},
        greatest(count(distinct key), count(*) filter (log.run_id = last.run_id)),
        count(*) filter (log.run_id = last.run_id), max(pushed_at),
        arg_max({key}, pushed_at, {3 * _SHOWN_KEYS})
    from roundtrip.push_log as log
    left join last using (sync)
    where list_contains(getvariable('connections'), connection) and log.status in {_HELD}
        and pushed_at >= getvariable('since')
    group by log.sync, log.status, masked_text(error)
    order by 5 desc, 4 desc, 1, 2, 3
    """


def _rejections_note(scope: Scope, reasons: int) -> str:
    notes = ["They come again with the next push by themselves, once the reason is gone."]
    if not scope.show_keys:
        notes.append("Keys are masked; roundtrip report --show-keys writes them out.")
    if reasons > _SHOWN_REASONS:
        notes.append(f"The {_SHOWN_REASONS} most frequent of {reasons:,} reasons are listed.")
    return " ".join(notes)
