"""`roundtrip runs`: the history of what ran, notes of runs that changed nothing included."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs import runs
from pipelines.settings import Project, load_project
from pipelines.warehouse import RunRecord, Warehouse, record_run

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PULLED = {
    "resources": [{"rows": 1200, "new": 3, "changed": 0, "deleted": 1, "error": "relm deals: cut (500)"}]
}
PUSHED = {"create": 2, "update": 9, "unchanged": 5, "created": 2, "updated": 8, "rejected": 1, "unknown": 0}


def record(number: int, command: str, counts: dict[str, Any], took_s: float = 1.0) -> RunRecord:
    started = START + timedelta(hours=number)
    ended = started + timedelta(seconds=took_s)
    error = None if number else "relm: the key was refused\x1b[31m (401)"
    return RunRecord(f"run-{number}", command, started, ended, "ok" if number else "refused", counts, error)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    found = load_project(tmp_path_factory.mktemp("history"), environ={})
    warehouse = Warehouse(found.warehouse)
    with warehouse.generation() as con:
        for each in (
            record(0, "pull", {"resources": []}),
            record(1, "pull", PULLED, took_s=75),
            record(2, "push leads_to_relm", PUSHED, took_s=7300),
        ):
            record_run(con, each)
    warehouse.note_run(record(3, "pull", {"resources": [{"rows": 0, "new": 0}]}))
    return found


def test_runs_are_listed_newest_first_with_those_that_changed_nothing(project: Project) -> None:
    found = runs(project).runs
    assert [run["run_id"] for run in found] == ["run-3", "run-2", "run-1", "run-0"]
    assert [run["what"] for run in found] == [
        "nothing changed",
        "2 created, 8 updated, 1 rejected",
        "1,200 rows, 3 new, 1 deleted",
        "nothing changed",
    ]
    assert [run["duration_s"] for run in found] == [1.0, 7300.0, 75.0, 1.0]


def test_errors_of_a_run_and_of_its_parts_are_listed(project: Project) -> None:
    errors = {run["run_id"]: run["errors"] for run in runs(project).runs}
    assert errors["run-1"] == ["relm deals: cut (500)"]
    assert errors["run-0"] == ["relm: the key was refused\x1b[31m (401)"]


def test_a_person_reads_a_table_and_the_errors_below_it_without_control_characters(project: Project) -> None:
    text = runs(project).text
    assert "1 min 15 s" in text
    assert "2 h 1 min" in text
    assert "run-0: relm: the key was refused\\x1b[31m (401)" in text


@pytest.mark.parametrize(
    ("command", "listed"),
    [("pull", 3), ("push", 1), ("push leads_to_relm", 1), ("push other", 0), ("pus", 0)],
)
def test_one_command_is_asked_for_by_its_name_with_or_without_its_sync(
    project: Project, command: str, listed: int
) -> None:
    assert len(runs(project, command=command).runs) == listed


def test_the_newest_are_kept_by_a_limit(project: Project) -> None:
    assert [run["run_id"] for run in runs(project, limit=2).runs] == ["run-3", "run-2"]


def test_no_warehouse_is_no_history(tmp_path: Path) -> None:
    result = runs(load_project(tmp_path, environ={}))
    assert (result.runs, result.exit_code) == ([], 0)
    assert "roundtrip pull" in result.text
