"""`roundtrip enrich`: build the models into schema `marts`, each after those it reads from.

A model is a file: `NAME.sql` holds one select; `NAME.py` holds `INPUTS` (argument -> table or view) and a
function `build` that takes those as pandas frames and gives one. Its table is `marts.NAME`. A model that
fails keeps its old table, and those that read from it are left as they are.
"""

import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb

from pipelines.progress import Progress
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, new_run_id, quoted, record_run
from sources.core.errors import ConfigError, ConnectorError


@dataclass(slots=True)
class Model:
    """One model file: its name, its text, and the tables it names."""

    name: str
    path: Path
    reads: set[str]
    rows: int | None = None
    status: str = "waiting"
    error: str | None = None


@dataclass(slots=True)
class EnrichResult:
    """What became of each model, in the order in which they were built."""

    run_id: str | None
    models: list[Model] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Give 1 when a model failed or was left out for one that did."""
        return 0 if all(model.status == "ok" for model in self.models) else 1

    @property
    def status(self) -> str:
        """Name the run's end."""
        return "failed" if self.exit_code else "ok"

    @property
    def error(self) -> str | None:
        """Give the first failure's line."""
        return next((f"{model.name}: {model.error}" for model in self.models if model.error), None)

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip enrich`."""
        return {
            "models": [
                {"name": model.name, "rows": model.rows, "status": model.status, "error": model.error}
                for model in self.models
            ]
        }


def enrich(
    project: Project, names: Sequence[str] = (), *, progress: Progress, as_of: date | None = None
) -> EnrichResult:
    """Build models, all of them or those named with what they read from.

    `as_of` (default: today in UTC) is what models read as `getvariable('as_of')`. Raises `ConfigError` for
    a model that does not exist, for models that read each other in a circle, and for an empty folder.
    """
    models = _ordered(_chosen(_found(project.models), names))
    warehouse = Warehouse(project.warehouse)
    started = datetime.now(UTC)
    result = EnrichResult(new_run_id(started), models)
    with warehouse.lock("roundtrip enrich"):
        if not warehouse.exists():
            raise ConfigError("there is no warehouse yet", hint="Run `roundtrip pull` first.")
        with warehouse.generation() as con:
            con.execute("set variable as_of = ?::date", [as_of or started.date()])
            for model in models:
                _build(con, model, models)
                progress.say(f"marts.{model.name}: {model.error or f'{model.rows} rows'}")
            record_run(con, _record(result, started))
    return result


def _found(folder: Path) -> dict[str, Model]:
    files = sorted(
        path for path in folder.glob("*") if path.suffix in (".sql", ".py") and path.name[0] not in "_."
    )
    if not files:
        raise ConfigError(
            f"there are no models in {folder}",
            hint="Set roundtrip.models to the folder of your *.sql and *.py models.",
        )
    return {path.stem: Model(path.stem, path, _reads(path)) for path in files}


def _reads(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    return {name for name in re.findall(r"\bmarts\.\"?(\w+)", text) if name != path.stem}


def _chosen(found: dict[str, Model], names: Sequence[str]) -> list[Model]:
    """Give the named models and, before them, the ones they read from."""
    chosen: dict[str, Model] = {}
    waiting = list(names or found)
    while waiting:
        name = waiting.pop()
        if name not in found:
            raise ConfigError(f"there is no model '{name}'", hint=f"There are: {', '.join(sorted(found))}.")
        if name not in chosen:
            chosen[name] = found[name]
            waiting.extend(found[name].reads & found.keys())
    return list(chosen.values())


def _ordered(models: Iterable[Model]) -> list[Model]:
    by_name = {model.name: model for model in models}
    sorter = TopologicalSorter(
        {name: sorted(model.reads & by_name.keys()) for name, model in sorted(by_name.items())}
    )
    try:
        return [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ConfigError(f"models read each other in a circle: {circle}", hint="Break it up.") from error


def _build(con: duckdb.DuckDBPyConnection, model: Model, models: Sequence[Model]) -> None:
    broken = sorted(each.name for each in models if each.name in model.reads and each.status != "ok")
    if broken:
        model.status, model.error = "skipped", f"left as it was, since {broken[0]} failed"
        return
    con.begin()
    try:
        _create(con, model)
        row = con.execute(f"select count(*) from marts.{quoted(model.name)}").fetchone()
        con.commit()
        model.status, model.rows = "ok", int(row[0]) if row else 0
    except (duckdb.Error, ConnectorError) as error:
        con.rollback()
        model.status, model.error = "failed", _one_line(error)


def _create(con: duckdb.DuckDBPyConnection, model: Model) -> None:
    table = f"marts.{quoted(model.name)}"
    if model.path.suffix == ".sql":
        select = model.path.read_text(encoding="utf-8").strip().rstrip(";")
        con.execute(f"create or replace table {table} as\n{select}\n")
        return
    frame = _run_python(con, model)
    con.register("built_frame", frame)
    con.execute(f"create or replace table {table} as select * from built_frame")
    con.unregister("built_frame")


def _run_python(con: duckdb.DuckDBPyConnection, model: Model) -> Any:
    spec = importlib.util.spec_from_file_location(f"roundtrip_model_{model.name}", model.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        frames = {name: con.execute(f"select * from {table}").df() for name, table in module.INPUTS.items()}
        return module.build(**frames)
    except duckdb.Error:
        raise
    except Exception as error:  # a model is the user's code: whatever it raises is that model's failure
        line = _line_in(error, model.path)
        raise ConnectorError(f"{type(error).__name__}: {error}{line}") from error


def _line_in(error: Exception, path: Path) -> str:
    """Tell the last line of the model's file that the error passed through."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" ({path.name} line {line})" if line else ""


def _one_line(error: Exception) -> str:
    """Shorten a database error to its message and the model's line; the statement adds one line before it."""
    lines = str(error).splitlines()
    place = next((re.search(r"LINE (\d+)", line) for line in lines if line.startswith("LINE")), None)
    where = f" (line {max(int(place.group(1)) - 1, 1)})" if place else ""
    return lines[0][:300] + where


def _record(result: EnrichResult, started: datetime) -> RunRecord:
    return RunRecord(
        run_id=result.run_id or "",
        command="enrich",
        started_at=started,
        finished_at=datetime.now(UTC),
        status=result.status,
        counts=result.payload(),
        error=result.error,
    )
