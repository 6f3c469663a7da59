"""`--full` rebuilds one resource beside its readers; `--since` looks back and moves no mark."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.relm_rules import RelmSwitches
from tests.pulling import part, project_for, pulled, rows

ROWS = "select * exclude (_synced_at) from rally.contacts"


def damage(project: Project, statement: str) -> None:
    """Change the published file by hand, hashes left as they are."""
    with duckdb.connect(str(project.warehouse)) as con:
        con.execute(statement)


def states(project: Project) -> list[tuple[Any, ...]]:
    return rows(project, "select * from roundtrip.resource_state order by all")


def test_a_full_pull_mends_rows_that_were_damaged_removed_or_added_by_hand(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        whole = rows(project, f"{ROWS} order by id")
        ids = [row["id"] for row in box.tenant("rally").records("contacts")]
        damage(project, f"update rally.contacts set phone = 'damaged' where id = '{ids[0]}'")
        damage(project, f"delete from rally.contacts where id = '{ids[1]}'")
        damage(project, "insert into rally.contacts by name select 'stray' as id, 'x' as _row_hash")
        result = part(pulled(project, "rally.contacts", full=True), "rally.contacts")
        assert (result["new"], result["changed"], result["deleted"], result["unchanged"]) == (1, 1, 1, 58)
        mended = rows(
            project,
            f"{ROWS} where _deleted_at is null order by id",
        )
        assert mended == whole


def test_a_full_pull_of_one_resource_leaves_its_siblings_and_readers_alone(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        siblings = rows(project, "select * from rally.companies order by id")
        kept = [row for row in states(project) if row[1] != "contacts"]
        damage(project, "update rally.contacts set phone = 'damaged'")
        with duckdb.connect(str(project.warehouse), read_only=True) as reader:
            pulled(project, "rally.contacts", full=True)
            seen = reader.execute("select distinct phone from rally.contacts").fetchall()
        assert seen == [("damaged",)]
        assert rows(project, "select count(*) from rally.contacts where phone = 'damaged'") == [(0,)]
        assert rows(project, "select * from rally.companies order by id") == siblings
        assert [row for row in states(project) if row[1] != "contacts"] == kept


def test_a_full_pull_sets_a_mark_right_that_was_ahead(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        damage(project, "update roundtrip.resource_state set watermark = '2099-01-01'")
        pulled(project, "rally.contacts", full=True)
        assert rows(project, "select watermark < now() from roundtrip.resource_state") == [(True,)]


@pytest.mark.parametrize("crm", ["rally", "relm"])
def test_marks_that_a_wrong_clock_has_set_far_ahead_are_not_believed(crm: str, tmp_path: Path) -> None:
    marks = ("watermark", "feed_watermark", "last_full_at")
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, crm)
        pulled(project, f"{crm}.contacts")
        for mark in marks:
            damage(
                project, f"update roundtrip.resource_state set {mark} = '2099-01-01' where {mark} is not null"
            )
        first, second = (row["id"] for row in box.tenant(crm).records("contacts")[:2])
        box.tenant(crm).edit("contacts", first, phone="new")
        box.tenant(crm).delete("contacts", second)
        pulled(project, f"{crm}.contacts")
        assert rows(project, f"select phone from {crm}.contacts where id = ?", first) == [("new",)]
        assert rows(project, f"select id from {crm}.contacts where _deleted_at is not null") == [(second,)]


def test_since_reads_the_window_again_and_moves_nothing_but_rows(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        before = states(project)
        damage(project, "delete from rally.contacts")
        result = pulled(project, "rally.contacts", since=datetime.now(UTC) - timedelta(days=4000))
        assert (result.exit_code, part(result, "rally.contacts")["new"]) == (0, 60)
        assert [row[:9] for row in states(project)] == [row[:9] for row in before]


def test_since_asks_for_that_window_alone(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project, "rally.contacts")
        box.requests.clear()
        pulled(project, "rally.contacts", since=datetime(2026, 1, 31, tzinfo=UTC))
        assert {each.path for each in box.requests} == {"/api/v1/contacts"}
        assert all("updatedSince=2026-01-31T00%3A00%3A00Z" in each.query for each in box.requests)


def test_since_on_a_list_without_a_filter_is_a_whole_pass(tmp_path: Path) -> None:
    with Sandbox(records=30, relm=RelmSwitches(updated_at="hidden")) as box:
        project = project_for(box, tmp_path, "relm")
        result = pulled(project, "relm.contacts", since=datetime(2026, 1, 31, tzinfo=UTC))
        assert (part(result, "relm.contacts")["strategy"], part(result, "relm.contacts")["rows"]) == (
            "full",
            30,
        )
