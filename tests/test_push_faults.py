"""Faults in the middle of a push: what was done is booked, what was not comes again, nothing is doubled."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop, ApplyThenStatus, Status
from sources.sandbox.relm_rules import RelmSwitches
from tests.delivering import Desk
from tests.pushing import Shop

CONTACTS = (
    'object = "contacts"\nmodel = "marts.leads"\nkey = "email"\nmode = "create"\n'
    '[syncs.leads.fields]\nname = "name"\n'
)


@pytest.fixture
def boxes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_look_before_creating_that_fails_ends_the_push_with_what_was_done_booked(
    tmp_path: Path, boxes: ExitStack
) -> None:
    box = boxes.enter_context(Sandbox(records=3))
    desk = Desk(tmp_path, box, "vivre", CONTACTS)
    desk.pull("vivre.contacts")
    desk.model("select 'l' || i || '@new.example' as email, 'Lee' as name from range(4) t(i)")
    box.faults.add(Status(403), crm="vivre", method="GET", path="/contacts", nth=3, times=None)
    result = desk.push()
    assert (result.exit_code, result.status, result.counts["created"]) == (3, "refused", 2)
    assert "vivre" in str(result.error)
    box.faults.clear()
    again = desk.push()
    assert (again.counts["created"], again.counts["unchanged"]) == (2, 2)
    assert len(box.tenant("vivre").records("contacts", name="Lee")) == 4


@pytest.mark.parametrize("fault", [ApplyThenDrop(), ApplyThenStatus(500)])
def test_a_change_applied_without_an_answer_is_seen_as_ours_and_no_conflict(
    tmp_path: Path, boxes: ExitStack, fault: ApplyThenDrop | ApplyThenStatus
) -> None:
    """The look that tells of the lost answer shows our value; the next push must not take it for an edit."""
    box = boxes.enter_context(Sandbox(records=5, relm=RelmSwitches()))
    fields = 'first_name = "first"\n'
    relm = Shop(tmp_path, box, "relm", fields=fields, sync='recheck_after = "0s"')
    relm.pull()
    email = str(box.tenant("relm").records("contacts")[0]["email"]).strip()
    relm.model([(email, "Ann")], columns="email, first")
    box.faults.add(fault, crm="relm", method="POST", path="/batch", nth=1, times=None)
    relm.push()
    box.faults.clear()
    assert relm.push().counts["conflict"] == 0
    relm.model([(email, "Bea")], columns="email, first")
    assert (relm.push().counts["updated"], relm.contact(email)["first_name"]) == (1, "Bea")
