"""The report's questions about the warehouse itself: how fresh each resource is, and how the runs went."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import WIDE_PX, Chart, Column, columns
from pipelines.reporting.scope import Scope, rows
from pipelines.reporting.sections import Section, Table
from pipelines.warehouse import has_table, quoted

LATE_AFTER = timedelta(hours=24)
_SHOWN_RUNS = 15
_FEWEST_DAYS = 3  # on which something ran, for a chart over time to say anything
_STATES = {"ok": "var(--good)", "failed": "var(--bad)"}
_BAD_ENDS = ("failed", "refused", "guarded", "locked", "interrupted")
_ENDS = {"ok": "var(--good)", **dict.fromkeys(_BAD_ENDS, "var(--bad)")}
_FRESHNESS = {
    "fresh": "var(--good)",
    "late": "var(--s2)",
    "failed": "var(--bad)",
    "never read": "var(--bad)",
    "not served": "var(--s5)",
}

Looked = Mapping[tuple[str, str], datetime]


def freshness(con: duckdb.DuckDBPyConnection, scope: Scope, looked: Looked) -> tuple[Section, list[str]]:
    """Say when each resource was last read to its end; also name those that are late or failing."""
    topic = "Freshness"
    found = rows(
        con,
        """
        select connection, resource, strategy is not null, last_complete_at, last_error
        from roundtrip.resource_state
        where list_contains(getvariable('connections'), connection)
        order by 1, 2
        """,
    )
    if not found:
        return Section("freshness", topic, "Nothing has been pulled yet."), []
    body, late = [], []
    for connection, resource, was_read, complete, error in found:
        at = looked.get((connection, resource), complete)
        state = _state(at, error, was_read=was_read, now=scope.now)
        if state in {"late", "failed", "never read"}:
            late.append(f"{connection}.{resource}")
        age = wording.span(max(0.0, (scope.now - at).total_seconds())) if at else wording.NOTHING
        body.append(
            [
                connection,
                resource,
                state,
                age,
                wording.whole(_live(con, connection, resource)),
                wording.minute(at),
            ]
        )
    served = sum(row[2] != "not served" for row in body)
    title = f"All {wording.counted(served, 'resource')} were read within the last 24 hours"
    if late:
        verb = "is" if len(late) == 1 else "are"
        title = f"{len(late)} of {wording.counted(served, 'resource')} {verb} late or failing: {_some(late)}"
    section = Section(
        "freshness",
        topic,
        title,
        note="When each was last read to its end; the age is that at the time of this report.",
        tables=[
            Table(
                "Freshness per resource",
                ["Connection", "Resource", "State", "Age", "Live rows", "Last read (UTC)"],
                body,
                first_number=3,
                states=_FRESHNESS,
            )
        ],
    )
    return section, late


def _state(at: datetime | None, error: str | None, *, was_read: bool, now: datetime) -> str:
    if error:
        return "failed"
    if at is None:
        return "never read" if was_read else "not served"
    return "late" if now - at > LATE_AFTER else "fresh"


def _some(names: list[str]) -> str:
    return wording.joined(names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} more"])


def _live(con: duckdb.DuckDBPyConnection, connection: str, resource: str) -> int:
    if not has_table(con, connection, resource):
        return 0
    table = f"{quoted(connection)}.{quoted(resource)}"
    return int(rows(con, f"select count(*) from {table} where _deleted_at is null")[0][0])


# -- runs ----------------------------------------------------------------------------------------


def runs(con: duckdb.DuckDBPyConnection, scope: Scope) -> Section:
    """Say how the commands ended, day by day, and list the last ones."""
    topic = "Runs"
    by_day = rows(
        con,
        """
        select date_trunc('day', started_at)::date as day,
            case when status = 'ok' then 'ok' else 'failed' end as ended, count(*)
        from shown_runs group by all order by 1, 2
        """,
    )
    since = wording.day(scope.since)
    if not by_day:
        return Section("runs", topic, f"Nothing has run since {since}.")
    count = sum(row[2] for row in by_day)
    bad = sum(row[2] for row in by_day if row[1] != "ok")
    what = "all ended well" if not bad else f"{wording.whole(bad)} did not end well"
    last = rows(
        con,
        "select command, started_at, epoch(finished_at - started_at), status, masked_text(error)"
        f" from shown_runs order by started_at desc limit {_SHOWN_RUNS}",
    )
    heads = ["Command", "Ended", "Began (UTC)", "Took", "Error"]
    body = [
        [command, status, wording.minute(started), wording.span(took), error or ""]
        for command, started, took, status, error in last
    ]
    if not any(row[-1] for row in body):
        heads, body = heads[:-1], [row[:-1] for row in body]
    return Section(
        "runs",
        topic,
        f"{wording.counted(count, 'run')} since {since}, {what}",
        note="A run is one command, over all its connections."
        + (f" The last {len(body)} are listed." if len(body) < count else ""),
        charts=_run_charts(by_day),
        tables=[Table("The last runs", heads, body, first_number=len(heads), states=_ENDS)],
    )


def _run_charts(by_day: list[tuple[date, str, int]]) -> list[Chart]:
    if len({row[0] for row in by_day}) < _FEWEST_DAYS:
        return []
    parts = [
        Column(
            day,
            day + timedelta(days=1),
            count,
            f"{wording.day(day)}: {count:,} {end}",
            _STATES[end],
        )
        for day, end, count in by_day
    ]
    legend = [("ended well", _STATES["ok"]), ("did not", _STATES["failed"])]
    return [columns("Runs per day", parts, unit="runs a day", legend=legend, width_px=WIDE_PX)]
