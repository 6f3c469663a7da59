"""Refused batches: bad rows are parted from good ones by few calls, one common reason ends the push."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.core.parting import Parting
from sources.core.rows import Outcome, Row
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import Shop

FIELDS = {
    "relm": 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n',
    "rally": 'firstName = "first"\nlastName = "last"\nleadScore = "score"\n',
}
ROWS = [Row(seq, f"k{seq}", None, "create", {}) for seq in range(1, 101)]


@pytest.fixture
def boxes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def shop(root: Path, boxes: ExitStack, crm: str, **switches: Any) -> Shop:
    """Open a shop with 500 new people to push."""
    rules: Any = RelmSwitches(**switches) if crm == "relm" else RallySwitches(rate_limit=None, **switches)
    box = boxes.enter_context(Sandbox(records=3, **{crm: rules}))
    made = Shop(root, box, crm, fields=FIELDS[crm])
    made.pull()
    made.leads(500)
    return made


def poison(relm: Shop, *places: int) -> None:
    """Give the people at some places of the plan a custom value that the workspace refuses."""
    relm.write(
        "create or replace table marts.leads as select *,"
        " case when list_contains(?, row_number() over (order by email) - 1) then 'platinum' else 'gold' end"
        " as level from marts.leads",
        [list(places)],
    )
    relm.declare(FIELDS["relm"] + '"metadata.tier" = "level"\n')


@pytest.mark.parametrize("places", [(0, 100, 200, 300, 400), (0, 1, 2, 3, 4), (10, 11, 250, 498, 499)])
def test_five_bad_rows_of_500_cost_at_most_81_calls_and_all_others_land(
    tmp_path: Path, boxes: ExitStack, places: tuple[int, ...]
) -> None:
    relm = shop(tmp_path, boxes, "relm", batch_atomic=True)
    poison(relm, *places)
    result = relm.push()
    assert (result.counts["created"], result.counts["rejected"]) == (495, 5)
    assert relm.calls("POST", "/batch") <= 81


@pytest.mark.parametrize(("crm", "path"), [("relm", "/batch"), ("rally", "/contacts/")])
def test_one_reason_for_all_rows_ends_the_push_after_a_few_calls(
    tmp_path: Path, boxes: ExitStack, crm: str, path: str
) -> None:
    made = shop(tmp_path, boxes, crm)
    made.box.faults.add(Status(422), crm=crm, path=path, times=None)
    before = len(made.box.requests)
    result = made.push()
    assert len(made.box.requests) - before <= 20
    assert (result.exit_code, result.counts["created"], result.counts["rejected"] <= 4) == (1, 0, True)
    assert "refused for the same reason" in str(result.error)
    made.box.faults.clear()
    assert made.push().counts["created"] == 500


# -- what is learnt on the way -------------------------------------------------------------------


def rejected(*seqs: int, reason: str = "no") -> list[Outcome]:
    return [Outcome(seq, "rejected", reason=reason) for seq in seqs]


def test_rows_from_elsewhere_are_tried_once_before_all_are_given_up() -> None:
    parting = Parting(ROWS)
    parting.settled(rejected(1))
    assert parting.samples() == []
    parting.settled(rejected(2))
    assert [row.seq for row in parting.samples()] == [100, 51]
    assert (parting.samples(), parting.is_hopeless()) == ([], False)
    parting.settled(rejected(100))
    parting.settled(rejected(51))
    assert parting.is_hopeless()


def test_reasons_that_differ_by_more_than_a_value_are_no_common_one() -> None:
    parting = Parting(ROWS)
    parting.settled(rejected(1, reason="email 'a@x.co' is taken"))
    parting.settled(rejected(2, reason="email 'b@x.co' is taken"))
    assert len(parting.samples()) == 2
    other = Parting(ROWS)
    other.settled(rejected(1, reason="email is taken"))
    other.settled(rejected(2, reason="phone is too long"))
    assert other.samples() == []


@given(landed=st.sampled_from(["created", "updated", "unchanged"]), at=st.integers(0, 3))
def test_a_row_that_lands_keeps_the_parting_going(landed: Any, at: int) -> None:
    parting = Parting(ROWS)
    for turn, seq in enumerate((1, 2, 100, 51)):
        if turn == at:
            parting.settled([Outcome(99, landed)])
        parting.settled(rejected(seq))
        parting.samples()
    assert not parting.is_hopeless()
