"""Each CRM as an ordinary dlt source, in a pipeline that is not ours."""

from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

import sources
from sources.sandbox import Sandbox


@pytest.fixture(autouse=True)
def _quiet_dlt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.chdir(tmp_path)


def pipeline(folder: Path) -> Any:
    return dlt.pipeline(
        "library",
        pipelines_dir=str(folder / "work"),
        destination=dlt.destinations.duckdb(str(folder / "library.duckdb")),
        dataset_name="crm_copy",
    )


def ask(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "library.duckdb"), read_only=True) as con:
        return con.execute(query).fetchall()


def test_relm_runs_in_anybodys_pipeline_and_takes_its_settings_as_dlt_spells_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sources.relm import relm

    with Sandbox(records=120) as box:
        for name, value in box.settings().items():
            monkeypatch.setenv(name, value)
        pipeline(tmp_path).run(relm())
        assert ask(tmp_path, "select count(*), count(distinct id) from crm_copy.contacts") == [(120, 120)]


def test_a_source_keeps_out_what_its_settings_exclude_or_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sources.rally import rally

    with Sandbox(records=10) as box:
        privacy = {
            "SOURCES__RALLY__EXCLUDE": '["contacts.phone"]',
            "SOURCES__RALLY__HASH": '["contacts.email"]',
        }
        for name, value in (box.settings() | privacy | {"ROUNDTRIP__HASH_KEY": "k" * 32}).items():
            monkeypatch.setenv(name, value)
        pipeline(tmp_path).run(rally().with_resources("contacts"))
        kept = "select count(*), count(phone), count(*) filter (length(email) = 64) from crm_copy.contacts"
        assert ask(tmp_path, kept) == [(10, 0, 10)]


def test_a_second_run_of_a_pipeline_merges_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sources.rally import rally

    with Sandbox(records=120) as box:
        for name, value in box.settings().items():
            monkeypatch.setenv(name, value)
        pipeline(tmp_path).run(rally())
        person = box.tenant("rally").records("contacts")[0]
        box.tenant("rally").edit("contacts", person["id"], phone="+1 5")
        gone = box.tenant("rally").records("contacts")[1]
        box.tenant("rally").delete("contacts", gone["id"])
        box.requests.clear()
        pipeline(tmp_path).run(rally())
        assert ask(tmp_path, "select count(*) from crm_copy.contacts") == [(120,)]
        assert ask(tmp_path, f"select phone from crm_copy.contacts where id = '{person['id']}'") == [
            ("+1 5",)
        ]
        assert (gone["id"],) in ask(tmp_path, "select id from crm_copy.deletions where resource = 'contacts'")
        assert all("updatedSince" in each.query for each in box.requests if each.path.endswith("/contacts"))


@pytest.mark.parametrize("crm", sources.names())
def test_every_crm_is_importable_as_a_source_without_loading_dlt_first(crm: str) -> None:
    import subprocess
    import sys

    code = f"import sys; from sources.{crm} import {crm}; print('dlt' in sys.modules, callable({crm}))"
    root = Path(sources.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["False", "True"]


def test_a_missing_key_is_told_by_dlt_with_the_name_of_the_setting(tmp_path: Path) -> None:
    from dlt.common.configuration.exceptions import ConfigFieldMissingException

    from sources.relm import relm

    with pytest.raises(ConfigFieldMissingException, match="SOURCES__RELM__API_KEY"):
        relm()
