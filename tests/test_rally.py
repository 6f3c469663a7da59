"""What is odd about Rally, read through a pull; its pages leave each of these open."""

from pathlib import Path

import pytest

from pipelines.settings import Project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.rally_rules import RallySwitches
from tests.pulling import part, project_for, pulled, rows


@pytest.mark.parametrize("cap", [50, 130, 200])
def test_a_page_size_that_is_capped_in_silence_loses_nothing(cap: int, tmp_path: Path) -> None:
    with Sandbox(records=430, rally=RallySwitches(max_limit=cap)) as box:
        result = part(pulled(project_for(box, tmp_path, "rally"), "rally.contacts"), "rally.contacts")
        assert (result["new"], result["status"]) == (430, "ok")


def test_tasks_are_activities_of_that_type_and_stand_in_their_own_view(tmp_path: Path) -> None:
    with Sandbox(records=80) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        held = box.tenant("rally").records("activities")
        tasks = [each for each in held if each["activityType"] == "task"]
        assert rows(project, "select count(*) from crm.tasks") == [(len(tasks),)]
        assert rows(project, "select count(*) from crm.activities") == [(len(held) - len(tasks),)]


def test_tags_come_as_a_list_without_blanks(tmp_path: Path) -> None:
    with Sandbox(records=80) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        tags = "select unnest(tags) as tag from crm.contacts"
        odd = f"select count(*) from ({tags}) where tag <> trim(tag) or tag = ''"
        assert rows(project, odd) == [(0,)]
        assert rows(project, "select max(len(tags)) > 1 from crm.contacts") == [(True,)]


def test_a_tenant_without_the_feed_still_finds_deletions_by_a_whole_pass(tmp_path: Path) -> None:
    with Sandbox(records=120) as box:
        project = project_for(box, tmp_path, "rally")
        box.faults.add(Status(404), crm="rally", path="/sync/changes", times=None)
        pulled(project, "rally.contacts")
        gone = box.tenant("rally").records("contacts")[0]["id"]
        box.tenant("rally").delete("contacts", gone)
        assert part(pulled(project, "rally.contacts", full=True), "rally.contacts")["deleted"] == 1


def test_two_tenants_stand_side_by_side(tmp_path: Path) -> None:
    with Sandbox(records=40, also={"rally_emea": "rally"}) as box:
        project = project_for(box, tmp_path, "rally", "rally_emea")
        pulled(project)
        found = rows(project, "select connection, crm, count(*) from crm.contacts group by all order by 1")
        assert found == [("rally", "rally", 40), ("rally_emea", "rally", 40)]


def test_the_address_of_the_tenant_must_be_set(tmp_path: Path) -> None:
    from pipelines.settings import load_project

    project: Project = load_project(tmp_path, environ={"SOURCES__RALLY__API_KEY": "rk_live_1"})
    with pytest.raises(ConfigError, match="SOURCES__RALLY__BASE_URL"):
        project.connection("rally")
