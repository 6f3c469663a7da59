"""The spool: rows on disk as the vendor sent them, and their typed form as parquet.

Rows are appended as they are, one JSON object a line, and typed by DuckDB without being built in Python.
Nothing is lost or bent: a field the resource does not declare, and a value that does not fit its column,
are kept in `_extra`. Loading is left to others.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec

from sources.core.connector import Column, Resource
from sources.core.errors import ConnectorError
from sources.core.objects import declared, taken_apart, wrapped
from sources.core.privacy import Shield

_SQL_TYPES = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "decimal": "DECIMAL(38,9)",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "json": "JSON",
}
_MAX_ROW_BYTES = 64 * 1024 * 1024
_SPARE_BYTES = 1024 * 1024
_EARLIEST = "timestamptz '1970-01-01 00:00:00+00'"  # some systems write the year 1 where there is no time
# DuckDB writes columns that hold no null as required ones, by its statistics, and dlt rewrites such a file.
NULLABLE = "set disabled_optimizers = 'statistics_propagation'"


class SpoolError(ConnectorError):
    """Rows could not be kept in the working folder: what the spool held must be read again."""


class Spool:
    """One file of rows of one resource, appended page by page; raises `SpoolError`.

    What its shield takes off never reaches the disk.
    """

    def __init__(self, path: Path, shield: Shield | None = None) -> None:
        self.path = path
        self._shield = shield or None
        self.rows = 0
        self.size_bytes = 0
        self.widest = 0  # bytes that no row is larger than
        with _writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")

    def append(self, rows: Iterable[msgspec.Raw]) -> None:
        """Write rows as lines; line ends inside a row are white space to JSON and become blanks."""
        lines = list(rows) if self._shield is None else self._shielded(self._shield, rows)
        if not lines:
            return
        block = b"\n".join(lines)
        if block.count(b"\n") >= len(lines) or b"\r" in block:
            block = b"\n".join(bytes(row).replace(b"\n", b" ").replace(b"\r", b" ") for row in lines)
        self.rows += len(lines)
        self.size_bytes += len(block) + 1
        self.widest = max(self.widest, len(block))
        with _writing():
            self._file.write(block + b"\n")

    @staticmethod
    def _shielded(shield: Shield, rows: Iterable[msgspec.Raw]) -> list[msgspec.Raw]:
        try:
            return shield.keep(rows)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SpoolError(
                "rows of a page are not JSON, so what is to be kept out of them could not be found",
                hint="Run the same command again: they are fetched anew.",
            ) from error

    def close(self) -> None:
        """Finish the file."""
        with _writing():
            self._file.close()


@dataclass(frozen=True, slots=True)
class Typed:
    """A spool's typed form: parquet with all columns of the resource's raw table, rows in their order.

    `misfits` counts the values that did not fit per column, `unknown` the rows with undeclared fields;
    `future` and `undated` count rows whose change stamp lies ahead of `now` or tells no time; `newest` is the
    newest change stamp that is not ahead.
    """

    path: Path
    rows: int
    misfits: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    future: int = 0
    undated: int = 0
    newest: datetime | None = None


def type_rows(
    spools: Sequence[Path],
    resource: Resource,
    target: Path,
    *,
    now: datetime,
    widest: int = _MAX_ROW_BYTES,
) -> Typed:
    """Type spooled rows, none of more than `widest` bytes, into a parquet file.

    Rows keep their order, and no row is dropped here. Raises `SpoolError`.
    """
    try:
        with _writing(), duckdb.connect(config={"threads": 1}) as con:
            con.execute("set TimeZone = 'UTC'")
            con.execute(NULLABLE)
            con.execute(
                f"copy ({_typed_sql(spools, resource, widest)}) to {_text(str(target))}"
                " (format parquet, compression uncompressed)"
            )
            return _summary(con, resource, target, now)
    except SpoolError as error:
        if all(map(_is_utf8, spools)):
            raise
        raise SpoolError(
            "the CRM sent text that is not UTF-8, which JSON asks for",
            hint="Tell its support; the rows of this list stay as they were.",
        ) from error


def _is_utf8(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as lines:
            return all(line is not None for line in lines)
    except (OSError, UnicodeDecodeError) as error:
        return isinstance(error, OSError)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Turn what goes wrong on disk into one line; DuckDB's own words may quote a record and are not kept."""
    try:
        yield
    except (OSError, duckdb.IOException) as error:
        what = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
        raise SpoolError(
            f"the working folder cannot be written ({what})",
            hint="Free space on that disk and run the same command again.",
        ) from error
    except duckdb.Error as error:
        raise SpoolError(
            f"rows in the working folder cannot be read back ({type(error).__name__})",
            hint="Run the same command again: they are fetched anew.",
        ) from error


def sql_type(kind: str) -> str:
    """Give the DuckDB type of a column kind."""
    return _SQL_TYPES[kind]


def hashed_columns(resource: Resource) -> list[Column]:
    """List the columns whose values make a version of a row."""
    return [column for column in resource.columns if column.source not in resource.unhashed]


# -- SQL -----------------------------------------------------------------------------------------


def _typed_sql(spools: Sequence[Path], resource: Resource, widest: int) -> str:
    # The reader takes twice the size of the largest row in memory before it has read one.
    most = min(widest, max(path.stat().st_size for path in spools)) + _SPARE_BYTES
    stamp = _text(datetime.now(UTC).isoformat())
    files = ", ".join(_text(str(path)) for path in spools)
    values = ", ".join(_text(column.json_path) for column in resource.columns)
    typed = ",\n    ".join(
        f"{_typed(column, place)} as {_name(column)}" for place, column in enumerate(resource.columns, 1)
    )
    hashed = ", ".join(f"coalesce({_name(column)}::varchar, chr(30))" for column in hashed_columns(resource))
    names = ", ".join(_name(column) for column in resource.columns)
    seen = " kinds," + (" objects," if taken_apart(resource) else "") if _tops(resource) else ""
    return f"""
with spooled as (
    select json as record
    from read_json_objects([{files}], format = 'newline_delimited', maximum_object_size = {most})
), extracted as (
    select record, json_extract_string(record, [{values}]) as texts{_looked_into(resource)} from spooled
), typed as (
    select record, texts,{seen}
    {typed}
    from extracted
), kept as (
    select *, {_extra(resource)} as _extra from typed
)
select {names}, _extra,
    md5(concat_ws(chr(31), {hashed}, coalesce(_extra::varchar, chr(30)))) as _row_hash,
    {stamp}::timestamptz as _synced_at, null::timestamptz as _deleted_at
from kept
"""


def _typed(column: Column, place: int) -> str:
    text = f"texts[{place}]"
    if column.kind == "text":
        return text
    if column.kind == "json":
        return f"nullif(json_extract(record, {_text(column.json_path)}), 'null'::json)"
    if column.kind == "bool":
        return f"case {text} when 'true' then true when 'false' then false end"
    if column.kind == "timestamp":
        is_iso = f"regexp_matches({text}, '^\\d{{4}}-\\d{{2}}-\\d{{2}}')"
        return f"case when {is_iso} then try_cast({text} as timestamptz) end"
    if column.kind == "bigint":
        return f"case when regexp_full_match({text}, '-?\\d+(\\.0+)?') then try_cast({text} as bigint) end"
    number = f"case when regexp_matches({text}, '^-?\\d') then try_cast({text} as double) end"
    if column.kind == "double":
        return number
    exact = f"try_cast({text} as decimal(38,9))"
    return f"case when {exact}::double = ({number}) then {exact} end"


def _extra(resource: Resource) -> str:
    """Compose `_extra`: undeclared fields and misfits as one JSON object, null where there are none."""
    parts = [_undeclared(resource, "")]
    if resource.envelope:
        parts.append(_undeclared(resource, f"/{resource.envelope}"))
    in_parts = {column.source for held in taken_apart(resource).values() for column in held}
    misfits = ", ".join(
        [
            _misfit(column, place)
            for place, column in enumerate(resource.columns, 1)
            if column.kind not in ("text", "json") and column.source not in in_parts
        ]
        + _unforeseen(resource)
    )
    if misfits:
        parts.append(f"[{misfits}]")
    listed = f"list_filter(flatten([{', '.join(parts)}]), lambda part: part is not null)"
    return f"(nullif('{{' || array_to_string({listed}, ',') || '}}', '{{}}'))::json"


def _misfit(column: Column, place: int) -> str:
    """Write a value that does not fit its column as `"key":value`, under its last key."""
    key = column.steps[-1] if len(column.steps) > 3 else column.source
    return (
        f"case when texts[{place}] is not null and {_name(column)} is null"
        f" then {_text(_json_key(key))} || json_extract(record, {_text(column.json_path)})::varchar end"
    )


def _unforeseen(resource: Resource) -> list[str]:
    """List what columns below a top field leave of it, each as `"key":value`.

    That is a value not wrapped as the vendor documents, one that is no object where columns take parts of
    it, and the parts that no column takes.
    """
    places = {column.source: place for place, column in enumerate(resource.columns, 1)}
    tops = {name: place for place, name in enumerate(_tops(resource), 1)}
    bare = [
        f"case when texts[{places[column.source]}] is null then {_bare(resource, name, tops[name])} end"
        for name, column in wrapped(resource).items()
    ]
    parts = [
        _left_over(resource, path[1], tops[path[1]], [(column, places[column.source]) for column in held])
        for path, held in taken_apart(resource).items()
    ]
    return bare + parts


def _tops(resource: Resource) -> list[str]:
    """List the attributes that columns stand below, those first that are taken apart."""
    return [*(path[1] for path in taken_apart(resource)), *wrapped(resource)]


def _looked_into(resource: Resource) -> str:
    """Write what all rows are asked at once: each lookup of its own would parse the whole record again.

    `objects` are the values that columns take parts of, `kinds` the JSON types of the attributes and then
    of their values.
    """
    tops = _tops(resource)
    if not tops:
        return ""
    at = [f"/{resource.envelope}/{name}" for name in tops]
    objects = ", ".join(_text(f"{each}/value") for each in at[: len(taken_apart(resource))])
    kinds = ", ".join(map(_text, [*at, *(f"{each}/value" for each in at)]))
    extracted = f", json_extract(record, [{objects}]) as objects" if objects else ""
    return f"{extracted}, json_type(record, [{kinds}]) as kinds"


def _bare(resource: Resource, name: str, place: int) -> str:
    """Write an attribute that stands there without its wrapping, null where it is wrapped or not there."""
    whole = f"/{resource.envelope}/{name}"
    is_there = f"kinds[{place}] <> 'NULL' and kinds[{place + len(_tops(resource))}] is null"
    return (
        f"case when {is_there} then case when not json_exists(record, {_text(whole + '/value_type')})"
        f" then {_text(_json_key(name))} || json_extract(record, {_text(whole)})::varchar end end"
    )


def _left_over(resource: Resource, name: str, place: int, held: Sequence[tuple[Column, int]]) -> str:
    """Write what columns leave of an object: all of a value that is none, the parts of one that is."""
    value, key = f"objects[{place}]", _text(_json_key(name))
    return (
        f"case kinds[{place + len(_tops(resource))}] when 'OBJECT' then {_parts_left(value, key, held)}"
        f" when 'NULL' then null else coalesce({key} || {value}::varchar,"
        f" {_bare(resource, name, place)}) end"
    )


def _parts_left(value: str, key: str, held: Sequence[tuple[Column, int]]) -> str:
    """Write the parts that no column takes; of an object with an implied part that has others, all of it."""
    column, number = held[0]
    if column.implied:
        return (
            f"case when {value}::varchar not in ({_usual(column, number)}) then {key} || {value}::varchar end"
        )
    taken = ", ".join(_text(each.steps[-1]) for each, _ in held)
    pointer = "'/' || replace(replace(key, '~', '~0'), '/', '~1')"
    misfits = ", ".join(_misfit(*each) for each in held)
    parts = (
        f"list_concat(list_transform(list_filter(json_keys({value}),"
        f" lambda key: not list_contains([{taken}], key)), lambda key:"
        f" to_json(key)::varchar || ':' || nullif(json_extract({value}, {pointer})::varchar, 'null')),"
        f" [{misfits}])"
    )
    return f"{key} || nullif('{{' || array_to_string({parts}, ',') || '}}', '{{}}')"


def _usual(column: Column, place: int) -> str:
    """List the texts of an object of which nothing is left: its part with the implied one, or alone."""
    part, said = column.implied or ("", "")
    implied = _text(_json_key(part) + msgspec.json.encode(said).decode())
    own = f"{_text(_json_key(column.steps[-1]))} || coalesce(to_json(texts[{place}])::varchar, 'null')"
    forms = (f"{own} || ',' || {implied}", f"{implied} || ',' || {own}", own, implied)
    return ", ".join(f"'{{' || {form} || '}}'" for form in (*forms, "''"))


def _undeclared(resource: Resource, below: str) -> str:
    """List the undeclared keys at the root or in the envelope, each as `"key":value`.

    Keys are addressed by JSON pointers, since a vendor's key may hold quotes or dots. A value that the
    vendor wraps (`{"value": ...}`) is unwrapped.
    """
    known = declared(resource)[below.removeprefix("/")]
    listed = ", ".join(_text(name) for name in sorted(known))
    keys = f"json_keys(record, {_text(below)})" if below else "json_keys(record)"
    pointer = f"{_text(below)} || '/' || replace(replace(key, '~', '~0'), '/', '~1')"
    value = f"json_extract(record, {pointer})"
    if below:
        inner = f"{pointer} || '/value'"
        value = f"case when json_exists(record, {inner}) then json_extract(record, {inner}) else {value} end"
    return (
        f"list_transform(list_filter({keys}, lambda key: not list_contains([{listed}], key)), lambda key:"
        f" to_json(key)::varchar || ':' || nullif(({value})::varchar, 'null'))"
    )


def _json_key(name: str) -> str:
    return msgspec.json.encode(name).decode() + ":"


def _summary(con: duckdb.DuckDBPyConnection, resource: Resource, target: Path, now: datetime) -> Typed:
    file = _text(str(target))
    wrapping = {*wrapped(resource), *(path[1] for path in taken_apart(resource))}
    checked = [
        column
        for column in resource.columns
        if column.kind not in ("text", "json") or column.source in wrapping
    ]
    kept = ", ".join(f"count(*) filter ({_is_misfit(resource, column)})" for column in checked) or "0"
    stamp = next((_name(column) for column in resource.columns if column.source == resource.updated), None)
    stamp_sql = (
        f"count(*) filter ({stamp} > ?), count(*) filter ({stamp} is null or {stamp} < {_EARLIEST}),"
        f" max({stamp}) filter ({stamp} between {_EARLIEST} and ?)"
        if stamp
        else "0, 0, null"
    )
    values = con.execute(
        f"select count(*), count(_extra), {stamp_sql}, {kept} from read_parquet({file})",
        [now, now] if stamp else [],
    ).fetchone()
    assert values is not None
    rows, unknown, future, undated, newest, *misfits = values
    found = {column.name: count for column, count in zip(checked, misfits, strict=False) if count}
    return Typed(target, rows, found, unknown, future, undated, newest)


def _is_misfit(resource: Resource, column: Column) -> str:
    """Tell by `_extra` that a value did not fit its column; a part of an object may have been left there."""
    path = column.steps
    if path[:-1] not in taken_apart(resource):
        return f"json_exists(_extra, {_text('/' + column.source)})"
    is_part = f"json_exists(_extra, {_text(f'/{path[1]}/{path[3]}')})"
    whole = f"json_type(_extra, {_text('/' + path[1])}) <> 'OBJECT'"
    if column.implied:
        return whole
    return f"{is_part} or {whole}" if column.source == path[1] else is_part


def _name(column: Column) -> str:
    return '"' + column.name + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
