"""Deletions: found by feed and by absence, confirmed, revived, guarded; never by a broken answer."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.faults import Action, Garbage, HalfBody, Html, SamePage, Status, WrongShape
from sources.sandbox.ralivi_rules import RaliviSwitches
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.hostile import Recast, TurnedTime, whole_second
from tests.pulling import environ_of, part, project_for, pulled, rows
from tests.warm import WarmRuns

HIDDEN = RelmSwitches(updated_at="hidden")


def gone(project: Project, crm: str) -> set[str]:
    return {row[0] for row in rows(project, f"select id from {crm}.contacts where _deleted_at is not null")}


def first_ids(box: Sandbox, crm: str, number: int) -> list[str]:
    return [row["id"] for row in box.tenant(crm).records("contacts")[:number]]


def empty(body: Any) -> Any:
    if isinstance(body, list):
        return []
    return body | {"data": [], "next_cursor": None, "nextCursor": None, "has_more": False, "total": 0}


def shortened(body: Any) -> Any:
    """End the list after one row, in the form of a proper end."""
    short = empty(body)
    return body[:1] if isinstance(body, list) else short | {"data": body["data"][:1], "total": 1}


@pytest.mark.parametrize("crm", ["relm", "rally", "ralivi", "vivre"])
def test_a_deleted_record_is_marked_keeps_its_values_and_comes_back(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=60, relm=HIDDEN) as box:
        project = project_for(box, tmp_path, crm)
        pulled(project, f"{crm}.contacts")
        tenant = box.tenant(crm)
        (person,) = first_ids(box, crm, 1)
        record = tenant.tables["contacts"].records[person]
        (email,) = rows(project, f"select email from {crm}.contacts where id = ?", person)[0]
        tenant.delete("contacts", person)
        assert part(pulled(project, f"{crm}.contacts"), f"{crm}.contacts")["deleted"] == 1
        assert gone(project, crm) == {person}
        assert rows(project, f"select email from {crm}.contacts where id = ?", person) == [(email,)]
        tenant.load("contacts", [record])
        tenant.edit("contacts", person, name="Back") if crm == "vivre" else tenant.edit("contacts", person)
        pulled(project, f"{crm}.contacts")
        assert gone(project, crm) == set()
        kinds = rows(
            project,
            "select kind from roundtrip.changes where id = ? and field is null order by rowid",
            person,
        )
        assert kinds == [("deleted",), ("created",)]


def test_a_missing_record_that_the_crm_still_knows_is_not_marked(tmp_path: Path) -> None:
    with Sandbox(records=60, relm=HIDDEN) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
        (person,) = first_ids(box, "relm", 1)

        def hide(body: Any) -> Any:
            return body | {"data": [row for row in body["data"] if row["id"] != person]}

        box.faults.add(Recast(hide), path=r"/contacts\?", times=None)
        result = part(pulled(project, "relm.contacts"), "relm.contacts")
        assert (result["rows"], result["deleted"], gone(project, "relm")) == (59, 0, set())


def test_a_record_whose_id_must_be_escaped_in_an_address_is_found_gone(tmp_path: Path) -> None:
    with Sandbox(records=60, relm=HIDDEN) as box:
        project = project_for(box, tmp_path, "relm")
        odd = Recast(lambda body: body | {"data": [row | {"id": "a b?c#\n"} for row in body["data"][:1]]})
        box.faults.add(odd, path=r"/contacts\?", times=None)
        pulled(project, "relm.contacts")
        box.faults.clear()
        assert pulled(project, "relm.contacts", accept_deletes=True).exit_code == 0
        assert gone(project, "relm") == {"a b?c#\n"}


def test_where_single_records_cannot_be_asked_for_a_second_pass_must_agree(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "ralivi")
        pulled(project, "ralivi.deals")
        deal = box.tenant("ralivi").records("deals")[0]["id"]

        def hide(body: Any) -> Any:
            return body | {"data": [row for row in body["data"] if row["id"] != deal]}

        box.faults.add(Recast(hide), path="/deals", times=1)
        result = part(pulled(project, "ralivi.deals"), "ralivi.deals")
        assert result["deleted"] == 0


BROKEN: list[Action] = [
    *(Recast(empty), Recast(shortened), Html(), Garbage()),
    *(HalfBody(), WrongShape(), Status(404), SamePage()),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda action: type(action).__name__)
def test_a_broken_listing_deletes_nothing_even_with_the_guard_lifted(broken: Action, tmp_path: Path) -> None:
    with Sandbox(records=60, relm=HIDDEN) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
        box.faults.add(broken, path=r"/contacts(\?|$)", times=None)
        pulled(project, "relm.contacts", accept_deletes=True)
        assert gone(project, "relm") == set()
        box.faults.clear()
        assert pulled(project, "relm.contacts").exit_code == 0
        assert gone(project, "relm") == set()


def test_too_many_missing_records_end_with_exit_5_and_one_line(tmp_path: Path, warm_runs: WarmRuns) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        for person in first_ids(box, "rally", 20):
            box.tenant("rally").delete("contacts", person)
        run = warm_runs.start(tmp_path, ["pull", "rally.contacts", "--json"], environ_of(box))
        assert run.end() == 5
        assert run.json()["status"] == "guarded"
        assert "20 of 60 records are missing" in run.json()["error"]
        assert "--accept-deletes" in run.json()["error"]
        assert gone(project, "rally") == set()
        run = warm_runs.start(tmp_path, ["pull", "rally.contacts", "--accept-deletes"], environ_of(box))
        assert run.end() == 0
        assert len(gone(project, "rally")) == 20


def test_deletions_are_accepted_also_where_the_guarded_pass_had_left_a_checkpoint(tmp_path: Path) -> None:
    with Sandbox(records=60, ralivi=RaliviSwitches(max_limit=10)) as box:
        project = project_for(box, tmp_path, "ralivi", checkpoint_s=0.01)
        pulled(project, "ralivi.contacts")
        for person in first_ids(box, "ralivi", 20):
            box.tenant("ralivi").delete("contacts", person)
        box.before_list = lambda _: time.sleep(0.05)  # so that the pass is committed in parts
        assert pulled(project, "ralivi.contacts").exit_code == 5
        assert pulled(project, "ralivi.contacts", accept_deletes=True).exit_code == 0
        assert len(gone(project, "ralivi")) == 20


def test_more_than_so_many_are_guarded_also_where_they_are_a_small_share(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally", max_deletes=2, max_deletes_share=0.5)
        pulled(project, "rally.contacts")
        for person in first_ids(box, "rally", 3):
            box.tenant("rally").delete("contacts", person)
        assert pulled(project, "rally.contacts").exit_code == 5


def test_records_that_a_list_shows_as_deleted_are_guarded_too(tmp_path: Path) -> None:
    with Sandbox(records=60, also={"relm_modern": "relm_modern"}) as box:
        project = project_for(box, tmp_path, "relm_modern")
        pulled(project, "relm_modern.contacts")
        for person in first_ids(box, "relm_modern", 20):
            box.tenant("relm_modern").edit("contacts", person, deleted=True)
        result = pulled(project, "relm_modern.contacts")
        assert (result.exit_code, gone(project, "relm_modern")) == (5, set())
        assert pulled(project, "relm_modern.contacts", accept_deletes=True).exit_code == 0
        assert len(gone(project, "relm_modern")) == 20


def test_a_feed_that_does_not_reach_back_is_said_and_a_full_pass_finds_the_deletions(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=60, now=time, rally=RallySwitches(feed_retention_days=5, feed_gap="refused")) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        (person,) = first_ids(box, "rally", 1)
        box.tenant("rally").delete("contacts", person)
        time.pass_by(days=10)
        pulled(project, "rally.contacts")
        result = part(pulled(project, "rally.contacts"), "rally.contacts")
        assert (result["rows"], gone(project, "rally")) == (59, {person})


def test_an_entry_of_the_feed_dated_ahead_hides_no_deletion_after_it(tmp_path: Path) -> None:
    time = TurnedTime(whole_second())
    with Sandbox(records=60, now=time) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        first, second = first_ids(box, "rally", 2)
        time.pass_by(hours=1)
        box.tenant("rally").delete("contacts", first)

        def ahead(body: list[dict[str, Any]]) -> Any:
            return [entry | {"changedAt": "2099-01-01T00:00:00Z"} for entry in body]

        box.faults.add(Recast(ahead), path="/sync/changes", times=None)
        pulled(project, "rally.contacts")
        box.faults.clear()
        time.pass_by(hours=1)
        box.tenant("rally").delete("contacts", second)
        pulled(project, "rally.contacts")
        assert gone(project, "rally") == {first, second}


def test_listings_broken_at_random_delete_nothing(tmp_path: Path) -> None:
    """Fifteen random ones each time; none may make a live record look gone."""
    rng = random.Random(7)
    with Sandbox(records=600) as box:
        project = project_for(box, tmp_path, "vivre")
        pulled(project, "vivre.contacts")
        for _ in range(15):
            box.faults.clear()
            nth, times = rng.randint(1, 2), rng.randint(1, 6)
            box.faults.add(rng.choice(BROKEN), path=r"/contacts\?", nth=nth, times=times)
            pulled(project, "vivre.contacts", accept_deletes=True)
        assert gone(project, "vivre") == set()
