"""The first page, tried: commands are taken, tables are there, SQL runs, settings are read."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.cli import COMMANDS
from pipelines.enrich import enrich
from pipelines.layers import CONFIG
from pipelines.notify import message
from pipelines.progress import SilentProgress
from pipelines.query import query
from pipelines.settings import Project, load_project
from sources.sandbox import Sandbox
from tests.conftest import REPOSITORY
from tests.pulling import project_for, pulled
from tests.taking import options_of, take

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
NAMES = {command.__name__ for command in COMMANDS}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


CONSOLE = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
SPOKEN = re.findall(r"`(roundtrip [a-z][^`]*)`", README)
SQL = [*blocks("sql"), *(shlex.split(line)[2] for line in CONSOLE if line.startswith("roundtrip query"))]


@dataclass
class Ended:
    """How a command ended."""

    run_id: str | None = None
    status: str = "failed"
    exit_code: int = 1
    error: str | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        return self.told


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make a warehouse as the page's reader has one: pulled and enriched."""
    with Sandbox(records=4) as box:
        found = project_for(box, tmp_path_factory.mktemp("reader"), "relm")
        pulled(found, "relm")
    assert enrich(found, progress=SilentProgress()).exit_code == 0
    return found


# -- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [line for line in CONSOLE if not line.startswith("export ")])
def test_a_command_line_of_the_page_is_taken_as_it_stands(line: str) -> None:
    assert take(line) in NAMES


@pytest.mark.parametrize("words", sorted(set(SPOKEN)))
def test_a_command_named_in_a_sentence_exists_with_its_options(words: str) -> None:
    name, *more = words.split()[1:]
    assert name in NAMES
    assert {word for word in more if word.startswith("--")} <= options_of(name)


@pytest.mark.parametrize("module", sorted(set(re.findall(r"(?:-m |`)(tests\.benchmarks\.\w+)", README))))
def test_a_benchmark_of_the_page_exists(module: str) -> None:
    assert (REPOSITORY / f"{module.replace('.', '/')}.py").exists()


def test_the_pages_that_it_points_to_are_there() -> None:
    targets = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert [each for each in targets if not (REPOSITORY / each).exists()] == []


# -- tables --------------------------------------------------------------------------------------


def test_every_table_that_the_page_names_is_in_the_warehouse(project: Project) -> None:
    named = set(re.findall(r"`((?:crm|roundtrip|marts)\.\w+)`", README)) - {"roundtrip.env"}
    assert {"crm.contacts", "roundtrip.push_log"} <= named
    with duckdb.connect(str(project.warehouse), read_only=True) as con:
        found = con.execute("select schema_name || '.' || table_name from duckdb_tables()").fetchall()
        found += con.execute("select schema_name || '.' || view_name from duckdb_views()").fetchall()
    assert named - {name for (name,) in found} == set()


@pytest.mark.parametrize("statement", SQL)
def test_the_sql_of_the_page_runs(project: Project, statement: str) -> None:
    assert query(project, statement).text


def test_the_models_of_the_page_are_those_that_are_built(project: Project) -> None:
    [block] = [block for block in blocks("console") if block.startswith("$ roundtrip enrich")]
    shown = {line.split()[0] for line in block.splitlines()[2:]}
    with duckdb.connect(str(project.warehouse), read_only=True) as con:
        rows = con.execute("select table_name from duckdb_tables() where schema_name = 'marts'").fetchall()
    assert shown == {name for (name,) in rows}


# -- settings ------------------------------------------------------------------------------------


def test_the_settings_of_the_page_are_read(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / CONFIG).write_text("\n".join(blocks("toml")), encoding="utf-8")
    keys = {"SOURCES__RELM__API_KEY": "sk_1", "SOURCES__RALLY__API_KEY": "rk_1"}
    needed = {
        "SOURCES__RALLY__BASE_URL": "https://acme.rallycrm.io/api/v1",
        "ROUNDTRIP__HASH_KEY": "long " * 8,
    }
    told = {"ROUNDTRIP__NOTIFY__URL": "https://hooks.example/1"}  # the page shortens it
    project = load_project(tmp_path, environ=keys | needed | told)
    assert project.sync("leads_to_relm").key == "email"
    assert project.connection("rally").crm == "rally"
    assert project.alarms.command == ("mail-it", "--to", "ops")


def test_the_keys_of_the_message_are_those_that_the_page_lists(project: Project) -> None:
    [table] = re.findall(r"\| key \| what it holds \|\n\| --- \| --- \|\n(.*?)\n\n", README, flags=re.DOTALL)
    listed = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert listed == list(message(project, "pull", Ended(), events=[]))


def test_the_settings_of_the_environment_are_those_that_are_read(tmp_path: Path) -> None:
    rows = re.findall(r"^\| .* \| .* \| `([A-Z_]+)(?:=.*)?` \|$", README, flags=re.MULTILINE)
    assert len(rows) == 5
    assert {row.split("__")[0] for row in rows} == {"SOURCES", "ROUNDTRIP", "DESTINATION"}
