"""Incremental pulls: whatever time does on either side, nothing is missed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Project
from sources.core.changes import watermark
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.hostile import Recast, TurnedTime, each_row, whole_second
from tests.pulling import part, project_for, pulled, rows

CONTACTS = r"/contacts\?"


def phones(project: Project, crm: str = "rally") -> dict[str, Any]:
    return dict(rows(project, f"select id, phone from {crm}.contacts where _deleted_at is null"))


def in_crm(box: Sandbox, crm: str = "rally") -> dict[str, Any]:
    return {row["id"]: row["phone"] for row in box.tenant(crm).records("contacts")}


def mark_of(project: Project, resource: str = "contacts") -> datetime | None:
    found = rows(project, "select watermark from roundtrip.resource_state where resource = ?", resource)
    return found[0][0] if found else None


@pytest.mark.parametrize("is_inclusive", [False, True])
def test_two_edits_in_one_second_are_both_seen(is_inclusive: bool, tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=5, now=time, rally=RallySwitches(since_inclusive=is_inclusive)) as box:
        project = project_for(box, tmp_path, "rally", lookback_s=0)
        first, second = (row["id"] for row in box.tenant("rally").records("contacts")[:2])
        time.pass_by(seconds=30)
        box.tenant("rally").edit("contacts", first, phone="1")
        pulled(project, "rally.contacts")
        box.tenant("rally").edit("contacts", first, phone="2")
        box.tenant("rally").edit("contacts", second, phone="3")
        time.pass_by(seconds=30)
        pulled(project, "rally.contacts")
        assert phones(project) == in_crm(box)


def test_many_rows_with_one_stamp_at_the_watermark_are_all_seen(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=8, now=time) as box:
        project = project_for(box, tmp_path, "rally", lookback_s=0)
        pulled(project, "rally.contacts")
        time.pass_by(minutes=5)
        people = [row["id"] for row in box.tenant("rally").records("contacts")]
        for number, person in enumerate(people):
            box.tenant("rally").edit("contacts", person, phone=str(number))
            if number == 3:
                pulled(project, "rally.contacts")
        time.pass_by(minutes=5)
        pulled(project, "rally.contacts")
        assert phones(project) == in_crm(box)


def edited_out_of_sight(box: Sandbox, project: Project, time: TurnedTime) -> str:
    """Change a record, an hour ago, whose list shows changes after two."""
    time.pass_by(hours=3)
    pulled(project, "rally.contacts")
    person: str = box.tenant("rally").records("contacts")[0]["id"]
    box.tenant("rally").edit("contacts", person, phone="late")
    time.pass_by(hours=1)
    return person


def test_a_row_that_the_list_shows_late_is_asked_for_since_the_feed_knows_it(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=5, now=time, rally=RallySwitches(list_lag_s=7200)) as box:
        project = project_for(box, tmp_path, "rally")
        person = edited_out_of_sight(box, project, time)
        pulled(project, "rally.contacts")
        assert phones(project)[person] == "late"


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z"])
def test_a_stamp_that_stands_for_no_time_is_kept_counted_and_moves_no_mark(
    stamp: str, tmp_path: Path
) -> None:
    with Sandbox(records=5) as box:
        project = project_for(box, tmp_path, "rally")
        box.faults.add(each_row(lambda row: row.update(updatedAt=stamp)), path=CONTACTS, times=None)
        result = pulled(project, "rally.contacts")
        assert (result.exit_code, part(result, "rally.contacts")["counts"]["undated"]) == (0, 5)
        assert mark_of(project) is not None
        assert rows(project, "select count(*) from rally.contacts where year(updated_at) < 2") == [(5,)]


@pytest.mark.parametrize("shown", [{}, {"id": "another"}], ids=str)
def test_a_record_asked_for_alone_that_is_not_shown_fails_the_resource_and_stores_nothing(
    shown: Any, tmp_path: Path
) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=5, now=time, rally=RallySwitches(list_lag_s=7200)) as box:
        project = project_for(box, tmp_path, "rally")
        edited_out_of_sight(box, project, time)
        box.faults.add(Recast(lambda _: shown), path=r"/contacts/\w", times=2)
        assert [pulled(project, "rally.contacts").exit_code for _ in range(3)] == [1, 1, 0]
        assert phones(project) == in_crm(box)


def test_a_row_that_the_list_shows_late_within_the_lookback_is_seen(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=5, now=time, relm=RelmSwitches(list_lag_s=300)) as box:
        project = project_for(box, tmp_path, "relm")
        time.pass_by(hours=1)
        pulled(project, "relm.contacts")
        first, second = (row["id"] for row in box.tenant("relm").records("contacts")[:2])
        box.tenant("relm").edit("contacts", first, phone="late")
        time.pass_by(seconds=200)
        box.tenant("relm").edit("contacts", second, phone="later")
        pulled(project, "relm.contacts")
        time.pass_by(seconds=200)
        pulled(project, "relm.contacts")
        assert phones(project, "relm")[first] == "late"
        time.pass_by(seconds=400)
        assert part(pulled(project, "relm.contacts"), "relm.contacts")["strategy"] == "since"
        assert phones(project, "relm") == in_crm(box, "relm")


def test_null_and_future_stamps_are_kept_counted_and_poison_nothing(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=6, now=time) as box:
        people = [row["id"] for row in box.tenant("rally").records("contacts")]
        odd = {people[0]: None, people[1]: "2099-01-01T00:00:00Z"}

        def bend(row: dict[str, Any]) -> None:
            row["updatedAt"] = odd.get(row["id"], row["updatedAt"])

        box.faults.add(each_row(bend), path=CONTACTS, times=None)
        project = project_for(box, tmp_path, "rally")
        counts = part(pulled(project, "rally.contacts"), "rally.contacts")["counts"]
        assert (counts["future"], counts["undated"]) == (1, 1)
        assert set(phones(project)) == set(people)
        mark = mark_of(project)
        assert mark is not None
        assert mark <= time.now
        time.pass_by(hours=1)
        for person in people:
            box.tenant("rally").edit("contacts", person, phone="after")
        pulled(project, "rally.contacts")
        assert phones(project) == in_crm(box)


@pytest.mark.parametrize(
    "stamp",
    [
        "{:%Y-%m-%dT%H:%M:%SZ}",
        "{:%Y-%m-%dT%H:%M:%S.%f}Z",
        "{:%Y-%m-%dT%H:%M:%S+00:00}",
        "{:%Y-%m-%d %H:%M:%S}Z",
    ],
)
def test_stamps_of_any_precision_and_form_are_the_same_moment(stamp: str, tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=3, now=time) as box:
        person = box.tenant("rally").records("contacts")[0]["id"]
        box.tenant("rally").edit("contacts", person, phone="x")
        box.faults.add(each_row(lambda row: row.update(updatedAt=stamp.format(time.now))), path=CONTACTS)
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        assert rows(project, "select distinct updated_at from rally.contacts") == [(time.now,)]


def test_an_offset_is_read_as_the_moment_it_names(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=3, now=time) as box:
        local = (time.now + timedelta(hours=5, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S+05:30")
        box.faults.add(each_row(lambda row: row.update(updatedAt=local)), path=CONTACTS)
        project = project_for(box, tmp_path, "rally")
        assert part(pulled(project, "rally.contacts"), "rally.contacts")["counts"]["future"] == 0
        assert rows(project, "select distinct updated_at from rally.contacts") == [(time.now,)]


@pytest.mark.parametrize("minutes", [-5, 5])
def test_a_clock_five_minutes_off_on_either_side_misses_nothing(minutes: int, tmp_path: Path) -> None:
    time = TurnedTime(whole_second() + timedelta(minutes=minutes))
    with Sandbox(records=6, now=time) as box:
        project = project_for(box, tmp_path, "rally", lookback_s=0)
        people = [row["id"] for row in box.tenant("rally").records("contacts")]
        for number, person in enumerate(people[:3]):
            pulled(project, "rally.contacts")
            box.tenant("rally").edit("contacts", person, phone=str(number))
            time.pass_by(seconds=1)
        pulled(project, "rally.contacts")
        assert phones(project) == in_crm(box)


def test_the_mark_stays_where_it_was_when_the_window_is_not_read_to_its_end(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=450, now=time) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        mark = mark_of(project)
        time.pass_by(hours=2)
        for row in box.tenant("rally").records("contacts"):
            box.tenant("rally").edit("contacts", row["id"], phone="new")
        box.faults.add(Status(400), path=r"/contacts\?.*offset=1\d\d", times=None)
        cut = part(pulled(project, "rally.contacts"), "rally.contacts")
        assert (cut["status"], cut["changed"], mark_of(project)) == ("failed", 200, mark)
        box.faults.clear()
        pulled(project, "rally.contacts")
        assert phones(project) == in_crm(box)
        later = mark_of(project)
        assert mark is not None
        assert later is not None
        assert later > mark


def test_a_mark_never_runs_ahead_of_start_newest_or_clock() -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    back, hour = timedelta(minutes=15), timedelta(hours=1)
    assert watermark(start, start - hour, start, back) == start - hour - back
    assert watermark(start, None, start - hour, back) == start - hour - back
    assert watermark(start, start + hour, start + hour, back) == start - back
    assert watermark(start, start, start, timedelta(0)) < start
