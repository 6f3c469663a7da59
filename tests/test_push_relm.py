"""Pushing contacts to Relm Classic: batches, exactly-once, bad rows, edits by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sources.core.errors import ConfigError, GuardError
from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from sources.sandbox.faults import (
    ApplyThenDrop,
    ApplyThenStatus,
    Garbage,
    Html,
    RevokeKey,
    Status,
    TooMany,
)
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import Shop

FIELDS = """
first_name = "first"
last_name = { column = "last", write = "if_empty" }
"metadata.lead_score" = "score"
"""
BATCH = r"/contacts/batch$|/contacts/batch\?"
Open = Callable[..., Shop]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Open]:
    """Open a shop on a sandbox with the switches given, pulled once."""
    boxes: list[Sandbox] = []

    def make(*, sync: str = "", options: str = "", records: int = 20, **switches: Any) -> Shop:
        box = Sandbox(records=records, relm=RelmSwitches(**switches))
        boxes.append(box)
        made = Shop(tmp_path, box.__enter__(), "relm", fields=FIELDS, sync=sync, options=options)
        made.pull()
        return made

    yield make
    for box in boxes:
        box.__exit__(None, None, None)


def applied(shop: Shop) -> dict[str, int]:
    """Count how often the CRM applied a write from us, by record."""
    counts: dict[str, int] = {}
    for write in shop.box.tenant("relm").ledger:
        if write.by != "someone@example.com":
            counts[write.id] = counts.get(write.id, 0) + 1
    return counts


# -- the main job --------------------------------------------------------------------------------


def test_twelve_hundred_leads_go_in_three_batches_and_the_crm_holds_exactly_the_plan(shop: Open) -> None:
    relm = shop()
    relm.leads(1_200)
    planned = {
        row["key"]: {name: each["new"] for name, each in row["fields"].items()} for row in relm.plan().rows
    }
    result = relm.push()
    assert (result.exit_code, result.counts["created"], relm.calls("POST", "/batch")) == (0, 1_200, 3)
    held = {
        each["email"]: each
        for each in relm.box.tenant("relm").records("contacts")
        if each["email"] in planned
    }
    assert {
        key: {
            "email": each["email"],
            "first_name": each["first_name"],
            "last_name": each["last_name"],
            "metadata.lead_score": each["metadata"]["lead_score"],
        }
        for key, each in held.items()
    } == planned


def test_a_second_push_sends_nothing_and_writes_nothing(shop: Open) -> None:
    relm = shop()
    relm.leads(5)
    relm.push()
    requests, published = len(relm.box.requests), relm.warehouse.path.stat().st_mtime_ns
    result = relm.push()
    assert (result.counts["unchanged"], result.rows, len(relm.box.requests)) == (5, [], requests)
    assert relm.warehouse.path.stat().st_mtime_ns == published
    assert [run.command for run in relm.warehouse.pending_runs()] == ["push leads"]


@pytest.mark.parametrize(
    "echo", [Echo(), Echo(trims=True, lower=("first_name",), upper=("last_name",), digits=0)]
)
def test_push_pull_plan_is_empty_whatever_the_crm_makes_of_the_values(shop: Open, echo: Echo) -> None:
    relm = shop(echo=echo)
    relm.model([("A@new.example", " Ann ", "Ash", 6.46), ("b@new.example", "BOB", "d'Oak", 7)])
    relm.push()
    for _ in range(2):
        relm.pull()
        assert relm.plan().rows == []
    relm.model([("A@new.example", "Eve", "Ash", 6.46), ("b@new.example", "BOB", "d'Oak", 7)])
    assert [row["fields"] for row in relm.plan().rows] == [
        {"first_name": {"old": relm.contact("a@new.example")["first_name"], "new": "Eve"}}
    ]


def test_only_changed_fields_change_in_the_crm_though_it_replaces(shop: Open) -> None:
    relm = shop(dedup_update="replaces")
    before = relm.box.tenant("relm").records("contacts")[3]
    relm.model([(before["email"].strip().upper(), "Renamed", None, None)])
    assert relm.push().counts["updated"] == 1
    after = relm.contact(before["email"].strip())
    assert after["first_name"] == "Renamed"
    ours = {"first_name", "updated_at"}
    assert {name: value for name, value in after.items() if name not in ours} == {
        name: value for name, value in before.items() if name not in ours
    }


def test_the_option_merge_sends_the_changes_only(shop: Open) -> None:
    relm = shop(options='batch_update = "merge"')
    email = relm.box.tenant("relm").records("contacts")[3]["email"]
    relm.model([(email, "Renamed", None, None)])
    relm.push()
    (write,) = [each for each in relm.box.tenant("relm").ledger if each.op == "upsert"]
    assert write.fields == {"email": email, "first_name": "Renamed"}


def test_custom_values_of_others_stay_when_ours_is_written(shop: Open) -> None:
    relm = shop(metadata_write="replaces")
    before = relm.box.tenant("relm").records("contacts")[4]
    relm.model([(before["email"], None, None, 99)])
    relm.push()
    assert relm.contact(before["email"].strip())["metadata"] == {**before["metadata"], "lead_score": 99}


def test_the_log_tells_what_was_sent_and_what_it_replaced(shop: Open) -> None:
    relm = shop()
    before = relm.box.tenant("relm").records("contacts")[3]
    relm.model(
        [
            (before["email"], "Renamed", None, None),
            ("new@new.example", "New", "N", 1),
            ("bad", None, None, None),
        ]
    )
    result = relm.push()
    rows = relm.read(
        "select key, crm_id, action, status, sent ->> 'first_name', replaced ->> 'first_name', error,"
        f" batch_id, run_id = '{result.run_id}' from roundtrip.push_log order by status, key"
    )
    assert rows == [
        (
            "new@new.example",
            relm.contact("new@new.example")["id"],
            "create",
            "created",
            "New",
            None,
            None,
            "b1",
            True,
        ),
        ("bad", None, None, "rejected", None, None, "invalid_key", None, True),
        (
            before["email"].strip().lower(),
            before["id"],
            "update",
            "updated",
            "Renamed",
            before["first_name"],
            None,
            "b1",
            True,
        ),
    ]
    assert result.exit_code == 1


def test_limit_sends_the_first_rows_only(shop: Open) -> None:
    relm = shop()
    relm.leads(10)
    assert relm.push(limit=3).counts["created"] == 3
    assert relm.plan().counts["create"] == 7


def test_a_dry_run_sends_nothing_and_changes_nothing(shop: Open) -> None:
    relm = shop()
    relm.leads(3)
    before = relm.warehouse.path.read_bytes()
    result = relm.push(dry_run=True)
    assert (result.counts["create"], result.counts["created"], relm.calls("POST", "/batch")) == (3, 0, 0)
    assert relm.warehouse.path.read_bytes() == before


def test_a_no_and_a_guard_stop_before_the_first_byte(shop: Open) -> None:
    relm = shop(sync="max_changes = 0.1")
    relm.leads(3)
    with pytest.raises(GuardError):
        relm.push()
    relm.declare(FIELDS)
    with pytest.raises(ConfigError, match="not confirmed"):
        relm.push(confirm=lambda made: False)
    assert relm.calls("POST", "/batch") == 0


# -- edits by hand -------------------------------------------------------------------------------


def test_a_newer_edit_by_hand_is_not_written_over(shop: Open) -> None:
    relm = shop()
    relm.leads(2)
    relm.push()
    relm.pull()
    relm.by_hand("lead0@new.example", first_name="Hand")
    relm.pull()
    assert (relm.plan().counts["unchanged"], relm.plan().edited_in_crm) == (2, 1)
    relm.leads(2, first="G")
    result = relm.push()
    assert (result.counts["updated"], result.counts["conflict"], result.exit_code) == (1, 1, 1)
    assert relm.contact("lead0@new.example")["first_name"] == "Hand"


def test_the_same_value_on_both_sides_is_adopted_and_no_conflict_later(shop: Open) -> None:
    relm = shop()
    relm.leads(1)
    relm.push()
    relm.pull()
    relm.by_hand("lead0@new.example", first_name="G0")
    relm.pull()
    relm.leads(1, first="G")
    assert relm.push().counts["unchanged"] == 1
    relm.leads(1, first="H")
    assert relm.push().counts["updated"] == 1


def test_a_record_whose_address_was_changed_by_hand_is_updated_not_doubled(shop: Open) -> None:
    relm = shop()
    relm.leads(1)
    relm.push()
    relm.pull()
    relm.by_hand("lead0@new.example", email="moved@new.example")
    relm.pull()
    relm.leads(1, first="G")
    assert relm.push().counts["updated"] == 1
    assert relm.contact("moved@new.example")["first_name"] == "G0"
    assert relm.contacts("lead0@new.example") == []


def test_a_value_cleared_by_hand_is_not_written_back(shop: Open) -> None:
    relm = shop()
    relm.leads(1)
    relm.push()
    relm.pull()
    relm.by_hand("lead0@new.example", last_name=None)
    relm.pull()
    assert relm.plan().rows == []


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["rows", "results", "contacts", "counts", "empty"])
def test_every_shape_of_answer_tells_or_is_verified(shop: Open, answer: str) -> None:
    relm = shop(batch_answer=answer)
    relm.leads(60)
    result = relm.push()
    assert (result.counts["created"], result.counts["unknown"], result.exit_code) == (60, 0, 0)
    assert set(applied(relm).values()) == {1}


def test_an_answer_that_tells_nothing_of_a_record_that_is_not_shown_is_unknown(shop: Open) -> None:
    relm = shop(batch_answer="empty", list_lag_s=3_600)
    relm.leads(3)
    result = relm.push()
    assert (result.counts["unknown"], result.exit_code) == (3, 1)
    again = relm.push()
    assert (again.counts["unknown"], relm.calls("POST", "/batch")) == (3, 1)
    assert [row["reason"] for row in relm.plan().rows] == ["unknown_outcome"] * 3


@pytest.mark.parametrize(
    "fault", [ApplyThenDrop(), ApplyThenStatus(500), Garbage(), Html(), TooMany(1), Status(503)]
)
def test_a_fault_on_the_way_neither_loses_nor_doubles_a_row(shop: Open, fault: Any) -> None:
    relm = shop()
    relm.leads(1_200)
    relm.box.faults.add(fault, crm="relm", method="POST", path=BATCH, nth=2)
    relm.push()
    relm.pull()
    relm.push()
    assert len(applied(relm)) == 1_200
    assert set(applied(relm).values()) == {1}
    assert relm.plan().rows == []


def test_one_bad_row_in_500_costs_at_most_19_calls_and_keeps_its_reason(shop: Open) -> None:
    relm = shop(batch_atomic=True)
    relm.leads(500)
    refuse_address(relm, "lead77@new.example")
    result = relm.push()
    assert (result.counts["created"], result.counts["rejected"]) == (499, 1)
    assert relm.calls("POST", "/batch") <= 19
    (bad,) = [row for row in result.rows if row["status"] == "rejected"]
    assert (bad["key"], bad["action"]) == ("lead77@new.example", "create")
    assert "422" in bad["reason"]


def test_a_bad_row_that_the_answer_names_costs_two_calls(shop: Open) -> None:
    relm = shop(batch_atomic=True, batch_atomic_names_row=True)
    relm.leads(500)
    refuse_address(relm, "lead77@new.example")
    assert relm.push().counts["created"] == 499
    assert relm.calls("POST", "/batch") == 2


def test_a_rejected_row_comes_again_until_it_lands(shop: Open) -> None:
    relm = shop()
    relm.leads(3)
    refuse_address(relm, "lead1@new.example")
    assert relm.push().counts["rejected"] == 1
    assert relm.push().counts["rejected"] == 1
    relm.write("update marts.leads set score = 1")
    relm.declare(FIELDS)
    assert relm.push().counts["created"] == 1
    assert relm.push().counts["rejected"] == 0


def test_a_custom_field_that_became_required_is_told_before_anything_is_sent(shop: Open) -> None:
    relm = shop()
    relm.box.tenant("relm").create(
        "fields", object_type="contact", key="region", label="Region", type="text", required=True
    )
    relm.leads(3)
    result = relm.push()
    assert (result.counts["rejected"], relm.calls("POST", "/batch")) == (3, 0)
    assert {row["reason"] for row in result.rows} == {
        "missing_required: metadata.region (required by the workspace)"
    }


def test_a_key_revoked_half_way_ends_with_3_and_what_was_done_is_booked(shop: Open) -> None:
    relm = shop()
    relm.leads(1_200)
    relm.box.faults.add(RevokeKey(), crm="relm", method="POST", path=BATCH, nth=2)
    result = relm.push()
    assert (result.exit_code, result.status, result.counts["created"]) == (3, "refused", 500)
    assert relm.read("select status, count(*) from roundtrip.push_log group by 1") == [("created", 500)]


def test_ctrl_c_finishes_the_batch_in_flight_and_the_next_push_goes_on(shop: Open) -> None:
    relm = shop()
    relm.leads(1_200)

    class Impatient:
        def start(self, task: str, total: int | None = None) -> int:
            return 0

        def advance(self, task_id: int, n: int = 1) -> None:
            raise KeyboardInterrupt

        def done(self, task_id: int) -> None:
            pass

        def say(self, line: str) -> None:
            pass

    result = relm.push(progress=Impatient())
    assert (result.exit_code, result.status) == (130, "interrupted")
    assert result.counts["created"] in (500, 1_000)
    assert relm.push().counts["created"] == 1_200 - result.counts["created"]
    assert set(applied(relm).values()) == {1}


def test_several_requests_in_flight_end_the_same(shop: Open) -> None:
    relm = shop(options="batch_size = 50")
    relm.leads(1_000)
    relm.box.faults.add(ApplyThenDrop(), crm="relm", method="POST", path=BATCH, nth=3, times=2)
    assert relm.push(in_flight=4).counts["created"] == 1_000
    assert set(applied(relm).values()) == {1}


def refuse_address(relm: Shop, email: str) -> None:
    """Give one lead a custom value that the workspace refuses: a text for a number."""
    relm.write("alter table marts.leads add column if not exists level varchar")
    relm.write("update marts.leads set level = case when email = ? then 'platinum' else 'gold' end", [email])
    relm.declare(FIELDS + '"metadata.tier" = "level"\n')
