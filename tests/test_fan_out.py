"""Lists that are asked for once per record of another resource: nothing falls between two questions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.reevo_switches import ReevoSwitches
from tests.pulling import part, project_for, pulled, rows

ACTIVITIES = "reevo.activities"


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(records=60, reevo=ReevoSwitches(v2_max_limit=5)) as made:
        yield made


def reachable(box: Sandbox) -> set[str]:
    """List the activities of accounts and opportunities; those of a contact alone are another setting."""
    found = box.tenant("reevo").records("activities")
    return {row["id"] for row in found if row["account_id"] or row["opportunity_id"]}


def stored(project: Project) -> set[str]:
    return {id for (id,) in rows(project, "select id from reevo.activities where _deleted_at is null")}


def move_an_old_activity(box: Sandbox, domain: str) -> Any:
    """Hang an activity of long ago on an account that is new; nothing about the activity says so."""
    tenant = box.tenant("reevo")
    account = tenant.create("accounts", display_name=domain, domains=[{"domain_name": domain}])
    old = next(
        row for row in tenant.records("activities") if not (row["account_id"] or row["opportunity_id"])
    )
    tenant.edit("activities", old["id"], account_id=account["id"])
    return old["id"]


@dataclass(frozen=True)
class Unknown(Status):
    """Answer 404 where one record is asked by."""

    code: int = 404
    of: str = ""

    def fits(self, request: Any) -> bool:
        return self.of.encode() in (request.body or b"")


def test_what_a_list_is_asked_for_by_is_read_with_it(box: Sandbox, tmp_path: Path) -> None:
    project = project_for(box, tmp_path, "reevo")
    result = pulled(project, ACTIVITIES)
    assert {entry["resource"] for entry in result.payload()["resources"]} >= {"activities", "accounts"}
    assert stored(project) == reachable(box)


def test_a_record_that_is_new_is_asked_for_its_whole_past(box: Sandbox, tmp_path: Path) -> None:
    project = project_for(box, tmp_path, "reevo")
    pulled(project, ACTIVITIES)
    moved = move_an_old_activity(box, "late.example")
    assert part(pulled(project, ACTIVITIES), ACTIVITIES)["new"] == 1
    assert moved in stored(project)


def test_a_record_read_by_another_run_in_between_is_asked_for_its_whole_past(
    box: Sandbox, tmp_path: Path
) -> None:
    project = project_for(box, tmp_path, "reevo")
    pulled(project, ACTIVITIES)
    moved = move_an_old_activity(box, "late.example")
    pulled(project, "reevo.accounts")
    pulled(project, ACTIVITIES)
    assert moved in stored(project)


def test_records_that_come_while_a_pass_is_cut_are_asked_for_as_well(box: Sandbox, tmp_path: Path) -> None:
    """A place is kept by name, not by number: what comes before it in the order must not push it aside."""
    project = project_for(box, tmp_path, "reevo", checkpoint_s=0.001)
    box.faults.add(Status(400), path="/activity/_query", nth=9, times=None)
    assert part(pulled(project, ACTIVITIES), ACTIVITIES)["status"] == "failed"
    assert 0 < len(stored(project)) < len(reachable(box))
    box.faults.clear()
    moved = {move_an_old_activity(box, f"late{number}.example") for number in range(6)}
    resumed = part(pulled(project, ACTIVITIES), ACTIVITIES)
    assert resumed["status"] == "ok"
    pulled(project, ACTIVITIES)
    assert moved <= stored(project)
    assert stored(project) == reachable(box)


def test_the_second_pull_asks_for_what_is_new_only(box: Sandbox, tmp_path: Path) -> None:
    project = project_for(box, tmp_path, "reevo")
    first = part(pulled(project, ACTIVITIES), ACTIVITIES)
    second = part(pulled(project, ACTIVITIES), ACTIVITIES)
    assert first["rows"] >= len(reachable(box))
    assert second["rows"] < first["rows"] / 4


def test_a_record_that_the_crm_does_not_know_any_more_ends_no_other_ones_part(
    box: Sandbox, tmp_path: Path
) -> None:
    """A whole pass that was refused a part proves no absence, and a window keeps its place for it."""
    project = project_for(box, tmp_path, "reevo")
    mark = part(pulled(project), ACTIVITIES)["watermark"]
    tenant = box.tenant("reevo")
    gone, *_, other = sorted(account["id"] for account in tenant.records("accounts"))
    before = stored(project)
    box.faults.add(Unknown(of=gone), path="/activity/_query", times=None)
    called = tenant.create("activities", account_id=other, type="MANUAL", sub_type="TEXT", metadata={})
    unseen = tenant.create("activities", account_id=gone, type="MANUAL", sub_type="TEXT", metadata={})
    entry = part(pulled(project, ACTIVITIES), ACTIVITIES)
    assert (entry["status"], entry["counts"]["refused_scopes"]) == ("ok", 1)
    assert entry["watermark"] == mark
    assert stored(project) == before | {called["id"]}
    assert part(pulled(project, ACTIVITIES, full=True), ACTIVITIES)["deleted"] == 0
    box.faults.clear()
    pulled(project, ACTIVITIES)
    assert stored(project) == before | {called["id"], unseen["id"]}


def test_a_list_is_absent_only_where_every_record_is_answered_so(box: Sandbox, tmp_path: Path) -> None:
    project = project_for(box, tmp_path, "reevo")
    box.faults.add(Unknown(), path="/activity/_query", times=None)
    assert part(pulled(project), ACTIVITIES)["status"] == "absent"
    box.faults.clear()
    box.faults.add(Status(404), path="/activity/_query", times=1)
    assert part(pulled(project), ACTIVITIES)["status"] == "ok"
    assert stored(project)
    box.faults.add(Unknown(), path="/activity/_query", times=None)
    before = stored(project)
    assert part(pulled(project), ACTIVITIES)["status"] == "failed"
    box.faults.clear()
    assert part(pulled(project), ACTIVITIES)["status"] == "ok"
    assert stored(project) >= before


def test_records_of_a_resource_that_is_asked_by_only_from_now_on_are_asked_for_their_past(
    box: Sandbox, tmp_path: Path
) -> None:
    project = project_for(box, tmp_path, "reevo")
    pulled(project, ACTIVITIES, "reevo.contacts")
    assert pulled(project, ACTIVITIES).exit_code == 0
    every = {row["id"] for row in box.tenant("reevo").records("activities")}
    assert stored(project) < every
    reevo = project.connections["reevo"]
    scopes = {"activity_scopes": "accounts,opportunities,contacts"}
    wider = {"reevo": replace(reevo, options={**reevo.options, **scopes})}
    assert part(pulled(replace(project, connections=wider), ACTIVITIES), ACTIVITIES)["status"] == "ok"
    assert stored(project) == every
