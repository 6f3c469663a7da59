"""The report's questions about stages: which deals went on from them, and how long deals stay."""

from collections.abc import Sequence
from typing import NamedTuple

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import WIDE_PX, Bar, bars, grouped
from pipelines.reporting.scope import Scope, rows
from pipelines.reporting.sections import Section, Table

_FEWEST = 5  # deals below which a stage's share is chance and not named in a title


class _Leaving(NamedTuple):
    """What became of the deals that left one stage."""

    stage: str
    left: int
    onward: int
    won: int
    lost: int
    back: int
    gone: int

    @property
    def share(self) -> float:
        return (self.onward + self.won) / self.left

    @property
    def share_text(self) -> str:
        return wording.share(self.onward + self.won, self.left)


def conversion(con: duckdb.DuckDBPyConnection, scope: Scope) -> Section:
    """Say how many of the deals that left a stage went on, and how many were lost there."""
    anchor, topic = "conversion", "Stage conversion"
    since = wording.day(scope.since)
    found = [_Leaving(*row) for row in rows(con, _LEAVINGS)]
    if not found:
        return Section(
            anchor,
            topic,
            f"No deal has left a stage since {since}, as far as the pulls have seen.",
            note="Moves are noted from the first pull on: pull regularly, and this fills.",
        )
    parts = [Bar(wording.capital(each.stage), 100 * each.share, each.share_text) for each in found]
    return Section(
        anchor,
        topic,
        _conversion_title(found),
        note=f"Of the deals that left a stage since {since}: the share that went on to a later stage or was"
        " won.",
        charts=[bars("Share of deals that went on, by stage", parts, unit="% went on", width_px=WIDE_PX)],
        tables=[
            Table(
                "What became of deals that left a stage",
                ["Stage", "Left", "Went on", "Won", "Lost", "Went back", "Deleted", "Conversion"],
                [
                    [wording.capital(each.stage), *map(wording.whole, each[1:]), each.share_text]
                    for each in found
                ],
            )
        ],
    )


_LEAVINGS = """
select stage, count(*), count(*) filter (outcome = 'onward'), count(*) filter (outcome = 'won'),
    count(*) filter (outcome = 'lost'), count(*) filter (outcome = 'back'), count(*) filter (outcome = 'gone')
from stage_ends
group by stage, position
order by position
"""


def _conversion_title(found: Sequence[_Leaving]) -> str:
    enough = [each for each in found if each.left >= _FEWEST]
    if len(enough) < 2:
        return "How often deals went on from each stage"
    worst = min(enough, key=lambda each: each.share)
    return f"Fewest deals go on from {wording.capital(worst.stage)}: {worst.share_text} of those that left it"


# -- time ----------------------------------------------------------------------------------------


class _Staying(NamedTuple):
    """How long deals stayed in one stage before they left, and have stayed that stand there."""

    stage: str
    ended: int
    median_days: float | None
    slow_days: float | None
    standing: int
    age_days: float | None


def stays(con: duckdb.DuckDBPyConnection) -> Section:
    """Say how long deals stay in a stage, and how long those that stand there have stood."""
    anchor, topic = "days", "Days in stage"
    found = [_Staying(*row) for row in rows(con, _STAYINGS)]
    if not found:
        return Section(anchor, topic, "There is no open deal whose time in its stage is known.")
    parts = [part for each in found for part in _stay_bars(each)]
    legend = {part.kind: part.color for part in parts}
    return Section(
        anchor,
        topic,
        _stay_title(found),
        note="Median days. A deal's first stay begins when the CRM says the deal was created.",
        charts=[grouped("Median days in stage", parts, unit="days", legend=list(legend.items()))],
        tables=[
            Table(
                "Days in stage",
                ["Stage", "Left", "Median days", "9 of 10 within", "There now", "Days so far"],
                [_stay_cells(each) for each in found],
            )
        ],
    )


_STAYINGS = """
with gone as (
    select stage, count(*) as ended, median(days) as median_days, quantile_cont(days, 0.9) as slow_days
    from stage_ends
    group by stage
),
waiting as (
    select stage, count(*) as standing,
        median(greatest(epoch(getvariable('now') - entered_at), 0) / 86400) as age_days
    from shown_stays
    where left_at is null
    group by stage
)
select stage, coalesce(ended, 0), median_days, slow_days, coalesce(standing, 0), age_days
from open_stages
left join gone using (stage)
left join waiting using (stage)
where ended > 0 or standing > 0
order by position
"""


def _stay_bars(each: _Staying) -> list[Bar]:
    spans = (
        (each.median_days, "var(--s1)", "until they left"),
        (each.age_days, "var(--s2)", "standing there now"),
    )
    name = wording.capital(each.stage)
    return [
        Bar(name, days, wording.days(days), color, kind) for days, color, kind in spans if days is not None
    ]


def _stay_title(found: Sequence[_Staying]) -> str:
    ages = {each.stage: each.age_days for each in found if each.age_days is not None}
    if not ages:
        return "How long deals stay in each stage"
    slowest = max(ages, key=lambda stage: ages[stage])
    return (
        f"Open deals wait longest in {wording.capital(slowest)}:"
        f" half of them for more than {wording.days(ages[slowest])} days"
    )


def _stay_cells(each: _Staying) -> list[str]:
    return [
        wording.capital(each.stage),
        wording.whole(each.ended),
        wording.days(each.median_days),
        wording.days(each.slow_days),
        wording.whole(each.standing),
        wording.days(each.age_days),
    ]
