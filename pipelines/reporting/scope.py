"""What a report is about: which connections, since when, and what may be shown.

`narrow` lays out, in the reader's own temporary schema, the rows that several questions share; the
warehouse itself is open read-only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from pipelines.warehouse import RunRecord, sql

MAX_STAGES = 12  # those with the most deals; the rest of a long tail counts as one
MAX_CURRENCIES = 5  # those with the most deals; the rest is counted, never added up


@dataclass(frozen=True, slots=True)
class Scope:
    """The extent of one report; times are UTC."""

    connections: Sequence[str]
    since: datetime
    now: datetime
    show_keys: bool = False


def narrow(con: duckdb.DuckDBPyConnection, scope: Scope, notes: Sequence[RunRecord]) -> None:
    """Make the temporary tables that the questions read; `notes` are runs that no generation holds yet."""
    con.execute("set variable connections = ?::varchar[]", [list(scope.connections)])
    con.execute("set variable since = ?::timestamptz", [scope.since])
    con.execute("set variable now = ?::timestamptz", [scope.now])
    con.execute("set variable max_stages = ?::integer", [MAX_STAGES])
    con.execute(sql("report.sql"))
    if notes:
        con.executemany(
            "insert or replace into shown_runs values (?, ?, ?, ?, ?, ?)",
            [
                [run.run_id, run.command, run.started_at, run.finished_at, run.status, run.error]
                for run in notes
                if run.started_at >= scope.since
            ],
        )


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """Ask one question."""
    return con.execute(query).fetchall()
