"""`roundtrip query`: reads the warehouse and nothing else, changes nothing, and shows texts harmlessly."""

import csv
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pipelines.query import query, read_statement
from pipelines.settings import Project, load_project
from pipelines.tabular import Guard
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError
from tests.conftest import run_roundtrip

HOSTILE = "=cmd|' /C calc'!A0"
COLOURED = "a\x1b[31mred\u202e"
ROWS = f"""
create table marts.people as select * from (values
    ('ann', 1200, 1.50::decimal(9, 2), timestamptz '2026-03-01 12:00:00+00', date '2026-03-01', ['a', 'b']),
    ('{HOSTILE.replace("'", "''")}', null, null, null, null, []),
    ('{COLOURED}', -3, 0.1, null, null, null)
) as t(name, score, amount, seen_at, day, tags)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    found = load_project(tmp_path_factory.mktemp("asked"), environ={})
    with Warehouse(found.warehouse).generation() as con:
        con.execute(ROWS)
    return found


def asked(project: Project, statement: str, shape: str = "table", *, is_raw: bool = False) -> str:
    shown = io.StringIO()
    with redirect_stdout(shown):
        text = query(project, statement, shape=shape, is_raw=is_raw).text
    return text + shown.getvalue()


# -- forms ---------------------------------------------------------------------------------------


def test_a_table_has_iso_times_plain_numbers_and_no_control_characters(project: Project) -> None:
    lines = asked(project, "select name, score, seen_at, tags from marts.people").splitlines()
    assert lines[0].split() == ["name", "score", "seen_at", "tags"]
    assert lines[1].split(maxsplit=3) == ["ann", "1200", "2026-03-01T12:00:00+00:00", '["a", "b"]']
    assert "a\\x1b[31mred\\u202e" in lines[3]


def test_csv_is_what_a_program_reads_back(project: Project) -> None:
    rows = list(csv.DictReader(io.StringIO(asked(project, "from marts.people", "csv"))))
    expected = {"name": "ann", "score": "1200", "amount": "1.50", "day": "2026-03-01", "tags": '["a", "b"]'}
    assert rows[0] == expected | {"seen_at": "2026-03-01T12:00:00+00:00"}
    assert (rows[1]["score"], rows[2]["score"]) == ("", "-3")


def test_csv_holds_no_formula_unless_it_is_asked_for(project: Project) -> None:
    statement = "select name from marts.people where name like '=%'"
    assert asked(project, statement, "csv") == f"name\n'{HOSTILE}\n"
    assert asked(project, statement, "csv", is_raw=True) == f"name\n{HOSTILE}\n"


@pytest.mark.parametrize("text", ["+49 170 123-45", "-5", "(030) 123", "ann", "a=b", "", "Ann Lee"])
def test_numbers_of_telephones_and_ordinary_texts_stay_as_they_are_in_csv(text: str) -> None:
    assert Guard().cell(text) == text


@given(st.text())
def test_no_cell_of_csv_begins_a_formula_that_could_call_anything(text: str) -> None:
    cell = Guard().cell(text)
    assert not cell.lstrip(" ").startswith(("=", "@", "\t", "\r", "\n"))
    assert cell in {text, f"'{text}"}
    if cell.startswith(("+", "-")):
        assert not any(character.isalpha() for character in cell)


def test_json_is_one_array_of_objects_in_ascii(project: Project) -> None:
    text = asked(project, "select name, amount, seen_at, name from marts.people", "json")
    assert text.isascii()
    assert "\x1b" not in text
    first, *_, last = json.loads(text)
    assert first == {"name": "ann", "amount": 1.5, "seen_at": "2026-03-01T12:00:00+00:00", "name_1": "ann"}
    assert last["name"] == COLOURED
    assert json.loads(asked(project, "from marts.people limit 0", "json")) == []


def test_parquet_goes_to_a_file_and_is_read_back(project: Project, tmp_path: Path) -> None:
    query(project, "from marts.people", shape="parquet", out=tmp_path / "p.parquet", limit=2)
    assert parquet.read_table(tmp_path / "p.parquet").column("name").to_pylist() == ["ann", HOSTILE]
    with pytest.raises(ConfigError, match="--out"):
        query(project, "from marts.people", shape="parquet")


@pytest.mark.parametrize(("shape", "lines"), [("table", 3), ("csv", 3), ("json", 4)])
def test_a_limit_holds_for_every_form(project: Project, tmp_path: Path, shape: str, lines: int) -> None:
    query(project, "from marts.people", shape=shape, out=tmp_path / "rows", limit=2)
    assert len((tmp_path / "rows").read_text().splitlines()) == lines


def test_a_long_table_ends_and_says_so(project: Project) -> None:
    lines = asked(project, "from range(200)").splitlines()
    assert (len(lines), lines[-1]) == (
        102,
        "… only the first 100 rows; --limit N shows more, --format csv all",
    )


# -- closed off ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "drop table marts.people",
        "insert into marts.people select * from marts.people",
        "create table marts.more (a int)",
        "copy marts.people to 'stolen.csv'",
        "select * from read_text('secrets.toml')",
        "select * from 'secrets.toml'",
        "select * from read_csv('http://127.0.0.1:9/x')",
        "select * from glob('*')",
        "attach 'other.duckdb'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "export database 'all'",
        "select 1; drop table marts.people",
        "explain analyze insert into marts.people select * from marts.people",
        "select * from project",
        "select getenv('HOME')",
        "pragma enable_profiling",
        "",
    ],
)
def test_nothing_but_reading_the_warehouse_is_possible(project: Project, statement: str) -> None:
    secrets = project.root / "secrets.toml"
    secrets.write_text("key")
    files, before = sorted(project.root.iterdir()), project.warehouse.read_bytes()
    with pytest.raises(ConfigError):
        query(project, statement)
    assert (sorted(project.root.iterdir()), project.warehouse.read_bytes()) == (files, before)


def test_a_file_is_replaced_whole_or_not_at_all_and_never_the_warehouse(
    project: Project, tmp_path: Path
) -> None:
    out = tmp_path / "kept.csv"
    out.write_text("before")
    with pytest.raises(ConfigError, match="Conversion Error"):
        query(project, "select name::int from marts.people", shape="csv", out=out)
    assert (out.read_text(), [each.name for each in tmp_path.iterdir()]) == ("before", ["kept.csv"])
    with pytest.raises(ConfigError, match="the warehouse itself"):
        query(project, "select 1", shape="csv", out=project.warehouse)


def test_a_query_runs_beside_a_run(project: Project) -> None:
    with Warehouse(project.warehouse).generation() as con:
        con.execute("create or replace table marts.other as select 1 as one")
        assert "ann" in asked(project, "select name from marts.people")


# -- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("select *\nfro marts.people", 'at or near "marts" (line 2, column 5)'),
        ("select nme\nfrom marts.people", '"nme" not found in FROM clause! (line 1, column 8). Candidate'),
        ("select " + "1, " * 60 + "nme from marts.people", "(line 1, column 188)"),
        ("select 'é', nme from marts.people", "(line 1, column 13)"),
        ("from marts.peeple", '(line 1, column 6). Did you mean "people"?'),
    ],
)
def test_a_mistake_in_sql_is_one_line_with_the_place(project: Project, statement: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        query(project, statement)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_statement_may_come_from_a_file_or_standard_input(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("select 2")
    assert read_statement(f"@{tmp_path / 'q.sql'}", io.StringIO()) == "select 2"
    assert read_statement("-", io.StringIO("select 3")) == "select 3"
    assert read_statement("select 1", io.StringIO()) == "select 1"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_statement(f"@{tmp_path / 'none.sql'}", io.StringIO())


def test_a_project_without_a_warehouse_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="roundtrip pull"):
        query(load_project(tmp_path, environ={}), "select 1")


def test_a_file_that_is_no_warehouse_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_text("not a database")
    with pytest.raises(ConfigError, match="not a DuckDB file"):
        query(load_project(tmp_path, environ={}), "select 1")


def test_a_warehouse_open_for_writing_elsewhere_is_said_in_one_line(project: Project) -> None:
    with duckdb.connect(str(project.warehouse)):
        done = run_roundtrip(project.root, "query", "select 1")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "open for writing" in done.stderr
