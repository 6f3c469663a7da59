"""Rows of a query in the forms people and programs read: table, CSV, JSON, Parquet.

Times are ISO 8601, nested values are JSON. What is a text may come from a CRM:
`Guard` makes it harmless for where it goes.
"""

import base64
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import duckdb

from pipelines.render import clean, table_lines
from sources.core.errors import ConfigError

SHAPES = ("table", "csv", "json", "parquet")

_BATCH_ROWS = 10_000
# What makes a spreadsheet read a text as a formula, full-width forms included.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_PLAIN_NUMBER = re.compile(r"[+-][\d ().,/-]*")  # telephone numbers and negative ones begin alike


@dataclass(frozen=True, slots=True)
class Guard:
    """How texts are made harmless: on a terminal, and in a spreadsheet that opens a CSV file."""

    is_raw: bool = False
    is_terminal: bool = False

    def text(self, text: str) -> str:
        """Give a text fit for a terminal, where it goes to one."""
        return clean(text) if self.is_terminal else text

    def cell(self, text: str) -> str:
        """Give a text fit for a CSV file: one that would be a formula begins with an apostrophe."""
        is_formula = _FORMULA.match(text.lstrip(" ")) and not _PLAIN_NUMBER.fullmatch(text)
        return self.text(f"'{text}" if is_formula and not self.is_raw else text)


def table(rows: duckdb.DuckDBPyConnection, limit: int, *, has_limit: bool) -> str:
    """Lay out the first `limit` rows for a person, and say where there are more."""
    found = rows.fetchmany(limit + 1)
    if _names(rows) == ["explain_key", "explain_value"]:  # drawn by DuckDB, over several lines
        return "".join(f"{clean(line)}\n" for row in found for line in row[1].splitlines())
    lines = _table_lines(rows, found[:limit])
    if len(found) > limit and not has_limit:
        lines.append(f"… only the first {limit} rows; --limit N shows more, --format csv all")
    return "\n".join(lines) + "\n"


def _table_lines(rows: duckdb.DuckDBPyConnection, found: Iterable[Sequence[Any]]) -> list[str]:
    shown = [[_shown(value) for value in row] for row in found]
    return table_lines([clean(name) for name in _names(rows)], shown, is_exact=True)


def write(
    rows: duckdb.DuckDBPyConnection, stream: TextIO, *, shape: str, limit: int | None, guard: Guard
) -> None:
    """Write rows as text while they are read."""
    if shape == "csv":
        _write_csv(rows, stream, limit, guard)
    elif shape == "json":
        _write_json(rows, stream, limit)
    else:
        stream.write("\n".join(_table_lines(rows, _rows(rows, limit))) + "\n")


def write_parquet(rows: duckdb.DuckDBPyRelation, path: Path, limit: int | None) -> None:
    """Write rows to a Parquet file while they are read."""
    from pyarrow import ArrowException, parquet

    rows = rows if limit is None else rows.limit(limit)
    # DuckDB before 2.0 calls it by another name.
    read = getattr(rows, "to_arrow_reader", None) or getattr(rows, "fetch_arrow_reader")  # noqa: B009
    try:
        reader = read(_BATCH_ROWS)
        with parquet.ParquetWriter(path, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
    except ArrowException as error:
        what = str(error).splitlines()[0]
        raise ConfigError(
            f"parquet cannot hold a column of this ({what})", hint="Cast it, or use csv."
        ) from error


def _rows(rows: duckdb.DuckDBPyConnection, limit: int | None) -> Iterator[Sequence[Any]]:
    left = limit
    while left is None or left > 0:
        part = rows.fetchmany(_BATCH_ROWS if left is None else min(left, _BATCH_ROWS))
        if not part:
            return
        yield from part
        left = None if left is None else left - len(part)


def _names(rows: duckdb.DuckDBPyConnection) -> list[str]:
    """Name the columns; a name that stands twice gets a number, or a JSON object would lose one."""
    names: list[str] = []
    for column in rows.description or []:
        name, number = str(column[0]), 1
        while name in names:
            name, number = f"{column[0]}_{number}", number + 1
        names.append(name)
    return names


# -- CSV -----------------------------------------------------------------------------------------


def _write_csv(rows: duckdb.DuckDBPyConnection, stream: TextIO, limit: int | None, guard: Guard) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([guard.cell(name) for name in _names(rows)])
    for row in _rows(rows, limit):
        writer.writerow([_csv_cell(value, guard) for value in row])


def _csv_cell(value: Any, guard: Guard) -> Any:
    match value:
        case str():
            return guard.cell(value)
        case bool():
            return "true" if value else "false"
        case None | int() | float() | Decimal():
            return value
        case dict() | list() | tuple():
            return guard.text(json.dumps(_plain(value), ensure_ascii=False))
    return _plain(value)


# -- JSON ----------------------------------------------------------------------------------------


def _write_json(rows: duckdb.DuckDBPyConnection, stream: TextIO, limit: int | None) -> None:
    """Write one array, an object a line; pure ASCII, so that it is harmless on a terminal too."""
    names, comma = _names(rows), "["
    for row in _rows(rows, limit):
        entry = dict(zip(names, map(_plain, row), strict=True))
        stream.write(f"{comma}\n{json.dumps(entry)}".replace("\x7f", "\\u007f"))
        comma = ","
    stream.write("[]\n" if comma == "[" else "\n]\n")


def _plain(value: Any) -> Any:
    """Put a value of DuckDB's into JSON's words."""
    match value:
        case float():
            return value if isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return float(value) if value.is_finite() else None
        case timedelta() | UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value


def _shown(value: Any) -> Any:
    """Keep what a table lays out by itself: numbers to the right, lists as JSON."""
    return value if isinstance(value, bool | int | float | Decimal | None) else _plain(value)
