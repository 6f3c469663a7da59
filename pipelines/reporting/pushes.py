"""The report's questions about pushes: what became of the records, and which were refused and why.

Keys are people's addresses mostly: they are masked unless the report is asked to show them.
"""

from collections.abc import Sequence

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
    topic = "Pushes"
    found = rows(
        con,
        f"""
        select sync, any_value(connection || ' ' || object), max(pushed_at), count(distinct run_id),
            {", ".join(f"count(*) filter (status = '{name}')" for name in OUTCOMES)}
        from roundtrip.push_log
        where list_contains(getvariable('connections'), connection) and pushed_at >= getvariable('since')
        group by sync order by count(*) desc, sync limit {_SHOWN_SYNCS}
        """,
    )
    since = wording.day(scope.since)
    if not found:
        return Section("pushes", topic, f"Nothing has been pushed since {since}.")
    used = [(name, 4 + at) for at, name in enumerate(OUTCOMES) if any(row[4 + at] for row in found)]
    parts = [
        Bar(
            row[0],
            row[at],
            wording.whole(sum(row[4:])) if name == used[-1][0] else "",
            OUTCOMES[name],
            name,
        )
        for row in found
        for name, at in used
    ]
    written = sum(sum(row[4:7]) for row in found)
    body = [
        [
            row[0],
            row[1],
            wording.minute(row[2]),
            wording.whole(row[3]),
            *(wording.whole(row[at]) for _, at in used),
        ]
        for row in found
    ]
    return Section(
        "pushes",
        topic,
        f"{wording.counted(written, 'record')} written since {since}",
        note="One record of one push counts once.",
        charts=[
            bars(
                "Pushed records by outcome",
                parts,
                unit="records",
                legend=[(name, OUTCOMES[name]) for name, _ in used],
                width_px=WIDE_PX,
            )
        ],
        tables=[
            Table(
                "Pushes by sync and outcome",
                ["Sync", "To", "Last push (UTC)", "Pushes", *(name.capitalize() for name, _ in used)],
                body,
                first_number=3,
            )
        ],
    )


def rejections(con: duckdb.DuckDBPyConnection, scope: Scope) -> tuple[Section, int]:
    """Say which records did not land and why, and count those that the last pushes left."""
    topic = "Rejections"
    reason = "clipped(min(error), 300)" if scope.show_keys else "masked_text(min(error))"
    key = "clipped(key, 120)" if scope.show_keys else "masked_key(key)"
    found = rows(
        con,
        f"""
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
        """,
    )
    since = wording.day(scope.since)
    if not found:
        return Section(
            "rejections", topic, f"No record was rejected, in conflict or left unknown since {since}."
        ), 0
    open_count = sum(row[4] for row in found)
    body = [
        [
            sync,
            status,
            reason or wording.NOTHING,
            _some(keys),
            wording.day(at),
            wording.whole(left),
            wording.whole(count),
        ]
        for sync, status, reason, count, left, at, keys in found[:_SHOWN_REASONS]
    ]
    title = f"{wording.counted(open_count, 'record')} did not land in the last pushes"
    if not open_count:
        title = "The last pushes held nothing back"
    note = "They come again with the next push by themselves, once the reason is gone."
    if not scope.show_keys:
        note += " Keys are masked; roundtrip report --show-keys writes them out."
    if len(found) > len(body):
        note += f" The {len(body)} most frequent of {len(found):,} reasons are listed."
    section = Section(
        "rejections",
        topic,
        title,
        note=note,
        tables=[
            Table(
                "Records that did not land, by reason",
                ["Sync", "Outcome", "Reason", "For example", "Last", "Still open", f"Since {since}"],
                body,
                first_number=5,
            )
        ],
    )
    return section, open_count


def _some(keys: Sequence[str | None]) -> str:
    distinct = dict.fromkeys(key or "(no key)" for key in keys)
    return ", ".join(list(distinct)[:_SHOWN_KEYS])
