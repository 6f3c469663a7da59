"""A connection that speaks another contract than its tables were made by: read anew, nothing mixed up."""

from pathlib import Path

from pipelines.settings import Project, load_project
from sources.sandbox import Sandbox
from tests.pulling import environ_of, part, pulled, rows


def project_of(box: Sandbox, folder: Path, version: str) -> Project:
    return load_project(folder, environ=environ_of(box) | {"SOURCES__REEVO__API_VERSION": version})


def test_what_another_contract_has_read_is_read_again_whole(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        pulled(project_of(box, tmp_path, "v2"), "reevo.contacts")
        pulled(project_of(box, tmp_path, "v1"), "reevo.accounts", "reevo.contacts", accept_deletes=True)
        again = project_of(box, tmp_path, "v2")
        assert pulled(again, "reevo.contacts").exit_code == 0
        without = "select count(*) from reevo.contacts where _deleted_at is null and updated_at is null"
        assert rows(again, without) == [(0,)]
        quiet = part(pulled(again, "reevo.contacts"), "reevo.contacts")
        assert (quiet["status"], quiet["rows"] < 20) == ("ok", True)


def test_a_table_of_another_contract_stands_in_no_ones_way(tmp_path: Path) -> None:
    with Sandbox(records=20) as box:
        pulled(project_of(box, tmp_path, "v2"), "reevo", "relm.contacts")
        box.tenant("relm").edit("contacts", box.tenant("relm").records("contacts")[0]["id"], phone="new")
        other = project_of(box, tmp_path, "v1")
        result = pulled(other, "reevo.opportunities", "relm.contacts")
        assert result.exit_code == 0
        assert rows(other, "select count(*) from crm.contacts where phone = 'new'") == [(1,)]
        assert rows(other, "select count(*) > 0 from crm.contacts where connection = 'reevo'") == [(True,)]
