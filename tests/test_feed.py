"""The change feed resumes by whole seconds only: a second with more changes than a page must not lose any."""

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.rally_rules import RallySwitches
from tests.hostile import Recast, TurnedTime, each_row, whole_second
from tests.pulling import part, project_for, pulled, rows


def scene(box: Sandbox, folder: Path) -> tuple[Project, list[str]]:
    project = project_for(box, folder, "rally")
    pulled(project)
    tenant = box.tenant("rally")
    moment = datetime.now(UTC) - timedelta(seconds=1)
    tenant.now = lambda: moment
    people = [each["id"] for each in tenant.records("contacts")]
    for each in people[5:]:
        tenant.edit("contacts", each, title="Head of Everything")
    for each in people[:5]:
        tenant.delete("contacts", each)
    tenant.now = box.now
    return project, people


def test_a_second_with_more_changes_than_a_page_is_read_to_its_end(tmp_path: Path) -> None:
    with Sandbox(records=1300, rally=RallySwitches(rate_limit=None)) as box:
        project, people = scene(box, tmp_path)
        result = part(pulled(project), "rally.contacts")
        assert (result["status"], result["changed"], result["deleted"]) == ("ok", len(people) - 5, 5)


def test_a_feed_that_hides_changes_behind_its_page_is_a_gap_and_leads_to_a_full_pass(
    tmp_path: Path,
) -> None:
    with Sandbox(records=1300, rally=RallySwitches(rate_limit=None, feed_max_limit=1000)) as box:
        project, people = scene(box, tmp_path)
        for _ in range(2):
            assert pulled(project).exit_code == 0
        gone = rows(project, "select id from rally.contacts where _deleted_at is not null")
        assert {each for (each,) in gone} == set(people[:5])


@pytest.mark.parametrize("stamp", ["2026-01-01T00:00:00", "0001-01-01T00:00:00Z"])
def test_an_entry_without_a_zone_or_a_time_is_read_all_the_same(stamp: str, tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        person = box.tenant("rally").records("contacts")[0]["id"]
        box.tenant("rally").delete("contacts", person)

        def unclear(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [each | {"changedAt": stamp} for each in entries]

        box.faults.add(Recast(unclear), path="/sync/changes", times=None)
        assert pulled(project, "rally.contacts").exit_code == 0
        assert rows(project, "select id from rally.contacts where _deleted_at is not null") == [(person,)]


def test_an_earlier_entry_that_becomes_visible_late_does_not_undo_a_later_one(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        person = box.tenant("rally").records("contacts")[0]["id"]
        entry = {"entityType": "contact", "entityId": person, "changedAt": f"{datetime.now(UTC):%FT%TZ}"}
        later, earlier = (
            entry | {"id": seq, "action": action} for seq, action in ((10000, "inserted"), (9999, "deleted"))
        )
        asked = count()

        def committed_late(_: list[Any]) -> list[dict[str, Any]]:
            return [earlier, later] if next(asked) else [later]

        box.faults.add(Recast(committed_late), path="/sync/changes", times=None)
        assert pulled(project, "rally.contacts").exit_code == 0
        assert rows(project, "select id from rally.contacts where _deleted_at is not null") == []


def test_an_id_written_in_another_case_than_in_the_list_is_the_same_record(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        gone, edited, *_ = (each["id"] for each in box.tenant("rally").records("contacts"))
        box.tenant("rally").delete("contacts", gone)
        box.tenant("rally").edit("contacts", edited, title="Admiral")
        box.faults.add(
            each_row(lambda entry: entry.update(entityId=entry["entityId"].upper())),
            path="/sync/changes",
            times=None,
        )
        result = part(pulled(project, "rally.contacts"), "rally.contacts")
        assert (result["status"], result["changed"], result["deleted"]) == ("ok", 1, 1)
        assert rows(project, "select id from rally.contacts where _deleted_at is not null") == [(gone,)]


def test_a_list_not_read_for_long_does_not_cost_the_others_their_place(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    time.pass_by(days=-10)
    switches = RallySwitches(feed_retention_days=5, feed_gap="refused")
    with Sandbox(records=60, now=time, rally=switches) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts", "rally.companies")
        time.pass_by(days=10)
        with duckdb.connect(str(project.warehouse)) as con:
            con.execute(
                "update roundtrip.resource_state set last_complete_at = last_complete_at - interval 10 days,"
                " last_full_at = last_full_at - interval 10 days"
            )
        pulled(project, "rally.contacts")
        everything = part(pulled(project, "rally.contacts", "rally.companies"), "rally.companies")["rows"]
        assert everything == len(box.tenant("rally").records("companies"))
        assert part(pulled(project, "rally.contacts"), "rally.contacts")["rows"] < 5
