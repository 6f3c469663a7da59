"""Hand changed rows to dlt: parquet files imported and merged into a connection's dataset.

dlt's working folder is thrown away before each load, so the warehouse file alone says what is there.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from pipelines.pulling.deltas import Delta
from pipelines.warehouse import has_table, quoted
from sources.core.connector import Resource
from sources.core.errors import ConnectorError
from sources.core.reading import MERGE, column_hints


def prepare() -> None:
    """Import what a load needs; half a second that can pass while answers are waited for."""
    import dlt.common.libs.pyarrow
    import dlt.destinations.insert_job_client
    import dlt.sources.helpers.requests  # noqa: F401  (dlt itself imports it when it loads)

    import pipelines.pulling.settled  # noqa: F401


def raw_hints(resource: Resource) -> Any:
    """Give dlt's hints of all columns of a raw table, `_deleted_at` included."""
    hints = column_hints(resource)
    del hints["_synced_at"]["dedup_sort"]  # a delta holds each id once
    hints["_deleted_at"] = {"name": "_deleted_at", "data_type": "timestamp", "nullable": True}
    return hints


def load(con: duckdb.DuckDBPyConnection, connection: str, deltas: Sequence[Delta], work: Path) -> None:
    """Merge the deltas of one connection into its dataset in one load package.

    The first load of an empty table appends, every other one deletes and inserts by id: the only merge
    that a repeated load does not double. The staging copies are dropped afterwards.
    """
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "CRITICAL")  # its lines quote the rows that it failed at
    os.environ.setdefault("LOAD__WORKERS", "2")  # each file that is inserted at a time takes memory
    import dlt
    from dlt.pipeline.exceptions import PipelineStepFailed

    from pipelines.pulling.settled import SettledDuckDb

    shutil.rmtree(work, ignore_errors=True)
    con.execute(f"create schema if not exists {quoted(connection)}")
    source = dlt.source(lambda: [_dlt_resource(con, connection, delta) for delta in deltas], name=connection)
    with _plain(work) as folder:
        pipeline = dlt.pipeline(
            f"roundtrip_{connection}",
            pipelines_dir=str(folder),
            destination=SettledDuckDb(con),
            dataset_name=connection,
        )
        try:
            pipeline.run(source(), loader_file_format="parquet")
        except PipelineStepFailed as error:
            raise _cause(error, connection) from error
    con.execute(f"drop schema if exists {quoted(connection + '_staging')} cascade")
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _plain(work: Path) -> Iterator[Path]:
    """Give a folder whose path dlt can stand: it formats names with % and escapes none in SQL."""
    if not {"%", "'"} & set(str(work)):
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="roundtrip-") as away:  # closed to other users, as `work` is
        yield Path(away)


def _cause(error: Exception, connection: str) -> Exception:
    """Find what made a load fail: the disk as it is, anything else as one line without the row it quotes."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        if isinstance(cause, OSError | duckdb.IOException | duckdb.FatalException):
            return cause
        seen.append(cause)
        cause = getattr(cause, "exception", None) or cause.__cause__ or cause.__context__
    return ConnectorError(
        f"the rows could not be merged ({type(seen[-1]).__name__}); what was published stays as it was",
        connection=connection,
        hint="Run the same command again with --debug for the whole story.",
    )


def _dlt_resource(con: duckdb.DuckDBPyConnection, connection: str, delta: Delta) -> Any:
    import dlt

    def rows() -> Any:
        for place, path in enumerate(delta.files):
            yield dlt.mark.with_file_import(str(path), "parquet", 0 if place else delta.rows)

    is_first = not has_table(con, connection, delta.resource.name) or not _has_rows(
        con, connection, delta.resource
    )
    return dlt.resource(
        rows,
        name=delta.resource.name,
        columns=raw_hints(delta.resource),
        primary_key=delta.resource.key,
        write_disposition="append" if is_first else MERGE,
    )


def _has_rows(con: duckdb.DuckDBPyConnection, connection: str, resource: Resource) -> bool:
    table = f"{quoted(connection)}.{quoted(resource.name)}"
    return con.execute(f"select 1 from {table} limit 1").fetchone() is not None
