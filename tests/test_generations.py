"""Generations: readers see whole ones without an error, one run at a time makes them, old ones heal."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pipelines.status import status
from pipelines.warehouse import Warehouse, _our_tables, sql
from sources.core.errors import ConnectorError, LockedError
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request
from sources.sandbox.vivre_rules import VivreSwitches
from tests.pulling import environ_of, part, project_for, pulled, rows
from tests.warm import WarmRuns

# Contacts and companies get the same number in one run, so a reader that sees two numbers sees half a run.
READER = """
import sys, time
import duckdb
path, pause_s, enough = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
queries, seen = 0, set()
while queries < enough or len(seen) < 2:
    with duckdb.connect(path, read_only=True) as con:
        found = con.execute(
            "select distinct phone from rally.contacts union select distinct phone from rally.companies"
        ).fetchall()
        assert len(found) == 1, found
        seen.add(found[0][0])
        queries += 1
    time.sleep(pause_s)
print(queries, len(seen))
"""


def renumber(box: Sandbox, number: int) -> None:
    for resource in ("contacts", "companies"):
        for row in box.tenant("rally").records(resource):
            box.tenant("rally").edit(resource, row["id"], phone=str(number))


def read_during_pulls(box: Sandbox, folder: Path, *, each: int, pause_s: float) -> tuple[int, list[str]]:
    """Pull back to back until eight readers have made `each` queries; give the runs and what readers say."""
    project = project_for(box, folder, "rally")
    renumber(box, 0)
    pulled(project, "rally.contacts", "rally.companies")
    command = [sys.executable, "-c", READER, str(project.warehouse), str(pause_s), str(each)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(8)]
    runs = 0
    try:
        while any(reader.poll() is None for reader in readers):
            runs += 1
            renumber(box, runs)
            assert pulled(project, "rally.contacts", "rally.companies").exit_code == 0
    finally:
        for reader in readers:
            reader.kill()
    return runs, [reader.communicate()[0].decode() for reader in readers]


def test_readers_in_eight_processes_see_whole_generations_without_one_error(tmp_path: Path) -> None:
    with Sandbox(records=12) as box:
        runs, told = read_during_pulls(box, tmp_path, each=10, pause_s=0.1)
    assert runs >= 1
    for line in told:
        queries, generations = map(int, line.split())
        assert queries >= 10
        assert generations >= 2


def test_a_second_run_at_the_same_time_ends_with_exit_4_and_names_the_holder(
    tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=12) as box:
        project = project_for(box, tmp_path, "rally")
        ends: list[tuple[int, str]] = []

        def try_another(_: Request) -> None:
            box.before_list = None
            run = warm_runs.start(tmp_path, ["pull", "rally.contacts", "--json"], environ_of(box))
            ends.append((run.end(), run.json()["error"]))

        box.before_list = try_another
        assert pulled(project, "rally.contacts").exit_code == 0
        (code, line) = ends[0]
        assert code == 4
        assert "another run holds warehouse.duckdb: pid " in line
        assert "`roundtrip pull`" in line


def test_an_older_warehouse_put_back_by_hand_heals_itself(tmp_path: Path) -> None:
    with Sandbox(records=40) as box:
        project = project_for(box, tmp_path, "rally")
        tenant = box.tenant("rally")
        pulled(project, "rally.contacts")
        kept = shutil.copy2(project.warehouse, tmp_path / "kept")
        people = [row["id"] for row in tenant.records("contacts")]
        tenant.edit("contacts", people[0], phone="new")
        tenant.create("contacts", email="new@example.com", firstName="New", lastName="One")
        tenant.delete("contacts", people[1])
        pulled(project, "rally.contacts", accept_deletes=True)
        pulled(project, "rally.contacts")
        healed = rows(project, "select id, phone, _deleted_at is null from rally.contacts order by id")
        shutil.copy2(kept, project.warehouse)
        assert pulled(project, "rally.contacts", accept_deletes=True).exit_code == 0
        assert (
            rows(project, "select id, phone, _deleted_at is null from rally.contacts order by id") == healed
        )


def write_as_another(path: Path, *, leaves_log: bool) -> None:
    with duckdb.connect(str(path)) as other:
        other.execute("update marts.t set x = 2")
        if leaves_log:
            other.execute("pragma disable_checkpoint_on_shutdown")


@pytest.mark.parametrize("leaves_log", [False, True])
def test_what_another_program_writes_during_a_run_is_not_thrown_away(
    leaves_log: bool, tmp_path: Path
) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    with warehouse.lock("test"):
        with warehouse.generation() as con:
            con.execute("create table marts.t as select 1 as x")
        with pytest.raises(LockedError, match="has written"), warehouse.generation():
            write_as_another(warehouse.path, leaves_log=leaves_log)
        with warehouse.generation() as con:
            assert con.execute("select x from marts.t").fetchall() == [(2,)]


def test_notes_of_runs_on_another_file_say_nothing_about_one_put_back(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        first = status(project).connections[0]["resources"][0]["last_success"]
        kept = shutil.copy2(project.warehouse, tmp_path / "kept")
        box.tenant("rally").edit("contacts", box.tenant("rally").records("contacts")[0]["id"], phone="1")
        pulled(project, "rally.contacts")
        pulled(project, "rally.contacts")
        assert status(project).connections[0]["resources"][0]["last_success"] > first
        shutil.copy2(kept, project.warehouse)
        assert status(project).connections[0]["resources"][0]["last_success"] == first


def test_a_look_that_found_nothing_counts_also_after_the_next_generation(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        pulled(project, "rally.companies")
        pulled(project, "rally.contacts")
        looked = status(project).connections[0]["resources"]
        pulled(project, "rally.deals")
        assert status(project).connections[0]["resources"][1]["last_success"] == looked[1]["last_success"]
        assert Warehouse(project.warehouse).pending_runs() == []


def test_a_window_of_the_operators_own_is_no_look_at_the_whole(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        before = status(project).connections[0]["resources"][0]["last_success"]
        assert pulled(project, "rally.contacts", since=datetime.now(UTC) + timedelta(days=1)).exit_code == 0
        pulled(project, "rally.companies")
        assert status(project).connections[0]["resources"][1]["last_success"] == before


def test_a_run_that_could_not_publish_is_no_look_and_is_shown_as_failed(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        before = status(project).connections[0]["resources"][0]["last_success"]
        box.tenant("rally").edit("contacts", box.tenant("rally").records("contacts")[0]["id"], phone="1")
        (blocking := Warehouse(project.warehouse).build).mkdir()  # as a disk that takes no file
        with pytest.raises(ConnectorError, match="could not be written"):
            pulled(project, "rally.contacts")
        blocking.rmdir()
        (shown,) = status(project).connections[0]["resources"]
        assert shown["last_success"] == before
        assert "could not be written" in shown["last_error"]
        pulled(project, "rally.companies")
        assert status(project).connections[0]["resources"][1]["last_success"] == before


def test_a_warehouse_of_an_older_version_is_read_as_it_is_and_brought_up_to_date(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        with duckdb.connect(str(project.warehouse)) as con:
            con.execute("alter table roundtrip.resource_state drop column pass_since")
            con.execute("drop table roundtrip.push_log")
        before = project.warehouse.read_bytes()
        assert status(project).connections[0]["resources"][0]["rows"] == 10
        assert project.warehouse.read_bytes() == before
        with Warehouse(project.warehouse).reading() as con:  # a kill from here on leaves nothing behind
            assert con.execute("select pass_since from roundtrip.resource_state").fetchall() == [(None,)]
            assert [each.name for each in (tmp_path / ".roundtrip").glob("*older*")] == []
        box.tenant("rally").edit("contacts", box.tenant("rally").records("contacts")[0]["id"], phone="1")
        result = pulled(project, "rally.contacts")
        assert (result.exit_code, result.readings[0].since is not None) == (0, True)
        assert rows(project, "select pass_since from roundtrip.resource_state") == [(None,)]


def test_the_columns_read_from_the_text_of_the_schema_are_those_that_duckdb_makes() -> None:
    with duckdb.connect() as con:
        con.execute(sql("schema.sql"))
        made = con.execute(
            "select table_name, column_count from duckdb_tables() where schema_name = 'roundtrip'"
        ).fetchall()
    assert _our_tables() == dict(made)


def test_status_shows_what_was_counted_the_mark_and_the_last_error(
    tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        run = warm_runs.start(tmp_path, ["status", "--json"], environ_of(box))
        assert run.end() == 0
        (shown,) = next(each for each in run.json()["connections"] if each["connection"] == "rally")[
            "resources"
        ]
        assert shown["counts"] == {"future": 0, "undated": 0, "extra": 0, "misfits": 0, "repairs": 0}
        assert shown["last_error"] is None
        assert 0 <= shown["freshness_s"] < 120
        assert shown["watermark"] is not None
        assert shown["last_success"] is not None


def test_status_shows_how_often_a_list_that_moved_was_read_again(tmp_path: Path) -> None:
    with Sandbox(records=60, vivre=VivreSwitches(max_limit=10)) as box:
        project = project_for(box, tmp_path, "vivre")
        pulled(project, "vivre.contacts")
        people = [row["id"] for row in box.tenant("vivre").records("contacts")]
        seen: list[Request] = []

        def shrink(request: Request) -> None:
            seen.append(request)
            if len(seen) == 4:  # rows of pages that were read go, more than pages overlap by
                for person in people[:15] + people[-15:]:  # whichever end the list begins with
                    box.tenant("vivre").delete("contacts", person)

        box.before_list = shrink
        counts = part(pulled(project, "vivre.contacts", accept_deletes=True), "vivre.contacts")["counts"]
        (shown,) = status(project).connections[0]["resources"]
        assert shown["counts"] == counts
        assert counts["repairs"] >= 1
