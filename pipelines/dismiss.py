"""`roundtrip dismiss`: keep rows from coming back with every push until the model changes them.

Asks no CRM and sends nothing. Which rows a plan then holds back is `pushing.dismissals`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipelines.plan import make_plan
from pipelines.pushing import dismissals
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, new_run_id, record_run
from sources.core.errors import ConfigError


@dataclass(slots=True)
class DismissResult:
    """Which rows are dismissed, or no longer, by their keys."""

    sync: str
    keys: list[str] = field(default_factory=list)
    is_cleared: bool = False
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip dismiss`."""
        return {"sync": self.sync, "dismissed": not self.is_cleared, "keys": self.keys}

    @property
    def text(self) -> str:
        """Say for people what was done."""
        number = f"{len(self.keys):,} row{'' if len(self.keys) == 1 else 's'}"
        what = (
            "planned again" if self.is_cleared else "dismissed until the model changes what they would write"
        )
        return f"{self.sync}: {number} {what}\n"


def dismiss(project: Project, sync: str, keys: Sequence[str] = (), *, clears: bool = False) -> DismissResult:
    """Dismiss rows of a sync by their keys, or all that are rejected or unknown; with `clears` undo that.

    Raises `ConfigError` naming a key that no open row has.
    """
    project.sync(sync)
    warehouse, now = Warehouse(project.warehouse), datetime.now(UTC)
    result = DismissResult(sync, is_cleared=clears)
    with warehouse.lock(f"roundtrip dismiss {sync}"):
        rows = [] if clears else _open_rows(project, warehouse, sync, keys)
        if not clears and not rows:
            return result
        result.run_id = new_run_id(now)
        with warehouse.generation() as con:
            if clears:
                result.keys = dismissals.clear(con, sync, keys)
            else:
                dismissals.keep(con, sync, rows, now)
                result.keys = sorted({key for key, _ in rows})
            record_run(con, _record(result, now))
    return result


def _open_rows(
    project: Project, warehouse: Warehouse, sync: str, keys: Sequence[str]
) -> list[tuple[str, str]]:
    with warehouse.reading() as con:
        make_plan(con, project, sync)
        rows = dismissals.open_rows(con, sync, keys)
    missing = sorted(set(keys) - {key for key, _ in rows})
    if missing:
        raise ConfigError(
            f"{sync} has nothing to send or to settle for {len(missing)} of the keys given",
            hint=f"Look at `roundtrip plan {sync} --diff` for the keys, spelt as they stand there.",
        )
    return rows


def _record(result: DismissResult, at: datetime) -> RunRecord:
    counts = {"cleared" if result.is_cleared else "dismissed": len(result.keys)}
    return RunRecord(result.run_id or "", f"dismiss {result.sync}", at, datetime.now(UTC), "ok", counts)
