"""`roundtrip report`: one self-contained HTML page on pipeline, people, freshness, runs and pushes.

Reads the published generation and the notes of runs that changed nothing, as `status` does; a pull may run
meanwhile. All counting is done in DuckDB; the page shows sums, never a record. The questions stand in
`pipelines.reporting`.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from pipelines.reporting import deals, leads, moves, pushes, upkeep, wording
from pipelines.reporting.page import Page, render
from pipelines.reporting.scope import Scope, narrow
from pipelines.reporting.sections import Section, Tile
from pipelines.settings import Project
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError

FILE = "roundtrip-report.html"
PERIOD = timedelta(days=365)
_TITLE = "CRM report"


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Where the page lies; `run_id` is null, since looking is no run."""

    path: Path
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    @property
    def text(self) -> str:
        """Give the path alone, for whoever calls from a script."""
        return f"{self.path}\n"

    def payload(self) -> dict[str, Any]:
        """Give the path as JSON."""
        return {"path": str(self.path)}


def report(
    project: Project,
    *,
    connections: Sequence[str] = (),
    since: datetime | None = None,
    out: Path | None = None,
    show_keys: bool = False,
    now: datetime | None = None,
) -> ReportResult:
    """Write the page to `out`, by default `roundtrip-report.html` in the working directory.

    The options are those of `compose`.
    """
    page = compose(project, connections=connections, since=since, show_keys=show_keys, now=now)
    path = (out or Path(FILE)).absolute()
    _write(path, render(page))
    return ReportResult(path)


def compose(
    project: Project,
    *,
    connections: Sequence[str] = (),
    since: datetime | None = None,
    show_keys: bool = False,
    now: datetime | None = None,
) -> Page:
    """Ask the warehouse all that the page says.

    `since` (default: a year ago) bounds what happened, not what stands open. An empty warehouse gives a page
    that says what to do. Keys of refused records are masked unless `show_keys`. A connection that the
    warehouse does not know and a day to come are a `ConfigError`.
    """
    now = now or datetime.now(UTC)
    if since is not None and since > now:
        raise ConfigError(f"--since {since.date()} lies in the future", hint="Give a day that has been.")
    warehouse = Warehouse(project.warehouse)
    with warehouse.reading() as con:
        known = _known(con, project, connections)
        scope = Scope(known, since or now - PERIOD, now, show_keys)
        return _page(con, scope, warehouse) if known else _empty_page(project, scope)


def _known(con: duckdb.DuckDBPyConnection, project: Project, wanted: Sequence[str]) -> list[str]:
    found = con.execute("select connection from roundtrip.connections order by 1").fetchall()
    known = [row[0] for row in found]
    for name in wanted:
        if name not in known:
            listed = ", ".join(known) or "none; pull first"
            raise ConfigError(
                f"{project.warehouse.name} holds nothing of a connection {name!r}",
                hint=f"There are: {listed}.",
            )
    return list(dict.fromkeys(wanted)) or known


def _page(con: duckdb.DuckDBPyConnection, scope: Scope, warehouse: Warehouse) -> Page:
    pending = warehouse.pending_runs()
    narrow(con, scope, pending)
    fresh, late = upkeep.freshness(con, scope, upkeep.noted(warehouse.looked(), pending))
    rejected, open_count = pushes.rejections(con, scope)
    warnings = [
        *([f"{fresh.title}. See roundtrip status for the errors."] if late else []),
        *([f"{rejected.title}. The reasons stand below."] if open_count else []),
    ]
    sections: list[Section] = [
        deals.pipeline(con),
        deals.closings(con, scope),
        moves.conversion(con, scope),
        moves.stays(con),
        leads.activities(con, scope),
        leads.scores(con),
        fresh,
        pushes.outcomes(con, scope),
        rejected,
        upkeep.runs(con, scope),
    ]
    tiles = [
        *deals.tiles(con, scope),
        Tile(
            "Data",
            "Late" if late else "Fresh",
            [wording.counted(late, "resource") + " late or failing" if late else "read within 24 hours"],
            is_bad=bool(late),
        ),
        Tile("Held back", wording.whole(open_count), ["records in the last pushes"], is_bad=bool(open_count)),
    ]
    return Page(_TITLE, _subtitle(scope), tiles, warnings, sections, _footer(warehouse, scope))


def _empty_page(project: Project, scope: Scope) -> Page:
    steps = Section(
        "empty",
        "Nothing to show yet",
        "The warehouse is empty",
        note=f"{project.warehouse.name} holds no records. Put a CRM's key into .dlt/secrets.toml"
        " (roundtrip init lays the files out), run roundtrip pull, and then roundtrip report again."
        " To see a report now, run roundtrip demo, and then roundtrip report in the folder that it made.",
    )
    return Page(
        _TITLE, f"As of {wording.minute(scope.now)} UTC", (), (), [steps], "Written by roundtrip report."
    )


def _subtitle(scope: Scope) -> str:
    names = wording.joined(scope.connections)
    return f"{names} · as of {wording.minute(scope.now)} UTC · what happened since {wording.day(scope.since)}"


def _footer(warehouse: Warehouse, scope: Scope) -> str:
    return f"Written by roundtrip report from {warehouse.path.name}. All times are UTC." + (
        " This page names people: mind who gets it." if scope.show_keys else " Keys and addresses are masked."
    )


def _write(path: Path, text: str) -> None:
    """Put the page in place in one step, so that a reader never gets half of it."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror})", hint="Name another file with --out FILE."
        ) from error
