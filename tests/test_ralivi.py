"""What is odd about Ralivi, read through a pull; its page leaves each of these open."""

from pathlib import Path

import pytest

from pipelines.settings import Project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from sources.sandbox.ralivi_rules import RaliviSwitches
from tests.pulling import part, project_for, pulled, quick, rows


def project_on(box: Sandbox, folder: Path) -> Project:
    return quick(project_for(box, folder, "ralivi"))


def test_a_list_that_ends_with_an_empty_page_is_complete(tmp_path: Path) -> None:
    with Sandbox(records=100, ralivi=RaliviSwitches(ends_with_empty_page=True, short_page_every=2)) as box:
        assert part(pulled(project_on(box, tmp_path)), "ralivi.contacts")["new"] == 100


def test_a_cursor_that_repeats_ends_in_an_error_and_not_in_a_circle(tmp_path: Path) -> None:
    with Sandbox(records=400, ralivi=RaliviSwitches(cursor_repeats_on_page=2)) as box:
        result = pulled(project_on(box, tmp_path), "ralivi.contacts")
        assert result.exit_code == 1
        assert "cursor" in str(result.error)


@pytest.mark.parametrize("nulls", ["null", "missing"])
def test_an_empty_field_is_null_whether_it_is_sent_or_left_out(nulls: str, tmp_path: Path) -> None:
    with Sandbox(records=60, ralivi=RaliviSwitches(nulls=nulls)) as box:  # type: ignore[arg-type]
        project = project_on(box, tmp_path)
        pulled(project)
        untouched = "select count(*) > 0 from ralivi.contacts where last_touched_at is null"
        assert rows(project, untouched) == [(True,)]
        assert rows(project, "select count(*) from ralivi.contacts where _extra is not null") == [(0,)]


def test_the_closing_date_is_when_the_deal_was_first_seen_closed_and_later_edits_do_not_move_it(
    tmp_path: Path,
) -> None:
    with Sandbox(records=60) as box:
        project = project_on(box, tmp_path)
        pulled(project)
        tenant = box.tenant("ralivi")
        deal = next(each for each in tenant.records("deals") if each["stage"] == "negotiation")
        tenant.edit("deals", deal["id"], stage="closed-won")
        pulled(project)
        query = "select status, closed_at from crm.deals where id = ?"
        [(status, closed)] = rows(project, query, deal["id"])
        assert status == "won"
        tenant.edit("deals", deal["id"], title="Renamed since")
        pulled(project)
        assert rows(project, query, deal["id"]) == [("won", closed)]


def test_a_custom_stage_means_what_the_setting_says(tmp_path: Path) -> None:
    from dataclasses import replace

    with Sandbox(records=60, ralivi=RaliviSwitches(lost_stage="abandoned")) as box:
        project = project_on(box, tmp_path)
        connection = project.connections["ralivi"]
        named = replace(connection, options={**connection.options, "lost_stages": "Abandoned, gone cold"})
        pulled(replace(project, connections={"ralivi": named}))
        found = rows(project, "select distinct status from crm.deals where stage = 'abandoned'")
        assert found == [("lost",)]


def test_ralivi_is_refused_as_a_target_before_anything_is_asked(tmp_path: Path) -> None:
    from pipelines.settings import load_project

    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        '[syncs.up]\nconnection = "ralivi"\nobject = "contacts"\nmodel = "marts.x"\nkey = "email"\n'
        '[syncs.up.fields]\nname = "name"\n'
    )
    with Sandbox(records=5) as box:
        project = load_project(tmp_path, environ=box.settings())
        with pytest.raises(ConfigError, match="ralivi cannot be written to"):
            project.sync("up")
        assert box.requests == []
