"""`roundtrip enrich`: build the models into schema `marts`, each after those it reads from.

A model is a file, and its table is `marts.NAME`; what may stand in it is told by `modelfiles`. A model that
fails keeps its old table, and those that read from it are left as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from time import monotonic
from typing import Any

import duckdb

from pipelines.modelfiles import about_of, reads_of, run_python, select_of
from pipelines.progress import Progress
from pipelines.settings import Project
from pipelines.sql_errors import one_line
from pipelines.warehouse import RunRecord, Warehouse, literal, new_run_id, quoted, record_run
from sources.core.errors import ConfigError, ConnectorError


@dataclass(slots=True)
class Model:
    """One model file: its name, its text, and the tables it names."""

    name: str
    path: Path
    reads: set[str]
    rows: int | None = None
    status: str = "waiting"
    took_s: float | None = None
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
        return next((model.error for model in self.models if model.error), None)

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip enrich`."""
        return {
            "models": [
                {
                    "name": model.name,
                    "rows": model.rows,
                    "status": model.status,
                    "took_s": model.took_s,
                    "error": model.error,
                }
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
    warehouse = Warehouse(project.warehouse, project.publish)
    started = datetime.now(UTC)
    result = EnrichResult(new_run_id(started), models)
    with warehouse.lock("roundtrip enrich"):
        if not warehouse.exists():
            raise ConfigError("there is no warehouse yet", hint="Run `roundtrip pull` first.")
        with warehouse.generation() as con:
            day = as_of or started.date()
            con.execute("set variable as_of = ?::date", [day])
            for model in models:
                _build(con, model, models, day)
                done = f"{model.rows} rows in {model.took_s} s" if model.status == "ok" else model.status
                progress.say(f"marts.{model.name}: {done}")
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
    found: dict[str, Model] = {}
    for path in files:
        if path.stem in found:
            raise ConfigError(
                f"two models are named {path.stem}: {found[path.stem].path.name} and {path.name}",
                hint="Rename one: a model's file names its table.",
            )
        found[path.stem] = Model(path.stem, path, reads_of(path))
    return found


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


def _build(con: duckdb.DuckDBPyConnection, model: Model, models: Sequence[Model], as_of: date) -> None:
    broken = sorted(each.name for each in models if each.name in model.reads and each.status != "ok")
    if broken:
        model.status = "skipped"
        model.error = f"marts.{model.name} is left as it was, since {broken[0]} failed"
        return
    began = monotonic()
    con.begin()
    try:
        _create(con, model, as_of)
        row = con.execute(f"select count(*) from marts.{quoted(model.name)}").fetchone()
        con.commit()
        model.status, model.rows = "ok", int(row[0]) if row else 0
    except (duckdb.Error, ConnectorError) as error:
        con.rollback()
        told = one_line(error, "") if isinstance(error, duckdb.Error) else str(error)
        model.status = "failed"
        model.error = told if model.path.name in told else f"{model.path.name}: {told}"
    model.took_s = round(monotonic() - began, 3)


def _create(con: duckdb.DuckDBPyConnection, model: Model, as_of: date) -> None:
    table = f"marts.{quoted(model.name)}"
    if model.path.suffix == ".sql":
        _create_by_sql(con, model, table)
    else:
        frame = run_python(con, model.path, as_of=as_of)
        con.register("built_frame", frame)
        con.execute(f"create or replace table {table} as select * from built_frame")
        con.unregister("built_frame")
    if about := about_of(model.path):
        con.execute(f"comment on table {table} is {literal(about)}")


def _create_by_sql(con: duckdb.DuckDBPyConnection, model: Model, table: str) -> None:
    select = select_of(con, model.path)
    statement = f"create or replace table {table} as\n{select}\n"
    try:
        con.execute(statement)
    except duckdb.Error as error:
        raise ConnectorError(one_line(error, statement, file=model.path.name, above=1)) from error


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
