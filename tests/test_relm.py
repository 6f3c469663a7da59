"""What is odd about Relm: two contracts under one name, and no change stamp that is documented."""

from pathlib import Path

import pytest

from pipelines.settings import load_project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from tests.pulling import part, project_for, pulled, rows


def settings(key: str, url: str, **more: str) -> dict[str, str]:
    return {"SOURCES__RELM__API_KEY": key, "SOURCES__RELM__BASE_URL": url} | more


@pytest.mark.parametrize(
    ("key", "dialect"),
    [
        ("sk_live_1", "classic"),
        ("sk_test_1", "classic"),
        ("relm_live_1", "modern"),
        ("relm_test_1", "modern"),
    ],
)
def test_the_prefix_of_the_key_tells_the_contract(key: str, dialect: str, tmp_path: Path) -> None:
    import sources

    url = "https://api.relmcrm.com/v1" if dialect == "modern" else "https://relmcrm.com"
    connection = load_project(tmp_path, environ=settings(key, url)).connection("relm")
    assert sources.load("relm").contract(connection).name == dialect


def test_a_key_of_one_contract_at_the_others_address_is_refused(tmp_path: Path) -> None:
    project = load_project(tmp_path, environ=settings("relm_live_1", "https://relmcrm.com"))
    with pytest.raises(ConfigError, match=r"api\.relmcrm\.com/v1"):
        project.connection("relm")


def test_modern_lists_are_read_with_deleted_records_shown_as_gone(tmp_path: Path) -> None:
    with Sandbox(records=120, also={"relm_modern": "relm_modern"}) as box:
        project = project_for(box, tmp_path, "relm_modern")
        assert pulled(project).exit_code == 0
        person = box.tenant("relm_modern").records("contacts")[0]
        box.tenant("relm_modern").delete("contacts", person["id"])
        assert part(pulled(project), "relm_modern.contacts")["deleted"] == 1
        live = "select count(*) from crm.contacts where connection = 'relm_modern' and id = ?"
        assert rows(project, live, person["id"]) == [(0,)]
        kept = "select first_name from relm_modern.contacts where id = ?"
        assert rows(project, kept, person["id"]) == [(person["first_name"],)]


def test_a_modern_deal_means_what_the_type_of_its_stage_says(tmp_path: Path) -> None:
    with Sandbox(records=120, also={"relm_modern": "relm_modern"}) as box:
        project = project_for(box, tmp_path, "relm_modern")
        pulled(project)
        wrong = rows(
            project,
            "select count(*) from crm.deals as deal join relm_modern.deals as raw using (id)"
            " where deal.status <> raw.stage_type",
        )
        assert wrong == [(0,)]
        assert len(rows(project, "select distinct status from crm.deals")) == 3


def test_both_contracts_stand_side_by_side_as_two_connections(tmp_path: Path) -> None:
    with Sandbox(records=30, also={"relm_modern": "relm_modern"}) as box:
        project = project_for(box, tmp_path, "relm", "relm_modern")
        pulled(project)
        found = rows(
            project, "select connection, crm, count(*) > 0 from crm.contacts group by all order by 1"
        )
        assert found == [("relm", "relm", True), ("relm_modern", "relm", True)]
