"""The models that come with Roundtrip, each over a handful of made-up records."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

import pipelines
from pipelines.modelfiles import about_of

MODELS = Path(pipelines.__file__).parent / "models"
TODAY = date(2026, 3, 1)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a warehouse whose views are tables, to be filled by hand."""
    with duckdb.connect() as made:
        made.execute("set TimeZone = 'UTC'")
        made.execute("set variable as_of = ?::date", [TODAY])
        made.execute("create schema crm; create schema roundtrip")
        made.execute(
            "create table crm.contacts (connection varchar, id varchar, email_key varchar, full_name varchar,"
            " phone varchar, company varchar, updated_at timestamptz)"
        )
        made.execute(
            "create table crm.deals (connection varchar, id varchar, title varchar, stage varchar,"
            " status varchar, amount decimal(18,2), currency varchar, owner varchar,"
            " expected_close_at timestamptz, created_at timestamptz, updated_at timestamptz)"
        )
        made.execute(
            "create table crm.activities (connection varchar, deal_id varchar, occurred_at timestamptz,"
            " created_at timestamptz)"
        )
        made.execute(
            "create table roundtrip.deal_stages (connection varchar, id varchar, entered_at timestamptz,"
            " left_at timestamptz)"
        )
        yield made


def fill(con: duckdb.DuckDBPyConnection, table: str, *records: dict[str, Any]) -> None:
    for record in records:
        names = ", ".join(record)
        con.execute(
            f"insert into {table} ({names}) values ({', '.join('?' * len(record))})", list(record.values())
        )


def model(con: duckdb.DuckDBPyConnection, name: str, columns: str) -> list[tuple[Any, ...]]:
    text = (MODELS / f"{name}.sql").read_text(encoding="utf-8")
    return con.execute(f"select {columns} from (\n{text}\n)").fetchall()


def person(connection: str, number: int, **values: Any) -> dict[str, Any]:
    return {"connection": connection, "id": str(number), **values}


def test_a_person_in_two_crms_is_matched_by_the_surest_reason_there_is(
    con: duckdb.DuckDBPyConnection,
) -> None:
    fill(
        con,
        "crm.contacts",
        person("rally", 1, email_key="a@x.example", full_name="Ada Byron", company="Acme"),
        person("relm", 1, email_key="a@x.example", full_name="Ada  BYRON", company="acme"),
        person("rally", 2, full_name="José Núñez", phone="+34 600 111 222"),
        person("relm", 2, full_name="Jose Nunez", phone="0034600111222"),
        person("rally", 3, full_name="Li Wei", company="Orbit"),
        person("relm", 3, full_name="li wei", company="ORBIT "),
    )
    found = model(con, "duplicate_contacts", "id, other_id, reason, connection, len(reasons)")
    assert found == [
        ("1", "1", "same address", "rally", 2),
        ("2", "2", "same telephone and name", "rally", 1),
        ("3", "3", "same name and company", "rally", 1),
    ]


def test_nobody_is_matched_within_one_crm_by_half_a_key_or_by_a_switchboard(
    con: duckdb.DuckDBPyConnection,
) -> None:
    fill(
        con,
        "crm.contacts",
        person("rally", 1, email_key="a@x.example", full_name="Ada Byron"),
        person("rally", 2, email_key="a@x.example", full_name="Ada Byron"),
        person("rally", 3, email_key="", full_name="Li Wei", phone="123", company=""),
        person("relm", 3, email_key="", full_name="Li Wei", phone="123", company=""),
        *(person("rally", 100 + each, full_name="Info", phone="555 0000000") for each in range(8)),
        *(person("relm", 100 + each, full_name="Info", phone="555 0000000") for each in range(8)),
    )
    assert model(con, "duplicate_contacts", "*") == []


def deal(number: int, day: str, **values: Any) -> dict[str, Any]:
    return {"connection": "relm", "id": str(number), "status": "open", "created_at": day, **values}


def test_an_open_deal_without_a_sign_of_life_for_thirty_days_is_stale(con: duckdb.DuckDBPyConnection) -> None:
    fill(
        con,
        "crm.deals",
        deal(1, "2025-12-01"),
        deal(2, "2025-12-01", updated_at="2026-02-20"),
        deal(3, "2025-12-01"),
        deal(4, "2025-12-01"),
        deal(5, "2025-12-01", status="won"),
        deal(6, "2025-12-01", expected_close_at="2026-02-01", updated_at="2026-01-30"),
    )
    fill(con, "crm.activities", {"connection": "relm", "deal_id": "3", "occurred_at": "2026-04-01"})
    fill(con, "roundtrip.deal_stages", {"connection": "relm", "id": "4", "entered_at": "2026-02-25"})
    assert model(con, "stale_deals", "id, quiet_days, is_overdue") == [("1", 90, None), ("6", 30, True)]


@pytest.mark.parametrize("path", sorted(MODELS.glob("[a-z]*.*")), ids=lambda path: str(path.stem))
def test_every_model_says_what_it_is_for(path: Path) -> None:
    assert len(about_of(path)) > 20


def test_the_models_of_a_new_project_are_those_of_the_package(tmp_path: Path) -> None:
    from pipelines.starter import init

    init(tmp_path, MODELS)
    names = {path.name for path in MODELS.glob("[a-z]*.*")}
    assert {path.name for path in (tmp_path / "pipelines" / "models").iterdir()} == names
