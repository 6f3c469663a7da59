"""What a reading means for the warehouse: rows new or changed, records gone, and the state to keep.

Compares typed files with the published generation, inside DuckDB; writes nothing into it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from pipelines.pulling.fetching import Reading, Segment, State
from pipelines.warehouse import has_table, literal, quoted
from sources.core.changes import watermark
from sources.core.connector import FanOut, Resource, Scope
from sources.core.errors import AuthError, GuardError, ProtocolError, QuotaError, RateLimitError
from sources.core.spool import NULLABLE, sql_type


@dataclass(frozen=True, slots=True)
class Delta:
    """The new and changed rows of one resource, as parquet files with all columns of its raw table."""

    resource: Resource
    files: tuple[Path, ...]
    rows: int

    @property
    def size_bytes(self) -> int:
        """Give the size of the files."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def source(self) -> str:
        """Give the rows as SQL to select from."""
        return _read(self.files)


def table_of(reading: Reading) -> str:
    """Name the raw table of a reading, quoted."""
    return f"{quoted(reading.connection)}.{quoted(reading.resource.name)}"


_NO_ROWS = """(
    select null::varchar as id, null::varchar as _row_hash, null::timestamptz as _deleted_at where false
)"""

# -- rows ----------------------------------------------------------------------------------------


def find_delta(
    con: duckdb.DuckDBPyConnection,
    reading: Reading,
    files: Sequence[Path],
    folder: Path,
    *,
    guard: Callable[[int], None],
) -> Delta | None:
    """Write the rows that the warehouse does not hold in this version to a file, and count them.

    Of several versions of an id the latest wins. None when there is nothing to load; the first reading
    of a resource gives a delta even without rows, so that its table comes to be. Where `guard` raises for
    the number of records that the list shows as deleted, these are left as they were.
    """
    is_new_table = not has_table(con, reading.connection, reading.resource.name)
    if reading.absent or (not files and not is_new_table):
        return None
    if is_new_table and (rows := _count_if_plain(con, reading.resource, files)):
        reading.new += rows
        return Delta(reading.resource, tuple(files), rows)
    _compare(con, reading, files, is_new_table=is_new_table)
    counted = _counted(con)
    try:
        guard(reading.deleted + counted[3])
    except GuardError as error:
        reading.error = reading.error or error
        con.execute("delete from fresh where is_gone and was_live")
        counted = _counted(con)
    reading.new += counted[0]
    reading.changed += counted[1]
    reading.unchanged += counted[2]
    reading.deleted += counted[3]
    rows = counted[0] + counted[1]
    if not rows and not is_new_table:
        return None
    target = folder / reading.connection / f"{reading.resource.name}.delta.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_changed(con, reading.resource, files, target)
    return Delta(reading.resource, (target,), rows)


def _count_if_plain(con: duckdb.DuckDBPyConnection, resource: Resource, files: Sequence[Path]) -> int:
    """Count the rows of files that a table without rows takes as they are; 0 where some need a look.

    Ids are compared by hash: two that share one cost a look and nothing else.
    """
    if not files or resource.gone_flag:
        return 0
    rows, ids = con.execute(f"select count(*), count(distinct hash(id)) from {_read(files)}").fetchall()[0]
    return int(rows) if rows == ids else 0


def _write_changed(
    con: duckdb.DuckDBPyConnection, resource: Resource, files: Sequence[Path], target: Path
) -> None:
    now = f"{literal(datetime.now(UTC).isoformat())}::timestamptz"
    con.execute(NULLABLE)
    con.execute(
        f"""
        copy (
            select rows.* exclude (_seq)
                replace ({now} as _synced_at, case when fresh.is_gone then {now} end as _deleted_at)
            from {_numbered(resource, files)} as rows join fresh on fresh._seq = rows._seq
            where not fresh.is_unchanged
        ) to {literal(str(target))} (format parquet, compression uncompressed)
        """
    )
    con.execute("reset disabled_optimizers")


def _counted(con: duckdb.DuckDBPyConnection) -> tuple[int, int, int, int]:
    new, changed, unchanged, gone = con.execute(
        "select count(*) filter (is_new), count(*) filter (not is_new and not is_unchanged),"
        " count(*) filter (is_unchanged), count(*) filter (is_gone and was_live) from fresh"
    ).fetchall()[0]
    return new, changed, unchanged, gone


def _compare(
    con: duckdb.DuckDBPyConnection, reading: Reading, files: Sequence[Path], *, is_new_table: bool
) -> None:
    """Make the temporary table `fresh`: each id once, where its latest version stands and what it is."""
    resource = reading.resource
    current = _NO_ROWS if is_new_table else table_of(reading)
    is_same = "current._row_hash is not distinct from latest._row_hash"
    if reading.is_rebuild and not is_new_table:
        is_same += _same_values(con, reading)
    stamp = f"{quoted(stamp_column(resource))} desc nulls last, " if resource.updated else ""
    gone = f"coalesce(latest.{quoted(resource.gone_flag)}, false)" if resource.gone_flag else "false"
    con.execute(
        f"""
        create or replace temp table fresh as
        select latest._seq, {gone} as is_gone, current.id is null as is_new,
            current.id is not null and current._deleted_at is null as was_live,
            current.id is not null and {is_same}
                and (current._deleted_at is not null) = ({gone}) as is_unchanged
        from (
            select * from {_numbered(resource, files)}
            qualify row_number() over (partition by id order by {stamp}_seq desc) = 1
        ) as latest
        left join {current} as current on current.id = latest.id
        """
    )


def _same_values(con: duckdb.DuckDBPyConnection, reading: Reading) -> str:
    """Compose a comparison of all values, which finds rows that somebody damaged beside their hash."""
    present = {row[0] for row in con.execute(f"describe {table_of(reading)}").fetchall()}
    names = [column.name for column in reading.resource.columns if column.name in present]
    return "".join(
        f" and current.{name} is not distinct from latest.{name}" for name in map(quoted, (*names, "_extra"))
    )


def _read(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(literal(str(path)) for path in files)}])"


def _numbered(resource: Resource, files: Sequence[Path]) -> str:
    """Give the rows with `_seq`, which grows in the order in which they were read."""
    if not files:
        return _rows(resource, files)
    return f"(select *, (file_index << 40) + file_row_number as _seq from {_read(files)})"


def _rows(resource: Resource, files: Sequence[Path]) -> str:
    if files:
        return _read(files)
    nulls = ", ".join(
        f"null::{sql_type(column.kind)} as {quoted(column.name)}" for column in resource.columns
    )
    return (
        f"(select {nulls}, null::json as _extra, null::varchar as _row_hash, null::timestamptz as _synced_at,"
        " null::timestamptz as _deleted_at, 0::bigint as _seq where false)"
    )


def stamp_column(resource: Resource) -> str:
    """Name the column that holds the change stamp."""
    return next(column.name for column in resource.columns if column.source == resource.updated)


# -- records -------------------------------------------------------------------------------------


def count_live(con: duckdb.DuckDBPyConnection, reading: Reading) -> int:
    """Count the records of a resource that are not marked as deleted."""
    if not has_table(con, reading.connection, reading.resource.name):
        return 0
    row = con.execute(f"select count(*) from {table_of(reading)} where _deleted_at is null").fetchone()
    return int(row[0]) if row else 0


def find_absent(con: duckdb.DuckDBPyConnection, reading: Reading) -> set[str]:
    """List the live records that a complete pass did not show."""
    if not has_table(con, reading.connection, reading.resource.name):
        return set()
    rows = con.execute(
        f"select id from {table_of(reading)} where _deleted_at is null"
        f" and id not in (select id from {_rows(reading.resource, reading.seen)})"
    ).fetchall()
    return {row[0] for row in rows}


def keep_live(con: duckdb.DuckDBPyConnection, reading: Reading, ids: set[str]) -> set[str]:
    """Keep those ids, in any case, that are live in the warehouse or came with this pass, as spelt there."""
    live = f"select id from {_rows(reading.resource, reading.seen)}"
    if has_table(con, reading.connection, reading.resource.name):
        live += f" union select id from {table_of(reading)} where _deleted_at is null"
    rows = con.execute(
        f"select id from ({live}) where list_contains($ids, lower(id))",
        {"ids": sorted(map(str.lower, ids))},
    ).fetchall()
    return {row[0] for row in rows}


def keep_unseen(con: duckdb.DuckDBPyConnection, reading: Reading, ids: set[str]) -> set[str]:
    """Keep those ids that this pass did not show, in any case."""
    rows = con.execute(f"select lower(id) from {_rows(reading.resource, reading.seen)}").fetchall()
    seen = {row[0] for row in rows}
    return {each for each in ids if each.lower() not in seen}


def find_scopes(con: duckdb.DuckDBPyConnection, reading: Reading, siblings: Sequence[Reading]) -> list[Scope]:
    """List what a fan-out asks for: values of the warehouse and those read in this run, in order."""
    return [
        scope
        for fan_out in reading.resource.fan_out
        if fan_out.applies(reading.session.connection)
        for scope in _scopes_of(con, reading, fan_out, siblings)
    ]


def _scopes_of(
    con: duckdb.DuckDBPyConnection, reading: Reading, fan_out: FanOut, siblings: Sequence[Reading]
) -> list[Scope]:
    column = quoted(fan_out.column)
    parts = [
        f"select {column} as value, false as is_known from {_rows(other.resource, other.seen)}"
        for other in siblings
        if other.session is reading.session and other.resource.name == fan_out.resource and other.seen
    ]
    was_asked_by = fan_out.resource in (reading.state.fanned_by or ())
    if has_table(con, reading.connection, fan_out.resource):
        table = f"{quoted(reading.connection)}.{quoted(fan_out.resource)}"
        parts.append(
            f"select {column} as value, coalesce(_synced_at <= $fanned_at, false) as is_known from {table}"
            " where _deleted_at is null"
        )
    if not parts:
        return []
    rows = con.execute(
        f"select value, not bool_or(is_known) from ({' union all '.join(parts)})"
        " where value is not null group by value order by value",
        {"fanned_at": reading.state.fanned_at if was_asked_by else None} if "$fanned_at" in parts[-1] else {},
    ).fetchall()
    return [Scope(fan_out, str(value), is_new) for value, is_new in rows]


# -- state ---------------------------------------------------------------------------------------


def read_states(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], State]:
    """Read how far each resource has been read."""
    names = ", ".join(each.name for each in fields(State))
    rows = con.execute(f"select connection, resource, {names} from roundtrip.resource_state").fetchall()
    return {(row[0], row[1]): State(*row[2:]) for row in rows}


def read_contracts(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Read by which contract each connection's tables were made."""
    return dict(con.execute("select connection, contract from roundtrip.connections").fetchall())


def forget_places(con: duckdb.DuckDBPyConnection, connection: str, resource: str | None = None) -> None:
    """Have a connection's resources, or one, read as if for the first time."""
    con.execute(
        """
        update roundtrip.resource_state
        set history_from = coalesce(history_from, last_complete_at), strategy = null, watermark = null,
            feed_watermark = null, page_token = null, pass_started_at = null, pass_since = null,
            last_complete_at = null, last_full_at = null, fanned_at = null, fanned_by = null
        where connection = ? and resource = coalesce(?, resource)
        """,
        [connection, resource],
    )


def next_state(reading: Reading, segment: Segment, *, lookback: timedelta) -> State:
    """Say how far a resource has been read after this segment.

    A watermark moves only when its window was read to the end; a pass that was cut keeps its place, unless
    the CRM did not answer there at all, its end was not proven, or the whole pass must be seen again: then
    the next run begins anew.
    """
    state = reading.state
    if reading.backfill or reading.absent:
        return state
    if not (segment.final and reading.complete and reading.error is None):
        is_whole = segment.final and reading.complete
        is_unproven = segment.final and reading.ended and not reading.complete
        if is_unproven or (is_whole and _must_be_seen_again(reading)) or _is_dead_end(reading, segment):
            return replace(state, page_token=None, pass_started_at=None, pass_since=None)
        if is_whole or segment.token is None:
            return state
        return replace(
            state,
            strategy=reading.strategy,
            page_token=segment.token,
            pass_started_at=reading.started or state.pass_started_at,
            pass_since=reading.since,
        )
    assert reading.started is not None
    return State(
        strategy=reading.strategy,
        watermark=_next_watermark(reading, lookback) if reading.strategy == "since" else None,
        feed_watermark=reading.feed_watermark,
        last_complete_at=_looked_at(reading),
        last_full_at=_looked_at(reading) if reading.is_full else _last_full(reading),
        history_from=reading.state.history_from or reading.state.last_complete_at or _looked_at(reading),
        fanned_at=_fanned_at(reading),
        fanned_by=_fanned_by(reading),
    )


def _fanned_at(reading: Reading) -> datetime | None:
    """Give the moment until which scopes that landed were asked for; a pass in parts knows its first."""
    if not reading.resource.fan_out:
        return None
    if reading.refused and reading.since is not None:
        return reading.state.fanned_at
    return _looked_at(reading) if reading.token is not None else datetime.now(UTC)


def _fanned_by(reading: Reading) -> list[str] | None:
    """List the resources whose records were asked for; a pass in parts may have begun without some."""
    if not reading.resource.fan_out:
        return None
    connection = reading.session.connection
    asked = [each.resource for each in reading.resource.fan_out if each.applies(connection)]
    if reading.token is None and not (reading.refused and reading.since is not None):
        return asked
    return [each for each in asked if each in (reading.state.fanned_by or ())]


def _looked_at(reading: Reading) -> datetime:
    """Give the moment, by our own clock, from which on changes may not have been seen.

    A push compares it with its own times, so the CRM's clock, which may be off, has no part in it.
    """
    begun = reading.state.pass_started_at if reading.token is not None else None
    return min(begun, reading.asked_at) if begun else reading.asked_at


def _must_be_seen_again(reading: Reading) -> bool:
    """Tell whether a finished pass whose deletions stayed open may not be resumed at its own checkpoint.

    A resumed pass proves no absence, and what a guard held back stands before the checkpoint.
    """
    return reading.token is None or isinstance(reading.error, GuardError)


def _is_dead_end(reading: Reading, segment: Segment) -> bool:
    """Tell whether a pass that was resumed got an answer at its place, and the answer was of no use."""
    error = reading.error
    if reading.token is None or not segment.final or reading.pages or error is None:
        return False
    is_wait = isinstance(error, AuthError | QuotaError | RateLimitError)
    return not is_wait and (error.status is not None or isinstance(error, ProtocolError))


def _next_watermark(reading: Reading, lookback: timedelta) -> datetime:
    """Give the next mark; a whole pass sets it afresh, so that one that was wrong does not stay.

    It stays where scopes were refused: should the CRM know them again, their window is open still.
    """
    assert reading.started is not None
    before = reading.state.watermark
    is_open = reading.newest is None or reading.refused
    if before is not None and is_open and reading.since is not None:
        return before
    mark = watermark(reading.started, reading.newest, reading.now(), lookback)
    return max(mark, before) if before is not None and reading.since is not None else mark


def _last_full(reading: Reading) -> datetime | None:
    """After a resumed pass, which may have missed rows that moved, or a feed that knew more: none."""
    is_open = reading.since is None or reading.resumed or reading.unlisted or reading.has_gap
    return None if is_open else reading.state.last_full_at


def is_news(reading: Reading, state: State) -> bool:
    """Tell whether a state is worth a generation of its own: times of looking alone are not."""
    before = reading.state
    if before.last_complete_at is None or (reading.since is None and reading.strategy == "since"):
        return state != before
    looked = dict.fromkeys(("last_complete_at", "last_full_at", "pass_started_at", "fanned_at"))
    return replace(state, **looked) != replace(before, **looked) or (
        (state.last_full_at is None) != (before.last_full_at is None)
    )


def write_state(con: duckdb.DuckDBPyConnection, reading: Reading, state: State) -> None:
    """Write a resource's state into a generation."""
    values = [
        reading.connection,
        reading.resource.name,
        *astuple(state),
        str(reading.error) if reading.error else None,
        json.dumps(reading.counts | {"repairs": reading.repairs}),
    ]
    con.execute(
        "insert or replace into roundtrip.resource_state"
        f" (connection, resource, {', '.join(each.name for each in fields(State))}, last_error, counts)"
        f" values ({', '.join('?' * len(values))})",
        values,
    )
