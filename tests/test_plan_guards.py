"""What stops a push before its first byte, and what is refused when the settings are read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.plan import check_guard, make_plan
from pipelines.settings import load_project
from pipelines.warehouse import RunRecord
from sources.core.errors import ConfigError, GuardError
from tests.pushing import FIELDS, NOON, Desk

ANN = {"id": "con_1", "email": "ann@example.com", "first_name": "Ann", "last_name": "Ash"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.mirror(ANN)
    desk.model(("ann@example.com", "Anna", "Ash", None))
    return desk


def guard(desk: Desk, now: datetime) -> None:
    with desk.warehouse.reading() as con:
        check_guard(make_plan(con, desk.project, "leads"), now)


def test_a_target_pulled_a_day_ago_may_be_written_to_and_one_pulled_earlier_may_not(desk: Desk) -> None:
    guard(desk, NOON + timedelta(hours=24))
    with pytest.raises(GuardError, match=r"relm contacts: it was last pulled 48 h ago, and max_age is 24 h"):
        guard(desk, NOON + timedelta(days=2))


def test_max_age_is_a_setting_of_the_sync(desk: Desk) -> None:
    desk.declare(FIELDS, 'max_age = "7d"')
    guard(desk, NOON + timedelta(days=2))
    desk.declare(FIELDS, 'max_age = "5m"')
    with pytest.raises(GuardError, match=r"roundtrip pull relm\.contacts"):
        guard(desk, NOON + timedelta(minutes=6))


def test_a_look_that_found_nothing_new_counts_as_a_look(desk: Desk) -> None:
    looked_at = NOON + timedelta(days=3)
    looked = [("relm", "contacts")]
    desk.warehouse.note_run(RunRecord("r", "pull", looked_at, looked_at, "ok", looked=looked))
    guard(desk, looked_at + timedelta(hours=1))


def test_a_pull_that_stopped_half_way_stops_a_push(desk: Desk) -> None:
    desk.write("update roundtrip.resource_state set page_token = 'p7'")
    with pytest.raises(GuardError, match="stopped half way"):
        guard(desk, NOON)


def test_a_plan_that_sends_nothing_is_stopped_by_nothing(desk: Desk) -> None:
    desk.model(("ann@example.com", "Ann", "Ash", None))
    desk.write("update roundtrip.resource_state set page_token = 'p7'")
    guard(desk, NOON + timedelta(days=30))


@pytest.mark.parametrize(("most", "trips"), [("1.0", True), ("1", True), ("2", False)])
def test_a_share_of_an_empty_crm_is_too_much_and_a_number_is_taken(
    desk: Desk, most: str, trips: bool
) -> None:
    desk.declare(FIELDS, f"max_changes = {most}")
    desk.mirror()
    if trips:
        with pytest.raises(GuardError, match="shows no records"):
            guard(desk, NOON)
    else:
        guard(desk, NOON)


@pytest.mark.parametrize(
    ("field", "policy", "line"),
    [
        ("notes", 'write = "if_empty"', "do not show it"),
        ("firstName", 'nulls = "clear"', "cannot clear it"),
    ],
)
def test_a_policy_that_the_api_cannot_keep_is_refused_when_it_is_read(
    tmp_path: Path, field: str, policy: str, line: str
) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        '[syncs.leads]\nconnection = "rally"\nobject = "contacts"\nmodel = "marts.leads"\nkey = "email"\n'
        f'[syncs.leads.fields]\n{field} = {{ column = "x", {policy} }}\n'
    )
    environ = {"SOURCES__RALLY__API_KEY": "key", "SOURCES__RALLY__BASE_URL": "http://127.0.0.1:9/api/v1"}
    with pytest.raises(ConfigError, match=rf"syncs\.leads\.fields\.{field} .*{line}"):
        load_project(tmp_path, environ=environ).sync("leads")


def test_now_is_the_clock_of_this_machine_unless_told_otherwise(desk: Desk) -> None:
    desk.mirror(ANN, looked_at=datetime.now(UTC))
    with desk.warehouse.reading() as con:
        check_guard(make_plan(con, desk.project, "leads"))
