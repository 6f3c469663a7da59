"""`roundtrip runs`: what ran, when, for how long, and what came of it, newest first.

Reads the published generation and the notes of runs that changed nothing; asks no CRM.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.render import clean, table_lines, took
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLANNED = {"create", "update", "unchanged"}  # what a push set out to do; the rest is what it did
_PULLED = ("rows", "new", "changed", "deleted")


@dataclass(frozen=True, slots=True)
class RunsResult:
    """The history; `run_id` is null, since looking is no run."""

    runs: list[dict[str, Any]]
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the runs; `what` sums up `counts`."""
        return {"runs": self.runs}

    @property
    def text(self) -> str:
        """Lay the runs out for a person, errors below them."""
        if not self.runs:
            return "No run yet. Begin with `roundtrip pull`.\n"
        names = ("run_id", "command", "started_at", "took", "status", "what")
        rows = [{**run, "took": took(run["duration_s"])} for run in self.runs]
        lines = table_lines(names, [[row[name] for name in names] for row in rows])
        errors = [f"{run['run_id']}: {error}" for run in self.runs for error in run["errors"]]
        told = [*lines, "", *map(clean, errors)] if errors else lines
        return "\n".join(told) + "\n"


def runs(project: Project, *, limit: int = 20, command: str | None = None) -> RunsResult:
    """List the newest `limit` runs; `command` is one (`push`) or one with its sync (`push leads_to_relm`)."""
    warehouse = Warehouse(project.warehouse)
    found = {run.run_id: run for run in [*_published(warehouse, limit, command), *warehouse.pending_runs()]}
    wanted = [run for run in found.values() if command in {None, run.command, run.command.partition(" ")[0]}]
    wanted.sort(key=lambda run: (run.started_at, run.run_id), reverse=True)
    return RunsResult([_entry(run) for run in wanted[:limit]])


def _published(warehouse: Warehouse, limit: int, command: str | None) -> list[RunRecord]:
    with warehouse.reading() as con:
        rows = con.execute(
            "select run_id, command, epoch_us(started_at), epoch_us(finished_at), status, counts, error"
            " from roundtrip.runs"
            " where $command is null or command = $command or starts_with(command, $command || ' ')"
            " order by started_at desc, run_id desc limit $limit",
            {"command": command, "limit": limit},
        ).fetchall()
    return [
        RunRecord(run_id, name, _time(start), _time(end), status, json.loads(counts or "{}"), error)
        for run_id, name, start, end, status, counts, error in rows
    ]


def _time(epoch_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=epoch_us)


def _entry(run: RunRecord) -> dict[str, Any]:
    duration_s = (run.finished_at - run.started_at).total_seconds()
    return {
        "run_id": run.run_id,
        "command": run.command,
        "started_at": run.started_at.isoformat(),
        "finished_at": run.finished_at.isoformat(),
        "duration_s": round(duration_s, 1),
        "status": run.status,
        "what": summary(run.counts),
        "counts": run.counts,
        "errors": _errors(run),
    }


def summary(counts: Mapping[str, Any]) -> str:
    """Sum up a run's counts in a few words: what changed, whatever the command."""
    totals = _totals(counts)
    return ", ".join(f"{count:,} {name}" for name, count in totals.items() if count) or "nothing changed"


def _totals(counts: Mapping[str, Any]) -> dict[str, int]:
    if "resources" in counts:
        return {name: _sum(counts["resources"], name) for name in _PULLED}
    if "models" in counts:
        return {"models": len(counts["models"]), "rows": _sum(counts["models"], "rows")}
    return {name: count for name, count in counts.items() if name not in _PLANNED and isinstance(count, int)}


def _sum(entries: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(entry.get(name) or 0 for entry in entries)


def _errors(run: RunRecord) -> list[str]:
    """List a run's errors and those of its parts, each once."""
    parts = [*run.counts.get("resources", ()), *run.counts.get("models", ())]
    errors = [run.error, *(part.get("error") for part in parts)]
    return list(dict.fromkeys(error for error in errors if error))
