"""Edits made in the CRM between pull and push: found by a look just before, never written over."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sources.core.arriving import Arrived
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import MORNING, NOON, Shop

FIELDS = {
    "relm": 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n',
    "rally": 'firstName = "first"\nlastName = "last"\nleadScore = "score"\n',
}
FIRST = {"relm": "first_name", "rally": "firstName"}
AT_ONCE = 'recheck_after = "0s"'
Open = Callable[..., Shop]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Open]:
    """Open a shop on a CRM with ten people, pulled once."""
    with ExitStack() as open_boxes:

        def make(crm: str, *, sync: str = AT_ONCE, options: str = "", **switches: Any) -> Shop:
            rules: dict[str, Any] = {
                "relm": RelmSwitches,
                "rally": lambda **given: RallySwitches(rate_limit=None, **given),
            }
            box = open_boxes.enter_context(Sandbox(records=10, **{crm: rules[crm](**switches)}))
            made = Shop(tmp_path, box, crm, fields=FIELDS[crm], sync=sync, options=options)
            made.pull()
            return made

        yield make


def people(shop: Shop, number: int) -> list[str]:
    """Give the addresses of people whose address no other record has."""
    emails = [str(each["email"]).strip() for each in shop.box.tenant(shop.crm).records("contacts")]
    plain = [
        each for each in emails if "@" in each and sum(other.lower() == each.lower() for other in emails) == 1
    ]
    return plain[:number]


def wanted(shop: Shop, number: int = 4) -> list[str]:
    """Make a model that gives people new first names."""
    emails = people(shop, number)
    shop.model([(email, f"New{place}", None, None) for place, email in enumerate(emails)])
    return emails


def told(result: Any) -> dict[str, tuple[str, str | None]]:
    return {row["key"]: (row["status"], row["reason"]) for row in result.rows}


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_an_edit_between_pull_and_push_is_a_conflict_and_the_others_land(shop: Open, crm: str) -> None:
    made = shop(crm)
    edited, *others = wanted(made)
    made.by_hand(edited, **{FIRST[crm]: "Hand"})
    result = made.push()
    assert (result.exit_code, result.counts["conflict"], result.counts["updated"]) == (1, 1, 3)
    assert made.contact(edited)[FIRST[crm]] == "Hand"
    assert [made.contact(each)[FIRST[crm]] for each in others] == ["New1", "New2", "New3"]
    assert told(result)[edited.lower()] == ("conflict", f"edited_since_plan: {FIRST[crm]}")
    assert made.read("select status, error from roundtrip.push_log where status = 'conflict'") == [
        ("conflict", f"edited_since_plan: {FIRST[crm]}")
    ]


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_an_edit_between_plan_and_send_is_a_conflict(shop: Open, crm: str) -> None:
    made = shop(crm)
    edited, *_ = wanted(made)

    def edit_then_agree(_: Any) -> bool:
        made.by_hand(edited, **{FIRST[crm]: "Hand"})
        return True

    assert made.push(confirm=edit_then_agree).counts["conflict"] == 1
    assert made.contact(edited)[FIRST[crm]] == "Hand"


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_an_edit_of_another_field_survives_though_the_whole_record_goes_out(shop: Open, crm: str) -> None:
    """Both CRMs may replace a record: what completes its body is what the look showed, not the older pull."""
    made = shop(crm)
    edited, *_ = wanted(made)
    made.by_hand(edited, phone="+1 555 0199")
    assert made.push().counts["updated"] == 4
    shown = made.contact(edited)
    assert (shown[FIRST[crm]], shown["phone"]) == ("New0", "+1 555 0199")


def test_an_address_changed_since_the_pull_makes_no_second_record(shop: Open) -> None:
    relm = shop("relm")
    (edited,) = wanted(relm, 1)
    relm.by_hand(edited, email="moved@new.example")
    result = relm.push()
    assert told(result)[edited.lower()] == ("conflict", "edited_since_plan: email")
    assert relm.contacts(edited) == []


def test_a_record_deleted_since_the_pull_is_not_revived(shop: Open) -> None:
    relm = shop("relm")
    (gone,) = wanted(relm, 1)
    relm.box.tenant("relm").delete("contacts", relm.contact(gone)["id"])
    assert told(relm.push())[gone.lower()] == ("conflict", "gone")
    assert relm.contacts(gone) == []


def test_fresh_records_cost_no_look(shop: Open) -> None:
    relm = shop("relm", sync="")
    wanted(relm)
    before = relm.calls("GET", "/contacts")
    assert relm.push().counts["updated"] == 4
    assert relm.calls("GET", "/contacts") == before


def test_one_look_tells_of_a_whole_batch(shop: Open) -> None:
    rally = shop("rally")
    wanted(rally)
    before = rally.calls("GET", "/contacts")
    assert rally.push().counts["updated"] == 4
    assert rally.calls("GET", "/contacts") - before <= 2  # a page of changes, and the empty one after it


def test_our_own_writes_are_no_edits_by_others(shop: Open) -> None:
    """What was sent is known though no pull has shown it yet, whatever the CRM made of it."""
    relm = shop("relm")
    (email,) = wanted(relm, 1)
    relm.push()
    relm.model([(email, "Newer", None, None)])
    result = relm.push()
    assert (result.counts["updated"], result.counts["conflict"]) == (1, 0)


def test_where_the_model_wins_nobody_looks_again(shop: Open) -> None:
    relm = shop("relm", sync=f'{AT_ONCE}\nconflicts = "model_wins"')
    (edited,) = wanted(relm, 1)
    relm.by_hand(edited, first_name="Hand")
    assert relm.push().counts["updated"] == 1
    assert relm.contact(edited)["first_name"] == "New0"


def test_a_crm_that_cannot_be_asked_stops_the_push_before_it_writes(shop: Open) -> None:
    relm = shop("relm")
    wanted(relm)
    relm.box.faults.add(Status(403), crm="relm", method="GET", path="/contacts", times=None)
    result = relm.push()
    assert (result.exit_code, result.counts["updated"]) == (3, 0)
    assert [each for each in relm.box.tenant("relm").ledger if each.by == "roundtrip"] == []


def test_the_first_look_of_a_push_asks_by_the_clock_of_the_crm(tmp_path: Path) -> None:
    """A clock that is behind ours has not come to the time of our last look yet."""

    def behind() -> datetime:
        return datetime.now(UTC) - timedelta(minutes=5)

    with Sandbox(records=10, now=behind, rally=RallySwitches(rate_limit=None)) as box:
        rally = Shop(tmp_path, box, "rally", fields=FIELDS["rally"], sync=AT_ONCE)
        rally.pull()
        for email in wanted(rally):
            rally.by_hand(email, firstName="Hand")
        result = rally.push()
        assert (result.counts["conflict"], result.counts["updated"]) == (4, 0)


# -- new records -----------------------------------------------------------------------------------


def made_by_hand(shop: Shop, number: int) -> None:
    """Plan a new lead of whom somebody makes a record since the pull."""
    shop.box.tenant(shop.crm).create(
        "contacts", email="lead0@new.example", phone="+1", **{FIRST[shop.crm]: "Hand"}
    )
    shop.leads(number)


@pytest.mark.parametrize("crm", ["relm", "rally"])
@pytest.mark.parametrize("sync", [AT_ONCE, f'{AT_ONCE}\nmode = "create"'])
def test_a_record_made_by_hand_since_the_pull_is_not_written_over(shop: Open, crm: str, sync: str) -> None:
    made = shop(crm, sync=sync)
    made_by_hand(made, 2)
    result = made.push()
    assert told(result)["lead0@new.example"] == ("conflict", "already_in_crm")
    assert (result.exit_code, result.counts["created"]) == (1, 1)
    contact = made.contact("lead0@new.example")
    assert (contact[FIRST[crm]], contact["phone"]) == ("Hand", "+1")


@pytest.mark.parametrize("sync", ["", 'conflicts = "model_wins"'])
def test_a_bulk_that_took_nothing_is_not_upserted_over_a_record_made_by_hand(shop: Open, sync: str) -> None:
    """The upsert replaces the record, so that it would lose whatever the model does not name."""
    rally = shop("rally", sync=sync, bulk_existing="fails")
    made_by_hand(rally, 1)
    result = rally.push()
    assert told(result) == {"lead0@new.example": ("conflict", "already_in_crm")}
    assert rally.contact("lead0@new.example")["phone"] == "+1"
    rally.pull()
    assert rally.push().counts["updated"] == 1


def test_changes_are_listed_once_they_are_old_and_from_the_last_time_on() -> None:
    times = iter([NOON, NOON + timedelta(minutes=5), NOON + timedelta(minutes=6)])
    asked: list[datetime] = []

    def read(since: datetime) -> set[int]:
        asked.append(since)
        return {len(asked)}

    arrived = Arrived(MORNING, timedelta(minutes=15))
    told = [
        set(arrived.keys(read, lambda: next(times), at_once=at_once) or ())
        for at_once in (False, False, True)
    ]
    assert (told, asked) == ([{1}, {1}, {1, 2}], [MORNING, NOON])


# -- looks that are refused ------------------------------------------------------------------------


def test_what_the_crm_refuses_to_show_is_held_back(shop: Open) -> None:
    relm = shop("relm")
    edited, *_ = wanted(relm)
    relm.by_hand(edited, first_name="Hand")
    relm.box.faults.add(Status(400), crm="relm", method="GET", path="/contacts", times=None)
    result = relm.push()
    assert set(told(result).values()) == {("conflict", "not_shown")}
    assert relm.contact(edited)["first_name"] == "Hand"
