"""Types: whatever a CRM puts into a field, nothing is lost, bent or aborted, and all of it is visible."""

import json
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.core.spool import Spool, type_rows
from sources.rally import CONTACTS, DEALS
from sources.sandbox import Sandbox
from sources.sandbox.relm_rules import RelmSwitches
from tests.hostile import Recast, each_row, whole_second
from tests.pulling import part, project_for, pulled, rows

PATH = r"/contacts\?"


def _score(value: Any, row: dict[str, Any]) -> None:
    row["leadScore"] = value


def test_one_field_that_changes_its_type_five_times_loses_no_value(tmp_path: Path) -> None:
    sent: list[Any] = [1, 2.5, "n/a", None, {"a": 1}]
    with Sandbox(records=3) as box:
        project = project_for(box, tmp_path, "rally")
        shown = []
        for value in sent:
            box.faults.clear()
            box.faults.add(each_row(partial(_score, value)), path=PATH, times=None)
            result = pulled(project, "rally.contacts", full=True)
            misfits = part(result, "rally.contacts")["counts"]["misfits"]
            (row,) = set(rows(project, "select lead_score, _extra from rally.contacts"))
            shown.append((result.exit_code, row[0], json.loads(row[1] or "{}"), misfits))
        assert shown == [
            (0, 1, {}, 0),
            (0, None, {"leadScore": 2.5}, 3),
            (0, None, {"leadScore": "n/a"}, 3),
            (0, None, {}, 0),
            (0, None, {"leadScore": {"a": 1}}, 3),
        ]
        history = rows(
            project,
            "select count(*) from roundtrip.changes where field in ('lead_score', '_extra')",
        )
        assert history[0][0] == 3 * (2 + 1 + 1 + 1)


def test_fields_nobody_declared_are_kept_in_extra_as_they_were_sent(tmp_path: Path) -> None:
    strange = {"brandNew": [1, {"x": None}], 'we"ird.key/~': "ü", "nested": {"deep": {"er": 1.50}}}
    with Sandbox(records=3) as box:
        box.faults.add(each_row(lambda row: row.update(strange)), path=PATH, times=None)
        project = project_for(box, tmp_path, "rally")
        assert part(pulled(project, "rally.contacts"), "rally.contacts")["counts"]["extra"] == 3
        (extra,) = rows(project, "select distinct _extra from rally.contacts")[0]
        assert json.loads(extra) == strange


def test_unicode_long_and_hostile_texts_arrive_to_the_letter(tmp_path: Path) -> None:
    texts = [
        "Łukasz 山田 👩‍👩‍👧 \u202eright\u202c e\u0301 \u00e9",
        "'; drop table rally.contacts; --",
        '"quoted", back\\slash, {brace} ${var} %s',
        "line\nbreak\r\n\ttab\u2028sep\u0085",
        "=cmd|'/c calc'!A0",
        "x" * 1_000_000,
        "",
        " null ",
        "2026-01-01T00:00:00Z",
    ]
    with Sandbox(records=len(texts)) as box:
        people = [row["id"] for row in box.tenant("rally").records("contacts")]
        for person, text in zip(people, texts, strict=True):
            box.tenant("rally").edit("contacts", person, department=text)
        project = project_for(box, tmp_path, "rally")
        assert pulled(project, "rally.contacts").exit_code == 0
        stored = dict(rows(project, "select id, department from rally.contacts"))
        assert [stored[person] for person in people] == texts


@pytest.mark.parametrize("sent", ["0.1", "123456789012345.67", "9007199254740993", "1e3", "-0.005"])
def test_a_number_of_money_is_not_rounded(sent: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "rows.ndjson")
    spool.append([msgspec.Raw(f'{{"id": "1", "value": {sent}}}'.encode())])
    spool.close()
    type_rows([spool.path], DEALS, tmp_path / "rows.parquet", now=whole_second())
    with duckdb.connect() as con:
        found = con.execute(
            f"select value, _extra from read_parquet('{tmp_path / 'rows.parquet'}')"
        ).fetchone()
    assert found == (Decimal(sent), None)


def test_the_same_id_twice_in_one_list_is_one_row(tmp_path: Path) -> None:
    with Sandbox(records=5, relm=RelmSwitches(updated_at="hidden")) as box:

        def double(body: Any) -> Any:
            return body | {"data": body["data"] + [row | {"phone": "twin"} for row in body["data"]]}

        box.faults.add(Recast(double), path=PATH, times=None)
        project = project_for(box, tmp_path, "relm")
        pulled(project, "relm.contacts")
        assert rows(
            project, "select count(*), count(distinct id), min(phone), max(phone) from relm.contacts"
        ) == [(5, 5, "twin", "twin")]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = [column.source for column in CONTACTS.columns if column.source != "id"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=st.dictionaries(st.sampled_from([*_NAMES, "odd", "_extra"]), _JSON, max_size=4))
def test_no_value_of_any_json_type_is_lost_in_any_column(
    values: dict[str, Any], tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder / "rows.ndjson")
    spool.append([msgspec.Raw(json.dumps({"id": "1", **values}).encode())])
    spool.close()
    type_rows([spool.path], CONTACTS, folder / "rows.parquet", now=whole_second())
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        found = con.execute(f"select * from read_parquet('{folder / 'rows.parquet'}')").fetchall()
        names = [each[0] for each in con.description or []]
    (row,) = (dict(zip(names, each, strict=True)) for each in found)
    extra = json.loads(row["_extra"] or "{}")
    for name, value in values.items():
        column = next((each.name for each in CONTACTS.columns if each.source == name), None)
        is_kept = name in extra or (column is not None and row[column] is not None)
        assert is_kept or value is None, (name, value, row)
