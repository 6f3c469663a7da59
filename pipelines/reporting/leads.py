"""The report's questions about people: how much is done with them, and how the leads score."""

from datetime import date, timedelta
from typing import Any

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import WIDE_PX, Column, columns, histogram
from pipelines.reporting.scope import Scope, rows
from pipelines.reporting.sections import Section, Table
from pipelines.warehouse import has_table

_SERIES = ("var(--s1)", "var(--s2)", "var(--s3)", "var(--s4)", "var(--s5)")
_MOST_WEEKS = 110  # above that, months are shown
_STEPS = 20
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
    """Say how much was done in each week, by kind."""
    topic = "Activity"
    is_long = (scope.now - scope.since) > timedelta(weeks=_MOST_WEEKS)
    step = "month" if is_long else "week"
    found = rows(con, _ACTIVITIES.format(step=step))
    since = wording.day(scope.since)
    if not found:
        return Section("activity", topic, f"No activity is known since {since}.")
    totals: dict[str, int] = {}
    for _, kind, count in found:
        totals[kind] = totals.get(kind, 0) + count
    kinds = sorted(totals, key=lambda kind: (kind == "all others", -totals[kind], kind))
    colors = dict(zip(kinds, _SERIES, strict=False))
    parts = [
        Column(
            start,
            _end(start, step),
            count,
            f"{_step_name(start, step)}, {kind}: {count:,}",
            colors[kind],
        )
        for start, kind, count in sorted(found, key=lambda row: kinds.index(row[1]))
    ]
    sums = _sums(found)
    whole = [count for start, count in sums.items() if _end(start, step) <= scope.now.date()]
    per = f", {sum(whole) / len(whole):,.0f} in a usual {step}" if whole else ""
    return Section(
        "activity",
        topic,
        f"{wording.counted(sum(totals.values()), 'activity', 'activities')} since {since}{per}",
        note=f"By the day they took place; weeks begin on Monday. The last {step} is not over yet.",
        charts=[
            columns(
                f"Activities per {step}",
                parts,
                unit=f"activities a {step}",
                legend=list(colors.items()),
                width_px=WIDE_PX,
            )
        ],
        folded=[_activity_table(found, kinds, sums, step)],
    )


def _sums(found: list[tuple[Any, ...]]) -> dict[date, int]:
    sums: dict[date, int] = {}
    for start, _, count in found:
        sums[start] = sums.get(start, 0) + count
    return sums


def _activity_table(
    found: list[tuple[Any, ...]], kinds: list[str], sums: dict[date, int], step: str
) -> Table:
    counts = {(start, kind): count for start, kind, count in found}
    body = [
        [
            _step_name(start, step),
            *(wording.whole(counts.get((start, kind), 0)) for kind in kinds),
            wording.whole(total),
        ]
        for start, total in sorted(sums.items(), reverse=True)
    ]
    heads = [wording.capital(kind) for kind in kinds]
    return Table(f"Activities per {step}", [step.capitalize(), *heads, "Total"], body)


def _end(start: date, step: str) -> date:
    if step == "week":
        return start + timedelta(days=7)
    return date(start.year + start.month // 12, start.month % 12 + 1, 1)


def _step_name(start: date, step: str) -> str:
    return f"Week of {wording.day(start)}" if step == "week" else wording.month(start)


# -- scores --------------------------------------------------------------------------------------


def scores(con: duckdb.DuckDBPyConnection) -> Section:
    """Say how the leads of `marts.enriched_leads` score, and how many have each grade."""
    topic = "Lead scores"
    table = "enriched_leads"
    if not has_table(con, "marts", table):
        return Section(
            "scores",
            topic,
            "There are no scored leads yet.",
            note="roundtrip enrich builds marts.enriched_leads.",
        )
    present = {row[0] for row in rows(con, f"describe marts.{table}")}
    if "lead_score" not in present:
        return Section("scores", topic, "marts.enriched_leads has no column lead_score to show.")
    where = "true"
    if "connections" in present:
        where = "list_has_any(connections::varchar[], getvariable('connections'))"
    kept = f"from marts.{table} where {_SCORE} is not null and isfinite({_SCORE}) and {where}"
    count, low, high, median = rows(
        con, f"select count(*), min({_SCORE}), max({_SCORE}), median({_SCORE}) {kept}"
    )[0]
    if not count:
        return Section("scores", topic, "No lead has a score.")
    first, width = (0.0, 5.0) if low >= 0 and high <= 100 else (low, (high - low) / _STEPS or 1.0)
    found = dict(
        rows(
            con,
            f"select least(greatest(floor(({_SCORE} - {first}) / {width}), 0), {_STEPS - 1})::integer,"
            f" count(*) {kept} group by 1",
        )
    )
    steps = [(first + width * each, first + width * (each + 1), found.get(each, 0)) for each in range(_STEPS)]
    return Section(
        "scores",
        topic,
        f"Half of {wording.counted(count, 'lead')} score {median:,.0f} or more; the best scores {high:,.0f}",
        note="From marts.enriched_leads, as roundtrip enrich last built it.",
        charts=[histogram("Leads by score", steps, unit="leads", of="lead score")],
        tables=[_grades(con, kept, count) if "lead_grade" in present else _score_steps(steps, count)],
    )


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
