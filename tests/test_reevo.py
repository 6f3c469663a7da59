"""What is odd about Reevo, read through a pull; its pages leave each of these open."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from pipelines.settings import Project, load_project
from sources.core.connector import Connection
from sources.core.privacy import Shield, shield_of
from sources.core.spool import Spool, type_rows
from sources.reevo.v2 import CONTRACT, OPPORTUNITIES
from sources.sandbox import Sandbox
from sources.sandbox.reevo_switches import ReevoSwitches
from tests.pulling import environ_of, part, project_for, pulled, rows


def on_v1(box: Sandbox, folder: Path) -> Project:
    environ = {key: value for key, value in environ_of(box).items() if "REEVO" in key}
    return load_project(folder, environ=environ | {"SOURCES__REEVO__API_VERSION": "v1"})


@pytest.mark.parametrize(
    "switches",
    [
        {"next_cursor": "meta"},
        {"null_attributes": "bare"},
        {"null_attributes": "left_out"},
        {"numbers": "string"},
        {"stamps_in_attributes": False},
    ],
)
def test_every_form_an_answer_may_take_is_read_alike(switches: dict[str, Any], tmp_path: Path) -> None:
    with Sandbox(records=120, reevo=ReevoSwitches(**switches)) as box:
        project = project_for(box, tmp_path, "reevo")
        result = pulled(project, "reevo.contacts", "reevo.opportunities")
        assert result.exit_code == 0
        held = {each["id"]: each["primary_email"] for each in box.tenant("reevo").records("contacts")}
        assert dict(rows(project, "select id, primary_email from reevo.contacts")) == held
        assert not part(result, "reevo.opportunities")["counts"]["misfits"]


def test_custom_attributes_stand_unwrapped_in_extra(tmp_path: Path) -> None:
    with Sandbox(records=40) as box:
        project = project_for(box, tmp_path, "reevo")
        pulled(project, "reevo.contacts")
        keys = {
            key for (key,) in rows(project, "select distinct unnest(json_keys(_extra)) from reevo.contacts")
        }
        assert "cus_field__Region" in keys
        kinds = rows(project, "select distinct json_type(_extra, '$.cus_field__Region') from reevo.contacts")
        assert {kind for (kind,) in kinds} <= {"VARCHAR", None}


def test_only_what_changed_since_is_asked_for(tmp_path: Path) -> None:
    with Sandbox(records=150) as box:
        project = project_for(box, tmp_path, "reevo")
        pulled(project, "reevo.contacts")
        person = box.tenant("reevo").records("contacts")[4]
        box.tenant("reevo").edit("contacts", person["id"], title="Admiral")
        result = part(pulled(project, "reevo.contacts"), "reevo.contacts")
        assert (result["changed"], result["strategy"]) == (1, "since")
        assert result["rows"] < 10


def test_the_older_api_is_read_by_setting_with_contacts_by_the_domains_of_accounts(tmp_path: Path) -> None:
    with Sandbox(records=60) as box:
        project = on_v1(box, tmp_path)
        result = pulled(project)
        assert result.exit_code == 0
        assert part(result, "reevo.accounts")["rows"] > 0
        assert part(result, "reevo.opportunities")["rows"] == len(
            box.tenant("reevo").records("opportunities")
        )
        held = {each["id"] for each in box.tenant("reevo").records("contacts")}
        found = {each for (each,) in rows(project, "select id from reevo.contacts")}
        assert found
        assert found <= held


@pytest.mark.parametrize("retrieval", ["pair", "lists", "refused"])
def test_an_account_without_a_contact_does_not_end_the_list(retrieval: Any, tmp_path: Path) -> None:
    with Sandbox(records=60, reevo=ReevoSwitches(retrieval=retrieval)) as box:
        lonely = [{"domain_name": "0.example", "is_primary": True}]
        box.tenant("reevo").create("accounts", display_name="Lonely", domains=lonely)
        project = on_v1(box, tmp_path)
        contacts = part(pulled(project, "reevo.contacts"), "reevo.contacts")
        assert (contacts["status"], contacts["error"]) == ("ok", None)
        assert contacts["rows"] > 5


def test_an_archived_record_is_found_by_the_next_whole_pass(tmp_path: Path) -> None:
    with Sandbox(records=120) as box:
        project = project_for(box, tmp_path, "reevo")
        pulled(project, "reevo.contacts")
        gone = box.tenant("reevo").records("contacts")[0]["id"]
        box.tenant("reevo").delete("contacts", gone)
        assert part(pulled(project, "reevo.contacts", full=True), "reevo.contacts")["deleted"] == 1
        assert rows(project, "select id from reevo.contacts where _deleted_at is not null") == [(gone,)]


def typed(folder: Path, attributes: dict[str, Any], shield: Shield | None = None) -> tuple[Any, Any]:
    spool = Spool(folder / "rows.ndjson", shield)
    spool.append([msgspec.Raw(msgspec.json.encode({"id": "1", "attributes": attributes}))])
    spool.close()
    found = type_rows([spool.path], OPPORTUNITIES, folder / "rows.parquet", now=datetime.now(UTC))
    with duckdb.connect() as con:
        [(extra,)] = con.execute(f"select _extra from read_parquet('{found.path}')").fetchall()
    return json.loads(extra or "{}"), found.misfits


STAGE = {"id": "st_9", "api_name": "won", "display_value": "Won", "color": None, "closing_probability": "?"}
OWNER = {"related_record_id": "u_1", "related_record_type": "user"}


def test_parts_of_a_value_that_no_column_takes_are_kept_in_extra(tmp_path: Path) -> None:
    sent = {
        "stage": {"value_type": "opportunity_stage", "value": STAGE},
        "amount": {"value_type": "currency", "value": {"amount": "5", "currency": "EUR"}},
        "owner_user_id": {"value": OWNER},
        "created_by_user_id": {"value": {"related_record_type": "user", "related_record_id": "u_1"}},
        "primary_contact_id": {"value": {"related_record_id": None, "related_record_type": "contact"}},
        "account_id": {"value": OWNER},
        "outcome": {"value_type": "enum", "value": None},
        "status": {"value_type": "enum"},
    }
    assert typed(tmp_path, sent) == (
        {
            "stage": {"id": "st_9", "api_name": "won", "closing_probability": "?"},
            "amount": {"currency": "EUR"},
            "account_id": OWNER,
        },
        {"closing_probability": 1},
    )


@pytest.mark.parametrize("form", ["value", "bare"])
def test_a_value_of_another_shape_than_documented_is_kept_and_counted(form: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"amount": 1500, "stage": "Won", "owner_user_id": ["u_1"], "closed_at": "soon"}
    sent = {name: {"value": each} if form == "value" else each for name, each in values.items()}
    assert typed(tmp_path, sent) == (values, dict.fromkeys(values, 1))


def test_what_is_excluded_is_not_kept_as_another_part_of_its_value(tmp_path: Path) -> None:
    sent = {"stage": {"value": STAGE}, "owner_user_id": {"value": OWNER | {"email": "a@b.example"}}}
    for name in ("stage", "_extra"):
        exclude = (f"opportunities.{name}", "opportunities.owner_user_id")
        reevo = Connection("reevo", "reevo", "https://api.example", "key", exclude=exclude)
        shield = shield_of(reevo, CONTRACT, OPPORTUNITIES)
        assert typed(tmp_path, sent, shield)[0] == {"stage": {"closing_probability": "?"}}
