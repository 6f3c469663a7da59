"""The report's questions about the warehouse itself: how fresh each resource is, and how the runs went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import WIDE_PX, Chart, Column, columns
from pipelines.reporting.scope import Scope, rows
from pipelines.reporting.sections import Section, Table
from pipelines.warehouse import RunRecord, has_table, quoted

LATE_AFTER = timedelta(hours=24)
_SHOWN_RUNS = 15
_FEWEST_STEPS = 3  # in which something ran, for a chart over time to say anything
_LONG = timedelta(days=60)  # more days than this are shown by the week
_BAD_ENDS = ("failed", "refused", "guarded", "locked", "interrupted")
_ENDS = {"ok": "var(--good)", **dict.fromkeys(_BAD_ENDS, "var(--bad)")}
_FRESHNESS = {
    "fresh": "var(--good)",
    "late": "var(--s2)",
    "failed": "var(--bad)",
    "never read": "var(--bad)",
    "not served": "var(--s5)",
}
_LATE = {"late", "failed", "never read"}


@dataclass(frozen=True, slots=True)
class Noted:
    """What runs say of resources that no generation holds yet: when they found nothing new, and errors."""

    looked: Mapping[tuple[str, str], datetime]
    errors: Mapping[tuple[str, str], str | None]


def noted(looked: Mapping[tuple[str, str], datetime], runs: Sequence[RunRecord]) -> Noted:
    """Gather what the notes of runs, oldest first, say of resources."""
    entries = [each for run in runs if run.command == "pull" for each in run.counts.get("resources", [])]
    return Noted(looked, {(each["connection"], each["resource"]): each.get("error") for each in entries})


@dataclass(frozen=True, slots=True)
class _Resource:
    connection: str
    name: str
    state: str
    read_at: datetime | None

    def cells(self, con: duckdb.DuckDBPyConnection, now: datetime) -> list[str]:
        age = (
            wording.span(max(0.0, (now - self.read_at).total_seconds())) if self.read_at else wording.NOTHING
        )
        live = wording.whole(_live(con, self.connection, self.name))
        return [self.connection, self.name, self.state, age, live, wording.minute(self.read_at)]


def freshness(con: duckdb.DuckDBPyConnection, scope: Scope, notes: Noted) -> tuple[Section, int]:
    """Say when each resource was last read to its end; also count those that are late or failing."""
    anchor, topic = "freshness", "Freshness"
    found = [_resource(row, notes, scope.now) for row in rows(con, _RESOURCES)]
    if not found:
        return Section(anchor, topic, "Nothing has been pulled yet."), 0
    late = [f"{each.connection}.{each.name}" for each in found if each.state in _LATE]
    section = Section(
        anchor,
        topic,
        _freshness_title(sum(each.state != "not served" for each in found), late),
        note="When each was last read to its end; the age is that at the time of this report.",
        tables=[
            Table(
                "Freshness per resource",
                ["Connection", "Resource", "State", "Age", "Live rows", "Last read (UTC)"],
                [each.cells(con, scope.now) for each in found],
                first_number=3,
                states=_FRESHNESS,
            )
        ],
    )
    return section, len(late)


_RESOURCES = """
select connection, resource, strategy is not null, last_complete_at, last_error
from roundtrip.resource_state
where list_contains(getvariable('connections'), connection)
order by 1, 2
"""


def _resource(row: tuple[Any, ...], notes: Noted, now: datetime) -> _Resource:
    connection, name, was_read, complete, error = row
    at = notes.looked.get((connection, name), complete)
    state = _state(at, notes.errors.get((connection, name), error), was_read=was_read, now=now)
    return _Resource(connection, name, state, at)


def _freshness_title(served: int, late: Sequence[str]) -> str:
    resources = wording.counted(served, "resource")
    if late:
        return (
            f"{len(late)} of {resources} {'is' if len(late) == 1 else 'are'} late or failing: {_some(late)}"
        )
    return f"{resources} read within the last 24 hours, none late"


def _state(at: datetime | None, error: str | None, *, was_read: bool, now: datetime) -> str:
    if error:
        return "failed"
    if at is None:
        return "never read" if was_read else "not served"
    return "late" if now - at > LATE_AFTER else "fresh"


def _some(names: Sequence[str]) -> str:
    return wording.joined(names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} more"])


def _live(con: duckdb.DuckDBPyConnection, connection: str, resource: str) -> int:
    if not has_table(con, connection, resource):
        return 0
    table = f"{quoted(connection)}.{quoted(resource)}"
    return int(rows(con, f"select count(*) from {table} where _deleted_at is null")[0][0])


# -- runs ----------------------------------------------------------------------------------------


def runs(con: duckdb.DuckDBPyConnection, scope: Scope) -> Section:
    """Say how the commands ended, day by day, and list the last ones."""
    anchor, topic = "runs", "Runs"
    since = wording.day(scope.since)
    count, bad, first = rows(con, _RUNS)[0]
    if not count:
        return Section(anchor, topic, f"Nothing has run since {since}.")
    what = "all ended well" if not bad else f"{wording.whole(bad)} did not end well"
    table = _run_table(con)
    listed = f" The last {len(table.rows)} are listed." if len(table.rows) < count else ""
    return Section(
        anchor,
        topic,
        f"{wording.counted(count, 'run')} since {since}, {what}",
        note=f"A run is one command, over all its connections.{listed}",
        charts=_run_charts(con, is_long=scope.now - first > _LONG),
        tables=[table],
    )


_RUNS = "select count(*), count(*) filter (status <> 'ok'), min(started_at) from shown_runs"


def _run_table(con: duckdb.DuckDBPyConnection) -> Table:
    last = rows(
        con,
        "select command, status, started_at, epoch(finished_at - started_at), masked_text(error)"
        f" from shown_runs order by started_at desc limit {_SHOWN_RUNS}",
    )
    heads = ["Command", "Ended", "Began (UTC)", "Took", "Error"]
    if not any(row[-1] for row in last):
        heads.pop()
    cells = [
        [command, status, wording.minute(started), wording.span(took), error or ""][: len(heads)]
        for command, status, started, took, error in last
    ]
    return Table("The last runs", heads, cells, first_number=len(heads), states=_ENDS)


def _run_charts(con: duckdb.DuckDBPyConnection, *, is_long: bool) -> list[Chart]:
    """Show the runs per day, or per week over a long time; nothing where they all lie close together."""
    step, days = ("week", 7) if is_long else ("day", 1)
    found = rows(
        con,
        f"select date_trunc('{step}', started_at)::date, status = 'ok', count(*)"
        " from shown_runs group by all order by 2 desc, 1",
    )
    if len({row[0] for row in found}) < _FEWEST_STEPS:
        return []
    length = timedelta(days=days)
    parts = [_run_column(start, count, step, length, is_ok=is_ok) for start, is_ok, count in found]
    legend = [("ended well", "var(--good)"), ("did not", "var(--bad)")]
    return [columns(f"Runs per {step}", parts, unit=f"runs a {step}", legend=legend, width_px=WIDE_PX)]


def _run_column(start: date, count: int, step: str, length: timedelta, *, is_ok: bool) -> Column:
    said = f"{step} of {wording.day(start)}: {count:,} {'ended well' if is_ok else 'did not end well'}"
    return Column(start, start + length, count, said, "var(--good)" if is_ok else "var(--bad)")
