"""`roundtrip enrich`: models in their order, and a failure that costs only its own table."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from pipelines.enrich import EnrichResult, enrich
from pipelines.progress import SilentProgress
from pipelines.render import error_lines
from pipelines.settings import Project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from tests.pulling import project_for, pulled, rows


@pytest.fixture(scope="module")
def pulled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with Sandbox(records=60) as box:
        made = project_for(box, tmp_path_factory.mktemp("pulled"), "relm", "rally", "vivre")
        pulled(made, *(f"{name}.{each}" for name in ("relm", "rally") for each in ("deals", "activities")))
        pulled(made, "relm.contacts", "rally.contacts", "vivre.contacts")
        yield made


@pytest.fixture
def project(pulled_once: Project, tmp_path: Path) -> Project:
    """Give each test a copy of the warehouse."""
    own = replace(pulled_once, root=tmp_path, warehouse=tmp_path / "warehouse.duckdb")
    shutil.copyfile(pulled_once.warehouse, own.warehouse)
    return own


def built(project: Project, *names: str, as_of: date | None = None) -> EnrichResult:
    return enrich(project, names, progress=SilentProgress(), as_of=as_of)


def with_models(project: Project, **files: str) -> Project:
    folder = project.root / "pipelines" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
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
    told = error_lines(result)
    assert "(first.sql line 2, column 3)" in told[0]
    assert told[1:] == ["marts.second is left as it was, since first failed"]
    assert rows(bad, "select n from marts.first") == [(1,)]


def test_a_python_model_that_fails_tells_its_line(project: Project) -> None:
    broken = with_models(project, broken__py="INPUTS = {}\n\ndef build():\n    return 1 / 0\n")
    assert "broken.py line 4" in str(built(broken, "broken").error)


def test_models_that_read_each_other_are_refused(project: Project) -> None:
    circle = with_models(project, one__sql="select * from marts.two", two__sql="select * from marts.one")
    with pytest.raises(ConfigError, match="circle"):
        built(circle)


def test_an_unknown_model_is_named_with_those_there_are(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"no model 'leads'. There are: .*enriched_leads, lead_signals"):
        built(project, "leads")


def test_a_model_is_found_to_read_another_however_it_is_written(project: Project) -> None:
    made = with_models(
        project,
        a__sql='with marts as (select 1) select * from "marts"."Odd name"',
        b__py="INPUTS = {'x': 'select n from MARTS.a -- and marts.c'}\n\ndef build(x):\n    return x\n",
        c__sql="-- not marts.a but\nselect 'marts.b' as n",
    )
    (made.models / "Odd name.sql").write_text("select 1 as n")
    assert {model.name: model.reads for model in built(made).models} == {
        "Odd name": set(),
        "a": {"Odd name"},
        "b": {"a"},
        "c": set(),
    }


def test_a_pandas_model_gets_what_it_asks_for(project: Project) -> None:
    asked = "INPUTS = {'people': 'crm.contacts', 'top': 'select max(amount) as most from crm.deals'}\n\n"
    body = "def build(people, top, as_of):\n    return top.assign(people=len(people), day=str(as_of))\n"
    made = with_models(project, asks__py=asked + body)
    assert built(made, "asks", as_of=date(2026, 1, 2)).exit_code == 0
    assert rows(made, "select people, day, most from marts.asks") == rows(
        made, "select (select count(*) from crm.contacts), '2026-01-02', max(amount)::double from crm.deals"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("INPUTS = {}\n\ndef build(people):\n    return people\n", "build asks for people"),
        ("INPUTS = {'people': 'crm.contacts'}\n\ndef build():\n    return 1\n", "INPUTS names people"),
        ("INPUTS = {'x': 'crm.nobody'}\n\ndef build(x):\n    return x\n", "INPUTS['x']: Catalog Error"),
        ("def build():\n    return 1\n", "must hold INPUTS"),
        ("INPUTS = {}\n\ndef build(:\n    return 1\n", "line 3, column 11"),
    ],
)
def test_what_is_wrong_with_a_python_model_is_told(project: Project, text: str, told: str) -> None:
    assert told in str(built(with_models(project, asks__py=text), "asks").error)


def test_an_error_tells_its_place_and_no_value_of_a_row(project: Project) -> None:
    made = with_models(
        project,
        bad__sql="select\n  email,\n  cast(email as integer) as n\nfrom crm.contacts where email like '%@%'",
        worse__py="INPUTS = {'x': 'crm.contacts'}\n\ndef build(x):\n    return int(x['email'].dropna()[0])\n",
        wrong__sql="select 1,, 2",
        two__sql="select 1; drop schema crm cascade",
    )
    errors = {model.name: str(model.error) for model in built(made).models}
    assert "bad.sql line 3, column 3" in errors["bad"]
    assert "worse.py line 4" in errors["worse"]
    assert "wrong.sql line 1, column 10" in errors["wrong"]
    assert "2 statements" in errors["two"]
    assert not any("@" in each for each in errors.values())


def test_two_files_of_one_name_are_refused(project: Project) -> None:
    made = with_models(project, one__sql="select 1 as n", one__py="INPUTS = {}\n")
    with pytest.raises(ConfigError, match="two models are named one"):
        built(made)


def test_each_model_tells_rows_and_time_and_what_it_is_for(project: Project) -> None:
    made = with_models(project, one__sql="-- The number\n-- one.\nselect 1 as n")
    assert built(made).models[0].rows == 1
    assert built(made).payload()["models"][0]["took_s"] >= 0
    assert rows(made, "select comment from duckdb_tables() where table_name = 'one'") == [
        ("The number one.",)
    ]
