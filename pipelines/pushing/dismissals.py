"""Rows that somebody dismissed: they are not planned again until the model gives them other values to write.

What is kept of a row is its key and a digest of the values it would have written.
"""

from collections.abc import Sequence
from datetime import datetime

import duckdb

from pipelines.pushing.identity import shown_key_sql

DISMISSED = "dismissed"
_STATUSES = "('planned', 'rejected', 'unknown', 'conflict')"
_KEY = f"coalesce({shown_key_sql('plan_rows.key')}, plan_rows.address, '')"


def set_aside(con: duckdb.DuckDBPyConnection, sync: str) -> None:
    """Hold the dismissed rows of a plan back, and number those that are left to be sent anew."""
    if con.execute("select 1 from roundtrip.dismissed where sync = ? limit 1", [sync]).fetchone() is None:
        return
    con.execute(
        f"""
        update plan_rows set status = 'skipped', reason = '{DISMISSED}'
        from roundtrip.dismissed as dismissed
        where dismissed.sync = $sync and dismissed.key = {_KEY} and plan_rows.status in {_STATUSES}
            and dismissed.row_hash = md5(plan_rows.fields)
        """,
        {"sync": sync},
    )
    renumber(con)


def renumber(con: duckdb.DuckDBPyConnection) -> None:
    """Give the rows of a plan that are left to be sent their places anew."""
    con.execute(
        """
        update plan_rows set seq = fresh.seq from (
            select rowid as id,
                row_number() over (partition by status = 'planned' order by key, address, status) as seq
            from plan_rows
        ) as fresh
        where plan_rows.rowid = fresh.id
        """
    )


def open_rows(con: duckdb.DuckDBPyConnection, sync: str, keys: Sequence[str]) -> list[tuple[str, str]]:
    """List the rows of a plan that can be dismissed, as key and digest.

    Those with the keys given; without any, the rejected and unknown ones, and those that the CRM refused when
    they were sent last.
    """
    return con.execute(
        f"""
        with last as (
            select key, arg_max(status, pushed_at) as status from roundtrip.push_log
            where sync = $sync and key is not null group by key
        )
        select distinct {_KEY} as shown, md5(plan_rows.fields) from plan_rows
        left join last on last.key = {_KEY}
        where plan_rows.status in {_STATUSES} and case when len($keys) > 0 then list_contains($keys, {_KEY})
            else plan_rows.status in ('rejected', 'unknown') or last.status = 'rejected' end
        order by 1
        """,
        {"sync": sync, "keys": list(keys)},
    ).fetchall()


def keep(con: duckdb.DuckDBPyConnection, sync: str, rows: Sequence[tuple[str, str]], at: datetime) -> None:
    """Keep rows as dismissed; what was dismissed of them before counts no more."""
    con.executemany(
        "delete from roundtrip.dismissed where sync = ? and key = ?", [[sync, key] for key, _ in rows]
    )
    con.executemany(
        "insert into roundtrip.dismissed (sync, key, row_hash, dismissed_at) values (?, ?, ?, ?)",
        [[sync, key, row_hash, at] for key, row_hash in rows],
    )


def clear(con: duckdb.DuckDBPyConnection, sync: str, keys: Sequence[str]) -> list[str]:
    """Forget that rows were dismissed, all of a sync where no keys are given; give their keys."""
    found = con.execute(
        "delete from roundtrip.dismissed where sync = $sync and (len($keys) = 0 or list_contains($keys, key))"
        " returning key",
        {"sync": sync, "keys": list(keys)},
    ).fetchall()
    return sorted(key for (key,) in found)
