"""Laws of the plan: a quick plan is the thorough one, and a push does what its plan says."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sources
from pipelines.pushing.mapping import read_mapping
from pipelines.pushing.matching import Target
from pipelines.pushing.outbox import compose
from pipelines.syncs import FieldRule, Sync
from pipelines.warehouse import columns_in, sql
from sources.core.connector import Connection
from sources.sandbox import Sandbox
from tests.pushing import EVENING, MORNING, NOON, Shop

# -- a quick plan is the thorough one ------------------------------------------------------------

# What can be the case with one person: the model's rows, the CRM's records, what was sent and shown.
_MODEL = ((), ("Ann",), ("Bea",), (None,), ("",), ("Ann", "Ann"), ("Ann", "Bea"))
_MIRROR = ((), (("Ann", False),), (("Bea", False),), ((None, False),), (("Ann", True),),
           (("Ann", False), ("Ann", False)), (("Ann", False), ("Ann", True)))  # fmt: skip
_LEDGER = (
    None,
    *(
        (which, sent, echo, pushed_at, echo_at)
        for which in ("same", "other", None)
        for sent in ("Ann", "Bea")
        for echo, echo_at in ((None, None), ("Ann", MORNING), ("Bea", NOON), ("Ann", EVENING))
        for pushed_at in (MORNING, EVENING)
    ),
)
_RULES = (("always", "skip"), ("always", "clear"), ("if_empty", "skip"), ("on_create", "skip"))
RELM = Connection("relm", "relm", "http://127.0.0.1:9", "key", {})


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(sql("schema.sql"))
        con.execute("create schema relm")
        con.execute(
            "create table relm.contacts (id varchar, email varchar, first_name varchar, last_name varchar,"
            " metadata json, _extra json, _synced_at timestamptz, _deleted_at timestamptz)"
        )
        con.execute(
            "create table sent (key varchar, crm_id varchar, sent varchar, echo varchar,"
            " pushed_at timestamptz, echo_at timestamptz)"
        )
        con.execute("create table lost (key varchar, pushed_at timestamptz)")
        con.execute("create table marts.leads (email varchar, first varchar, last varchar, score double)")
        con.execute(
            "insert into roundtrip.resource_state (connection, resource, last_complete_at)"
            " values ('relm', 'contacts', ?)",
            [NOON],
        )
        yield con


@pytest.fixture(scope="module")
def world(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """One person for each case of model, mirror and ledger; every third was once sent with no answer."""
    leads, contacts, ledger, unknown = [], [], [], []
    for number, (names, records, sent) in enumerate(product(_MODEL, _MIRROR, _LEDGER)):
        key = f"p{number}@x.io" if number % 10 else f"p{number}.x.io"  # some are no addresses
        leads += [(key if place else f" {key.upper()}", name, "L", 1.0) for place, name in enumerate(names)]
        contacts += [
            (f"c{number}.{place}", key, name, "L", '{"score": 1}', None, NOON, NOON if is_gone else None)
            for place, (name, is_gone) in enumerate(records)
        ]
        if sent is not None:
            which, value, echo, pushed_at, echo_at = sent
            crm_id = {"same": f"c{number}.0", "other": "c.else", None: None}[which]
            shown = None if echo is None else json.dumps({"first_name": echo})
            ledger.append((key, crm_id, json.dumps({"first_name": value}), shown, pushed_at, echo_at))
        if number % 3 == 0:
            unknown.append((key, (MORNING, EVENING)[number % 2]))
    contacts.append(("c.else", "else@x.io", "Zoe", "L", '{"score": 1}', None, NOON, None))
    insert(con, "marts.leads", leads)
    insert(con, "relm.contacts", contacts)
    insert(con, "sent", ledger)
    insert(con, "lost", unknown)
    con.execute(
        "insert into roundtrip.ledger (connection, object, key, crm_id, sent, echo, pushed_at, echo_at)"
        " select 'relm', 'contacts', * from sent"
    )
    con.execute(
        "insert into roundtrip.push_log (connection, object, key, pushed_at, status)"
        " select 'relm', 'contacts', *, 'unknown' from lost"
    )
    return con


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    marks = ", ".join(["unnest(?)"] * len(rows[0]))
    con.execute(f"insert into {table} select {marks}", [list(column) for column in zip(*rows, strict=True)])


@pytest.mark.parametrize("rule", _RULES, ids=" ".join)
@pytest.mark.parametrize("mode", ["upsert", "create"])
def test_rows_cleared_by_their_hashes_are_those_that_a_thorough_plan_finds_at_rest(
    world: duckdb.DuckDBPyConnection, rule: tuple[Any, Any], mode: Any
) -> None:
    sync = Sync(
        name="leads",
        connection="relm",
        object="contacts",
        key="email",
        fields=(
            FieldRule("first_name", "first", *rule),
            FieldRule("last_name", "last"),
            FieldRule("metadata.score", "score"),
        ),
        model="marts.leads",
        mode=mode,
    )
    quick = planned(world, sync, is_thorough=False)
    assert len(quick) > 100
    assert quick == planned(world, sync, is_thorough=True)
    query = replace(sync, model=None, model_sql="select * from marts.leads")
    assert quick == planned(world, query, is_thorough=False)


def planned(con: duckdb.DuckDBPyConnection, sync: Sync, *, is_thorough: bool) -> list[tuple[Any, ...]]:
    contract = sources.load("relm").contract(RELM)
    target = Target(RELM, contract.writes["contacts"], columns_in(con, "relm", "contacts"))
    compose(con, sync, target, read_mapping(con, sync, contract, target.mirror), is_thorough=is_thorough)
    rows = con.execute("from plan_rows order by all").fetchall()
    return [*rows, *con.execute("from plan_size").fetchall()]


# -- a push does what the plan says --------------------------------------------------------------

FIELDS = (
    'first_name = "first"\nlast_name = { column = "last", write = "if_empty" }\n"metadata.tier" = "tier"\n'
)
_WISHES = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.sampled_from(["Ann", "Bea", None]),
        st.sampled_from(["Ash", None]),
        st.sampled_from(["gold", None]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda wish: wish[0],
)
_EDITS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["Cas", "Ann", None])), max_size=3)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Sandbox(records=10) as box:
        shop = Shop(tmp_path_factory.mktemp("shop"), box, "relm", fields=FIELDS)
        shop.pull()
        yield shop


@settings(max_examples=3, deadline=None)
@given(edits=_EDITS, wishes=_WISHES)
def test_what_a_push_changes_in_the_crm_is_what_its_plan_showed(
    shop: Shop, edits: list[Any], wishes: list[Any]
) -> None:
    """Key, field, old and new value, none more and none less; and a second push sends nothing.

    The examples follow one another on one CRM, so what earlier ones sent and edited is there too.
    """
    for number, name in edits:
        shop.by_hand(address(shop, number), first_name=name)
    shop.pull()
    shop.model([(address(shop, number), *wish) for number, *wish in wishes], "email, first, last, tier")
    shown = {
        (row["key"], field, each["old"], each["new"])
        for row in shop.plan().rows
        if row["action"] in ("create", "update")
        for field, each in row["fields"].items()
    }
    before, writes = held(shop), len(shop.box.tenant("relm").ledger)
    shop.push()
    done = {
        (key, field, before.get(key, {}).get(field), value)
        for key, record in held(shop).items()
        for field, value in record.items()
        if before.get(key, {}).get(field) != value
    }
    assert done == shown
    sent = len(shop.box.tenant("relm").ledger)
    assert sent - writes == len({key for key, *_ in shown})
    shop.push()
    assert len(shop.box.tenant("relm").ledger) == sent


def address(shop: Shop, number: int) -> str:
    """Give the address of one of the CRM's first people, or one that it may not know yet."""
    if number > 9:
        return f"new{number}@new.example"
    found = sorted(shop.box.tenant("relm").records("contacts"), key=lambda each: str(each["id"]))
    return str(found[number]["email"])


def held(shop: Shop) -> dict[str, dict[str, Any]]:
    """Give what the CRM holds of the mapped fields, by key."""
    return {
        str(each["email"]).strip().lower(): {
            "email": each["email"],
            "first_name": each["first_name"] or None,
            "last_name": each["last_name"] or None,
            "metadata.tier": (each["metadata"] or {}).get("tier"),
        }
        for each in shop.box.tenant("relm").records("contacts")
    }
