"""Where the values of a record come from: run, row, batch and answer, and who changed them since."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.render import json_object
from pipelines.why import why
from sources.core.errors import ConfigError
from tests.conftest import run_roundtrip
from tests.pushing import EVENING, MORNING, NOON, Desk

ANN = {
    "id": "c1",
    "email": "Ann@X.example",
    "first_name": "Ann",
    "last_name": "Hand",
    "metadata": {"score": 7},
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Open a desk with one contact that we wrote in the morning, and whose last name changed since."""
    made = Desk(tmp_path)
    made.mirror(ANN, looked_at=EVENING)
    log(made, MORNING, {"first_name": "Ann", "last_name": "Lee", "metadata.score": 7}, {"last_name": "Old"})
    change(made, NOON, "last_name", "Lee", "Hand")
    return made


def log(
    desk: Desk,
    at: datetime,
    sent: Mapping[str, Any],
    replaced: Mapping[str, Any],
    *,
    status: str = "updated",
    error: str | None = None,
    crm_id: str | None = "c1",
) -> None:
    """Put one row of one push into the log."""
    desk.write(
        "insert into roundtrip.push_log (run_id, sync, connection, object, key, crm_id, action, status, sent,"
        " replaced, error, batch_id, pushed_at)"
        " values (?, 'leads', 'relm', 'contacts', 'ann@x.example', ?, 'update', ?, ?, ?, ?, 'b7', ?)",
        [f"run-{at:%H}", crm_id, status, json.dumps(sent), json.dumps(replaced), error, at],
    )


def change(desk: Desk, at: datetime, field: str, old: str, new: str) -> None:
    """Note that somebody changed a field in the CRM."""
    desk.write(
        "insert into roundtrip.changes values"
        " ('pull-1', 'relm', 'contacts', 'c1', ?, ?, ?, ?, 'updated', 'crm')",
        [field, old, new, at],
    )


def test_each_value_names_the_run_row_batch_and_answer_that_put_it_there(desk: Desk) -> None:
    found = why(desk.project, "relm", " ANN@x.example ")
    fields = {each["field"]: each for each in found.fields}
    first = fields["first_name"]
    told = [first[name] for name in ("now", "origin", "run_id", "sync", "key", "batch_id", "answer")]
    assert told == ["Ann", "push", "run-09", "leads", "ann@x.example", "b7", "updated"]
    assert (fields["metadata.score"]["now"], fields["metadata.score"]["origin"]) == (7, "push")
    assert (found.crm_id, found.state, found.key) == ("c1", "there", "ann@x.example")


def test_a_value_that_the_crm_shows_otherwise_tells_since_when_and_what_we_had_replaced(desk: Desk) -> None:
    [field] = why(desk.project, "relm", "ann@x.example", "last_name").fields
    assert (field["now"], field["origin"], field["sent"], field["replaced"]) == ("Hand", "crm", "Lee", "Old")
    assert field["since"] == NOON.isoformat()


def test_one_field_alone_tells_its_own_history_in_order(desk: Desk) -> None:
    history = why(desk.project, "relm", "c1", "last_name").history
    assert [(each["by"], each["replaced"], each["value"]) for each in history] == [
        ("push", "Old", "Lee"),
        ("crm", "Lee", "Hand"),
    ]


def test_what_no_pull_has_seen_yet_is_not_called_shown(desk: Desk) -> None:
    log(desk, EVENING + timedelta(hours=1), {"first_name": "Anna"}, {"first_name": "Ann"})
    [field] = why(desk.project, "relm", "ann@x.example", "first_name").fields
    assert (field["origin"], field["sent"]) == ("unseen", "Anna")


def test_a_refusal_is_told_and_does_not_count_as_written(desk: Desk) -> None:
    log(desk, EVENING, {"first_name": "A" * 300}, {}, status="rejected", error="first_name: too long")
    found = why(desk.project, "relm", "ann@x.example", "first_name")
    assert found.fields[0]["sent"] == "Ann"
    assert "rejected (first_name: too long)" in found.text


def test_custom_values_are_told_apart_in_what_others_changed(desk: Desk) -> None:
    change(desk, NOON, "metadata", '{"score": 7, "tier": "a"}', '{"score": 7, "tier": "b"}')
    [entry] = [each for each in why(desk.project, "relm", "c1").history if each["field"] == "metadata.tier"]
    assert (entry["replaced"], entry["value"]) == ("a", "b")


def test_a_field_that_we_never_wrote_is_the_crms_own(desk: Desk) -> None:
    [field] = why(desk.project, "relm", "c1", "phone").fields
    assert (field["origin"], field["run_id"], field["now"]) == ("crm", None, None)


def test_a_record_that_was_written_and_never_pulled_is_known_by_the_log(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    log(desk, MORNING, {"first_name": "Ann"}, {}, status="created", crm_id=None)
    found = why(desk.project, "relm", "ann@x.example")
    assert (found.state, [each["origin"] for each in found.fields]) == ("not seen", ["unseen"])


def test_twins_are_told_apart_by_their_ids(desk: Desk) -> None:
    desk.mirror(ANN, {**ANN, "id": "c2"})
    with pytest.raises(ConfigError, match=r"2 live records .* c1, c2"):
        why(desk.project, "relm", "ann@x.example")
    assert why(desk.project, "relm", "c2").crm_id == "c2"


@pytest.mark.parametrize(
    ("connection", "key", "table", "reason"),
    [
        ("relm", "nobody@x.example", "contacts", "nothing is known of this record"),
        ("relm", "c1", "horses", "relm has no horses"),
        ("nowhere", "c1", "contacts", "nowhere"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(
    desk: Desk, connection: str, key: str, table: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        why(desk.project, connection, key, object_name=table)


def test_text_of_the_crm_reaches_no_terminal_as_it_is(desk: Desk) -> None:
    change(desk, EVENING, "first_name", "Ann", "\x1b[31mAnn\u202e")
    text = why(desk.project, "relm", "c1", "first_name").text
    assert "\x1b" not in text
    assert r"\x1b[31mAnn\u202e" in text


def test_the_command_gives_one_object_also_for_a_record_that_nobody_knows(tmp_path: Path) -> None:
    environ = {"SOURCES__RELM__API_KEY": "sk_test_1"}
    done = run_roundtrip(tmp_path, "why", "relm", "ann@x.example", "--json", **environ)
    told = json.loads(done.stdout)
    assert (done.returncode, told["command"], told["fields"], told["history"]) == (2, "why", [], [])
    assert "ann@x.example" not in done.stderr


def test_the_json_holds_values_as_they_are(desk: Desk) -> None:
    found = json.loads(json_object("why", why(desk.project, "relm", "c1", "metadata.score")))
    assert (found["fields"][0]["now"], found["fields"][0]["sent"]) == (7, 7)
