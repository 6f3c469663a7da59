"""Rows whose outcome nobody knew: found by a later look, freed, or sent again where somebody says so."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.progress import SilentProgress
from pipelines.push import PushResult, push
from pipelines.warehouse import Warehouse
from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop
from sources.sandbox.relm_rules import RelmSwitches
from tests.delivering import Desk, QuickClock
from tests.pushing import Shop

FIELDS = 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n'
NOTES = (
    'object = "activities"\nmodel = "marts.leads"\nkey = "own"\nmode = "create"\n'
    '[syncs.leads.fields]\ncontact_id = "contact_id"\ntype = "type"\nnote = "note"\n'
)
DEALS = 'object = "deals"\nmodel = "marts.leads"\nkey = "own"\n[syncs.leads.fields]\ntitle = "title"\n'


class Lagging(Shop):
    """A CRM whose answers tell nothing and whose list shows new records only an hour later."""

    clock: QuickClock

    def posts(self) -> int:
        return self.calls("POST", "/batch")


@pytest.fixture
def relm(tmp_path: Path) -> Iterator[Lagging]:
    """Leave three rows unknown, though the CRM has them."""
    clock = QuickClock()
    rules = RelmSwitches(batch_answer="empty", list_lag_s=3_600)
    with Sandbox(records=5, now=clock.now, relm=rules) as box:
        made = Lagging(tmp_path, box, "relm", fields=FIELDS)
        made.clock = clock
        made.pull()
        made.leads(3)
        assert made.push().counts["unknown"] == 3
        yield made


def test_rows_that_the_crm_shows_later_are_booked_without_being_sent_again(relm: Lagging) -> None:
    relm.clock.sleep(7_200)
    result = relm.push()
    assert (result.counts["unchanged"], result.counts["unknown"], relm.posts()) == (3, 0, 1)
    assert relm.read("select status, count(*) from roundtrip.push_log group by 1 order by 1") == [
        ("created", 3),
        ("unknown", 3),
    ]
    assert relm.read("select count(crm_id) from roundtrip.ledger") == [(3,)]


def test_rows_that_took_no_effect_are_sent_again_where_that_is_asked_for(relm: Lagging) -> None:
    for number in range(3):
        (each,) = relm.contacts(f"lead{number}@new.example")
        relm.box.tenant("relm").delete("contacts", each["id"])
    assert relm.push().counts["unknown"] == 3  # so soon a list may not show them yet
    again = relm.push(resend_unknown=True)
    assert (again.counts["create"], relm.posts()) == (3, 2)


def test_a_plan_and_a_dry_run_free_nothing(relm: Lagging) -> None:
    result = relm.push(dry_run=True, resend_unknown=True)
    assert (result.counts["unknown"], relm.posts()) == (3, 1)
    assert [row["reason"] for row in relm.plan().rows] == ["unknown_outcome"] * 3


def pushed(desk: Desk, *, resend: bool = False) -> PushResult:
    return push(
        desk.project,
        "leads",
        confirm=lambda made: True,
        progress=SilentProgress(),
        in_flight=1,
        resend_unknown=resend,
    )


def age(desk: Desk, by: timedelta) -> None:
    """Let time pass since whatever was pushed."""
    warehouse = Warehouse(desk.project.warehouse)
    with warehouse.lock("test"), warehouse.generation() as con:
        con.execute("update roundtrip.push_log set pushed_at = pushed_at - ?", [by])
        con.execute("update roundtrip.runs set started_at = started_at - ?", [by])


@pytest.fixture
def boxes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_what_no_look_can_tell_is_sent_again_only_where_that_is_asked_for(
    tmp_path: Path, boxes: ExitStack
) -> None:
    box = boxes.enter_context(Sandbox(records=3))
    desk = Desk(tmp_path, box, "vivre", NOTES)
    desk.pull()
    contact = box.tenant("vivre").records("contacts")[0]["id"]
    desk.model(f"select 1 as own, '{contact}' as contact_id, 'call' as type, 'Rang' as note")
    box.faults.add(ApplyThenDrop(), crm="vivre", method="POST", path="/activities", nth=1)
    assert pushed(desk).counts["unknown"] == 1
    age(desk, timedelta(hours=1))
    assert pushed(desk).counts["unknown"] == 1
    assert pushed(desk, resend=True).counts["created"] == 1
    assert len(box.tenant("vivre").records("activities", note="Rang")) == 2


def test_a_lost_creation_without_a_natural_key_is_looked_for_and_never_made_twice(
    tmp_path: Path, boxes: ExitStack
) -> None:
    box = boxes.enter_context(Sandbox(records=3, relm=RelmSwitches(list_lag_s=600)))
    desk = Desk(tmp_path, box, "relm", DEALS)
    desk.pull("relm.deals")
    desk.model("select 1 as own, 'A pier of our own' as title")
    box.faults.add(ApplyThenDrop(), crm="relm", method="POST", path="/deals", times=None)
    assert pushed(desk).counts["unknown"] == 1
    box.faults.clear()
    result = pushed(desk)
    assert result.counts["unknown"] + result.counts["unchanged"] == 1
    assert len(box.tenant("relm").records("deals", title="A pier of our own")) == 1
