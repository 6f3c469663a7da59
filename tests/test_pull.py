"""`roundtrip pull` against the sandbox: complete, incremental, with deletions and history."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sources.core.errors import ConfigError, LockedError
from sources.sandbox import Sandbox
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pulling import part, project_for, pulled, rows


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_a_thousand_contacts_arrive_complete_and_as_the_crm_shows_them(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=1000) as box:
        project = project_for(box, tmp_path, crm)
        result = pulled(project)
        assert result.exit_code == 0, result.error
        stored = dict(rows(project, f"select id, email from {crm}.contacts"))
        assert stored == {row["id"]: row["email"] for row in box.tenant(crm).records("contacts")}
        assert len(stored) == 1000


def test_a_second_pull_asks_only_for_what_changed_and_publishes_nothing(tmp_path: Path) -> None:
    with Sandbox(records=600) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        before = project.warehouse.stat()
        box.requests.clear()
        result = pulled(project)
        assert [each["new"] + each["changed"] for each in result.payload()["resources"]] == [0, 0, 0, 0]
        assert project.warehouse.stat().st_mtime_ns == before.st_mtime_ns
        lists = [each for each in box.requests if each.path.endswith("/contacts")]
        assert lists
        assert all("updatedSince=" in each.query for each in lists)


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_a_change_on_the_crm_side_arrives_alone(crm: str, tmp_path: Path) -> None:
    with Sandbox(records=300) as box:
        project = project_for(box, tmp_path, crm)
        pulled(project)
        person = box.tenant(crm).records("contacts")[7]
        box.tenant(crm).edit("contacts", person["id"], phone="+49 30 1")
        result = pulled(project)
        assert part(result, f"{crm}.contacts")["changed"] == 1
        assert sum(each["new"] + each["changed"] for each in result.payload()["resources"]) == 1
        assert rows(project, f"select phone from {crm}.contacts where id = ?", person["id"]) == [
            ("+49 30 1",)
        ]


def test_relm_without_a_change_stamp_is_read_whole_and_still_loads_only_changes(tmp_path: Path) -> None:
    with Sandbox(records=250, relm=RelmSwitches(updated_at="hidden")) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project)
        box.tenant("relm").edit("contacts", box.tenant("relm").records("contacts")[0]["id"], first_name="Ida")
        result = part(pulled(project), "relm.contacts")
        assert (result["strategy"], result["rows"], result["changed"], result["unchanged"]) == (
            "full",
            250,
            1,
            249,
        )


@pytest.mark.parametrize("filtered", ["ignored", "refused"])
def test_a_filter_that_the_probe_finds_useless_is_not_trusted(filtered: str, tmp_path: Path) -> None:
    with Sandbox(records=60, relm=RelmSwitches(updated_at_filter=filtered)) as box:  # type: ignore[arg-type]
        project = project_for(box, tmp_path, "relm")
        assert part(pulled(project), "relm.contacts")["strategy"] == "full"


def test_a_deletion_in_rally_comes_from_the_change_feed_and_keeps_the_last_values(tmp_path: Path) -> None:
    with Sandbox(records=200) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        person = box.tenant("rally").records("contacts")[3]
        box.tenant("rally").delete("contacts", person["id"])
        result = part(pulled(project), "rally.contacts")
        assert (result["deleted"], result["status"]) == (1, "ok")
        assert rows(
            project, "select email, _deleted_at is not null from rally.contacts where id = ?", person["id"]
        ) == [(person["email"], True)]
        assert rows(project, "select count(*) from crm.contacts where id = ?", person["id"]) == [(0,)]


def test_a_deletion_in_relm_is_found_by_absence_and_confirmed(tmp_path: Path) -> None:
    with Sandbox(records=120, relm=RelmSwitches(updated_at="hidden")) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project)
        person = box.tenant("relm").records("contacts")[3]
        box.tenant("relm").delete("contacts", person["id"])
        assert part(pulled(project), "relm.contacts")["deleted"] == 1
        assert any(each.path.endswith(person["id"]) for each in box.requests)


def test_too_many_deletions_stop_with_exit_5_until_they_are_accepted(tmp_path: Path) -> None:
    with Sandbox(records=100) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        for person in box.tenant("rally").records("contacts")[:10]:
            box.tenant("rally").delete("contacts", person["id"])
        result = pulled(project)
        assert (result.exit_code, part(result, "rally.contacts")["status"]) == (5, "guarded")
        assert rows(project, "select count(*) from rally.contacts where _deleted_at is not null") == [(0,)]
        assert part(pulled(project, accept_deletes=True), "rally.contacts")["deleted"] == 10


def test_every_table_of_a_connection_exists_also_without_rows(tmp_path: Path) -> None:
    with Sandbox(records=0) as box:
        project = project_for(box, tmp_path)
        assert pulled(project).exit_code == 0
        tables = rows(project, "select table_schema || '.' || table_name from information_schema.tables")
        expected = {
            f"relm.{name}"
            for name in ("contacts", "companies", "deals", "activities", "associations", "fields")
        }
        expected |= {f"rally.{name}" for name in ("contacts", "companies", "deals", "activities")}
        assert expected <= {name for (name,) in tables}


def test_the_views_hold_every_live_record_of_all_connections_with_the_documented_columns(
    tmp_path: Path,
) -> None:
    with Sandbox(records=80) as box:
        project = project_for(box, tmp_path)
        pulled(project)
        counts = dict(rows(project, "select connection, count(*) from crm.contacts group by 1"))
        assert (counts["relm"], counts["rally"]) == (80, 80)
        described = [row[0] for row in rows(project, "describe crm.deals")]
        assert (
            described
            == (
                "connection crm id title stage status amount currency probability contact_id company_id owner"
                " expected_close_at closed_at created_at updated_at"
            ).split()
        )
        assert rows(project, "select count(*) from crm.tasks")[0][0] > 0
        assert rows(project, "select count(*) from crm.activities where type = 'task' and crm = 'rally'") == [
            (0,)
        ]


def test_money_is_in_major_units_in_the_views(tmp_path: Path) -> None:
    with Sandbox(records=40) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project)
        cents = {row["id"]: row["value_cents"] for row in box.tenant("relm").records("deals")}
        for deal, amount in rows(project, "select id, amount from crm.deals"):
            assert amount is None if cents[deal] is None else int(amount * 100) == cents[deal]


def test_a_changed_field_stands_in_the_history_with_old_and_new_value(tmp_path: Path) -> None:
    with Sandbox(records=50) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project)
        person = box.tenant("relm").records("contacts")[0]
        box.tenant("relm").edit("contacts", person["id"], phone="+1 999")
        result = pulled(project)
        found = rows(
            project,
            "select run_id, old_value, new_value, kind, origin from roundtrip.changes"
            " where id = ? and field = 'phone'",
            person["id"],
        )
        assert found == [(result.run_id, person["phone"], "+1 999", "updated", "crm")]


def test_a_deal_that_moves_leaves_one_stage_and_enters_the_next(tmp_path: Path) -> None:
    with Sandbox(records=50) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project)
        deal = next(
            each for each in box.tenant("relm").records("deals") if each["stage"] not in ("won", "lost")
        )
        box.tenant("relm").edit("deals", deal["id"], stage="won")
        pulled(project)
        stays = rows(
            project,
            "select stage, left_at is null from roundtrip.deal_stages where id = ?"
            " order by entered_at, left_at nulls last",
            deal["id"],
        )
        assert stays == [(deal["stage"], False), ("won", True)]


def test_since_backfills_a_window_and_moves_no_watermark(tmp_path: Path) -> None:
    with Sandbox(records=50) as box:
        project = project_for(box, tmp_path, "rally")
        pulled(project)
        mark = rows(project, "select watermark from roundtrip.resource_state where resource = 'contacts'")
        result = pulled(project, "rally.contacts", since=datetime.now(UTC) - timedelta(days=4000))
        assert part(result, "rally.contacts")["rows"] == 50
        assert (
            rows(project, "select watermark from roundtrip.resource_state where resource = 'contacts'")
            == mark
        )


def test_an_unknown_resource_or_connection_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with Sandbox(records=5) as box:
        project = project_for(box, tmp_path, "relm")
        with pytest.raises(ConfigError, match="no resource 'leads'"):
            pulled(project, "relm.leads")
        with pytest.raises(ConfigError, match="hubspot"):
            pulled(project, "hubspot")
        assert box.requests == []


def test_a_second_run_at_the_same_time_names_the_holder(tmp_path: Path) -> None:
    from pipelines.warehouse import Warehouse

    with Sandbox(records=5) as box:
        project = project_for(box, tmp_path, "relm")
        with (
            Warehouse(project.warehouse).lock("roundtrip push"),
            pytest.raises(LockedError, match=f"pid {os.getpid()}"),
        ):
            pulled(project)


def test_a_refused_key_ends_with_exit_3_and_leaves_the_other_connection_alone(tmp_path: Path) -> None:
    with Sandbox(records=30, rally=RallySwitches()) as box:
        project = project_for(box, tmp_path)
        box.revoke("relm")
        result = pulled(project)
        assert result.exit_code == 3
        assert part(result, "relm.contacts")["status"] == "refused"
        assert part(result, "rally.contacts")["rows"] == 30


def test_a_reader_keeps_its_snapshot_while_pulls_publish(tmp_path: Path) -> None:
    import duckdb

    with Sandbox(records=40) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project)
        with duckdb.connect(str(project.warehouse), read_only=True) as reader:
            box.tenant("relm").create("contacts", email="late@example.com", first_name="Late")
            assert pulled(project).exit_code == 0
            assert reader.execute("select count(*) from relm.contacts").fetchone() == (40,)
        assert rows(project, "select count(*) from relm.contacts") == [(41,)]
