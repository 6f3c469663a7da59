"""Faults: each ends with the right tables, the right exit code and one line; the others go on."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.pulling import spooling
from pipelines.settings import Project
from pipelines.status import status
from sources.core.connector import Resource
from sources.core.errors import ConfigError, LockedError
from sources.core.pacing import SYSTEM_CLOCK
from sources.core.spool import Typed, type_rows
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request, Response
from sources.sandbox.faults import (
    Action,
    Drip,
    Garbage,
    HalfBody,
    Html,
    NotHttp,
    Redirect,
    Reset,
    ResetAfterHeaders,
    RevokeKey,
    Status,
    TooMany,
    WrongShape,
)
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pulling import SkippingClock, environ_of, part, project_for, pulled, rows
from tests.warm import Run, WarmRuns

BOTH = ("rally.contacts", "rally.companies", "relm.contacts")


def count(project: Project, table: str) -> int:
    return int(rows(project, f"select count(*) from {table}")[0][0])


# What a fault at the first list request of one resource leads to when it stays, and what its line says.
LASTING: dict[str, tuple[Action, str]] = {
    "reset": (Reset(), "cut before the whole answer"),
    "reset after headers": (ResetAfterHeaders(), "cut before the whole answer"),
    "half a body": (HalfBody(), "cut before the whole answer"),
    "no http": (NotHttp(), "not HTTP"),
    "garbage": (Garbage(), "another shape"),
    "web page": (Html(), "web page"),
    "wrong shape": (WrongShape(), "another shape"),
    "an object for a list": (WrongShape('{"error":null}'), "another shape"),
    "empty": (Status(200, body=""), "empty"),
    "500": (Status(500), "(500"),
    "502 page": (Status(502, body="<h1>Bad gateway</h1>", content_type="text/html"), "(502"),
    "503": (Status(503), "(503"),
    "elsewhere": (Redirect("https://example.com/contacts"), "redirects to another address"),
    "429 for an hour": (TooMany(3600), "asks to wait 3600 s"),
    "429 without a word": (TooMany(form="none"), "too many requests"),
    "no permission": (Status(403), "lacks a permission"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_stays_fails_its_resource_alone_with_exit_1(fault: str, tmp_path: Path) -> None:
    action, said = LASTING[fault]
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "rally")
        box.faults.add(action, crm="rally", path=r"/contacts\?", times=None)
        result = pulled(project, "rally.contacts", "rally.companies")
        entry = part(result, "rally.contacts")
        assert (result.exit_code, entry["status"] in ("failed", "refused")) == (1, True)
        assert said in entry["error"]
        assert "\n" not in entry["error"]
        assert entry["error"].startswith("rally contacts: ")
        if fault != "429 for an hour":  # that gate holds for the whole connection
            assert part(result, "rally.companies")["status"] == "ok"


@dataclass(frozen=True)
class NotUnicode(Action):
    """Write the first letters in another encoding."""

    def turned(self, response: Response) -> Response:
        return Response(response.status, response.body.replace(b"example", b"\xe9xample"), response.headers)


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_rows_that_are_no_unicode_fail_their_resource_alone(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, crm)
        box.faults.add(NotUnicode(), path=r"/contacts\?", times=None)
        result = pulled(project, f"{crm}.contacts", f"{crm}.companies")
        assert [part(result, f"{crm}.{name}")["status"] for name in ("contacts", "companies")] == [
            "failed",
            "ok",
        ]


def test_a_fault_of_ours_in_one_list_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(spools: Sequence[Path], resource: Resource, target: Path, **further: Any) -> Typed:
        if resource.name == "contacts":
            raise ZeroDivisionError("anna@example.com")
        return type_rows(spools, resource, target, **further)

    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "rally")
        with monkeypatch.context() as patched, caplog.at_level("DEBUG"):
            patched.setattr(spooling, "type_rows", fail)
            result = pulled(project, "rally.contacts", "rally.companies")
        entry = part(result, "rally.contacts")
        assert (result.exit_code, entry["status"]) == (1, "failed")
        assert entry["error"].startswith("rally contacts: internal error: ZeroDivisionError in test_faults")
        assert "--debug" in entry["error"]
        assert "anna" not in entry["error"]
        assert "Traceback" in caplog.text
        assert (part(result, "rally.companies")["status"], count(project, "rally.companies")) == ("ok", 5)
        assert pulled(project, "rally.contacts").exit_code == 0
        assert count(project, "rally.contacts") == 20


@pytest.mark.parametrize("publish", ["generation", "in_place"])
def test_a_connection_whose_rows_cannot_be_merged_costs_the_others_nothing(
    publish: str, tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=20) as box:
        project = replace(project_for(box, tmp_path, "rally", "relm"), publish=publish)
        pulled(project, "rally.contacts", "relm.contacts")
        with duckdb.connect(str(project.warehouse)) as con:
            con.execute("drop view crm.contacts")
            con.execute("alter table rally.contacts alter column title type boolean using null")
        for crm, title in (("rally", {"title": "Duchess"}), ("relm", {})):
            person = box.tenant(crm).records("contacts")[0]["id"]
            box.tenant(crm).edit("contacts", person, phone="new", **title)
        environ = environ_of(box) | {"ROUNDTRIP__PUBLISH": publish}
        run = warm_runs.start(tmp_path, ["pull", "rally.contacts", "relm.contacts", "--json"], environ)
        assert run.end() == 1
        rally, relm = run.json()["resources"]
        assert (rally["status"], rally["changed"], relm["status"], relm["changed"]) == ("failed", 0, "ok", 1)
        assert "could not be merged" in rally["error"]
        assert "Duchess" not in run.out + run.err
        assert rows(project, "select count(*) from relm.contacts where phone = 'new'") == [(1,)]
        with duckdb.connect(str(project.warehouse)) as con:
            con.execute("alter table rally.contacts alter column title type varchar")
        assert pulled(project, "rally.contacts").exit_code == 0
        assert rows(project, "select count(*) from rally.contacts where phone = 'new'") == [(1,)]


PASSING: dict[str, Action] = {
    "reset": Reset(),
    "reset after headers": ResetAfterHeaders(),
    "half a body": HalfBody(),
    "500": Status(500),
    "502": Status(502),
    "503 with a wait": Status(503, headers={"Retry-After": "2"}),
    "429 in seconds": TooMany(7),
    "429 by date": TooMany(7, "date"),
    "429 without a word": TooMany(form="none"),
    "drip": Drip(pieces=5, gap_s=0.01),
}


def test_faults_that_pass_leave_no_trace(tmp_path: Path) -> None:
    with Sandbox(records=350, relm=RelmSwitches(max_limit=10)) as box:
        project = project_for(box, tmp_path, "relm")
        for number, action in enumerate(PASSING.values()):
            box.faults.add(action, path=r"/contacts\?", nth=1 + 3 * number)
        result = pulled(project, "relm.contacts")
        assert (result.exit_code, part(result, "relm.contacts")["rows"]) == (0, 350)
        assert all(rule.fired for rule in box.faults.rules)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_wait_that_a_429_asks_for_is_kept_in_full(form: str, tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        clock = SkippingClock()
        box.faults.add(TooMany(400, form), path=r"/contacts\?")  # type: ignore[arg-type]
        result = pulled(project_for(box, tmp_path, "relm"), "relm.contacts", clock=clock)
        assert result.exit_code == 0
        assert 398 <= clock.slept_s <= 410


def test_a_server_that_is_not_there_ends_with_exit_1_and_keeps_what_was_pulled(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
    result = pulled(project, "relm.contacts")
    assert result.exit_code == 1
    assert "cannot be reached" in str(result.error)
    assert count(project, "relm.contacts") == 20
    shown = next(each for each in status(project).connections[0]["resources"])
    assert "cannot be reached" in shown["last_error"]


def test_a_key_revoked_in_mid_run_ends_with_exit_3_and_keeps_what_arrived(tmp_path: Path) -> None:
    with Sandbox(records=650) as box:
        project = project_for(box, tmp_path, "relm", "rally")
        box.faults.add(RevokeKey(), crm="relm", path=r"/contacts\?", nth=5)
        result = pulled(project, *BOTH)
        assert (result.exit_code, result.status) == (3, "refused")
        assert "relm contacts: the key was refused (401" in str(result.error)
        assert 0 < count(project, "relm.contacts") < 650
        assert count(project, "rally.contacts") == 650


def test_a_key_without_permission_for_all_that_was_asked_ends_with_exit_3(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        box.faults.add(Status(403), crm="rally", times=None)
        project = project_for(box, tmp_path, "rally", "relm")
        assert pulled(project, "rally").exit_code == 3
        assert pulled(project, "rally", "relm.contacts").exit_code == 3
        assert count(project, "relm.contacts") == 20


# -- the disk and the lock -----------------------------------------------------------------------


def test_a_full_disk_ends_with_exit_1_one_line_and_the_published_file_untouched(
    tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=1500) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
        before = project.warehouse.read_bytes()
        for row in box.tenant("relm").records("contacts"):
            box.tenant("relm").edit("contacts", row["id"], phone="new")
        for most in (20_000, 200_000, len(before)):  # in the spool, in its typed form, in the build file
            run = warm_runs.start(tmp_path, ["pull", "relm.contacts"], environ_of(box), max_file=most)
            assert run.end() == 1, most
            assert "File too large" in run.err
            assert "Traceback" not in run.err
            assert project.warehouse.read_bytes() == before
        assert pulled(project, "relm.contacts").exit_code == 0
        assert rows(project, "select distinct phone from relm.contacts") == [("new",)]


def test_a_warehouse_that_another_program_writes_to_ends_with_exit_4(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
        code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, str(project.warehouse)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(LockedError, match="open for writing"):
                pulled(project, "relm.contacts")
        assert pulled(project, "relm.contacts").exit_code == 0


def test_a_warehouse_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "relm")
        project.warehouse.write_bytes(b"not a database at all" * 500)
        with pytest.raises(ConfigError, match="not a DuckDB file"):
            pulled(project, "relm.contacts")
        assert project.warehouse.read_bytes().startswith(b"not a database")


def test_working_files_left_by_others_or_spoilt_do_no_harm(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "relm")
        home = tmp_path / ".roundtrip"
        for name in ("spool/relm/contacts", "dlt/roundtrip_relm"):
            (home / name).mkdir(parents=True)
        (home / "spool/relm/contacts/000000.ndjson").write_bytes(b"\x00{{{")
        (home / "spool/relm/contacts/000000.parquet").write_bytes(b"PAR1")
        (home / "dlt/roundtrip_relm/state.json").write_text("{")
        (home / "warehouse.build.duckdb").write_bytes(b"half a file")
        (home / "warehouse.build.duckdb.wal").write_bytes(b"half a log")
        (home / "lock.holder").write_text("{")
        (home / "runs.jsonl").write_bytes(b'{"run_id": "cut\xff\n[1]\nnull\n"x"')
        assert pulled(project, "relm.contacts").exit_code == 0
        assert count(project, "relm.contacts") == 20


# -- interrupts ----------------------------------------------------------------------------------


@dataclass
class At:
    """Signal a run at its nth list request."""

    number: int
    signal: int
    run: Run | None = None
    seen: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> None:
        self.seen.append(request)
        if len(self.seen) == self.number and self.run:
            self.run.kill(self.signal)
            time.sleep(0.3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_commits_what_arrived_and_the_next_run_goes_on(
    number: int, tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=300, relm=RelmSwitches(max_limit=10)) as box:
        project = project_for(box, tmp_path, "relm")
        box.before_list = at = At(15, number)
        at.run = warm_runs.start(tmp_path, ["pull", "relm.contacts", "--json"], environ_of(box))
        assert at.run.end() == 130
        assert at.run.json()["status"] == "interrupted"
        kept = count(project, "relm.contacts")
        assert 100 <= kept < 300
        box.before_list = None
        box.requests.clear()
        assert pulled(project, "relm.contacts").exit_code == 0
        assert count(project, "relm.contacts") == 300
        assert len(box.requests) <= 2 + (300 - kept) // 10 + 1


def test_an_interrupt_ends_a_wait_of_minutes_at_once(tmp_path: Path, warm_runs: WarmRuns) -> None:
    with Sandbox(records=30) as box:
        box.faults.add(TooMany(600), path=r"/contacts\?")
        run = warm_runs.start(tmp_path, ["pull", "rally.contacts"], environ_of(box))
        while not any(rule.fired for rule in box.faults.rules):
            time.sleep(0.01)
        began = time.monotonic()
        run.kill(signal.SIGTERM)
        assert run.end() == 130
        assert time.monotonic() - began < 20


def test_a_run_killed_at_any_step_of_publishing_leaves_one_whole_generation(
    tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=150) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        for number, delay_s in enumerate((0.05, 0.15, 0.25, 0.35, 0.5, 0.7)):
            before = set(rows(project, "select distinct phone from rally.contacts"))
            for row in box.tenant("rally").records("contacts"):
                box.tenant("rally").edit("contacts", row["id"], phone=str(number))
            run = warm_runs.start(tmp_path, ["pull", "rally.contacts"], environ_of(box))
            time.sleep(delay_s)
            run.kill()
            run.end()
            after = set(rows(project, "select distinct phone from rally.contacts"))
            assert after in (before, {(str(number),)})
        assert pulled(project, "rally.contacts").exit_code == 0
        assert rows(project, "select distinct phone from rally.contacts") == [(str(number),)]
        changed = (
            "select count(*), count(distinct (id, new_value)) from roundtrip.changes where field = 'phone'"
        )
        assert len(set(rows(project, changed)[0])) == 1


# -- budget --------------------------------------------------------------------------------------


def test_no_429_though_the_limit_is_all_but_used_up(tmp_path: Path) -> None:
    switches = RallySwitches(rate_limit=20, rate_window_s=1.0, max_limit=10)
    with Sandbox(records=70, rally=switches) as box:
        project = project_for(box, tmp_path, "rally")
        result = pulled(project, clock=SYSTEM_CLOCK)
        assert result.exit_code == 0
        assert len(box.requests) > 40
        assert [each for each in box.requests if each.status == 429] == []
