"""`roundtrip forget EMAIL`: take one person out of the warehouse, its history and its logs.

A person is a contact with that address, in any connection. Their contact records and activities go, what
points to them loses the pointer, and address, telephone and full name leave the texts of what stays. The ids
of the contacts are kept, so that no pull stores them again, and a digest of the address, so that no push
makes them anew. The CRMs are left alone.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from unicodedata import normalize

import duckdb

from pipelines.erasing import Eraser, Person, find_people
from pipelines.progress import Progress
from pipelines.render import clean, table_lines
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, new_run_id, record_run
from sources.core.errors import ConfigError
from sources.core.journal import left_over
from sources.core.privacy import keyed_digest

_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")
_BEYOND = (
    "deals and tasks that the CRM changes later: they come again with all that they say there",
    "texts that name the person in another way than by address, telephone or full name",
    "copies and exports of the warehouse, backups, reports and plans written to files, logs of the terminal",
    "generations that a reader still has open, until it closes them",
)


@dataclass(slots=True)
class ForgetResult:
    """What was taken out of which table, and what lies beyond reach."""

    run_id: str | None = None
    people: list[Person] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    beyond_reach: list[str] = field(default_factory=list)
    is_done: bool = False
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip forget`; no address, name or id is among them."""
        return {"done": self.is_done, "tables": self.tables, "beyond_reach": self.beyond_reach}

    @property
    def text(self) -> str:
        """Give the result for a person."""
        lines = ["nothing in the warehouse has this address"]
        if self.tables:
            names = list(self.tables[0])
            lines = table_lines(names, [[row[name] for name in names] for row in self.tables])
            lines += ["", "Forgotten." if self.is_done else "Nothing has been changed."]
        lines += ["", "Beyond reach:", *(f"- {clean(each)}" for each in self.beyond_reach)]
        return "\n".join(lines) + "\n"


class _LeftAsItWasError(Exception):
    """The next generation is not to be published."""


def forget(
    project: Project,
    email: str,
    *,
    dry_run: bool = False,
    confirm: Callable[[ForgetResult], bool],
    progress: Progress,
) -> ForgetResult:
    """Forget the person with this address, after `confirm` agreed; with `dry_run` only tell what would go.

    Raises `ConfigError` for what is no address, without a warehouse, and while an unfinished push waits.
    """
    key = email.strip().lower()
    if not _ADDRESS.fullmatch(key):
        raise ConfigError("that is not an e-mail address", hint="Give it as in ada@acme.example.")
    warehouse = Warehouse(project.warehouse)
    with warehouse.lock("roundtrip forget"):
        if not warehouse.exists():
            raise ConfigError("there is no warehouse yet", hint="Run `roundtrip pull` first.")
        _refuse_open_journals(warehouse)
        result = _forget(project, warehouse, key, dry_run=dry_run, confirm=confirm)
        if result.is_done:
            _clear_working_files(warehouse)
            if any(row["table"].startswith("marts.") for row in result.tables):
                progress.say("forget: run `roundtrip enrich` to build the models without this person")
    return result


def _forget(
    project: Project,
    warehouse: Warehouse,
    key: str,
    *,
    dry_run: bool,
    confirm: Callable[[ForgetResult], bool],
) -> ForgetResult:
    started = datetime.now(UTC)
    result = ForgetResult(new_run_id(started))
    try:
        with warehouse.generation(is_rewritten=True) as con:
            _erase(con, project, key, result)
            if dry_run or not result.tables:
                raise _LeftAsItWasError
            if not confirm(result):
                raise ConfigError("forget: not confirmed, nothing was changed")
            counts = {"tables": result.tables}
            record_run(
                con, RunRecord(result.run_id or "", "forget", started, datetime.now(UTC), "ok", counts)
            )
    except _LeftAsItWasError:
        result.run_id = None
        return result
    result.is_done = True
    return result


def _erase(con: duckdb.DuckDBPyConnection, project: Project, key: str, result: ForgetResult) -> None:
    found = find_people(con, key, lambda name: _digest(project, name, key))
    result.people = [replace(person, mark=_mark(project, person.connection, key)) for person in found]
    eraser = Eraser(con, result.people, {key}.union(*(person.keys for person in result.people)))
    eraser.erase()
    result.tables = eraser.told()
    result.beyond_reach = [
        *(
            f"{person.connection}: contact records in the CRM itself ({len(person.ids)}); delete them there"
            for person in result.people
        ),
        *_BEYOND,
    ]


def _digest(project: Project, connection: str, key: str) -> str:
    """Give the address as a connection keeps it where it keeps a digest."""
    return keyed_digest(project.connection(connection).hash_key)(key)


def _mark(project: Project, connection: str, key: str) -> str | None:
    """Give the digest by which a push knows the person; None for a connection that is not set up any more."""
    if connection not in project.connections:
        return None
    return _digest(project, connection, normalize("NFC", key))


def _refuse_open_journals(warehouse: Warehouse) -> None:
    if left_over(warehouse.home / "journal"):
        raise ConfigError(
            "a push was stopped half way, and what it had sent is still to be found out",
            hint="Run that `roundtrip push` again first: its journal may hold the person's record.",
        )


def _clear_working_files(warehouse: Warehouse) -> None:
    """Remove what killed runs left beside the warehouse: rows on their way in, and older builds."""
    for name in ("spool", "dlt"):
        shutil.rmtree(warehouse.home / name, ignore_errors=True)
    for path in warehouse.home.glob("*.duckdb*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(f"{warehouse.path}.tmp", ignore_errors=True)
