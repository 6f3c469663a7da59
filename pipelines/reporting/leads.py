"""The report's questions about people: how much is done with them, and how the leads score."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import WIDE_PX, Column, columns, histogram, next_month
from pipelines.reporting.scope import Scope, rows
from pipelines.reporting.sections import Section, Table
from pipelines.warehouse import has_table

_SERIES = ("var(--s1)", "var(--s2)", "var(--s3)", "var(--s4)", "var(--s5)")
_MOST_WEEKS = 110  # above that, months are shown
_STEPS = 20
_OTHERS = "all others"
_SCORE = "try_cast(lead_score as double)"

_ACTIVITIES = """
with kept as (
    select occurred_at, coalesce(nullif(clipped(lower(trim(type)), 80), ''), 'no type') as type
    from crm.activities
    where list_contains(getvariable('connections'), connection)
        and occurred_at between getvariable('since') and getvariable('now')
),
most as (select type from kept group by type order by count(*) desc, type limit 4)
select date_trunc('{step}', occurred_at)::date as start,
    case when type in (from most) then type else 'all others' end as kind, count(*)
from kept
group by all
order by start
"""


def activities(con: duckdb.DuckDBPyConnection, scope: Scope) -> Section:
    """Say how much was done in each week, by kind; in each month where the period is long."""
    anchor, topic = "activity", "Activity"
    step = _Step(is_month=scope.now - scope.since > timedelta(weeks=_MOST_WEEKS))
    since = wording.day(scope.since)
    done = _Done(rows(con, _ACTIVITIES.format(step=step.name)), step)
    if not done.found:
        return Section(anchor, topic, f"No activity is known since {since}.")
    colors = dict(zip(done.kinds, _SERIES, strict=False))
    parts = [
        Column(start, step.end(start), count, f"{step.said(start)}, {kind}: {count:,}", colors[kind])
        for start, kind, count in done.found
    ]
    return Section(
        anchor,
        topic,
        f"{done.said} since {since}{done.usual(scope.now.date())}",
        note=f"By the day they took place; weeks begin on Monday. The last {step.name} is not over yet.",
        charts=[
            columns(
                f"Activities per {step.name}",
                parts,
                unit=f"activities a {step.name}",
                legend=list(colors.items()),
                width_px=WIDE_PX,
            )
        ],
        folded=[done.table()],
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """A week or a month, told by its first day."""

    is_month: bool

    @property
    def name(self) -> str:
        return "month" if self.is_month else "week"

    def end(self, start: date) -> date:
        return next_month(start) if self.is_month else start + timedelta(days=7)

    def said(self, start: date) -> str:
        return wording.month(start) if self.is_month else f"Week of {wording.day(start)}"


class _Done:
    """Counts of activities by step and kind; `found` has the most frequent kinds first."""

    def __init__(self, found: Sequence[tuple[Any, ...]], step: _Step) -> None:
        self.step = step
        self.sums: dict[date, int] = {}
        totals: dict[str, int] = {}
        for start, kind, count in found:
            self.sums[start] = self.sums.get(start, 0) + count
            totals[kind] = totals.get(kind, 0) + count
        self.kinds = sorted(totals, key=lambda kind: (kind == _OTHERS, -totals[kind], kind))
        self.found = sorted(found, key=lambda row: self.kinds.index(row[1]))

    @property
    def said(self) -> str:
        return wording.counted(sum(self.sums.values()), "activity", "activities")

    def usual(self, today: date) -> str:
        """Say how much is done in a step on average, those without any counted, the running one not."""
        count, done, start = 0, 0, min(self.sums)
        while self.step.end(start) <= today:
            count, done = count + 1, done + self.sums.get(start, 0)
            start = self.step.end(start)
        return f", {done / count:,.0f} a {self.step.name} on average" if count else ""

    def table(self) -> Table:
        counts = {(start, kind): count for start, kind, count in self.found}
        body = [
            [
                self.step.said(start),
                *(wording.whole(counts.get((start, kind), 0)) for kind in self.kinds),
                wording.whole(total),
            ]
            for start, total in sorted(self.sums.items(), reverse=True)
        ]
        heads = [self.step.name.capitalize(), *map(wording.capital, self.kinds), "Total"]
        return Table(f"Activities per {self.step.name}", heads, body)


# -- scores --------------------------------------------------------------------------------------


def scores(con: duckdb.DuckDBPyConnection) -> Section:
    """Say how the leads of `marts.enriched_leads` score, and how many have each grade."""
    anchor, topic = "scores", "Lead scores"
    if not has_table(con, "marts", "enriched_leads"):
        note = "roundtrip enrich builds marts.enriched_leads."
        return Section(anchor, topic, "There are no scored leads yet.", note=note)
    columns_of = {row[0]: row[1] for row in rows(con, "describe marts.enriched_leads")}
    if "lead_score" not in columns_of:
        return Section(anchor, topic, "marts.enriched_leads has no column lead_score to show.")
    kept = f"from marts.enriched_leads where {_SCORE} is not null and isfinite({_SCORE})"
    if columns_of.get("connections") == "VARCHAR[]":
        kept += " and list_has_any(connections, getvariable('connections'))"
    figures = f"count(*), min({_SCORE}), max({_SCORE}), median({_SCORE})"
    count, low, high, median = rows(con, f"select {figures} {kept}")[0]
    if not count:
        return Section(anchor, topic, "No lead has a score.")
    steps = _spread(con, kept, low, high)
    return Section(
        anchor,
        topic,
        f"Half of {wording.counted(count, 'lead')} score {median:,.0f} or more; the best scores {high:,.0f}",
        note="From marts.enriched_leads, as roundtrip enrich last built it.",
        charts=[histogram("Leads by score", steps, unit="leads", of="lead score")],
        tables=[_grades(con, kept, count) if "lead_grade" in columns_of else _score_steps(steps, count)],
    )


def _spread(
    con: duckdb.DuckDBPyConnection, kept: str, low: float, high: float
) -> list[tuple[float, float, int]]:
    """Count the scores in equal steps from 0 to 100, or over their own range where they leave that."""
    first, width = (0.0, 5.0) if low >= 0 and high <= 100 else (low, (high - low) / _STEPS or 1.0)
    step = f"least(greatest(floor(({_SCORE} - {first}) / {width}), 0), {_STEPS - 1})::integer"
    found = dict(rows(con, f"select {step}, count(*) {kept} group by 1"))
    return [(first + width * each, first + width * (each + 1), found.get(each, 0)) for each in range(_STEPS)]


def _grades(con: duckdb.DuckDBPyConnection, kept: str, count: int) -> Table:
    found = rows(
        con,
        f"select coalesce(clipped(lead_grade::varchar, 80), '–'), count(*), min({_SCORE}), max({_SCORE})"
        f" {kept} group by 1 order by 1 limit 20",
    )
    body = [
        [grade, f"{low:,.0f} to {high:,.0f}", wording.whole(number), wording.share(number, count)]
        for grade, number, low, high in found
    ]
    return Table("Leads by grade", ["Grade", "Scores", "Leads", "Share"], body)


def _score_steps(steps: list[tuple[float, float, int]], count: int) -> Table:
    body = [
        [f"{low:,.0f} to {high:,.0f}", wording.whole(number), wording.share(number, count)]
        for low, high, number in steps
        if number
    ]
    return Table("Leads by score", ["Score", "Leads", "Share"], body)
