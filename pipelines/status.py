"""`roundtrip status`: how far each resource has been read, how fresh it is, and how each sync stands.

Reads the published generation and the notes of runs that changed nothing; asks no CRM.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, has_table, quoted


@dataclass(frozen=True, slots=True)
class StatusResult:
    """How things stand; `run_id` is null, since looking is no run."""

    connections: list[dict[str, Any]]
    syncs: list[dict[str, Any]]
    last_run: dict[str, Any] | None
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip status`."""
        return {"connections": self.connections, "syncs": self.syncs, "last_run": self.last_run}


@dataclass(slots=True)
class _Noted:
    """What the notes of runs that no generation holds yet say."""

    looked: dict[tuple[str, str], datetime] = field(default_factory=dict)
    counts: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    errors: dict[tuple[str, str], str | None] = field(default_factory=dict)
    last: RunRecord | None = None


def status(project: Project, *, now: datetime | None = None) -> StatusResult:
    """Describe connections, syncs and the last run; an empty warehouse gives empty lists."""
    warehouse = Warehouse(project.warehouse)
    noted = _noted(warehouse)
    with warehouse.reading() as con:
        return StatusResult(
            connections=_connections(con, noted, now or datetime.now(UTC)),
            syncs=[_sync(con, name, project) for name in project.syncs],
            last_run=_last_run(con, noted),
        )


def _noted(warehouse: Warehouse) -> _Noted:
    noted = _Noted(looked=warehouse.looked())
    for run in warehouse.pending_runs():
        noted.last = run
        for entry in run.counts.get("resources", []) if run.command == "pull" else []:
            place = (entry["connection"], entry["resource"])
            noted.errors[place] = entry["error"]
            noted.counts[place] = entry.get("counts") or {}
    return noted


def _connections(con: duckdb.DuckDBPyConnection, noted: _Noted, now: datetime) -> list[dict[str, Any]]:
    known = con.execute("select connection, crm, contract from roundtrip.connections order by 1").fetchall()
    return [
        {"connection": name, "crm": crm, "dialect": contract, "resources": _resources(con, name, noted, now)}
        for name, crm, contract in known
    ]


def _resources(
    con: duckdb.DuckDBPyConnection, connection: str, noted: _Noted, now: datetime
) -> list[dict[str, Any]]:
    rows = con.execute(
        "select resource, strategy, watermark, last_complete_at, page_token is not null, last_error, counts"
        " from roundtrip.resource_state where connection = ? order by 1",
        [connection],
    ).fetchall()
    return [_resource(con, connection, row, noted, now) for row in rows]


def _resource(
    con: duckdb.DuckDBPyConnection, connection: str, row: tuple[Any, ...], noted: _Noted, now: datetime
) -> dict[str, Any]:
    resource, strategy, watermark, complete, is_cut, error, counts = row
    place = (connection, resource)
    looked = noted.looked.get(place, complete)
    live, gone = _count(con, connection, resource)
    return {
        "resource": resource,
        "strategy": strategy,
        "rows": live,
        "deleted": gone,
        "last_success": looked.isoformat() if looked else None,
        "freshness_s": max(0, round((now - looked).total_seconds())) if looked else None,
        "watermark": watermark.isoformat() if watermark else None,
        "resumes": is_cut,
        "last_error": noted.errors.get(place, error),
        "counts": noted.counts.get(place) or (json.loads(counts) if counts else {}),
    }


def _count(con: duckdb.DuckDBPyConnection, connection: str, resource: str) -> tuple[int, int]:
    if not has_table(con, connection, resource):
        return 0, 0
    table = f"{quoted(connection)}.{quoted(resource)}"
    row = con.execute(
        f"select count(*) filter (_deleted_at is null), count(_deleted_at) from {table}"
    ).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _sync(con: duckdb.DuckDBPyConnection, name: str, project: Project) -> dict[str, Any]:
    """Describe a sync by its last push; what was refused, unknown or in conflict there is still pending."""
    sync = project.syncs[name]
    last = con.execute(
        "select run_id, max(pushed_at) from roundtrip.push_log where sync = ?"
        " group by 1 order by 2 desc limit 1",
        [name],
    ).fetchone()
    counts = dict(
        con.execute(
            "select status, count(*) from roundtrip.push_log where sync = ? and run_id = ? group by 1",
            [name, last[0] if last else None],
        ).fetchall()
    )
    return {
        "sync": name,
        "connection": sync.connection,
        "object": sync.object,
        "last_run": last[0] if last else None,
        "last_push": last[1].isoformat() if last and last[1] else None,
        "pending": sum(counts.get(each, 0) for each in ("rejected", "unknown", "conflict")),
        "rejected": counts.get("rejected", 0),
    }


def _last_run(con: duckdb.DuckDBPyConnection, noted: _Noted) -> dict[str, Any] | None:
    row = con.execute(
        "select run_id, command, started_at, finished_at, status, error from roundtrip.runs"
        " order by started_at desc limit 1"
    ).fetchone()
    if noted.last is not None and (row is None or noted.last.started_at >= row[2]):
        last = noted.last
        row = (last.run_id, last.command, last.started_at, last.finished_at, last.status, last.error)
    if row is None:
        return None
    names = ("run_id", "command", "started_at", "finished_at", "status", "error")
    return dict(
        zip(names, (row[0], row[1], row[2].isoformat(), row[3].isoformat(), row[4], row[5]), strict=True)
    )
