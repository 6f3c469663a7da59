"""What a plan shows people and programs: the fields that change, reasons, and what a push will cost."""

import io
from pathlib import Path
from typing import Any

import pytest

import sources
from pipelines import render
from pipelines.plan import PlanResult
from pipelines.pushing.forecast import Forecast, Shape, forecast
from pipelines.pushing.reasons import REASONS, code_of
from sources.core.connector import Connection
from sources.core.rows import Match, Row
from tests.pushing import Desk

README = (Path(sources.__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Sixty people of whom many changed, one found twice, one edited by hand, one with a hostile name."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    people = [
        {"id": f"c{i}", "email": f"p{i:02}@x.io", "first_name": f"F{i}", "metadata": {"score": i}}
        for i in range(60)
    ]
    desk.mirror(
        *people,
        {"id": "d1", "email": "twin@x.io"},
        {"id": "d2", "email": "twin@x.io"},
        {"id": "h", "email": "hand@x.io", "first_name": "Hand"},
    )
    desk.remember("hand@x.io", {"first_name": "Ann"}, {"first_name": "Ann"}, crm_id="h")
    desk.model(
        *((f"p{i:02}@x.io", "X" if i < 5 else f"F{i}", None, i + i % 2) for i in range(60)),
        ("new@x.io", "\x1b[31mRed", None, 4),
        ("bad", "x", None, 1),
        ("twin@x.io", "x", None, 1),
        ("hand@x.io", "Anja", None, None),
    )
    return desk


@pytest.fixture(scope="module")
def planned(desk: Desk) -> PlanResult:
    return desk.plan()


def screen(result: PlanResult, *, all_rows: bool = False) -> str:
    stream = io.StringIO()
    render.show(result, stream, all_rows=all_rows)
    return stream.getvalue()


def test_fields_are_listed_by_how_many_records_change_with_examples(planned: PlanResult) -> None:
    assert planned.fields_changed[:2] == [
        {
            "field": "metadata.score",
            "updates": 30,
            "creates": 1,
            "examples": [{"old": 1, "new": 2}, {"old": 3, "new": 4}, {"old": 5, "new": 6}],
        },
        {"field": "first_name", "updates": 5, "creates": 1, "examples": [
            {"old": "F0", "new": "X"}, {"old": "F1", "new": "X"}, {"old": "F2", "new": "X"}]},
    ]  # fmt: skip


def test_rows_held_back_are_counted_by_reason_with_what_to_do(planned: PlanResult) -> None:
    found = {each["reason"]: (each["rows"], each["status"]) for each in planned.held}
    assert found == {
        "ambiguous": (1, "rejected"),
        "invalid_key": (1, "rejected"),
        "edited_on_both_sides": (1, "conflict"),
    }
    assert all(each["what_to_do"] == REASONS[each["reason"]] for each in planned.held)


def test_every_reason_is_of_the_closed_list_and_stands_on_the_first_page(planned: PlanResult) -> None:
    assert {code_of(row["reason"]) for row in planned.rows if row["reason"]} <= REASONS.keys()
    for reason in REASONS:
        assert f"`{reason}`" in README, reason


def test_a_plan_fits_one_screen_and_diff_lists_every_field_of_every_row(planned: PlanResult) -> None:
    assert len(screen(planned).splitlines()) < 40
    listed = screen(planned, all_rows=True).splitlines()
    fields = sum(len(row["fields"]) or 1 for row in planned.rows)
    assert sum(line.startswith(("create", "update", "rejected", "conflict")) for line in listed) == fields


def test_what_a_record_holds_reaches_the_screen_harmless(planned: PlanResult) -> None:
    assert r"\x1b[31mRed" in screen(planned)
    assert "\x1b" not in screen(planned) + screen(planned, all_rows=True)


def test_a_plan_tells_what_would_stop_its_push(planned: PlanResult) -> None:
    assert planned.guard is not None
    assert planned.guard.startswith("relm contacts: it was last pulled")
    assert f"push would stop: {planned.guard}" in screen(planned)


def test_an_example_is_found_beyond_the_rows_that_are_listed(desk: Desk) -> None:
    from pipelines.plan import make_plan, show

    with desk.warehouse.reading() as con:
        result = show(make_plan(con, desk.project, "leads"), 1)
    assert len(result.rows) == 1
    assert [each["examples"][0] for each in result.fields_changed[:2]] == [
        {"old": 1, "new": 2},
        {"old": "F0", "new": "X"},
    ]


def test_a_limit_cuts_the_forecast_too(desk: Desk) -> None:
    from pipelines.plan import make_plan, show

    with desk.warehouse.reading() as con:
        result = show(make_plan(con, desk.project, "leads", limit=4), None)
    assert sum(lane["rows"] for lane in result.forecast["lanes"]) == 4


# -- what a push costs ---------------------------------------------------------------------------


class _Made:
    """As much of a plan as a forecast reads."""

    def __init__(self, crm: str, name: str, options: dict[str, Any]) -> None:
        connector = sources.load(crm)
        known = {option.name: option.default for option in connector.options}
        self.connection = Connection(crm, crm, "http://127.0.0.1:9", "key", {**known, **options})
        self.write = connector.contract(self.connection).writes[name]
        self.changes = 0


def ahead(crm: str, name: str, *shapes: tuple[str, Match, int], **options: Any) -> Forecast:
    made = _Made(crm, name, options)
    rows = [
        Shape(Row(0, "", "id" if match != "new" else None, action, {"x": None}, match=match), records)  # type: ignore[arg-type]
        for action, match, records in shapes
    ]
    made.changes = sum(each.records for each in rows)
    return forecast(made, rows)  # type: ignore[arg-type]


def test_calls_are_the_rows_of_each_lane_by_its_size() -> None:
    found = ahead("relm", "contacts", ("create", "new", 501), ("update", "key", 400), ("update", "id", 3))
    assert [(each.lane, each.rows, each.calls) for each in found.lanes] == [
        ("batch", 901, 2),
        ("patch", 3, 3),
    ]
    assert found.calls == 5


def test_a_stated_limit_lets_a_share_of_each_minute_through_at_once() -> None:
    found = ahead("rally", "contacts", ("update", "key", 100_000))
    assert found.per_minute == 800
    assert found.seconds == pytest.approx(124 * 60)


def test_a_pace_of_ones_own_spaces_the_calls() -> None:
    found = ahead("reevo", "contacts", ("update", "key", 601), max_per_minute=60)
    assert (found.calls, found.per_minute, found.seconds) == (601, 60, 600.0)


def test_what_counts_against_a_monthly_quota_is_told() -> None:
    assert ahead("relm", "contacts", ("create", "new", 250), dialect="modern").quota == 250
    assert ahead("relm", "contacts", ("create", "new", 250)).quota is None
