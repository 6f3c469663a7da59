"""`roundtrip status`: how far each resource has been read, how fresh it is, and how each sync stands.

Reads the published generation and the notes of runs that changed nothing; asks no CRM.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from pipelines.settings import Project, Sync
from pipelines.warehouse import RunRecord, Warehouse, quoted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Place = tuple[str, str]  # connection and resource


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

    looked: dict[_Place, datetime] = field(default_factory=dict)
    counts: dict[_Place, dict[str, int]] = field(default_factory=dict)
    errors: dict[_Place, str | None] = field(default_factory=dict)
    last: RunRecord | None = None


def status(project: Project, *, now: datetime | None = None) -> StatusResult:
    """Describe connections, syncs and the last run; an empty warehouse gives empty lists."""
    warehouse = Warehouse(project.warehouse)
    noted = _noted(warehouse)
    with warehouse.reading() as con:
        return StatusResult(
            connections=_connections(con, noted, now or datetime.now(UTC)),
            syncs=_syncs(con, project),
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
    states = con.execute(
        "select connection, resource, strategy, epoch_us(watermark), epoch_us(last_complete_at),"
        " page_token is not null, last_error, counts from roundtrip.resource_state order by all"
    ).fetchall()
    rows = _row_counts(con, [(state[0], state[1]) for state in states])
    resources: dict[str, list[dict[str, Any]]] = {}
    for connection, *state in states:
        place = (connection, state[0])
        resources.setdefault(connection, []).append(_resource(place, state, rows[place], noted, now))
    return [
        {"connection": name, "crm": crm, "dialect": contract, "resources": resources.get(name, [])}
        for name, crm, contract in known
    ]


def _resource(
    place: _Place, state: Sequence[Any], rows: tuple[int, int], noted: _Noted, now: datetime
) -> dict[str, Any]:
    resource, strategy, watermark, complete, is_cut, error, counts = state
    looked = noted.looked.get(place, _time(complete))
    return {
        "resource": resource,
        "strategy": strategy,
        "rows": rows[0],
        "deleted": rows[1],
        "last_success": looked.isoformat() if looked else None,
        "freshness_s": max(0, round((now - looked).total_seconds())) if looked else None,
        "watermark": _text(watermark),
        "resumes": is_cut,
        "last_error": noted.errors.get(place, error),
        "counts": noted.counts.get(place) or (json.loads(counts) if counts else {}),
    }


def _row_counts(con: duckdb.DuckDBPyConnection, places: list[_Place]) -> dict[_Place, tuple[int, int]]:
    """Count live and deleted rows, all tables by one statement; a table that is not there has none."""
    present = set(con.execute("select schema_name, table_name from duckdb_tables()").fetchall())
    counts = dict.fromkeys(places, (0, 0))
    there = [place for place in places if place in present]
    if there:
        selects = [
            f"select {number}, count(*) filter (_deleted_at is null), count(_deleted_at)"
            f" from {quoted(connection)}.{quoted(resource)}"
            for number, (connection, resource) in enumerate(there)
        ]
        for number, live, gone in con.execute(" union all ".join(selects)).fetchall():
            counts[there[number]] = (live, gone)
    return counts


def _syncs(con: duckdb.DuckDBPyConnection, project: Project) -> list[dict[str, Any]]:
    """Describe each sync by its last push; what was refused, unknown or in conflict then is pending."""
    last = {
        sync: found
        for sync, *found in con.execute(
            "select log.sync as sync, run_id, epoch_us(max(pushed_at)),"
            " count(*) filter (log.status in ('rejected', 'unknown', 'conflict') and dismissed.key is null),"
            " count(*) filter (log.status = 'rejected' and dismissed.key is null)"
            " from roundtrip.push_log as log left join roundtrip.runs as run using (run_id)"
            " left join roundtrip.dismissed as dismissed on dismissed.sync = log.sync"
            " and dismissed.key = coalesce(log.key, '') and dismissed.dismissed_at >= log.pushed_at"
            " where coalesce(run.command, '') not like 'undo %' group by log.sync, run_id"
            " qualify row_number() over (partition by log.sync order by max(pushed_at) desc) = 1"
        ).fetchall()
    }
    return [_sync(project.syncs[name], last.get(name, (None, None, 0, 0))) for name in project.syncs]


def _sync(sync: Sync, last: Sequence[Any]) -> dict[str, Any]:
    run_id, pushed, pending, rejected = last
    return {
        "sync": sync.name,
        "connection": sync.connection,
        "object": sync.object,
        "last_run": run_id,
        "last_push": _text(pushed),
        "pending": pending,
        "rejected": rejected,
    }


def _last_run(con: duckdb.DuckDBPyConnection, noted: _Noted) -> dict[str, Any] | None:
    row = con.execute(
        "select run_id, command, epoch_us(started_at), epoch_us(finished_at), status, error"
        " from roundtrip.runs order by started_at desc limit 1"
    ).fetchone()
    names = ("run_id", "command", "started_at", "finished_at", "status", "error")
    last = noted.last
    if last is not None and (row is None or last.started_at >= (_time(row[2]) or last.started_at)):
        times = (last.started_at.isoformat(), last.finished_at.isoformat())
        return dict(zip(names, (last.run_id, last.command, *times, last.status, last.error), strict=True))
    if row is None:
        return None
    return dict(zip(names, (*row[:2], _text(row[2]), _text(row[3]), *row[4:]), strict=True))


def _time(epoch_us: int | None) -> datetime | None:
    """Read a time that DuckDB gave as microseconds: as a time it costs the import of a zone library."""
    return None if epoch_us is None else _EPOCH + timedelta(microseconds=epoch_us)


def _text(epoch_us: int | None) -> str | None:
    moment = _time(epoch_us)
    return moment.isoformat() if moment else None
