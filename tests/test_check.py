"""`roundtrip check`: the standing of a key, what can be read, and answers to the open questions."""

from pathlib import Path

import pytest

import sources
from pipelines.check import CheckResult, check
from pipelines.progress import SilentProgress
from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.relm_rules import RelmSwitches
from tests.pulling import project_for, quick


def checked(project: Project, *names: str) -> CheckResult:
    return check(project, names, progress=SilentProgress())


@pytest.mark.parametrize("crm", sources.names())
def test_a_good_key_is_found_good_and_every_open_question_gets_an_answer(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=40) as box:
        result = checked(quick(project_for(box, tmp_path, crm)))
        [entry] = result.connections
        assert (result.exit_code, entry["status"], entry["crm"]) == (0, "ok", crm)
        assert entry["dialect"]
        assert entry["findings"]
        assert not [each for each in entry["findings"] if "could not be told" in each["answer"]]
        assert {each["resource"] for each in entry["resources"] if each["readable"]}


@pytest.mark.parametrize("crm", sources.names())
def test_a_check_writes_nothing_and_shows_no_part_of_the_key(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = quick(project_for(box, tmp_path, crm))
        before = len(box.tenant(crm).ledger)
        told = str(checked(project).payload())
        assert len(box.tenant(crm).ledger) == before
        assert not project.warehouse.exists()
        key = box.key(crm)
        assert key[8:] not in told
        assert key[-6:] not in told


def test_a_refused_key_is_told_with_the_setting_and_the_others_are_still_looked_at(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        project = project_for(box, tmp_path, "relm", "rally")
        box.revoke("relm")
        result = checked(project)
        states = {each["connection"]: each["status"] for each in result.connections}
        assert states == {"relm": "refused", "rally": "ok"}
        assert result.exit_code == 3
        assert "SOURCES__RELM__API_KEY" in str(result.error)


def test_a_missing_permission_for_one_resource_is_exit_1_and_names_it(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        box.faults.add(Status(403), crm="rally", path="/deals", times=None)
        result = checked(project_for(box, tmp_path, "rally"))
        assert result.exit_code == 1
        assert "deals" in str(result.error)


def test_resources_that_an_api_does_not_serve_are_said_to_be_write_only(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        [entry] = checked(quick(project_for(box, tmp_path, "vivre"))).connections
        reasons = {each["resource"]: each["reason"] for each in entry["resources"]}
        assert "only be written" in reasons["deals"]
        assert entry["status"] == "ok"


def test_the_strategy_is_the_one_a_pull_would_choose(tmp_path: Path) -> None:
    with Sandbox(records=10, relm=RelmSwitches(updated_at="hidden")) as box:
        entries = checked(project_for(box, tmp_path, "relm", "rally")).connections
        strategies = {
            (each["connection"], part["resource"]): part["strategy"]
            for each in entries
            for part in each["resources"]
        }
        assert strategies["relm", "contacts"] == "full"
        assert strategies["rally", "contacts"] == "since, with change feed"


def test_a_person_is_shown_the_answers_as_well(tmp_path: Path) -> None:
    import io

    from pipelines.render import show

    with Sandbox(records=10) as box:
        result = checked(project_for(box, tmp_path, "relm", "rally"))
        shown = io.StringIO()
        show(result, shown)
        assert "sort order of lists" in shown.getvalue()
        assert "full" in shown.getvalue()
