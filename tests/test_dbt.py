"""A dbt project over the warehouse, set up as the first page says; needs `dbt` with dbt-duckdb on PATH."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from sources.sandbox import Sandbox
from tests.conftest import REPOSITORY
from tests.pulling import project_for, pulled, rows

DBT = shutil.which("dbt")
PROJECT = """
name: leads
version: "1.0"
profile: roundtrip
models: {+materialized: table}
"""


@pytest.mark.skipif(
    DBT is None, reason="dbt is not installed: put an environment with dbt-duckdb on the path"
)
def test_a_dbt_project_builds_tables_from_the_warehouse(tmp_path: Path) -> None:
    with Sandbox(records=5) as box:
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## With dbt")[1]
    profile, sources = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[:2]
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text(PROJECT)
    (tmp_path / "profiles.yml").write_text(profile)
    (tmp_path / "models" / "sources.yml").write_text(sources)
    (tmp_path / "models" / "people.sql").write_text("select * from {{ source('crm', 'contacts') }}")
    done = subprocess.run(
        [str(DBT), "run", "--profiles-dir", "."],
        cwd=tmp_path,
        env=os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    with duckdb.connect(str(tmp_path / "dbt.duckdb"), read_only=True) as con:
        [(people,)] = con.execute("select count(*) from people").fetchall()
    assert people == rows(project, "select count(*) from crm.contacts")[0][0] > 0
