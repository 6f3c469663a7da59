"""Reading back what a push wrote: what is shown is told and booked, nothing else is called verified."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import Shop

FIELDS = {
    "relm": 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n',
    "rally": 'firstName = "first"\nlastName = "last"\nleadScore = "score"\nnotes = "first"\n',
}
FIRST = {"relm": "first_name", "rally": "firstName"}
Open = Callable[..., Shop]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Open]:
    """Open a shop on a CRM with a few people, pulled once, with a model of five new ones and one known."""
    with ExitStack() as open_boxes:

        def make(crm: str, **switches: Any) -> Shop:
            rules: Any = (
                RelmSwitches(**switches) if crm == "relm" else RallySwitches(rate_limit=None, **switches)
            )
            box = open_boxes.enter_context(Sandbox(records=5, **{crm: rules}))
            made = Shop(tmp_path, box, crm, fields=FIELDS[crm])
            made.pull()
            known = str(box.tenant(crm).records("contacts")[0]["email"]).strip()
            new = [(f"lead{i}@new.example", f" F{i} ", f"L{i}", i) for i in range(5)]
            made.model([*new, (known, "Known", None, None)])
            return made

        yield make


def edit_at(shop: Shop, email: str, method: str, path: str, **fields: Any) -> None:
    """Edit a contact by hand as soon as a request of a kind comes in, once."""
    left = [True]

    def strike(request: Any) -> None:
        if left[0] and request.method == method and path in request.path:
            left[0] = False
            shop.by_hand(email, **fields)

    shop.box.before_list = strike


@pytest.mark.parametrize("crm", ["relm", "rally"])
@pytest.mark.parametrize("echo", [Echo(), Echo(trims=True, lower=("email",))])
def test_what_the_crm_shows_as_it_shows_values_is_verified(shop: Open, crm: str, echo: Echo) -> None:
    made = shop(crm, echo=echo)
    result = made.push(verify=True)
    assert (result.exit_code, result.counts["verified"]) == (0, 6)
    assert {row["verified"] for row in result.rows} == {"verified"}
    booked = made.read(
        "select verified, shown ->> 'email', count(*) over () from roundtrip.push_log order by key"
    )
    assert booked[0] == ("verified", "lead0@new.example", 6)


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_a_value_that_reads_back_otherwise_is_told_field_by_field_and_fails_the_push(
    shop: Open, crm: str
) -> None:
    made = shop(crm)
    edit_at(made, "lead1@new.example", "GET", "/contacts", **{FIRST[crm]: "Else"})
    result = made.push(verify=True)
    (row,) = (row for row in result.rows if row["verified"] == "differs")
    assert (result.exit_code, result.counts["differs"], result.counts["verified"]) == (1, 1, 5)
    assert row["fields"][FIRST[crm]] == {"old": None, "new": " F1 ", "shown": "Else"}
    assert row["reason"] == f"differs: {FIRST[crm]}"
    assert made.read(
        f"select shown ->> '{FIRST[crm]}' from roundtrip.push_log where verified = 'differs'"
    ) == [("Else",)]


def test_a_record_that_is_not_shown_is_not_called_verified(shop: Open) -> None:
    relm = shop("relm")

    def strike(request: Any) -> None:
        for each in relm.contacts("lead2@new.example") if request.method == "GET" else ():
            relm.box.tenant("relm").delete("contacts", each["id"])

    relm.box.before_list = strike
    result = relm.push(verify=True)
    assert (result.exit_code, result.counts["not_seen"]) == (1, 1)


def test_a_record_that_shows_nothing_of_what_was_sent_is_not_called_verified(shop: Open) -> None:
    rally = shop("rally")
    rally.declare('notes = "first"\n')
    (known,) = rally.read("select email from marts.leads where first = 'Known'")
    rally.model([(known[0], "Secret", None, None)])
    result = rally.push(verify=True)
    assert [row["verified"] for row in result.rows] == ["not_seen"]
    assert (result.exit_code, result.counts["updated"], result.counts["not_seen"]) == (1, 1, 1)


def test_without_verify_nothing_is_read_back_nor_said(shop: Open) -> None:
    relm = shop("relm")
    before = relm.calls("GET", "/contacts")
    result = relm.push()
    assert relm.calls("GET", "/contacts") == before
    assert "verified" not in result.counts
    assert relm.read("select distinct verified, shown from roundtrip.push_log") == [(None, None)]


def test_a_hundred_records_are_read_back_by_a_list_not_one_by_one(shop: Open) -> None:
    rally = shop("rally")
    rally.leads(100)
    before = rally.calls("GET", "/contacts")
    assert rally.push(verify=True).counts["verified"] == 100
    assert rally.calls("GET", "/contacts") - before <= 6
