"""The warehouse: one published DuckDB file, its next generation, and the lock that guards them.

Readers open the published file whenever they like: a run builds the next generation beside it and
puts it in place with one rename. Working files live in `.roundtrip/` beside the warehouse.
What goes into a generation is decided by `pull`, `enrich` and `push`, which meet only here.
"""

import contextlib
import fcntl
import functools
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout

from pipelines.in_place import MOST_BYTES, InPlace, sync
from sources.core.errors import ConfigError, ConnectorError, LockedError

_MEMORY_MB = 160  # merging 1,000,000 rows takes no longer than with all the memory there is
_FICLONE = 0x40049409  # ioctl of Linux that shares blocks between two files


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One command's run, as `roundtrip.runs` holds it."""

    run_id: str
    command: str
    started_at: datetime
    finished_at: datetime
    status: str
    counts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    looked: Sequence[tuple[str, str]] = ()  # what of each connection was seen to its end and is as it was


def new_run_id(now: datetime) -> str:
    """Make a run id that sorts by time: `20260301T120000Z-3f9a`."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def sql(name: str) -> str:
    """Read one of the package's SQL files."""
    return resources.files("pipelines").joinpath("sql", name).read_text(encoding="utf-8")


def quoted(identifier: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for SQL, for the few places that take no parameter (paths, options)."""
    return "'" + text.replace("'", "''") + "'"


class Warehouse:
    """One warehouse file and its working folder; `path` must be absolute.

    `publish` says how runs put their changes there: as a whole `generation`, or `in_place`.
    """

    def __init__(self, path: Path, publish: str = "generation") -> None:
        self.path = path
        self.home = path.parent / ".roundtrip"
        self._is_in_place = publish == "in_place"
        self._in_place = InPlace(path, self.home)
        self.build = self.home / f"{path.stem}.build.duckdb"
        self._fresh = self.home / f"{path.stem}.fresh.duckdb"
        self._pending_runs = self.home / "runs.jsonl"
        self._copied: str | None = None

    def exists(self) -> bool:
        """Tell whether a generation has been published."""
        return self.path.exists()

    # -- lock ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Hold the warehouse for one run; `LockedError` names the holder at once."""
        self.prepare_home()
        lock = FileLock(self.home / "lock")
        holder = self.home / "lock.holder"
        try:
            with on_disk(self.home / "lock"):
                lock.acquire(timeout=0)
        except Timeout as error:
            raise LockedError(
                f"another run holds {self.path.name}: {_describe(holder)}", hint="Wait for it, or stop it."
            ) from error
        try:
            with on_disk(holder):
                holder.write_text(
                    json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": command})
                )
            with on_disk(self.path):
                self._in_place.recover()
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def prepare_home(self) -> None:
        """Make the working folder, closed to other users; it never goes into version control."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignore = self.home / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise ConfigError(
                f"cannot write to {self.home} ({error.strerror})",
                hint="Set destination.duckdb.credentials to a file in a folder that can be written.",
            ) from error

    # -- reading ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the published generation read-only.

        Without one, or where the file is a DuckDB file that no run has written to yet, an empty
        warehouse in memory.
        """
        self._recover_unlocked()
        con = self._connect(self.path, read_only=True) if self.exists() else _empty()
        copy: Path | None = None
        try:
            if not has_table(con, "roundtrip", "connections"):
                con.close()
                con = _empty()
            elif _is_older(con):
                copy = self._with_our_schema(con)
                con.close()
                con = self._connect(copy, read_only=True)
                with contextlib.suppress(OSError):  # some systems keep the name of what is open until the end
                    copy.unlink()  # now: a reader that is killed leaves nothing behind
            yield con
        finally:
            con.close()
            if copy is not None:
                copy.unlink(missing_ok=True)

    def _recover_unlocked(self) -> None:
        """Take back what a stopped run wrote in place, unless somebody is at work."""
        if self._in_place.is_unfinished():
            with contextlib.suppress(LockedError), self.lock("recovery"):
                pass

    def _with_our_schema(self, published: duckdb.DuckDBPyConnection) -> Path:
        """Copy a file of an older version and give the copy the tables and columns of this one.

        The published file is left alone: the next generation brings it up to date.
        """
        self.prepare_home()
        copy = self.home / f"{self.path.stem}.older-{secrets.token_hex(4)}.duckdb"
        with on_disk(copy):
            _clone(self.path, copy)  # while `published` keeps writers out
            with self._connect(copy, read_only=False) as con:
                con.execute(sql("schema.sql"))
        return copy

    def _connect(self, path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            con = duckdb.connect(str(path), read_only=read_only)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) and "lock" in str(error).lower():
                raise LockedError(
                    f"another program has {path.name} open for writing",
                    hint="Close it, or open it there with read_only=True.",
                ) from error
            raise ConfigError(
                f"{path} is not a DuckDB file that can be opened ({_first_line(error)})",
                hint="Put a good copy back, or set destination.duckdb.credentials to another file.",
            ) from error
        con.execute("set TimeZone = 'UTC'")
        return con

    # -- generations -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def generation(
        self, *, is_rewritten: bool = False, size_bytes: int = 0
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Build the next generation and publish it when the block ends well.

        Where publishing is in place and what comes in, of `size_bytes`, is not too much for that, the file
        itself is written to, all or nothing; readers and writers then exclude each other.

        One that `is_rewritten` is copied row by row into a fresh file, in which nothing is left of what was
        taken out: a DuckDB file keeps the bytes of rows that were deleted.
        On any exception the build is thrown away and the published file stays as it was; a disk that
        is full or fails is a `ConnectorError`. The lock must be held. After the block nothing is open,
        everything is on disk, and readers that opened the file before keep what they had. `LockedError` where
        another program has written to the file meanwhile, or is about to.
        """
        self.prepare_home()
        if self._is_in_place and self.exists() and not is_rewritten and size_bytes < MOST_BYTES:
            with self._written_in_place() as con:
                yield con
            return
        with on_disk(self.path):
            self._discard_build()
            self._copy_published()
            con = self._connect(self.build, read_only=False)
            try:
                con.execute(sql("schema.sql"))
                folded = self._fold_pending_runs(con)
                yield con
                con.execute("checkpoint")
                if is_rewritten:
                    _copy_rows(con, self._fresh)
                con.close()
                if is_rewritten:
                    self._fresh.replace(self.build)
                self._publish()
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # closing writes, which a full disk refuses
                    con.close()
                self._discard_build()
                raise
            if folded:
                self._pending_runs.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written_in_place(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with on_disk(self.path):
            self._take_in_log()
            con = self._connect(self.path, read_only=False)
            with self._in_place.writing(con):
                con.execute(sql("schema.sql"))
                folded = self._fold_pending_runs(con)
                yield con
            if folded:
                self._pending_runs.unlink(missing_ok=True)

    def _take_in_log(self) -> None:
        """Take in the work of a program that wrote to the file and died."""
        if Path(f"{self.path}.wal").exists():
            self._connect(self.path, read_only=False).close()

    def _copy_published(self) -> None:
        self._copied = None
        if not self.exists():
            return
        self._take_in_log()
        with self._connect(self.path, read_only=True):  # keeps writers out while the bytes are copied
            self._copied = self._generation_id()
            _clone(self.path, self.build)

    def _publish(self) -> None:
        sync(self.build)
        with self._untouched():
            self.build.replace(self.path)
        sync(self.path.parent)
        self._discard_build()

    @contextlib.contextmanager
    def _untouched(self) -> Iterator[None]:
        """Keep writers out while the file is replaced, and what one wrote since it was copied in it."""
        if not self.exists():
            yield
            return
        with self._connect(self.path, read_only=True):
            if self._generation_id() != self._copied or Path(f"{self.path}.wal").exists():
                raise LockedError(
                    f"another program has written to {self.path.name} meanwhile; nothing was published",
                    hint="Run the same command again.",
                )
            yield

    def _discard_build(self) -> None:
        self.build.unlink(missing_ok=True)
        for name in (f"{self.build}.wal", self._fresh, f"{self._fresh}.wal"):
            Path(name).unlink(missing_ok=True)

    # -- run records -----------------------------------------------------------------------------

    def note_run(self, run: RunRecord) -> None:
        """Keep the record of a run that changed nothing, until the next generation takes it in."""
        self.prepare_home()
        entry = {"of": self._generation_id(), **asdict(run)}
        with self._pending_runs.open("ab") as file:
            if file.tell() and not self._ends_a_line():
                file.write(b"\n")  # after a line cut by a kill
            file.write(json.dumps(entry, default=str).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def pending_runs(self) -> list[RunRecord]:
        """List the records that no generation has taken in yet, oldest first."""
        return [run for run, _ in self._pending()]

    def looked(self) -> dict[tuple[str, str], datetime]:
        """Say when resources were last found unchanged, by runs that looked at this very generation.

        What runs found out about a file that has since been replaced says nothing about this one.
        """
        found: dict[tuple[str, str], datetime] = {}
        for run, is_of_this in self._pending():
            for connection, resource in run.looked if is_of_this else ():
                found[connection, resource] = run.started_at
        return found

    def _pending(self) -> list[tuple[RunRecord, bool]]:
        if not self._pending_runs.exists():
            return []
        present, runs = self._generation_id(), []
        for line in self._pending_runs.read_bytes().splitlines():
            # A line may be cut by a kill, or be no record at all.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                entry = json.loads(line)
                of = entry.pop("of", None)
                runs.append((_run_of(entry), of is not None and of == present))
        return runs

    def _ends_a_line(self) -> bool:
        with self._pending_runs.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _generation_id(self) -> str | None:
        """Tell one published file from another, also from one put back by hand."""
        if not self.exists():
            return None
        found = self.path.stat()
        return f"{found.st_mtime_ns}-{found.st_size}"

    def _fold_pending_runs(self, con: duckdb.DuckDBPyConnection) -> bool:
        runs = self.pending_runs()
        for run in runs:
            record_run(con, run)
        for (connection, resource), at in self.looked().items():
            con.execute(
                "update roundtrip.resource_state set last_complete_at = greatest(last_complete_at, ?)"
                " where connection = ? and resource = ? and last_complete_at is not null",
                [at, connection, resource],
            )
        return bool(runs)


def spare_memory(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Bound what a connection that works on whole tables keeps in memory; the rest goes to disk.

    Without a bound DuckDB takes up to four fifths of the machine. Rows may then be written in any order.
    """
    con.execute(f"set temp_directory = {literal(str(home / 'tmp'))}")
    con.execute(f"set memory_limit = '{_MEMORY_MB}MB'")
    con.execute("set preserve_insertion_order = false")


def record_run(con: duckdb.DuckDBPyConnection, run: RunRecord) -> None:
    """Write a run record into a generation; the same run id again replaces it."""
    con.execute(
        "insert or replace into roundtrip.runs values (?, ?, ?, ?, ?, ?, ?)",
        [
            run.run_id,
            run.command,
            run.started_at,
            run.finished_at,
            run.status,
            json.dumps(run.counts, default=str),
            run.error,
        ],
    )


def has_table(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    """Tell whether a table or view is there; views are looked at last, since listing them binds them all."""
    return any(
        con.execute(
            f"select 1 from duckdb_{kind}s()"
            f" where database_name = current_database() and schema_name = ? and {kind}_name = ?",
            [schema, table],
        ).fetchone()
        for kind in ("table", "view")
    )


def columns_in(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> dict[str, str]:
    """List the columns of a table with their types; none where there is no such table."""
    rows = con.execute(
        "select column_name, data_type from duckdb_columns()"
        " where database_name = current_database() and schema_name = ? and table_name = ?",
        [schema, table],
    ).fetchall()
    return dict(rows)


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn a disk that is full or fails into one line."""
    try:
        yield
    except Timeout:
        raise  # filelock's, which is an OSError too
    except (OSError, duckdb.IOException, duckdb.FatalException) as error:
        what = getattr(error, "strerror", None) or _reason(error)
        raise ConnectorError(
            f"{path.name} could not be written ({what}); what was published before stays as it was",
            hint=f"See to the disk of {path.parent} and run the same command again.",
        ) from error


def _is_older(con: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether a warehouse lacks a table or column of this version's own schema.

    They are counted, not named: naming them has DuckDB bind every view of the file.
    """
    present = dict(
        con.execute(
            "select table_name, column_count from duckdb_tables()"
            " where database_name = current_database() and schema_name = 'roundtrip'"
        ).fetchall()
    )
    return any(present.get(table, 0) < number for table, number in _our_tables().items())


@functools.cache
def _our_tables() -> Mapping[str, int]:
    """Count the columns of this version's tables; read from the text, since a database takes 60 ms to ask."""
    text = sql("schema.sql")
    tables = re.findall(
        r"^create table if not exists roundtrip\.(\w+) \((.*?)^\);", text, re.DOTALL | re.MULTILINE
    )
    found = {
        table: set(re.findall(r"^    (\w+) [a-z]+\b(?! *\()", body, re.MULTILINE)) for table, body in tables
    }
    for table, name in re.findall(
        r"^alter table roundtrip\.(\w+) add column if not exists (\w+)", text, re.MULTILINE
    ):
        found[table].add(name)
    return {table: len(names) for table, names in found.items()}


def _empty() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.execute(sql("schema.sql"))
    return con


def _copy_rows(con: duckdb.DuckDBPyConnection, target: Path) -> None:
    [(name,)] = con.execute("select current_catalog()").fetchall()
    con.execute(f"attach {literal(str(target))} as fresh_copy")
    con.execute(f"copy from database {quoted(name)} to fresh_copy")
    con.execute("detach fresh_copy")


def _run_of(entry: dict[str, Any]) -> RunRecord:
    times: dict[str, Any] = {
        name: datetime.fromisoformat(entry.pop(name)) for name in ("started_at", "finished_at")
    }
    return RunRecord(**times, **entry)


def _describe(holder: Path) -> str:
    try:
        entry = json.loads(holder.read_text())
        return f"pid {entry['pid']} on {entry['host']}, `{entry['command']}`"
    except (OSError, ValueError, KeyError):
        return "a run that has just begun"


def _reason(error: Exception) -> str:
    """Take the system's reason from the end of a line that begins with a path of any length."""
    return str(error).splitlines()[0].rpartition(": ")[2][:200]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def _clone(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can."""
    with source.open("rb") as read, target.open("wb") as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
        except OSError:
            shutil.copyfile(source, target)
