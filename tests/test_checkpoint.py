"""Checkpoints: a backfill that is cut goes on from its place, and no place runs ahead of the rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request, Response
from sources.sandbox.faults import Action, ExpireCursor, HalfBody, Html, Status
from sources.sandbox.ralivi_rules import RaliviSwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pulling import environ_of, part, project_for, pulled, rows
from tests.warm import Run, WarmRuns


def stored(project: Project, crm: str) -> set[str]:
    return {row[0] for row in rows(project, f"select id from {crm}.contacts where _deleted_at is null")}


def in_crm(box: Sandbox, crm: str) -> set[str]:
    return {row["id"] for row in box.tenant(crm).records("contacts")}


def token_of(project: Project) -> str | None:
    found = rows(project, "select page_token from roundtrip.resource_state where resource = 'contacts'")
    return found[0][0] if found else None


def asked(box: Sandbox, crm: str) -> int:
    return len([each for each in box.requests if each.crm == crm and each.path.endswith("/contacts")])


def cut_by_kill(box: Sandbox, runs: WarmRuns, project: Project, *, at: int) -> int:
    """Kill a pull of Relm's contacts at its nth list request, a checkpoint behind it; give the exit code."""
    begun: list[Run] = []
    seen: list[Request] = []

    def strike(request: Request) -> None:
        seen.append(request)
        if len(seen) == at // 2:
            time.sleep(1.1)  # past the shortest checkpoint there is, so that this page ends a segment
        if len(seen) == at:
            while not project.warehouse.exists():
                time.sleep(0.01)
            begun[0].kill()

    environ = environ_of(box) | {"ROUNDTRIP__CHECKPOINT_S": "1"}
    box.before_list = strike
    begun.append(runs.start(project.root, ["pull", "relm.contacts"], environ))
    code = begun[0].end()
    box.before_list = None
    return code


def test_a_backfill_killed_at_60_percent_goes_on_from_its_page_token(
    tmp_path: Path, warm_runs: WarmRuns
) -> None:
    with Sandbox(records=300, relm=RelmSwitches(max_limit=10, updated_at="hidden")) as box:
        project = project_for(box, tmp_path, "relm")
        assert cut_by_kill(box, warm_runs, project, at=18) == -9
        kept = stored(project, "relm")
        assert 0 < len(kept) < 200
        assert token_of(project) is not None
        before = asked(box, "relm")
        assert pulled(project, "relm.contacts").exit_code == 0
        pages_left = -(-(300 - len(kept)) // 10)
        assert asked(box, "relm") - before <= pages_left + 1 + 2  # and two by which the filter is probed
        assert stored(project, "relm") == in_crm(box, "relm")


def test_changes_between_the_cut_and_the_end_are_not_lost(tmp_path: Path, warm_runs: WarmRuns) -> None:
    with Sandbox(records=300, relm=RelmSwitches(max_limit=10)) as box:
        project = project_for(box, tmp_path, "relm")
        assert cut_by_kill(box, warm_runs, project, at=18) == -9
        kept = sorted(stored(project, "relm"))
        box.tenant("relm").edit("contacts", kept[0], phone="changed")
        box.tenant("relm").delete("contacts", kept[1])
        pulled(project, "relm.contacts", accept_deletes=True)
        pulled(project, "relm.contacts", accept_deletes=True)
        assert rows(project, "select phone from relm.contacts where id = ?", kept[0]) == [("changed",)]
        assert stored(project, "relm") == in_crm(box, "relm")


def test_an_expired_token_restarts_the_pass_and_loses_nothing(tmp_path: Path) -> None:
    with Sandbox(records=350, ralivi=RaliviSwitches()) as box:
        project = project_for(box, tmp_path, "ralivi")
        box.faults.add(Status(400), path=r"/contacts\?.*cursor", nth=3, times=None)
        assert pulled(project, "ralivi.contacts").exit_code == 1
        assert len(stored(project, "ralivi")) == 300
        box.faults.clear()
        box.faults.add(ExpireCursor(410), path=r"/contacts")
        result = pulled(project, "ralivi.contacts")
        assert (result.exit_code, part(result, "ralivi.contacts")["rows"]) == (0, 350)
        assert stored(project, "ralivi") == in_crm(box, "ralivi")
        assert token_of(project) is None


def test_a_token_that_the_crm_only_answers_with_errors_is_dropped_after_one_run(tmp_path: Path) -> None:
    with Sandbox(records=350) as box:
        project = project_for(box, tmp_path, "ralivi")
        box.faults.add(Status(400), path=r"/contacts\?.*cursor", nth=2, times=None)
        pulled(project, "ralivi.contacts")
        assert token_of(project) is not None
        box.faults.clear()
        box.faults.add(Html(), path=r"/contacts\?.*cursor")
        pulled(project, "ralivi.contacts")
        assert token_of(project) is None
        box.faults.clear()
        assert pulled(project, "ralivi.contacts").exit_code == 0
        assert stored(project, "ralivi") == in_crm(box, "ralivi")


@pytest.mark.parametrize("crm", ["ralivi", "rally"])
def test_a_cut_stream_commits_what_it_has_and_ends_with_exit_1(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=650) as box:
        project = project_for(box, tmp_path, crm)
        box.faults.add(Status(422), path=r"/contacts\?.*(cursor|offset=[3-9])", nth=2, times=None)
        result = pulled(project, f"{crm}.contacts")
        entry = part(result, f"{crm}.contacts")
        assert (result.exit_code, entry["status"]) == (1, "failed")
        assert entry["error"].startswith(f"{crm} contacts: ")
        assert 0 < len(stored(project, crm)) < 650
        assert rows(project, "select watermark, last_complete_at from roundtrip.resource_state") == [
            (None, None)
        ]
        box.faults.clear()
        assert pulled(project, f"{crm}.contacts").exit_code == 0
        assert stored(project, crm) == in_crm(box, crm)


def test_a_place_in_a_window_is_not_taken_for_a_place_in_the_whole_list(tmp_path: Path) -> None:
    with Sandbox(records=450) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        for row in box.tenant("rally").records("contacts"):
            box.tenant("rally").edit("contacts", row["id"], phone="new")
        box.faults.add(Status(422), path=r"/contacts\?.*offset=[1-9]", times=None)
        pulled(project, "rally.contacts")
        assert token_of(project) is not None
        box.faults.clear()
        far = replace(project, connections=_with_reach(project, 0))
        result = part(pulled(far, "rally.contacts"), "rally.contacts")
        assert result["rows"] >= 450
        assert {row[0] for row in rows(project, "select phone from rally.contacts")} == {"new"}


def _with_reach(project: Project, days: int) -> dict[str, Any]:
    rally = project.connection("rally")
    return {"rally": replace(rally, options={**rally.options, "feed_reach_days": days})}


def test_rows_that_were_lost_on_the_way_to_disk_are_read_again(tmp_path: Path) -> None:
    with Sandbox(records=350) as box:
        project = project_for(box, tmp_path, "ralivi")
        spool = tmp_path / ".roundtrip" / "spool" / "ralivi" / "contacts"
        box.before_list = _after(3, lambda: _spoil(spool))
        result = pulled(project, "ralivi.contacts")
        assert result.exit_code == 1
        assert "working folder" in str(result.error)
        box.before_list = None
        assert pulled(project, "ralivi.contacts").exit_code == 0
        assert stored(project, "ralivi") == in_crm(box, "ralivi")


def _after(number: int, act: Callable[[], None]) -> Callable[[Request], None]:
    seen: list[Request] = []

    def count(request: Request) -> None:
        seen.append(request)
        if len(seen) == number:
            act()

    return count


def _spoil(folder: Path) -> None:
    """Put rubbish into the spool's file, as a failing disk would, as soon as there are rows in it."""
    until = time.monotonic() + 30
    while not (files := [file for file in folder.glob("*.ndjson") if file.stat().st_size]):
        assert time.monotonic() < until, "no page was spooled"
        time.sleep(0.01)
    for file in files:
        with file.open("r+b") as spool:
            spool.write(b"\x00{{{")
        file.write_bytes(b"{not json\n" * 3)


def test_an_end_that_is_not_proven_is_asked_for_again_though_its_checkpoint_stood_behind_it(
    tmp_path: Path,
) -> None:
    with Sandbox(records=250, relm=RelmSwitches(max_limit=100)) as box:
        project = project_for(box, tmp_path, "relm", checkpoint_s=0)
        box.faults.add(EndsUnsaid(), crm="relm", path=r"/contacts\?", times=None)
        for _ in range(3):
            result = pulled(project, "relm.contacts")
            assert result.exit_code == 1
            assert "did not end as documented" in str(result.error)
            assert token_of(project) is None
        box.faults.clear()
        assert pulled(project, "relm.contacts").exit_code == 0


@dataclass(frozen=True)
class EndsUnsaid(Action):
    """Leave open on the last page whether there is more."""

    def turned(self, response: Response) -> Response:
        return replace(response, body=response.body.replace(b'"has_more":false', b'"has_more":null'))


def test_half_a_body_is_asked_for_again_and_the_run_is_whole(tmp_path: Path) -> None:
    with Sandbox(records=250) as box:
        project = project_for(box, tmp_path, "ralivi")
        box.faults.add(HalfBody(), path=r"/contacts\?.*cursor")
        assert pulled(project, "ralivi.contacts").exit_code == 0
        assert stored(project, "ralivi") == in_crm(box, "ralivi")
