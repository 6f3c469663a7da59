"""What a plan sends, what it holds back and why, value by value."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.plan import check_guard, make_plan
from pipelines.pushing import compare
from sources.core.bodies import is_echo
from sources.core.errors import ConfigError, GuardError
from tests.pushing import EVENING, FIELDS, MORNING, NOON, Desk, changes, reasons

ANN = {
    "id": "con_1",
    "email": "Ann@Example.com",
    "first_name": "Ann",
    "last_name": "Ash",
    "metadata": {"score": 61.0},
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# -- what is sent --------------------------------------------------------------------------------


def test_equal_values_are_at_rest_whatever_their_spelling(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model((" ann@example.COM ", "Ann", "Ash", 61))
    assert desk.plan().counts == {
        "create": 0, "update": 0, "unchanged": 1, "rejected": 0, "skipped": 0, "conflict": 0
    }  # fmt: skip


def test_only_the_fields_that_differ_are_sent(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(("ann@example.com", "Anna", "Ash", 61))
    assert changes(desk.plan()) == {"ann@example.com": ("update", {"first_name": "Anna"})}


def test_an_unknown_address_is_created_with_the_address_as_the_model_has_it(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(("Bob@Example.com", "Bob", None, 7))
    sent = {"email": "Bob@Example.com", "first_name": "Bob", "metadata.score": 7}
    assert changes(desk.plan()) == {"bob@example.com": ("create", sent)}


def test_a_record_found_gone_is_created_again(desk: Desk) -> None:
    desk.mirror({**ANN, "deleted_at": MORNING})
    desk.model(("ann@example.com", "Ann", "Ash", 61))
    assert desk.plan().counts["create"] == 1


def test_missing_values_leave_the_crm_alone_unless_the_field_says_clear(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(("ann@example.com", "", None, None))
    assert desk.plan().counts["unchanged"] == 1
    desk.declare('first_name = { column = "first_name", nulls = "clear" }')
    assert changes(desk.plan()) == {"ann@example.com": ("update", {"first_name": None})}


@pytest.mark.parametrize(
    ("policy", "current", "is_written"),
    [("always", "Old", True), ("if_empty", "Old", False), ("if_empty", "", True), ("on_create", "", False)],
)
def test_write_policies_hold_for_fields_never_sent(
    desk: Desk, policy: str, current: str, is_written: bool
) -> None:
    desk.declare(f'first_name = {{ column = "first_name", write = "{policy}" }}')
    desk.mirror({**ANN, "first_name": current})
    desk.model(("ann@example.com", "New", None, None), ("new@example.com", "Neu", None, None))
    found = changes(desk.plan())
    assert ("ann@example.com" in found) is is_written
    assert found["new@example.com"] == ("create", {"email": "new@example.com", "first_name": "Neu"})


def test_hostile_text_arrives_as_it_is(desk: Desk) -> None:
    desk.mirror(ANN)
    hostile = "\x00'; drop table x;-- \"\\ \u202e <b>=1+1\n\U0001f600 {name}"
    desk.model(("ann@example.com", hostile, None, None))
    assert changes(desk.plan()) == {"ann@example.com": ("update", {"first_name": hostile})}


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Decimal("12.50"), 12.5),
        (0.1 + 0.2, 0.3),
        (61.0, 61),
        (True, True),
        (date(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1, 10, 0, 0, 120000, tzinfo=UTC), "2026-03-01T10:00:00.12Z"),
        (datetime(2026, 3, 1, 10, tzinfo=UTC), "2026-03-01T10:00:00Z"),
        ("007", "007"),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_values_are_rendered_by_their_type(desk: Desk, value: object, sent: object) -> None:
    desk.declare('"metadata.x" = "x"')
    desk.mirror(ANN)
    desk.model(("ann@example.com", value), columns="email, x")
    assert changes(desk.plan()) == {"ann@example.com": ("update", {"metadata.x": sent})}


def test_a_custom_field_may_have_any_name(desk: Desk) -> None:
    desk.declare('"metadata.a.b/c~d \\"e\\"" = "x"')
    desk.mirror({**ANN, "metadata": {'a.b/c~d "e"': 1}})
    desk.model(("ann@example.com", 2), columns="email, x")
    (row,) = desk.plan().rows
    assert row["fields"] == {'metadata.a.b/c~d "e"': {"old": 1, "new": 2}}


# -- who is who ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", [None, "", "  ", "ann", "ann@", "@b.co", "a b@c.co", "a@b", "a@b..co", "a@b.co, c@d.co"]
)
def test_a_missing_or_malformed_address_is_held_back(desk: Desk, address: str | None) -> None:
    desk.mirror(ANN)
    desk.model((address, "X", None, None))
    result = desk.plan()
    assert [(action, reason) for _, action, reason in reasons(result)] == [("rejected", "invalid_key")]
    assert result.counts["rejected"] == 1


@pytest.mark.parametrize(
    "address", ["a@b.co", "o'brien+tag@ex-ample.co.uk", "jörg@bücher.example", "a_b.c@d_e.f.io"]
)
def test_real_addresses_are_taken(desk: Desk, address: str) -> None:
    desk.mirror(ANN)
    desk.model((address, "X", None, None))
    assert desk.plan().counts["create"] == 1


def test_equal_twins_count_once_and_unequal_ones_are_both_held_back(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(
        ("a@b.co", "A", None, 1),
        ("A@b.co ", "A", "", 1.0),
        ("c@d.co", "C", None, 1),
        ("C@d.co", "C", None, 2),
    )
    result = desk.plan()
    assert result.counts["create"] == 1
    assert reasons(result) == [("c@d.co", "rejected", "duplicate_key")] * 2


def test_two_records_with_one_address_are_ambiguous(desk: Desk) -> None:
    desk.mirror(ANN, {**ANN, "id": "con_2"})
    desk.model(("ann@example.com", "Anna", None, None))
    assert reasons(desk.plan()) == [("ann@example.com", "rejected", "ambiguous")]


def test_the_record_we_know_by_id_is_updated_though_its_address_changed(desk: Desk) -> None:
    desk.mirror({**ANN, "email": "ann@married.example"})
    desk.remember("ann@example.com", {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id="con_1")
    desk.model(("ann@example.com", "Anna", None, None))
    with desk.warehouse.reading() as con:
        (row,) = make_plan(con, desk.project, "leads").outbox()
    assert (row.crm_id, row.action, row.match) == ("con_1", "update", "id")


@pytest.mark.parametrize(("ann", "bob", "held"), [("A", "B", "ab"), ("Ann", "B", "b"), ("A", "Ann", "a")])
def test_a_record_that_two_rows_mean_takes_neither(desk: Desk, ann: str, bob: str, held: str) -> None:
    desk.mirror({**ANN, "email": "b@example.com"})
    desk.remember("a@example.com", {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id="con_1")
    desk.model(("a@example.com", ann, None, None), ("b@example.com", bob, None, None))
    result = desk.plan()
    assert reasons(result) == [(f"{each}@example.com", "rejected", "ambiguous") for each in held]
    assert (result.counts["create"], result.counts["update"]) == (0, 0)


def test_records_that_changed_their_addresses_with_each_other_keep_their_rows(desk: Desk) -> None:
    desk.mirror({**ANN, "email": "b@example.com"}, {**ANN, "id": "con_2", "email": "a@example.com"})
    for key, crm_id in (("a@example.com", "con_1"), ("b@example.com", "con_2")):
        desk.remember(key, {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id=crm_id)
    desk.model(("a@example.com", "A", None, None), ("b@example.com", "B", None, None))
    assert [(row["key"], row["crm_id"]) for row in desk.plan().rows] == [
        ("a@example.com", "con_1"),
        ("b@example.com", "con_2"),
    ]


def test_modes_leave_rows_out_with_a_reason(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(("ann@example.com", "Anna", None, None), ("new@example.com", "N", None, None))
    desk.declare(FIELDS, 'mode = "update"')
    assert reasons(desk.plan()) == [("new@example.com", "skipped", "not_in_crm")]
    desk.declare(FIELDS, 'mode = "create"')
    result = desk.plan()
    assert reasons(result) == [("ann@example.com", "skipped", "already_in_crm")]
    assert (result.counts["create"], result.counts["update"]) == (1, 0)


# -- three ways ----------------------------------------------------------------------------------

TABLE = [  # model, CRM, sent, echo -> what becomes of the field
    ("A", "A", "A", "A", None),
    ("B", "A", "A", "A", "update"),
    ("A", "Z", "A", "A", None),
    ("Z", "Z", "A", "A", None),
    ("B", "Z", "A", "A", "conflict"),
    ("ann ", "Ann", "ann ", "Ann", None),
    ("bob", "Ann", "ann ", "Ann", "update"),
]


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_the_three_way_table(desk: Desk, case: tuple[str, str, str, str, str | None]) -> None:
    model, crm, sent, echo, action = case
    desk.mirror({**ANN, "first_name": crm})
    desk.remember("ann@example.com", {"first_name": sent}, {"first_name": echo}, crm_id="con_1")
    desk.model(("ann@example.com", model, None, None))
    assert [row["action"] for row in desk.plan().rows] == ([action] if action else [])


def test_a_conflict_lists_both_values_and_leaves_the_other_fields_to_be_written(desk: Desk) -> None:
    desk.mirror({**ANN, "first_name": "Hand"})
    desk.remember("ann@example.com", {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id="con_1")
    desk.model(("ann@example.com", "Anna", "Oak", 61))
    result = desk.plan()
    assert result.counts == {
        "create": 0,
        "update": 1,
        "unchanged": 0,
        "rejected": 0,
        "skipped": 0,
        "conflict": 1,
    }
    listed = {row["action"]: row["fields"] for row in result.rows}
    assert listed["conflict"] == {"first_name": {"old": "Hand", "new": "Anna"}}
    assert listed["update"] == {"last_name": {"old": "Ash", "new": "Oak"}}


def test_model_wins_writes_over_a_conflict(desk: Desk) -> None:
    desk.declare(FIELDS, 'conflicts = "model_wins"')
    desk.mirror({**ANN, "first_name": "Hand"})
    desk.remember("ann@example.com", {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id="con_1")
    desk.model(("ann@example.com", "Anna", None, None))
    assert desk.plan().counts["update"] == 1


def test_an_edit_in_the_crm_is_left_alone_and_counted_as_such(desk: Desk) -> None:
    desk.mirror({**ANN, "first_name": "Hand"})
    desk.remember("ann@example.com", {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id="con_1")
    desk.model(("ann@example.com", "Ann", None, None))
    result = desk.plan()
    assert (result.counts["unchanged"], result.edited_in_crm, result.rows) == (1, 1, [])


# -- our own writes, before and after the CRM was looked at --------------------------------------


def test_what_was_sent_is_at_rest_until_the_crm_has_been_looked_at(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.remember("ann@example.com", {"first_name": "Anna"}, crm_id="con_1", pushed_at=EVENING)
    desk.model(("ann@example.com", "Anna", None, None))
    assert desk.plan().counts["unchanged"] == 1
    desk.model(("ann@example.com", "Anja", None, None))
    assert desk.plan().rows[0]["fields"] == {"first_name": {"old": "Anna", "new": "Anja"}}


def test_a_body_is_completed_with_what_was_sent_since_the_last_look(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.remember(
        "ann@example.com", {"first_name": "Anna", "metadata.tier": "gold"}, crm_id="con_1", pushed_at=EVENING
    )
    desk.model(("ann@example.com", "Anna", "Oak", None))
    with desk.warehouse.reading() as con:
        (row,) = make_plan(con, desk.project, "leads").outbox()
    assert row.known["first_name"] == "Anna"
    assert row.known["metadata"] == {"score": Decimal("61.0"), "tier": "gold"}


@pytest.mark.parametrize(("shown", "action"), [(" anna", "update"), ("Hand", "conflict")])
def test_after_a_look_an_echo_is_told_from_an_edit(desk: Desk, shown: str, action: str) -> None:
    desk.mirror({**ANN, "first_name": shown}, looked_at=EVENING)
    desk.remember("ann@example.com", {"first_name": "Anna"}, crm_id="con_1", pushed_at=NOON)
    desk.model(("ann@example.com", "Anja", None, None))
    assert [row["action"] for row in desk.plan().rows] == [action]


def test_a_record_we_created_counts_as_there_before_the_next_pull(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.remember(
        "new@example.com", {"email": "new@example.com", "first_name": "N"}, crm_id="con_9", pushed_at=EVENING
    )
    desk.model(("new@example.com", "N", None, None))
    assert desk.plan().counts["unchanged"] == 1
    desk.model(("new@example.com", "M", None, None))
    (row,) = desk.plan().rows
    assert (row["action"], row["crm_id"]) == ("update", "con_9")


def test_a_record_we_created_without_an_id_waits_for_the_next_pull(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.remember("new@example.com", {"email": "new@example.com", "first_name": "N"}, pushed_at=EVENING)
    desk.model(("new@example.com", "M", None, None))
    assert reasons(desk.plan()) == [("new@example.com", "skipped", "awaiting_pull")]


def test_a_record_we_created_that_a_look_does_not_show_is_created_again(desk: Desk) -> None:
    desk.mirror(ANN, looked_at=EVENING)
    desk.remember(
        "new@example.com", {"email": "new@example.com", "first_name": "N"}, crm_id="con_9", pushed_at=NOON
    )
    desk.model(("new@example.com", "N", None, None))
    assert desk.plan().counts["create"] == 1


def test_a_row_with_an_unknown_outcome_is_held_back_until_a_look(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(("new@example.com", "N", None, None))
    desk.write(
        "insert into roundtrip.push_log (run_id, sync, connection, object, key, status, pushed_at)"
        " values ('r', 'leads', 'relm', 'contacts', 'new@example.com', 'unknown', ?)",
        [NOON + timedelta(hours=1)],
    )
    assert reasons(desk.plan()) == [("new@example.com", "skipped", "unknown_outcome")]
    desk.mirror(ANN, looked_at=EVENING)
    assert desk.plan().counts["create"] == 1


# -- guards and settings -------------------------------------------------------------------------


def test_a_target_that_was_never_pulled_to_its_end_trips_the_guard(desk: Desk) -> None:
    desk.model(("ann@example.com", "Ann", None, None))
    with pytest.raises(GuardError, match=r"relm contacts: .*roundtrip pull relm\.contacts"):
        desk.plan()


@pytest.mark.parametrize(("most", "trips"), [("0.5", False), ("0.4", True), ("1.0", False), ("2", False)])
def test_max_changes_is_a_share_up_to_one_and_a_number_above(desk: Desk, most: str, trips: bool) -> None:
    desk.declare(FIELDS, f"max_changes = {most}")
    desk.mirror(ANN, {"id": "con_2", "email": "b@b.co"})
    desk.model(("ann@example.com", "Anna", None, None))
    with desk.warehouse.reading() as con:
        made = make_plan(con, desk.project, "leads")
        if trips:
            with pytest.raises(GuardError, match="max_changes"):
                check_guard(made, NOON)
        else:
            check_guard(made, NOON)


def test_a_share_of_nothing_trips_the_guard(desk: Desk) -> None:
    desk.declare(FIELDS, "max_changes = 1.0")
    desk.mirror()
    desk.model(("ann@example.com", "Anna", None, None))
    with desk.warehouse.reading() as con, pytest.raises(GuardError, match="shows no records"):
        check_guard(make_plan(con, desk.project, "leads"), NOON)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ('frist_name = "first_name"', r"syncs\.leads\.fields\.frist_name: .*nearest: 'first_name'"),
        ('first_name = "frist_name"', r"no column 'frist_name' \(nearest: 'first_name'\)"),
        ('created_at = "score"', "cannot be written"),
        ('"meta.x" = "score"', r"metadata\.KEY"),
    ],
)
def test_a_mapping_that_fits_nothing_is_told_in_one_line(desk: Desk, fields: str, line: str) -> None:
    desk.declare(fields)
    desk.mirror(ANN)
    desk.model(("ann@example.com", "Ann", None, 1))
    with pytest.raises(ConfigError, match=line) as told:
        desk.plan()
    assert "\n" not in str(told.value)


def test_a_model_that_is_not_there_is_told_with_what_to_do(desk: Desk) -> None:
    desk.mirror(ANN)
    with pytest.raises(ConfigError, match=r"syncs\.leads\.model: .*roundtrip enrich"):
        desk.plan()


def test_a_plan_changes_nothing(desk: Desk) -> None:
    desk.mirror(ANN)
    desk.model(("ann@example.com", "Anna", None, None))
    before = {path: path.read_bytes() for path in desk.root.rglob("*") if path.is_file()}
    desk.plan()
    assert {path: path.read_bytes() for path in desk.root.rglob("*") if path.is_file()} == before


def test_the_seal_changes_with_the_rows_and_with_the_state(desk: Desk) -> None:
    seals = []
    desk.mirror(ANN)
    for name, looked_at in (("Anna", NOON), ("Anna", NOON), ("Anja", NOON), ("Anja", EVENING)):
        desk.model(("ann@example.com", name, None, None))
        desk.mirror(ANN, looked_at=looked_at)
        with desk.warehouse.reading() as con:
            seals.append(make_plan(con, desk.project, "leads").seal)
    assert seals[0] == seals[1]
    assert len(set(seals)) == 3


# -- laws ----------------------------------------------------------------------------------------

_TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["61", "61.0", "61.4", "61.45", "007", "1e3", "-0", " Ann ", "ann", "2026-03-01", "true", "x" * 50]
    ),
    st.sampled_from(["2026-03-01T10:00:00.5Z", "2026-03-01T10:00:00Z", "x" * 45, "nan", "a  b", "a b"]),
)


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        yield con


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_TEXTS, form=st.sampled_from(["text", "number", "bool", "timestamp", "key"]))
def test_the_canonical_form_of_a_canonical_form_is_itself(
    memory: duckdb.DuckDBPyConnection, text: str, form: compare.Form
) -> None:
    once = memory.execute(f"select {compare.canonical(form, '$1::varchar')}", [text]).fetchall()[0][0]
    twice = memory.execute(f"select {compare.canonical(form, '$1::varchar')}", [once]).fetchall()[0][0]
    assert once == twice


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({"city": "Pier", "zip": None, "at": 1}, True),
        ({"at": 1, "city": "Pier"}, True),
        ({"city": "Pier"}, False),
        ({"at": 1, "city": "Other"}, False),
    ],
)
def test_an_objects_members_have_no_order_and_null_ones_do_not_count(
    memory: duckdb.DuckDBPyConnection, shown: dict[str, Any], expected: bool
) -> None:
    sent = {"at": 1, "city": "Pier"}
    query = f"select {compare.is_echo('$1::varchar', '$2::varchar')}"
    assert memory.execute(query, [json.dumps(sent), json.dumps(shown)]).fetchall() == [(expected,)]
    assert is_echo(sent, shown) is expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=_TEXTS.filter(bool))
def test_what_was_sent_is_always_its_own_echo(memory: duckdb.DuckDBPyConnection, sent: str) -> None:
    """In SQL, which settles pulls, as in Python, which looks after a lost answer."""
    query = f"select {compare.is_echo('$1::varchar', '$2::varchar')}"
    assert memory.execute(query, [sent, sent]).fetchall() == [(True,)]
    assert is_echo(sent, sent)


@pytest.mark.parametrize(
    ("sent", "shown", "expected"),
    [
        (" Ann ", "ann", True),
        ("Ann", "Anna", False),
        ("61.46", "61.5", True),
        ("61.46", "61", True),
        ("61", "62", False),
        ("61", "61.4", False),
        ("61", "61.0", True),
        ("2026-03-01T10:00:00.5Z", "2026-03-01T10:00:00Z", True),
        ("2026-03-01T10:00:00Z", "2026-03-01", True),
        ("2026-03-01T10:00:00Z", "2026-03-02", False),
        ("x" * 50, "x" * 45, True),
        ("x" * 50, "x" * 20, False),
        (" x" * 50, "X " * 25, True),
        ("Ann", "", False),
        ("a  b", "a b", True),
    ],
)
def test_sql_and_python_agree_on_what_is_an_echo(
    memory: duckdb.DuckDBPyConnection, sent: str, shown: str, expected: bool
) -> None:
    query = f"select {compare.is_echo('$1::varchar', '$2::varchar')}"
    assert memory.execute(query, [sent, shown]).fetchall() == [(expected,)]
    assert is_echo(sent, shown) is expected
