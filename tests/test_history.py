"""History: field changes and stays in stages, exact over a month of edits, never doubled."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.relm_rules import RelmSwitches
from tests.hostile import TurnedTime, whole_second
from tests.pulling import project_for, pulled, rows


@dataclass
class Month:
    """A month in which deals move and contacts are edited, with what history must say of it."""

    box: Sandbox
    crm: str
    time: TurnedTime
    changes: list[tuple[str, Any, Any]] = field(default_factory=list)
    stays: dict[str, list[list[Any]]] = field(default_factory=dict)

    def edit(self, person: str, phone: str) -> None:
        before = self.box.tenant(self.crm).find("contacts", id=person)["phone"]
        self.box.tenant(self.crm).edit("contacts", person, phone=phone)
        if before != phone:
            self.changes.append((person, before, phone))

    def stages(self) -> list[str]:
        if self.crm == "rally":
            return [row["name"] for row in self.box.tenant("rally").records("stages")]
        return ["discovery", "proposal", "negotiation", "won", "lost"]

    def move(self, deal: str, stage: str) -> None:
        tenant = self.box.tenant(self.crm)
        if self.crm == "rally":
            tenant.edit("deals", deal, stageId=tenant.find("stages", name=stage)["id"])
        else:
            tenant.edit("deals", deal, stage=stage)
        last = self.stays[deal][-1]
        if last[0] != stage:
            last[2] = self.time.now
            self.stays[deal].append([stage, self.time.now, None])


@contextmanager
def month(crm: str) -> Iterator[Month]:
    time = TurnedTime(whole_second())
    with Sandbox(records=12, now=time) as box:
        yield Month(box, crm, time)


def stays_of(project: Project) -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    for id, stage, entered, left in rows(
        project,
        "select id, stage, entered_at, left_at from roundtrip.deal_stages order by id, entered_at, left_at",
    ):
        found.setdefault(id, []).append([stage, entered, left])
    return found


def changes_of(project: Project) -> list[tuple[str, Any, Any]]:
    return rows(
        project,
        "select id, old_value, new_value from roundtrip.changes where resource = 'contacts'"
        " and field = 'phone' order by changed_at, run_id, id",
    )


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_a_scripted_month_stands_in_the_history_edit_by_edit_and_move_by_move(
    crm: str, tmp_path: Path
) -> None:
    rng = random.Random(3)
    with month(crm) as script:
        project = project_for(script.box, tmp_path, crm)
        pulled(project, f"{crm}.contacts", f"{crm}.deals")
        script.stays = stays_of(project)
        people = [row["id"] for row in script.box.tenant(crm).records("contacts")]
        deals = sorted(script.stays)
        for day in range(4):
            script.time.pass_by(days=5, seconds=rng.randint(0, 3000))
            for person in rng.sample(people, 2):
                script.edit(person, f"+49 {day} {rng.randint(0, 2)}")
            for deal in rng.sample(deals, 3):
                script.move(deal, rng.choice(script.stages()))
            script.time.pass_by(minutes=20)
            pulled(project, f"{crm}.contacts", f"{crm}.deals")
            if day % 3 == 0:
                pulled(project, f"{crm}.contacts", f"{crm}.deals")
        assert sorted(changes_of(project), key=repr) == sorted(script.changes, key=repr)
        assert stays_of(project) == script.stays
        assert rows(project, "select distinct origin from roundtrip.changes") == [("crm",)]


def test_days_in_a_stage_are_counted_from_entering_to_leaving(tmp_path: Path) -> None:
    with month("relm") as script:
        project = project_for(script.box, tmp_path, "relm")
        pulled(project, "relm.deals")
        deal = script.box.tenant("relm").records("deals")[0]["id"]
        for days, stage in ((2, "proposal"), (4, "discovery"), (6, "proposal")):
            script.time.pass_by(days=days)
            script.box.tenant("relm").edit("deals", deal, stage=stage)
            pulled(project, "relm.deals")
        stays = rows(
            project,
            "select days from roundtrip.deal_stages where id = ? and left_at is not null order by entered_at",
            deal,
        )
        assert [float(each[0]) for each in stays[-2:]] == [4.0, 6.0]


def test_a_deleted_deal_leaves_its_stage_and_a_revived_one_enters_it_anew(tmp_path: Path) -> None:
    with month("relm") as script:
        tenant = script.box.tenant("relm")
        project = project_for(script.box, tmp_path, "relm", max_deletes_share=1.0)
        pulled(project, "relm.deals")
        deal = tenant.records("deals")[0]["id"]
        record = tenant.tables["deals"].records[deal]
        script.time.pass_by(days=3)
        tenant.delete("deals", deal)
        pulled(project, "relm.deals", full=True)
        gone_at = script.time.now
        assert _near(stays_of(project)[deal][-1][2], gone_at)
        script.time.pass_by(days=3)
        tenant.load("deals", [record])
        pulled(project, "relm.deals", full=True)
        last = stays_of(project)[deal][-1]
        assert _near(last[1], script.time.now)
        assert last[2] is None


def _near(moment: datetime, other: datetime) -> bool:
    return abs(moment - other) < timedelta(minutes=2)


def test_a_commit_that_was_made_twice_does_not_double_the_history(tmp_path: Path) -> None:
    with month("relm") as script:
        project = project_for(script.box, tmp_path, "relm")
        pulled(project, "relm.contacts")
        kept = project.warehouse.read_bytes()
        person = script.box.tenant("relm").records("contacts")[0]["id"]
        script.time.pass_by(days=1)
        script.edit(person, "+1")
        pulled(project, "relm.contacts")
        once = changes_of(project)
        pulled(project, "relm.contacts", full=True)
        assert changes_of(project) == once == script.changes
        project.warehouse.write_bytes(kept)
        pulled(project, "relm.contacts")
        assert changes_of(project) == once


def test_a_first_load_in_parts_makes_no_history(tmp_path: Path) -> None:
    with Sandbox(records=250, relm=RelmSwitches(max_limit=100)) as box:
        project = project_for(box, tmp_path, "relm")
        box.faults.add(Status(422), crm="relm", path=r"/contacts\?.*cursor", nth=2, times=None)
        assert pulled(project, "relm.contacts").exit_code == 1
        assert rows(project, "select count(*) from relm.contacts") == [(200,)]
        box.faults.clear()
        assert pulled(project, "relm.contacts").exit_code == 0
        assert rows(project, "select count(*) from roundtrip.changes") == [(0,)]
        box.tenant("relm").create("contacts", email="new@b.example")
        pulled(project, "relm.contacts")
        assert rows(project, "select kind, count(*) from roundtrip.changes group by 1") == [("created", 1)]
