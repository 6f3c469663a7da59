"""Publishing in place: all of a run stays in the file, or nothing, and no copy is made."""

import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pipelines.settings import load_project
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError, LockedError
from sources.sandbox import Sandbox
from tests.conftest import REPOSITORY
from tests.pulling import project_for, pulled, rows

_DIES = """
import os, sys
from pathlib import Path
from pipelines.warehouse import Warehouse
warehouse = Warehouse(Path(sys.argv[1]), "in_place")
with warehouse.lock("test"), warehouse.generation() as con:
    con.execute("insert into marts.t select range from range(300000)")
    con.execute("create table marts.u as select 1 as a")
    if sys.argv[2] == "inside":
        os.kill(os.getpid(), 9)
    con.execute("pragma disable_checkpoint_on_shutdown")
    warehouse._in_place._end()
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(tmp_path / "warehouse.duckdb", "in_place")
    with made.lock("test"), made.generation() as con:
        con.execute("create table marts.t as select 1::bigint as a")
    return made


def content(warehouse: Warehouse) -> tuple[int, bool]:
    with warehouse.reading() as con:
        [(number,)] = con.execute("select count(*) from marts.t").fetchall()
        return number, bool(con.execute("select 1 from duckdb_tables() where table_name = 'u'").fetchall())


def die(warehouse: Warehouse, where: str) -> None:
    command = [sys.executable, "-c", _DIES, str(warehouse.path), where]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL


def test_a_pull_in_place_changes_the_file_itself_and_misses_nothing(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "rally", publish="in_place")
        pulled(project, "rally.contacts")
        inode = project.warehouse.stat().st_ino
        [person, *_] = box.tenant("rally").records("contacts")
        box.tenant("rally").edit("contacts", person["id"], phone="1")
        assert pulled(project, "rally.contacts").exit_code == 0
        assert project.warehouse.stat().st_ino == inode
        assert not Path(f"{project.warehouse}.wal").exists()
        assert rows(project, "select phone from rally.contacts where id = ?", person["id"]) == [("1",)]
        assert rows(project, "select field, new_value from roundtrip.changes where field = 'phone'") == [
            ("phone", "1")
        ]


def test_a_run_that_fails_leaves_the_file_as_it_was(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.Error), warehouse.lock("test"), warehouse.generation() as con:
        con.execute("insert into marts.t select range from range(300000); select error('stop')")
    assert content(warehouse) == (1, False)


def test_of_a_run_that_is_killed_nobody_sees_anything(warehouse: Warehouse) -> None:
    die(warehouse, "inside")
    assert Path(f"{warehouse.path}.wal").stat().st_size > 0
    assert content(warehouse) == (1, False)
    with warehouse.lock("test"), warehouse.generation() as con:
        con.execute("insert into marts.t values (2)")
    assert content(warehouse) == (2, False)


def test_a_run_that_is_killed_after_its_last_step_counts_whole(warehouse: Warehouse) -> None:
    die(warehouse, "after")
    assert content(warehouse) == (300_001, True)
    with warehouse.lock("test"), warehouse.generation() as con:
        con.execute("insert into marts.t values (2)")
    assert content(warehouse) == (300_002, True)


def test_a_reader_stops_a_run_in_place_before_it_writes(warehouse: Warehouse) -> None:
    code = f"import duckdb; con = duckdb.connect({str(warehouse.path)!r}, read_only=True); print(1); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with pytest.raises(LockedError), warehouse.lock("test"), warehouse.generation():
            pass
        reader.communicate(b"\n")
    assert content(warehouse) == (1, False)


def test_only_the_two_ways_of_publishing_are_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"roundtrip\.publish is not one of generation, in_place"):
        load_project(tmp_path, environ={"ROUNDTRIP__PUBLISH": "somehow"})
