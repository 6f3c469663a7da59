"""What is odd about Vivre, read through a pull; its page leaves each of these open."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from pipelines.settings import Project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from sources.sandbox.faults import Status
from sources.sandbox.vivre_rules import VivreSwitches
from tests.pulling import part, project_for, pulled, quick, rows


def project_on(box: Sandbox, folder: Path) -> Project:
    return quick(project_for(box, folder, "vivre"))


def test_deals_and_activities_are_write_only_where_the_api_does_not_list_them(tmp_path: Path) -> None:
    with Sandbox(records=30) as box:
        result = pulled(project_on(box, tmp_path))
        assert result.exit_code == 0
        assert part(result, "vivre.deals")["status"] == part(result, "vivre.activities")["status"] == "absent"


@pytest.mark.parametrize("code", [404, 405, 410])
def test_a_list_that_was_there_and_is_not_any_more_is_a_failure_and_deletes_nothing(
    code: int, tmp_path: Path
) -> None:
    with Sandbox(records=30, vivre=VivreSwitches(deals_listed=True)) as box:
        project = project_on(box, tmp_path)
        pulled(project)
        before = rows(project, "select id, _deleted_at from vivre.deals order by id")
        box.faults.add(Status(code), path=r"/deals\?", times=None)
        for full in (False, True):
            result = pulled(project, full=full)
            assert (result.exit_code, part(result, "vivre.deals")["status"]) == (1, "failed")
            assert "was there before" in part(result, "vivre.deals")["error"]
            assert part(result, "vivre.contacts")["status"] == "ok"
        assert rows(project, "select id, _deleted_at from vivre.deals order by id") == before


def test_deals_are_read_where_the_api_lists_them_and_paise_become_rupees(tmp_path: Path) -> None:
    with Sandbox(records=40, vivre=VivreSwitches(deals_listed=True, activities_listed=True)) as box:
        project = project_on(box, tmp_path)
        pulled(project)
        held = box.tenant("vivre").records("deals")
        paise = {each["id"]: each["value"] for each in held if each["value"] is not None}
        amounts = dict(rows(project, "select id, amount from crm.deals where amount is not null"))
        assert amounts == {
            key: (Decimal(value) / 100).quantize(Decimal("0.01")) for key, value in paise.items()
        }
        assert rows(project, "select distinct currency from crm.deals") == [("INR",)]
        assert rows(project, "select count(*) > 0 from crm.activities") == [(True,)]


def test_a_currency_without_minor_units_is_not_divided(tmp_path: Path) -> None:
    with Sandbox(records=40, vivre=VivreSwitches(deals_listed=True)) as box:
        project = project_on(box, tmp_path)
        connection = project.connections["vivre"]
        yen = replace(connection, options={**connection.options, "currency": "JPY", "minor_units": 0})
        pulled(replace(project, connections={"vivre": yen}))
        whole = rows(
            project,
            "select count(*) from crm.deals as view join vivre.deals as raw using (id)"
            " where view.amount <> raw.value",
        )
        assert whole == [(0,)]


def test_the_workspace_goes_with_every_request_and_must_be_set(tmp_path: Path) -> None:
    with Sandbox(records=10, vivre=VivreSwitches(workspace_header="required")) as box:
        assert pulled(project_on(box, tmp_path)).exit_code == 0
        from pipelines.settings import load_project

        settings = {key: value for key, value in box.settings().items() if "WORKSPACE_ID" not in key}
        with pytest.raises(ConfigError, match="workspace_id"):
            load_project(tmp_path, environ=settings).connection("vivre")


def test_fields_that_nobody_documents_are_kept(tmp_path: Path) -> None:
    with Sandbox(records=10, vivre=VivreSwitches(updated_at="shown")) as box:
        project = project_on(box, tmp_path)
        pulled(project)
        assert rows(project, "select count(*) from vivre.contacts where _extra->>'updated_at' is null") == [
            (0,)
        ]
