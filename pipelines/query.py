"""`roundtrip query`: ask the published warehouse anything, change nothing.

The connection is read-only and closed off: no other file, no extension, no network, and its settings are
locked before the statement is read. Formats are left to `tabular`.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import duckdb

from pipelines import tabular
from pipelines.render import TextResult
from pipelines.settings import Project
from pipelines.sql_errors import one_line
from sources.core.errors import ConfigError, LockedError

# Nothing but the file that was opened: no other file, no download, no variable of this program.
_CLOSED_OFF = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_TABLE_ROWS = 100  # a table is laid out whole, so it has an end of its own


def query(
    project: Project,
    statement: str,
    *,
    shape: str = "table",
    out: Path | None = None,
    limit: int | None = None,
    is_raw: bool = False,
) -> TextResult:
    """Run one statement that reads, and write its rows to standard output or to the file `out`.

    `shape` is one of `tabular.SHAPES`. Texts are made harmless for a terminal and, in CSV, for a spreadsheet,
    unless `is_raw`. `ConfigError` says in one line what is wrong with a statement, and where.
    """
    if shape == "parquet" and out is None:
        raise ConfigError("parquet is for files", hint="Say which with --out FILE.")
    with _reading(project.warehouse) as con, _told(statement):
        _check_reads(con, statement)
        if shape == "parquet" and out is not None:
            with _replacing(out, project.warehouse) as path:
                tabular.write_parquet(con.sql(statement), path, limit)
            return TextResult(_written(out))
        rows = con.execute(statement)
        if out is None and shape == "table":
            return TextResult(tabular.table(rows, limit or _TABLE_ROWS, has_limit=limit is not None))
        with _stream(out, project.warehouse) as stream:
            guard = tabular.Guard(is_raw=is_raw, is_terminal=out is None and stream.isatty())
            tabular.write(rows, stream, shape=shape, limit=limit, guard=guard)
    return TextResult("" if out is None else _written(out))


def read_statement(words: str, stdin: TextIO) -> str:
    """Give the statement that was meant: the words themselves, `-` standard input, `@FILE` a file's text."""
    try:
        if words == "-":
            return stdin.read()
        return Path(words[1:]).read_text(encoding="utf-8") if words.startswith("@") else words
    except UnicodeDecodeError as error:
        raise ConfigError(f"{words} is not UTF-8 text", hint="Save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{words[1:]} cannot be read ({error.strerror})", hint="Check the path.") from error


def _written(out: Path) -> str:
    return f"written: {out}\n"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    if not path.exists():
        raise ConfigError(f"there is no warehouse {path.name} yet", hint="Make it with `roundtrip pull`.")
    try:
        con = duckdb.connect(str(path), read_only=True, config=dict(_CLOSED_OFF))
    except duckdb.IOException as error:
        if "lock" not in str(error).lower():
            raise ConfigError(f"{path.name} is not a DuckDB file that can be opened") from error
        raise LockedError(
            f"another program has {path.name} open for writing",
            hint="Close it, or open it there with read_only=True.",
        ) from error
    with con:
        con.execute("set TimeZone = 'UTC'")
        con.execute("set lock_configuration = true")
        yield con


def _check_reads(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Refuse all but one statement that reads; what passes could still write nothing."""
    kinds = [each.type for each in con.extract_statements(statement)]
    # MULTI is what DuckDB makes of a PIVOT.
    reads = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}
    if len(kinds) == 1 and kinds[0] in reads:
        return
    what = f"a {kinds[0].name} statement" if len(kinds) == 1 else f"{len(kinds) or 'no'} statements"
    raise ConfigError(
        f"query takes one statement that reads, and this is {what}",
        hint="Tables are made by models, with `roundtrip enrich`.",
    )


@contextlib.contextmanager
def _told(statement: str) -> Iterator[None]:
    """Turn what DuckDB says of a statement into one line; an interrupt stays one."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        raise ConfigError(one_line(error, statement)) from error


# -- where rows go -------------------------------------------------------------------------------


@contextlib.contextmanager
def _stream(out: Path | None, warehouse: Path) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    with _replacing(out, warehouse) as path, path.open("x", encoding="utf-8", newline="") as stream:
        yield stream


@contextlib.contextmanager
def _replacing(out: Path, warehouse: Path) -> Iterator[Path]:
    """Give a new file beside `out`, and put it in its place when it is whole."""
    target = out.absolute()
    if target.exists() and target.samefile(warehouse):
        raise ConfigError(f"{out} is the warehouse itself", hint="Name another file with --out.")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield part
        os.replace(part, target)  # noqa: PTH105 (a folder in its place is an error of the same kind)
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written ({error.strerror})", hint="Name another with --out."
        ) from error
    finally:
        part.unlink(missing_ok=True)
