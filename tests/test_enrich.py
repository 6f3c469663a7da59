"""`roundtrip enrich`: models in their order, and a failure that costs only its own table."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from pipelines.enrich import EnrichResult, enrich
from pipelines.progress import SilentProgress
from pipelines.settings import Project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from tests.pulling import project_for, pulled, rows


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Sandbox(records=60) as box:
        made = project_for(box, tmp_path)
        pulled(made)
        yield made


def built(project: Project, *names: str, as_of: date | None = None) -> EnrichResult:
    return enrich(project, names, progress=SilentProgress(), as_of=as_of)


def with_models(project: Project, **files: str) -> Project:
    folder = project.root / "pipelines" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    from dataclasses import replace

    return replace(project, models=folder)


def test_each_person_over_both_crms_gets_one_score_between_0_and_100(project: Project) -> None:
    assert built(project).exit_code == 0
    people = rows(project, "select count(distinct email_key) from crm.contacts where email_key like '%_@_%'")
    assert rows(project, "select count(*), count(distinct email_key) from marts.enriched_leads") == [
        people[0] * 2
    ]
    assert rows(
        project, "select count(*) from marts.enriched_leads where lead_score not between 0 and 100"
    ) == [(0,)]


def test_more_recent_activity_never_lowers_a_score(project: Project) -> None:
    built(project, as_of=date(2030, 1, 1))
    old = dict(rows(project, "select email_key, lead_score from marts.enriched_leads"))
    built(project)
    new = dict(rows(project, "select email_key, lead_score from marts.enriched_leads"))
    assert all(new[key] >= old[key] for key in old)
    assert any(new[key] > old[key] for key in old)


def test_models_are_built_after_those_they_read_from(project: Project) -> None:
    changed = with_models(
        project,
        a_last__sql="select n + 1 as n from marts.middle",
        middle__py="INPUTS = {'first': 'marts.z_first'}\n\ndef build(first):\n    return first * 2\n",
        z_first__sql="select 20 as n",
    )
    assert [model.name for model in built(changed).models] == ["z_first", "middle", "a_last"]
    assert rows(changed, "select n from marts.a_last") == [(41,)]


def test_a_model_that_fails_keeps_its_old_table_and_those_that_read_it_are_left(project: Project) -> None:
    good = with_models(
        project,
        first__sql="select 1 as n",
        second__sql="select n from marts.first",
        third__sql="select 3 as n",
    )
    built(good)
    bad = with_models(project, first__sql="select 1 as n,\n  nothing_of_that_name\nfrom crm.contacts")
    result = built(bad)
    assert {model.name: model.status for model in result.models} == {
        "first": "failed",
        "second": "skipped",
        "third": "ok",
    }
    assert result.exit_code == 1
    assert "line 2" in str(result.error)
    assert rows(bad, "select n from marts.first") == [(1,)]


def test_a_python_model_that_fails_tells_its_line(project: Project) -> None:
    broken = with_models(project, broken__py="INPUTS = {}\n\ndef build():\n    return 1 / 0\n")
    assert "broken.py line 4" in str(built(broken, "broken").error)


def test_models_that_read_each_other_are_refused(project: Project) -> None:
    circle = with_models(project, one__sql="select * from marts.two", two__sql="select * from marts.one")
    with pytest.raises(ConfigError, match="circle"):
        built(circle)


def test_an_unknown_model_is_named_with_those_there_are(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"no model 'leads'. There are: enriched_leads, lead_signals"):
        built(project, "leads")
