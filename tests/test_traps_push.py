"""Eighteen traps that other tools for reverse ETL fell into, each with the test that keeps us out of it.

Where a test stands elsewhere already, `STANDS_IN` says where; the others are here, and their docstrings
name the trap.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipelines.plan import make_plan
from sources.sandbox import Sandbox
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import Desk, Shop, changes
from tests.warm import WarmRuns

TESTS = Path(__file__).parent
HERE = "test_traps_push"
STANDS_IN: dict[str, tuple[str, str]] = {
    "1 what was sent is remembered before it was sent": (
        "test_journal",
        "test_the_ledger_takes_nothing_that_was_not_accepted",
    ),
    "2 one success marks the whole batch": (
        "test_push_relm",
        "test_one_bad_row_in_500_costs_at_most_19_calls_and_keeps_its_reason",
    ),
    "3 outcomes are written after the last batch": (
        "test_push_kill",
        "test_killed_at_a_line_of_its_journal_and_run_again_it_ends_right",
    ),
    "4 an idempotency key that does not know the payload": (
        HERE,
        "test_the_same_rows_with_other_values_go_under_another_key",
    ),
    "5 a partial batch that is sent and not emptied": (
        "test_push_relm",
        "test_twelve_hundred_leads_go_in_three_batches_and_the_crm_holds_exactly_the_plan",
    ),
    "6 a cursor that skips ties and does not look back": (
        "test_incremental",
        "test_many_rows_with_one_stamp_at_the_watermark_are_all_seen",
    ),
    "7 pages by offset without an order": (HERE, "test_every_row_of_a_long_plan_comes_once_and_in_its_order"),
    "8 quotes doubled in text": ("test_plan", "test_hostile_text_arrives_as_it_is"),
    "9 a full run that forgets deletions": (HERE, "test_a_full_pull_knows_what_was_deleted"),
    "10 a dry run that moves a cursor": ("test_plan_file", "test_a_plan_changes_nothing_anywhere"),
    "11 approval by-passed through another door": (
        HERE,
        "test_no_command_writes_to_a_crm_without_being_agreed_to",
    ),
    "12 a check that writes": ("test_check", "test_a_check_writes_nothing_and_shows_no_part_of_the_key"),
    "13 a list of rejected rows that drops its oldest": (HERE, "test_every_rejected_row_stays_in_the_log"),
    "14 a whole batch repeated after part of it landed": (
        "test_push_rally",
        "test_a_bad_row_of_a_bulk_is_found_with_the_vendors_reason",
    ),
    "15 a look right after a write through a lagging index": (
        "test_writes_vivre",
        "test_a_lost_contact_is_found_by_search_or_in_the_list_and_never_sent_twice",
    ),
    "16 empty, null and absent are three things here and one there": (
        HERE,
        "test_empty_and_null_leave_the_crm_alone_and_both_clear_where_told_to",
    ),
    "17 a write to a deleted record reported as success": (
        "test_push_conflicts",
        "test_a_record_deleted_since_the_pull_is_not_revived",
    ),
    "18 a share of nothing passes the guard": (
        "test_plan_guards",
        "test_a_share_of_an_empty_crm_is_too_much_and_a_number_is_taken",
    ),
}


@cache
def names_in(module: str) -> set[str]:
    tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


@pytest.mark.parametrize("trap", STANDS_IN)
def test_every_trap_has_its_test(trap: str) -> None:
    module, name = STANDS_IN[trap]
    assert name in names_in(module)


def test_the_traps_are_numbered_from_1_to_18() -> None:
    assert [int(trap.split()[0]) for trap in STANDS_IN] == list(range(1, 19))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def relm(tmp_path: Path) -> Iterator[Shop]:
    with Sandbox(records=4, relm=RelmSwitches(rate_limit=None)) as box:
        shop = Shop(tmp_path, box, "relm", fields='first_name = "first"\n"metadata.lead_score" = "score"\n')
        shop.pull()
        yield shop


def test_the_same_rows_with_other_values_go_under_another_key(relm: Shop) -> None:
    """Trap 4: a key made of the rows' names alone lets the CRM skip a real change as a repetition."""
    for score in (0, 50, 0):
        relm.leads(3, score=score)
        relm.push()
    writes = [each for each in relm.box.tenant("relm").ledger if each.by == "roundtrip"]
    assert set(Counter(each.idempotency_key for each in writes).values()) == {3}
    assert len(writes) == 9
    assert relm.contact("lead0@new.example")["metadata"]["lead_score"] == 0


def test_every_row_of_a_long_plan_comes_once_and_in_its_order(desk: Desk) -> None:
    """Trap 7: fetched piece by piece without an order, some rows come twice and some never."""
    desk.mirror()
    desk.write(
        "create or replace table marts.leads as select 'a' || i || '@b.example' as email, 'F' as first_name,"
        " 'L' as last_name, i as score from range(5_001) as t(i) order by hash(i)"
    )
    with desk.warehouse.reading() as con:
        rows = list(make_plan(con, desk.project, "leads").outbox())
    assert [row.seq for row in rows] == list(range(1, 5_002))
    assert len({row.key for row in rows}) == 5_001


def test_a_full_pull_knows_what_was_deleted(relm: Shop) -> None:
    """Trap 9: whoever reads everything anew and forgets what is gone updates records that are not there."""
    relm.leads(2)
    relm.push()
    relm.box.tenant("relm").delete("contacts", relm.contact("lead0@new.example")["id"])
    relm.pull(full=True, accept_deletes=True)
    assert changes(relm.plan()) == {
        "lead0@new.example": (
            "create",
            {"email": "lead0@new.example", "first_name": "F0", "metadata.lead_score": 0},
        )
    }


def test_no_command_writes_to_a_crm_without_being_agreed_to(relm: Shop, warm_runs: WarmRuns) -> None:
    """Trap 11: a second door beside the one that is watched. Without a terminal all of them need `--yes`."""
    relm.leads(1)
    run_id = str(relm.push().run_id)
    relm.by_hand("lead0@new.example", first_name="Hand")
    relm.pull()
    relm.leads(2)
    applied = len(relm.box.tenant("relm").ledger)
    for words in (["push", "leads"], ["undo", run_id], ["drift", "leads", "--repair"]):
        run = warm_runs.start(relm.root, words, relm.environ)
        assert run.end() == 2, run.err
    assert len(relm.box.tenant("relm").ledger) == applied


def test_every_rejected_row_stays_in_the_log(relm: Shop) -> None:
    """Trap 13: a list of bad rows with a cap forgets the first ones in silence."""
    relm.write(
        "create or replace table marts.leads as"
        " select 'no address ' || i as email, 'F' as first, i as score from range(3_000) as t(i)"
    )
    assert relm.push().counts["rejected"] == 3_000
    assert relm.read("select count(distinct key), any_value(error) from roundtrip.push_log") == [
        (3_000, "invalid_key")
    ]


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("clears", [True, False])
def test_empty_and_null_leave_the_crm_alone_and_both_clear_where_told_to(
    desk: Desk, value: str | None, clears: bool
) -> None:
    """Trap 16: elsewhere an empty text is ignored while null clears, or the other way round."""
    policy = '{ column = "first_name", nulls = "clear" }' if clears else '"first_name"'
    desk.declare(f"first_name = {policy}\n")
    desk.mirror({"id": "1", "email": "a@b.example", "first_name": "Ann", "last_name": "Lee"})
    desk.model(("a@b.example", value, "Other", 1))
    expected = {"a@b.example": ("update", {"first_name": None})} if clears else {}
    assert changes(desk.plan()) == expected
