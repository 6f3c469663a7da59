"""The data dictionary: no table or column without a text, in the warehouse as on the page."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

import pipelines
import sources
from pipelines import dictionary
from pipelines.enrich import enrich
from pipelines.progress import SilentProgress
from pipelines.settings import Project
from pipelines.warehouse import Warehouse, sql
from sources.core.vocabulary import COLUMNS, about_column
from sources.sandbox import Sandbox
from tests.pulling import project_for, pulled, rows

PAGE = Path(pipelines.__file__).parent / "DICTIONARY.md"

SILENT = """
select schema_name, table_name, column_name from duckdb_columns()
where database_name = current_catalog() and not internal and schema_name <> 'marts' and comment is null
union all
select schema_name, table_name, '' from duckdb_tables()
where database_name = current_catalog() and not internal and schema_name <> 'marts' and comment is null
union all
select schema_name, view_name, '' from duckdb_views()
where database_name = current_catalog() and not internal and schema_name <> 'marts' and comment is null
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(records=5) as made:
        yield made


@pytest.fixture(scope="module")
def project(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Pull, change a record, and pull again through dlt's merge."""
    made = project_for(box, tmp_path_factory.mktemp("dictionary"), "relm", "rally")
    pulled(made, "relm.contacts", "rally.contacts")
    tenant = box.tenant("relm")
    tenant.edit("contacts", tenant.records("contacts")[0]["id"], phone="+1 555 0100")
    assert pulled(made, "relm.contacts", "relm.deals").exit_code == 0
    return made


def test_every_table_and_column_has_a_comment_after_merges_and_models(project: Project) -> None:
    assert rows(project, SILENT) == []
    (project.root / "models").mkdir(exist_ok=True)
    (project.root / "models" / "one.sql").write_text("select 1 as n")
    enrich(replace(project, models=project.root / "models"), progress=SilentProgress())
    assert rows(project, SILENT) == []


def test_comments_say_what_the_page_says(project: Project) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for schema, table, column, comment in rows(
        project,
        "select schema_name, table_name, column_name, comment from duckdb_columns()"
        " where database_name = current_catalog() and not internal and schema_name <> 'marts'"
        " and not starts_with(table_name, '_dlt')",
    ):
        assert f"| {comment} |" in page, (schema, table, column)


def test_comments_are_written_once(project: Project) -> None:
    with Warehouse(project.warehouse).generation() as con:
        assert dictionary.write_comments(con) == 0
        con.execute("comment on column relm.contacts.email is 'mine'")
        assert dictionary.write_comments(con) == 1


def test_a_column_kept_out_of_sight_says_so(project: Project) -> None:
    with Warehouse(project.warehouse).generation() as con:
        con.execute(
            """update roundtrip.connections set privacy = '{"exclude": ["contacts.phone"], "hash": []}'"""
            " where connection = 'relm'"
        )
        dictionary.write_comments(con)
        found = con.execute(
            "select comment from duckdb_columns()"
            " where schema_name = 'relm' and table_name = 'contacts' and column_name = 'phone'"
        ).fetchone()
        con.execute("update roundtrip.connections set privacy = null")
        dictionary.write_comments(con)
    assert found == ("Telephone number, as it was typed; kept out by `exclude`",)


def test_the_page_is_the_one_that_the_module_writes() -> None:
    made = io.StringIO()
    dictionary.write_page(made)
    assert made.getvalue() == PAGE.read_text(encoding="utf-8"), (
        "run `python -m pipelines.dictionary > pipelines/DICTIONARY.md`"
    )


@pytest.mark.parametrize("crm", sources.names())
def test_every_column_of_a_crm_has_words_of_its_own_or_of_the_vocabulary(crm: str) -> None:
    for contract in sources.load(crm).contracts.values():
        for resource in contract.resources:
            silent = [
                column.source
                for column in resource.columns
                if column.name not in COLUMNS and about_column(resource, column).startswith("The CRM's field")
            ]
            assert silent == [], f"{resource.name}: add them to sources.core.vocabulary, or to its notes"
            declared = {column.source for column in resource.columns}
            assert set(resource.notes) <= declared


def test_every_column_of_our_own_tables_has_words() -> None:
    with duckdb.connect() as con:
        con.execute(sql("schema.sql"))
        present = con.execute(
            "select table_name, column_name from duckdb_columns() where schema_name = 'roundtrip'"
        ).fetchall()
    silent = {(table, name) for table, name in present if name not in dictionary.own_texts(table)}
    assert silent == set(), "describe them in pipelines/dictionary.py"
    assert {table for table, _ in present} == set(dictionary.OWN_TABLES)
