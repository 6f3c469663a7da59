"""What an answer proves: a success that names no row is read back, or left unknown, never called written."""

import pytest

from sources import rally
from sources.core.client import Answer
from sources.core.connector import Lane
from sources.core.errors import ProtocolError
from sources.core.lanes import decode_change, decode_single
from sources.core.rows import Outcome, Row
from sources.reevo import v1, v2
from sources.relm import classic

NEW = Row(1, "k", None, "create", {"title": "Pier", "note": None})
KNOWN = Row(1, "k", "d1", "update", {"title": "Pier"}, {"title": "Quay"})


_BY_KEY = {
    "rally": (rally.CONTRACT, "upsert", '{"action": "updated", "id": "%s"}'),
    "reevo v1": (v1.CONTRACT, "upsert", '{"contact": {"id": "%s"}, "account": {"id": "d1"}}'),
    "reevo v2": (v2.CONTRACT, "assert", '{"id": "%s"}'),
    "relm": (classic.CONTRACT, "batch", '{"results": [{"index": 0, "status": "updated", "id": "%s"}]}'),
    "relm, made anew": (classic.CONTRACT, "batch", '{"created": [{"index": 0, "id": "%s"}]}'),
}


def verdict(row: Row, body: bytes, status: int = 200) -> str:
    (outcome,) = decode_single([row], Answer(status, {}, body))
    return outcome.verdict


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"ok": true}', b'{"results": []}', b'{"data": null}', b"null"]
)
def test_a_success_that_says_nothing_of_the_row_leaves_it_open(body: bytes) -> None:
    assert [verdict(row, body, status) for row in (NEW, KNOWN) for status in (200, 202, 207)] == [
        "unknown"
    ] * 6


@pytest.mark.parametrize("body", [b'{"id": "d1"}', b'{"data": {"id": "d1"}}', b'{"title": " pier"}'])
def test_an_answer_that_names_or_shows_the_record_is_proof(body: bytes) -> None:
    assert (verdict(NEW, body), verdict(KNOWN, body)) == ("created", "updated")


def test_201_says_that_a_record_was_made_and_nothing_of_a_change() -> None:
    assert (verdict(NEW, b"", 201), verdict(KNOWN, b"", 201)) == ("created", "unknown")


def test_204_is_read_back() -> None:
    assert (verdict(NEW, b"", 204), verdict(KNOWN, b"", 204)) == ("unknown", "unknown")
    assert decode_change([KNOWN], Answer(200, {}, b"")) == [
        Outcome(1, "unknown", reason="the answer does not tell this row's outcome")
    ]


def test_an_answer_about_another_record_or_with_an_error_is_no_proof() -> None:
    assert (verdict(KNOWN, b'{"id": "d2"}'), verdict(NEW, b'{"error": "no"}')) == ("unknown", "unknown")


def test_what_is_no_json_is_an_error_of_the_api() -> None:
    with pytest.raises(ProtocolError):
        decode_single([NEW], Answer(200, {}, b"OK"))


@pytest.mark.parametrize("name", _BY_KEY)
def test_a_change_that_met_another_record_than_the_planned_one_is_not_called_written(name: str) -> None:
    contract, lane_name, body = _BY_KEY[name]
    lane: Lane = contract.writes["contacts"].lanes[lane_name]
    (other,) = lane.decode([KNOWN], Answer(200, {}, (body % "d2").encode()))
    assert (other.verdict, other.crm_id, "another record" in str(other.reason)) == ("unknown", "d2", True)
    if "anew" not in name:
        assert lane.decode([KNOWN], Answer(200, {}, (body % "d1").encode())) == [Outcome(1, "updated", "d1")]
