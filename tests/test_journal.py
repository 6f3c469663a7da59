"""The journal of a push: what it keeps, and that a cut at any byte is read rightly."""

import json
import resource
import stat
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.pushing.booking import book, is_booked
from pipelines.pushing.results import Entries
from pipelines.warehouse import RunRecord, Warehouse, record_run
from sources.core.connector import Call
from sources.core.errors import ProtocolError
from sources.core.journal import Booked, Header, Journal, Story, left_over, read, remove, values_of
from sources.core.rows import Outcome, Row
from sources.core.writing import Batch

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEADER = Header("20260301T120000Z-0001", "leads", "relm", "contacts", "seal", AT)


def row(seq: int, **fields: object) -> Row:
    return Row(seq, f"p{seq}@x.co", None, "create", fields or {"email": f"p{seq}@x.co"}, match="new")


def batch(name: str, *rows: Row, body: bytes = b'{"contacts":[]}') -> Batch:
    return Batch(
        name, "batch", rows, Call("POST", "/v1/contacts/batch", body, {"Idempotency-Key": "k"}), "k", AT
    )


def told(path: Path) -> Story:
    story = read(path)
    assert story is not None
    return story


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.begin(tmp_path / "journal", HEADER)


def test_a_row_with_intent_and_outcome_is_booked(journal: Journal) -> None:
    journal.intent(batch("b1", row(1), row(2)))
    journal.outcome("b1", [Outcome(1, "created", "con_1"), Outcome(2, "rejected", reason="no")], at=AT)
    assert [(each.key, each.status, each.crm_id, each.error) for each in told(journal.path).booked] == [
        ("p1@x.co", "created", "con_1", None),
        ("p2@x.co", "rejected", None, "no"),
    ]


def test_an_intent_without_outcome_is_open_with_its_exact_bytes(journal: Journal) -> None:
    sent = batch("b1", row(1, x=Decimal("12.50")), body=b'{"a": 12.50,  "b":"\\u0000"}')
    journal.intent(sent)
    assert told(journal.path).open == [sent]


def test_a_body_that_is_not_text_survives(journal: Journal) -> None:
    sent = batch("b1", row(1), body=b"\xff\x00")
    journal.intent(sent)
    assert told(journal.path).open[0].call.body == b"\xff\x00"


def test_the_last_word_on_a_row_counts(journal: Journal) -> None:
    journal.intent(batch("b1", row(1), row(2)))
    journal.outcome("b1", [Outcome(1, "absent"), Outcome(2, "created")], at=AT)
    journal.intent(batch("b2", row(1)))
    journal.outcome("b2", [Outcome(1, "created", "con_1")], at=AT)
    journal.outcome("ids", [Outcome(2, "created", "con_2")], at=AT)
    story = told(journal.path)
    assert {(each.key, each.crm_id) for each in story.booked} == {("p1@x.co", "con_1"), ("p2@x.co", "con_2")}
    assert story.open == []


def test_a_row_that_took_no_effect_is_not_booked(journal: Journal) -> None:
    journal.intent(batch("b1", row(1)))
    journal.outcome("b1", [Outcome(1, "absent")], at=AT)
    story = told(journal.path)
    assert (story.booked, story.open) == ([], [])


def test_only_its_owner_may_read_a_journal(journal: Journal) -> None:
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_threads_do_not_mix_their_lines(journal: Journal) -> None:
    def work(number: int) -> None:
        for each in range(20):
            journal.intent(batch(f"b{number}.{each}", row(number * 100 + each), body=b"x" * 2_000))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told(journal.path).open) == 80


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_cut_at_any_byte_leaves_a_readable_journal(tmp_path: Path, share: float) -> None:
    """What is read from a part is open or as in the whole, never something else."""
    journal = Journal.begin(tmp_path / "journal", HEADER)
    journal.intent(batch("b1", row(1), row(2)))
    journal.outcome("b1", [Outcome(1, "created", "con_1"), Outcome(2, "rejected", reason="no")], at=AT)
    journal.intent(batch("b2", row(3)))
    journal.close()
    whole = journal.path.read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole[: round(share * len(whole))])
    story = read(cut)
    journal.path.unlink()
    if story is None:
        return
    assert {each.key for each in story.booked} in (set(), {"p1@x.co", "p2@x.co"})
    assert {each.id for each in story.open} <= {"b1", "b2"}
    assert bool(story.booked) != ("b1" in {each.id for each in story.open}) or not story.open


def test_a_journal_goes_on_after_a_torn_line(journal: Journal) -> None:
    journal.intent(batch("b1", row(1)))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"type":"outcome","batch":"b1","ro')
    again = Journal.resume(journal.path)
    again.outcome("b1", [Outcome(1, "created")], at=AT)
    assert [each.status for each in told(journal.path).booked] == ["created"]


def test_a_damaged_line_is_an_error_that_names_the_file(journal: Journal) -> None:
    with journal.path.open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(ProtocolError, match=journal.path.name):
        read(journal.path)


def test_a_value_that_is_not_text_any_more_is_damage_too(journal: Journal) -> None:
    journal.intent(batch("b1", row(1, x="whole")))
    journal.outcome("b1", [Outcome(1, "created")], at=AT)
    journal.path.write_bytes(journal.path.read_bytes().replace(b"whole", b"wh\xffle"))
    with pytest.raises(ProtocolError, match="damaged"):
        read(journal.path)


def test_booked_values_are_read_exactly_when_somebody_asks(journal: Journal) -> None:
    journal.intent(batch("b1", row(1, x=Decimal("12.50"))))
    journal.outcome("b1", [Outcome(1, "created")], at=AT)
    (landed,) = told(journal.path).booked
    assert values_of(landed.sent)["x"] == Decimal("12.50")


def test_the_entries_of_a_result_are_a_list_of_booked_rows_and_others() -> None:
    rows = [booked(f"p{each}@x.co", {}) for each in range(3)]
    entries = Entries(rows, [{"key": "other"}])
    keys = [f"p{each}@x.co" for each in range(3)] + ["other"]
    assert [each["key"] for each in entries] == keys
    assert [each["key"] for each in entries[1:]] == keys[1:]
    assert (entries[-1], entries[0]["key"], len(entries)) == ({"key": "other"}, keys[0], 4)


def test_left_over_journals_are_found_and_removed(journal: Journal) -> None:
    assert left_over(journal.path.parent) == [journal.path]
    remove(journal.path)
    assert left_over(journal.path.parent) == []


# -- folding -------------------------------------------------------------------------------------


def booked(
    key: str,
    sent: dict[str, object],
    *,
    action: str = "update",
    status: str = "updated",
    crm_id: str | None = "con_1",
) -> Booked:
    return Booked(key, crm_id, action, status, sent, {}, None, "b1", AT.isoformat())


def fold(warehouse: Warehouse, *rows: Booked, adopted: tuple[Booked, ...] = ()) -> None:
    story = Story(HEADER, list(rows), list(adopted))
    with warehouse.lock("test"), warehouse.generation() as con:
        book(con, story, warehouse.home)
        record_run(con, RunRecord(HEADER.run_id, "push leads", AT, AT, "ok"))


def ledger(warehouse: Warehouse) -> list[tuple[object, ...]]:
    with warehouse.reading() as con:
        rows = con.execute("select key, crm_id, sent, echo from roundtrip.ledger order by key").fetchall()
    return [(key, crm_id, json.loads(sent), echo and json.loads(echo)) for key, crm_id, sent, echo in rows]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


def test_folding_twice_gives_the_same_as_once(warehouse: Warehouse) -> None:
    rows = (booked("a@x.co", {"first_name": "A"}), booked("b@x.co", {}, action="create", status="rejected"))
    fold(warehouse, *rows)
    first = ledger(warehouse)
    fold(warehouse, *rows)
    with warehouse.reading() as con:
        assert con.execute("select count(*) from roundtrip.push_log").fetchall() == [(2,)]
        assert is_booked(con, HEADER.run_id)
    assert ledger(warehouse) == first == [("a@x.co", "con_1", {"first_name": "A"}, None)]


def test_the_ledger_keeps_what_the_crm_accepted_before(warehouse: Warehouse) -> None:
    fold(warehouse, booked("a@x.co", {"first_name": "A", "metadata.score": Decimal("12.50")}))
    with warehouse.lock("test"), warehouse.generation() as con:
        con.execute("""update roundtrip.ledger set echo = '{"first_name": "a", "metadata.score": 12.5}'""")
    fold(warehouse, booked("a@x.co", {"first_name": None}, crm_id=None))
    assert ledger(warehouse) == [
        ("a@x.co", "con_1", {"first_name": None, "metadata.score": 12.5}, {"metadata.score": 12.5})
    ]


@pytest.mark.parametrize("status", ["rejected", "unknown", "skipped", "conflict"])
def test_the_ledger_takes_nothing_that_was_not_accepted(warehouse: Warehouse, status: str) -> None:
    fold(warehouse, booked("a@x.co", {"first_name": "A"}, status=status))
    assert ledger(warehouse) == []


def test_a_record_created_anew_starts_with_a_clean_ledger(warehouse: Warehouse) -> None:
    fold(warehouse, booked("a@x.co", {"first_name": "A", "phone": "1"}))
    fold(warehouse, booked("a@x.co", {"first_name": "B"}, action="create", status="created", crm_id="con_2"))
    assert ledger(warehouse) == [("a@x.co", "con_2", {"first_name": "B"}, None)]


def test_an_adopted_value_is_sent_and_echo_at_once(warehouse: Warehouse) -> None:
    fold(warehouse, booked("a@x.co", {"first_name": "A"}))
    both = Booked(
        "a@x.co",
        "con_1",
        "update",
        "adopt",
        {"first_name": "Z"},
        {"first_name": "Z"},
        None,
        None,
        AT.isoformat(),
    )
    fold(warehouse, adopted=(both,))
    assert ledger(warehouse) == [("a@x.co", "con_1", {"first_name": "Z"}, {"first_name": "Z"})]


def test_of_a_line_that_no_longer_fits_on_the_disk_nothing_stays(journal: Journal) -> None:
    """Half a line would be one with the next thread's, and the whole journal damaged."""
    journal.intent(batch("b1", row(1)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 40, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.outcome("b1", [Outcome(1, "rejected", reason="no" * 40)], at=AT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.outcome("b1", [Outcome(1, "created", "con_1")], at=AT)
    assert [each.status for each in told(journal.path).booked] == ["created"]
