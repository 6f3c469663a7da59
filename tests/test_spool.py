"""Typing spooled rows: nothing the vendor sent is lost or bent."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.core.connector import CursorPages, Resource, columns
from sources.core.spool import Spool, SpoolError, Typed, type_rows

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
THINGS = Resource(
    "things",
    "/things",
    columns(
        id="text",
        leadScore="bigint",
        value="decimal",
        share="double",
        isOn="bool",
        updatedAt="timestamp",
        tags="json",
        name="text",
    ),
    CursorPages(100),
    updated="updatedAt",
)


def typed(folder: Path, *rows: dict[str, Any] | str) -> tuple[Typed, list[dict[str, Any]]]:
    spool = Spool(folder / "rows.ndjson")
    spool.append(msgspec.Raw((row if isinstance(row, str) else json.dumps(row)).encode()) for row in rows)
    spool.close()
    found = type_rows([spool.path], THINGS, folder / "rows.parquet", now=NOW)
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        cursor = con.execute(f"select * from read_parquet('{found.path}')")
        names = [each[0] for each in cursor.description]
        return found, [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_values_of_the_declared_type_land_in_their_columns(tmp_path: Path) -> None:
    _, [row] = typed(
        tmp_path,
        {
            "id": 7,
            "leadScore": 61,
            "value": "42000.50",
            "isOn": True,
            "updatedAt": "2026-03-01T12:00:00+02:00",
        },
    )
    assert row["id"] == "7"
    assert row["lead_score"] == 61
    assert str(row["value"]) == "42000.500000000"
    assert row["is_on"] is True
    assert row["updated_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert row["_extra"] is None


def test_a_fraction_never_becomes_a_whole_number(tmp_path: Path) -> None:
    found, [row] = typed(tmp_path, {"id": "a", "leadScore": 1.7})
    assert row["lead_score"] is None
    assert json.loads(row["_extra"]) == {"leadScore": 1.7}
    assert found.misfits == {"lead_score": 1}


def test_one_field_may_be_number_text_null_and_object_in_turn(tmp_path: Path) -> None:
    values: list[Any] = [1, 2.5, "n/a", None, {"a": 1}]
    _, rows = typed(tmp_path, *({"id": str(place), "leadScore": value} for place, value in enumerate(values)))
    assert [row["lead_score"] for row in rows] == [1, None, None, None, None]
    assert [json.loads(row["_extra"])["leadScore"] if row["_extra"] else None for row in rows] == [
        None,
        2.5,
        "n/a",
        None,
        {"a": 1},
    ]


def test_undeclared_fields_are_kept_whatever_their_name(tmp_path: Path) -> None:
    strange = {'a"b': 1, "c/d": [1, 2], "e~f": "x", "Zip": 1, "zip": 2, "with.dot": {"deep": None}}
    found, [row] = typed(tmp_path, {"id": "a", **strange})
    assert json.loads(row["_extra"]) == strange
    assert found.unknown == 1


def test_more_digits_than_the_column_holds_are_kept_in_extra(tmp_path: Path) -> None:
    _, [row] = typed(tmp_path, '{"id": "a", "value": 1.12345678901}')
    assert row["value"] is None
    assert json.loads(row["_extra"]) == {"value": 1.12345678901}


def test_hostile_and_very_long_texts_arrive_intact(tmp_path: Path) -> None:
    texts = [
        "'; drop table x; --",
        "=1+1",
        "\x1b[31mred",
        "naïve 日本 🎈",
        "x" * 200_000,
        'quote " and \\ slash',
        "two\nlines",
    ]
    _, rows = typed(tmp_path, *({"id": str(place), "name": text} for place, text in enumerate(texts)))
    assert [row["name"] for row in rows] == texts


def test_text_that_is_not_utf8_is_told_as_the_crms_fault(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "rows.ndjson")
    spool.append([msgspec.Raw(b'{"id": "1", "name": "M\xe4rz"}')])
    spool.close()
    with pytest.raises(SpoolError, match="sent text that is not UTF-8"):
        type_rows([spool.path], THINGS, tmp_path / "rows.parquet", now=NOW)


def test_a_row_written_over_several_lines_stays_one_row(tmp_path: Path) -> None:
    found, [row] = typed(tmp_path, '{\n  "id": "a",\r\n  "name": "x"\n}')
    assert (found.rows, row["name"]) == (1, "x")


def test_future_and_missing_stamps_are_counted_and_do_not_set_the_newest(tmp_path: Path) -> None:
    found, _ = typed(
        tmp_path,
        {"id": "a", "updatedAt": "2099-01-01T00:00:00Z"},
        {"id": "b", "updatedAt": None},
        {"id": "c", "updatedAt": "2026-02-01T00:00:00.5Z"},
    )
    assert (found.future, found.undated) == (1, 1)
    assert found.newest == datetime(2026, 2, 1, 0, 0, 0, 500000, UTC)


def test_the_hash_changes_with_any_value_and_not_with_the_order_of_keys(tmp_path: Path) -> None:
    _, rows = typed(
        tmp_path,
        '{"id": "a", "name": "x", "leadScore": 1}',
        '{"leadScore": 1, "name": "x", "id": "a"}',
        '{"id": "a", "name": "y", "leadScore": 1}',
        '{"id": "a", "name": "x", "leadScore": 1, "new": 0}',
    )
    hashes = [row["_row_hash"] for row in rows]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(
    record=st.dictionaries(
        st.sampled_from(["leadScore", "isOn", "tags", "name", "other", "x/y"]), json_values
    )
)
def test_no_value_is_lost_in_typing(tmp_path_factory: Any, record: dict[str, Any]) -> None:
    """Law: every value that is not null stands in its column or in `_extra`."""
    _, [row] = typed(tmp_path_factory.mktemp("law"), {"id": "a", **record})
    extra = json.loads(row["_extra"]) if row["_extra"] else {}
    for name, value in record.items():
        if value is None:
            continue
        column = {"leadScore": "lead_score", "isOn": "is_on", "tags": "tags", "name": "name"}.get(name)
        stored = row[column] if column else None
        if stored is None:
            assert extra[name] == value
        elif column == "tags" or (column == "name" and not isinstance(value, str)):
            assert json.loads(stored) == value
        elif column == "lead_score":
            assert stored == int(value)
        else:
            assert stored == value
