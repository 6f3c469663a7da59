"""The report's questions about deals: what is open, what was won and lost."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import duckdb

from pipelines.reporting import wording
from pipelines.reporting.charts import Bar, Chart, Column, bars, columns, next_month
from pipelines.reporting.scope import MAX_CURRENCIES, Scope, rows
from pipelines.reporting.sections import Section, Table, Tile

_LONGEST_CODE = 8

Amounts = dict[str, Decimal]


def unit_of(currency: str) -> str:
    """Name a currency, also one that the CRM does not tell, or that is no code at all."""
    return (currency if len(currency) <= _LONGEST_CODE else f"{currency[:_LONGEST_CODE]}…") or "(no currency)"


def _currencies(con: duckdb.DuckDBPyConnection) -> list[str]:
    """List the currencies with most deals; the rest is told, never added up."""
    found = rows(
        con,
        "select currency from shown_deals where amount is not null"
        f" group by 1 order by count(*) desc, 1 limit {MAX_CURRENCIES}",
    )
    return [row[0] for row in found]


# -- tiles ---------------------------------------------------------------------------------------


def tiles(con: duckdb.DuckDBPyConnection, scope: Scope) -> list[Tile]:
    """Give the figures of the head: what is open, what was won, how often."""
    open_count, won, lost = rows(
        con,
        """
        select count(*) filter (status = 'open'),
            count(*) filter (status = 'won' and closed_at >= getvariable('since')),
            count(*) filter (status = 'lost' and closed_at >= getvariable('since'))
        from shown_deals
        """,
    )[0]
    since = wording.day(scope.since)
    return [
        Tile("Open deals", wording.whole(open_count), _sums(con, "status = 'open'")),
        Tile(
            f"Won since {since}",
            wording.whole(won),
            _sums(con, "status = 'won' and closed_at >= getvariable('since')"),
        ),
        Tile("Win rate", wording.share(won, won + lost), [f"{won:,} won, {lost:,} lost since {since}"]),
    ]


def _sums(con: duckdb.DuckDBPyConnection, where: str) -> list[str]:
    found = rows(
        con,
        f"select currency, sum(amount) from shown_deals where amount is not null and {where}"
        " group by 1 order by count(*) desc, 1",
    )
    lines = [wording.money(total, unit_of(currency)) for currency, total in found[:MAX_CURRENCIES]]
    more = len(found) - len(lines)
    return [*lines, f"and {wording.counted(more, 'more currency', 'more currencies')}"] if more else lines


# -- pipeline ------------------------------------------------------------------------------------


def pipeline(con: duckdb.DuckDBPyConnection) -> Section:
    """Say what stands in which stage, in deals and in money of each currency."""
    topic = "Pipeline by stage"
    found = rows(
        con,
        """
        select coalesce(position, 999), coalesce(open_stages.stage, 'other stages'), currency,
            count(*), sum(amount)
        from shown_deals
        left join open_stages using (stage)
        where status = 'open'
        group by all
        order by 1, 2
        """,
    )
    if not found:
        return Section("pipeline", topic, "There is no open deal.")
    counts: dict[str, int] = {}
    amounts: dict[str, Amounts] = {}
    for _, stage, currency, count, total in found:
        counts[stage] = counts.get(stage, 0) + count
        if total is not None:
            amounts.setdefault(stage, {})[currency] = total
    currencies = [each for each in _currencies(con) if any(each in sums for sums in amounts.values())]
    most = max(counts, key=lambda stage: counts[stage])
    return Section(
        "pipeline",
        topic,
        f"{wording.counted(sum(counts.values()), 'open deal')}, most of them in {wording.capital(most)}"
        f" ({wording.whole(counts[most])})",
        note="Amounts are added within a currency only.",
        charts=[_stage_chart(counts), *_amount_charts(counts, amounts, currencies)],
        tables=[_pipeline_table(counts, amounts, currencies)],
    )


def _stage_chart(counts: dict[str, int]) -> Chart:
    parts = [Bar(wording.capital(stage), count, wording.whole(count)) for stage, count in counts.items()]
    return bars("Open deals by stage", parts, unit="deals", title="Deals")


def _amount_charts(
    stages: dict[str, int], amounts: dict[str, Amounts], currencies: Sequence[str]
) -> list[Chart]:
    charts = []
    for currency in currencies:
        values = {stage: amounts.get(stage, {}).get(currency) for stage in stages}
        unit = unit_of(currency)
        parts = [
            Bar(wording.capital(stage), max(float(value or 0), 0.0), wording.amount(value), "var(--s2)")
            for stage, value in values.items()
        ]
        title = f"Amount, {unit}"
        charts.append(bars(f"Open amount by stage, {unit}", parts, unit=unit, title=title))
    return charts


def _pipeline_table(counts: dict[str, int], amounts: dict[str, Amounts], currencies: Sequence[str]) -> Table:
    total = sum(counts.values())
    body = [
        [
            wording.capital(stage),
            wording.whole(count),
            wording.share(count, total),
            *(wording.amount(amounts.get(stage, {}).get(currency)) for currency in currencies),
        ]
        for stage, count in counts.items()
    ]
    return Table("Open deals by stage", ["Stage", "Deals", "Share", *map(unit_of, currencies)], body)


# -- won and lost -------------------------------------------------------------------------------


def closings(con: duckdb.DuckDBPyConnection, scope: Scope) -> Section:
    """Say how many deals were won and lost in each month, and what the won ones were worth."""
    topic = "Won and lost"
    found = rows(con, _CLOSED)
    since = wording.day(scope.since)
    if not found:
        return Section("closings", topic, f"No deal has been won or lost since {since}.")
    won, lost = sum(row[1] for row in found), sum(row[2] for row in found)
    parts = []
    for start, month_won, month_lost, _ in found:
        name, end = wording.month(start), next_month(start)
        parts.append(Column(start, end, month_won, f"{name}: {month_won:,} won", "var(--good)"))
        parts.append(Column(start, end, -month_lost, f"{name}: {month_lost:,} lost", "var(--bad)"))
    return Section(
        "closings",
        topic,
        f"{wording.counted(won, 'deal')} won and {wording.whole(lost)} lost since {since}:"
        f" a win rate of {wording.share(won, won + lost)}",
        note=_undated(con),
        charts=[
            columns(
                "Deals won and lost per month",
                parts,
                unit="deals a month, lost below the line",
                legend=[("won", "var(--good)"), ("lost", "var(--bad)")],
            )
        ],
        tables=[_closing_table(found)],
        folded=_worth_table(con, found),
    )


_CLOSED = """
with months as (
    select unnest(generate_series(
        (select date_trunc('month', min(closed_at)) from shown_deals where closed_at >= getvariable('since')),
        getvariable('now'), interval 1 month
    ))::date as month
),
sums as (
    select date_trunc('month', closed_at)::date as month, currency,
        count(*) filter (status = 'won') as won, count(*) filter (status = 'lost') as lost,
        sum(amount) filter (status = 'won') as total
    from shown_deals
    where closed_at >= getvariable('since') and status in ('won', 'lost')
    group by all
)
select month, coalesce(sum(won), 0)::bigint, coalesce(sum(lost), 0)::bigint,
    map_from_entries(list((currency, total)) filter (total is not null))
from months left join sums using (month)
group by month
order by month
"""


def _undated(con: duckdb.DuckDBPyConnection) -> str:
    where = "status in ('won', 'lost') and closed_at is null"
    missing = rows(con, f"select count(*) from shown_deals where {where}")[0][0]
    if not missing:
        return ""
    return f"Not in it: {wording.counted(missing, 'closed deal')} without a known day in the past."


def _closing_table(found: Sequence[tuple[Any, ...]]) -> Table:
    body = [
        [wording.month(month), wording.whole(won), wording.whole(lost), wording.share(won, won + lost)]
        for month, won, lost, _ in reversed(found)
    ]
    return Table("Deals won and lost per month", ["Month", "Won", "Lost", "Win rate"], body)


def _worth_table(con: duckdb.DuckDBPyConnection, found: Sequence[tuple[Any, ...]]) -> list[Table]:
    """Give what was won per month in each currency; none where no won deal has an amount."""
    worths = {month: worth or {} for month, _, _, worth in found}
    used = [each for each in _currencies(con) if any(each in worth for worth in worths.values())]
    body = [
        [wording.month(month), *(wording.amount(worth.get(currency)) for currency in used)]
        for month, worth in sorted(worths.items(), reverse=True)
    ]
    return [Table("Amounts won per month", ["Month", *map(unit_of, used)], body)] if used else []
