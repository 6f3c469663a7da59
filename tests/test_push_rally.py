"""Pushing contacts to Rally: bulks of new people, single upserts of known ones, fields nobody can read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from sources.sandbox.faults import ApplyThenDrop, ApplyThenStatus, Garbage, HalfBody, Html, SamePage, Status
from sources.sandbox.rally_rules import RallySwitches
from tests.pushing import Shop

FIELDS = 'firstName = "first"\nlastName = "last"\nleadScore = "score"\n'
FREE = {"rate_limit": None}  # the pace is not what these tests are about
Open = Callable[..., Shop]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Open]:
    """Open a shop on a sandbox with the switches given, pulled once."""
    boxes: list[Sandbox] = []

    def make(*, fields: str = FIELDS, options: str = "", **switches: Any) -> Shop:
        box = Sandbox(records=20, rally=RallySwitches(**{**FREE, **switches}))
        boxes.append(box)
        made = Shop(tmp_path, box.__enter__(), "rally", fields=fields, options=options)
        made.pull()
        return made

    yield make
    for box in boxes:
        box.__exit__(None, None, None)


def created(shop: Shop) -> list[str]:
    """List the addresses of the records that the CRM made for us, with repeats."""
    contacts = {each["id"]: each["email"] for each in shop.box.tenant("rally").records("contacts")}
    inserted = [each for each in shop.box.tenant("rally").feed if each.action == "inserted"]
    return [
        contacts[each.record_id] for each in inserted if "new.example" in contacts.get(each.record_id, "")
    ]


def someone(shop: Shop) -> dict[str, Any]:
    """Give a contact with a stage of its own and fields that no answer shows."""
    return next(
        each for each in shop.box.tenant("rally").records("contacts") if each["lifecycleStage"] != "lead"
    )


# -- the main job --------------------------------------------------------------------------------


def test_twelve_hundred_leads_go_in_twelve_bulks_and_the_crm_holds_exactly_the_plan(shop: Open) -> None:
    rally = shop()
    rally.leads(1_200)
    result = rally.push()
    assert (result.exit_code, result.counts["created"]) == (0, 1_200)
    assert (rally.calls("POST", "/bulk"), rally.calls("PUT", "/upsert")) == (12, 0)
    held = {each["email"]: each for each in rally.box.tenant("rally").records("contacts")}
    for number in (0, 77, 1_199):
        lead = held[f"lead{number}@new.example"]
        assert (lead["firstName"], lead["lastName"], lead["leadScore"]) == (
            f"F{number}",
            f"L{number}",
            number % 100,
        )
    assert len(set(created(rally))) == len(created(rally)) == 1_200


def test_ids_of_bulk_creations_are_read_back_once(shop: Open) -> None:
    rally = shop()
    rally.leads(300)
    rally.push()
    assert rally.read("select count(distinct crm_id) from roundtrip.push_log where status = 'created'") == [
        (300,)
    ]
    assert (
        rally.contact("lead7@new.example")["id"]
        == rally.read("select crm_id from roundtrip.ledger where key = 'lead7@new.example'")[0][0]
    )


def test_known_contacts_are_upserted_one_by_one_and_nothing_else_of_them_changes(shop: Open) -> None:
    rally = shop()
    before = someone(rally)
    rally.model([(f" {before['email'].upper()} ", "Renamed", None, None)])
    result = rally.push()
    assert (result.counts["updated"], rally.calls("POST", "/bulk"), rally.calls("PUT", "/upsert")) == (
        1,
        0,
        1,
    )
    after = rally.contact(before["email"].strip())
    readable = set(before) - {
        "updated_at",
        "firstName",
        "notes",
        "address",
        "city",
        "state",
        "country",
        "postalCode",
    }
    readable -= {"linkedInUrl", "twitterHandle"}
    assert after["firstName"] == "Renamed"
    assert {name: after[name] for name in readable} == {name: before[name] for name in readable}


def test_fields_that_nobody_can_read_are_kept_by_our_own_copy(shop: Open) -> None:
    rally = shop(fields=FIELDS + 'notes = "note"\n')
    rally.model([("new@new.example", "N", "N", 1, "call back")], columns="email, first, last, score, note")
    rally.push()
    rally.pull()
    rally.declare(FIELDS)
    rally.model([("new@new.example", "M", "N", 1)])
    rally.push()
    after = rally.contact("new@new.example")
    assert (after["firstName"], after["notes"]) == ("M", "call back")


def test_where_put_merges_only_changes_are_sent(shop: Open) -> None:
    rally = shop(options='put_semantics = "merge"', upsert_update="merges", lifecycle_reset=False)
    before = someone(rally)
    rally.model([(before["email"], "Renamed", None, None)])
    rally.push()
    after = rally.contact(before["email"].strip())
    assert {name: after[name] for name in before if name not in {"firstName", "updated_at", "email"}} == {
        name: before[name] for name in before if name not in {"firstName", "updated_at", "email"}
    }


def test_existing_contacts_go_in_bulk_where_the_tenant_updates_them(shop: Open) -> None:
    rally = shop(options='bulk_existing = "updates"', bulk_existing="updates")
    emails = [each["email"] for each in rally.box.tenant("rally").records("contacts")][:9]
    rally.model([(email, "Renamed", None, None) for email in emails] + [("n@new.example", "N", "N", 1)])
    result = rally.push()
    assert (result.counts["updated"], result.counts["created"]) == (9, 1)
    assert (rally.calls("POST", "/bulk"), rally.calls("PUT", "/upsert")) == (1, 0)


def test_a_bulk_may_be_wrapped_in_an_object(shop: Open) -> None:
    rally = shop(options='bulk_body = "object"', bulk_body="object")
    rally.leads(3)
    assert rally.push().counts["created"] == 3


@pytest.mark.parametrize("echo", [Echo(), Echo(trims=True, lower=("email",), upper=("lastName",))])
def test_push_pull_plan_is_empty_whatever_the_crm_makes_of_the_values(shop: Open, echo: Echo) -> None:
    rally = shop(echo=echo)
    rally.model([(" A@new.example", " Ann ", "Ash", 6), ("b@new.example", "BOB", "d'Oak", 7)])
    rally.push()
    assert rally.contact("a@new.example")["email"].strip() == rally.contact("a@new.example")["email"]
    for _ in range(2):
        rally.pull()
        assert rally.plan().rows == []


def test_a_contact_whose_address_was_changed_by_hand_is_updated_by_id(shop: Open) -> None:
    rally = shop()
    rally.leads(1)
    rally.push()
    rally.pull()
    rally.by_hand("lead0@new.example", email="moved@new.example")
    rally.pull()
    rally.leads(1, first="G")
    assert rally.push().counts["updated"] == 1
    assert rally.contact("moved@new.example")["firstName"] == "G0"
    assert rally.contacts("lead0@new.example") == []


# -- rows that cannot go -------------------------------------------------------------------------


def test_a_new_contact_without_a_last_name_is_held_back_or_gets_the_one_set(shop: Open) -> None:
    rally = shop()
    rally.model([("n@new.example", "N", None, 1)])
    result = rally.push()
    assert [(row["action"], row["reason"]) for row in result.rows] == [
        ("rejected", "missing_required: lastName")
    ]
    assert rally.calls("POST", "/bulk") == 0
    rally.declare(FIELDS, options='fallback_last_name = "-"')
    assert rally.push().counts["created"] == 1
    assert rally.contact("n@new.example")["lastName"] == "-"


def test_a_value_of_the_wrong_type_is_held_back_before_it_is_sent(shop: Open) -> None:
    rally = shop()
    rally.model([("n@new.example", "N", "N", 1.5), ("o@new.example", "O", "O", 2.0)])
    result = rally.push()
    assert [(row["key"], row["reason"]) for row in result.rows if row["reason"]] == [
        ("n@new.example", "invalid_value: leadScore")
    ]
    assert result.counts["created"] == 1


@pytest.mark.parametrize(("errors", "atomic"), [("strings", False), ("objects", False), ("strings", True)])
def test_a_bad_row_of_a_bulk_is_found_with_the_vendors_reason(shop: Open, errors: str, atomic: bool) -> None:
    rally = shop(bulk_errors=errors, bulk_atomic=atomic)
    rally.leads(8)
    rally.write("alter table marts.leads add column company varchar")
    rally.write("update marts.leads set company = 'no-such-company' where email = 'lead3@new.example'")
    rally.declare(FIELDS + 'companyId = "company"\n')
    result = rally.push()
    assert (result.counts["created"], result.counts["rejected"], result.counts["unknown"]) == (7, 1, 0)
    (bad,) = [row for row in result.rows if row["status"] == "rejected"]
    assert bad["key"] == "lead3@new.example"
    assert "400" in bad["reason"]
    assert sorted(created(rally)) == sorted(f"lead{number}@new.example" for number in range(8) if number != 3)


# -- lost answers --------------------------------------------------------------------------------


LOST = [
    *(
        (fault, "fails")
        for fault in (ApplyThenDrop(), ApplyThenStatus(500), Garbage(), HalfBody(), Status(503))
    ),
    *((fault, "duplicates") for fault in (ApplyThenDrop(), Html())),
]


@pytest.mark.parametrize(("fault", "existing"), LOST, ids=lambda each: str(each).partition("(")[0])
def test_a_bulk_whose_answer_is_lost_is_looked_up_and_never_doubled(
    shop: Open, fault: Any, existing: str
) -> None:
    rally = shop(bulk_existing=existing)
    rally.leads(250)
    rally.box.faults.add(fault, crm="rally", method="POST", path="/bulk", nth=2)
    result = rally.push()
    assert (result.counts["created"], result.counts["unknown"]) == (250, 0)
    assert len(created(rally)) == len(set(created(rally))) == 250


def test_a_lost_bulk_is_found_among_all_that_the_same_push_has_made(shop: Open) -> None:
    """The list of changes then has many pages: what a server puts on one is its own affair."""
    rally = shop(max_limit=20)
    rally.leads(300)
    rally.box.faults.add(ApplyThenDrop(), crm="rally", method="POST", path="/bulk", nth=3)
    result = rally.push()
    assert (result.counts["created"], result.counts["unknown"]) == (300, 0)


def test_a_list_of_changes_that_never_ends_tells_nothing(shop: Open) -> None:
    rally = shop()
    rally.leads(3)
    rally.box.faults.add(ApplyThenDrop(), crm="rally", method="POST", path="/bulk")
    rally.box.faults.add(SamePage(), crm="rally", method="GET", path="/contacts", nth=2, times=None)
    assert rally.push().counts["unknown"] == 3


def test_an_upsert_whose_answer_is_lost_is_repeated(shop: Open) -> None:
    rally = shop()
    before = someone(rally)
    rally.model([(before["email"], "Renamed", None, None)])
    rally.box.faults.add(ApplyThenDrop(), crm="rally", method="PUT", path="/upsert")
    assert rally.push().counts["updated"] == 1
    assert rally.contact(before["email"].strip())["firstName"] == "Renamed"
