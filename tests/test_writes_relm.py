"""What Relm Classic takes beside contacts: companies, deals and activities; custom fields looked up first."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.core.bodies import decode_json, encode_json, with_fields
from sources.core.client import Answer
from sources.core.connector import Connection, Registry
from sources.core.errors import ConfigError, UnavailableError
from sources.core.rows import Row
from sources.relm.classic import CONTRACT
from sources.relm.classic_fields import create_fields
from sources.sandbox import Sandbox
from sources.sandbox.faults import Action, ApplyThenDrop, ApplyThenStatus, Reset, Rule, Status
from sources.sandbox.relm_rules import RelmSwitches
from tests.delivering import Desk, Door, door

OBJECTS = ("companies", "deals", "activities")
Open = Callable[..., Door]


@pytest.fixture
def relm(tmp_path: Path) -> Iterator[Open]:
    """Open a door to Relm under the switches given."""
    with ExitStack() as stack:

        def make(**switches: Any) -> Door:
            wanted = RelmSwitches(**{"rate_limit": None, **switches})
            return stack.enter_context(door(tmp_path, "relm", switches=wanted))

        yield make


PLAIN = st.sampled_from(["name", "phone", "end."])
DOTTED = st.sampled_from(["metadata.a", "metadata.b.c", "metadata.", "address.city"])


@given(
    record=st.dictionaries(
        st.sampled_from(["name", "metadata", "address"]),
        st.one_of(st.none(), st.text(max_size=2), st.dictionaries(st.sampled_from("ab"), st.integers())),
    ),
    fields=st.dictionaries(PLAIN | DOTTED, st.integers()),
)
def test_fields_laid_over_a_record_at_once_are_as_if_laid_one_by_one(
    record: dict[str, Any], fields: dict[str, int]
) -> None:
    before = deepcopy(record)
    one_by_one = reduce(lambda whole, each: with_fields(whole, dict([each])), fields.items(), record)
    assert with_fields(record, fields) == one_by_one
    assert record == before


def spoil(crm: Door, fault: Action, method: str = "POST", times: int = 1) -> Rule:
    """Let the next writes go wrong."""
    return crm.box.faults.add(fault, crm="relm", method=method, path="/v1/", times=times)


def first(crm: Door, table: str) -> dict[str, Any]:
    """Give some record that the CRM holds."""
    return crm.box.tenant("relm").records(table)[0]


def registry(name: str) -> Registry:
    found = CONTRACT.writes[name].registry
    assert found is not None
    return found


# -- new records ---------------------------------------------------------------------------------


def test_new_records_are_created_one_by_one_and_their_ids_told(relm: Open) -> None:
    crm = relm()
    company = first(crm, "companies")["id"]
    rows = {
        "companies": crm.new(
            "pier.example", name="Pier", domain="pier.example", **{"metadata.segment": "Ports"}
        ),
        "deals": crm.new(title="Renewal", value_cents=4_150_000, currency="EUR", company_id=company),
        "activities": crm.new(type="call", subject="Hello", occurred_at="2026-08-03T09:15:00Z"),
    }
    for table, row in rows.items():
        (outcome,) = crm.send(table, row)
        held = crm.record(table, outcome.crm_id)
        assert (outcome.verdict, held["metadata"]) == (
            "created",
            {"segment": "Ports"} if table == "companies" else {},
        )
        assert {name: held[name] for name in row.fields if "." not in name} == {
            name: value for name, value in row.fields.items() if "." not in name
        }


@pytest.mark.parametrize("single", ["flat", "data"])
@pytest.mark.parametrize("status", [200, 201])
def test_either_shape_of_a_single_answer_is_read(relm: Open, single: str, status: int) -> None:
    crm = relm(single=single, create_status=status)
    (outcome,) = crm.send("deals", crm.new(title="Renewal"))
    assert (outcome.verdict, crm.record("deals", outcome.crm_id)["title"]) == ("created", "Renewal")


@pytest.mark.parametrize("fault", [ApplyThenDrop(), ApplyThenStatus(503)])
def test_a_creation_whose_answer_was_lost_is_repeated_under_its_key_and_made_once(
    relm: Open, fault: Action
) -> None:
    crm = relm()
    rule = spoil(crm, fault)
    (outcome,) = crm.send("deals", crm.new(title="Renewal"))
    assert (rule.fired, outcome.verdict, len(crm.written("deals"))) == (1, "created", 1)


@pytest.mark.parametrize("table", OBJECTS)
def test_a_creation_that_no_repetition_answers_is_recognised_by_what_was_sent(relm: Open, table: str) -> None:
    crm = relm()
    contact, company = first(crm, "contacts")["id"], first(crm, "companies")["id"]
    row = {
        "companies": crm.new("pier.example", name="Pier", domain="pier.example"),
        "deals": crm.new(title="Renewal", primary_contact_id=contact, value_cents=5),
        "activities": crm.new(subject="Hello", company_id=company),
    }[table]
    spoil(crm, ApplyThenDrop(), times=5)
    (outcome,) = crm.send(table, row)
    assert (outcome.verdict, len(crm.written(table))) == ("created", 1)
    assert crm.record(table, outcome.crm_id)


@pytest.mark.parametrize(
    "switches",
    [{"list_lag_s": 60.0}, {"updated_at": "hidden"}, {"updated_at": "hidden", "list_lag_s": 60.0}],
)
def test_a_creation_that_cannot_be_recognised_stays_open(relm: Open, switches: dict[str, Any]) -> None:
    crm = relm(**switches)
    row = crm.new(title="Renewal", primary_contact_id=first(crm, "contacts")["id"])
    spoil(crm, ApplyThenDrop(), times=5)
    assert [each.verdict for each in crm.send("deals", row)] == ["unknown"]
    assert isinstance(crm.delivery.error, UnavailableError)


def test_an_older_deal_of_the_same_content_is_not_taken_for_ours(relm: Open) -> None:
    crm = relm()
    old = first(crm, "deals")
    row = crm.new(title=old["title"], primary_contact_id=old["primary_contact_id"])
    (outcome,) = crm.courier("deals").look(crm.lane("deals", "create"), [row], crm.clock.now())
    assert outcome.crm_id is None


@pytest.mark.parametrize("was_applied", [True, False])
def test_a_creation_left_open_by_a_kill_is_settled_under_its_key(relm: Open, was_applied: bool) -> None:
    crm = relm()
    courier, lane = crm.courier("activities"), crm.lane("activities", "create")
    batch = courier.batch(lane, [crm.new(subject="Hello")])
    if was_applied:
        courier.request(batch.call, lane)
    (outcome,) = courier.settle(batch)
    assert (outcome.verdict, len(crm.written("activities"))) == ("created", 1)


def test_absence_counts_only_where_links_are_looked_up_and_lists_had_time(relm: Open) -> None:
    crm = relm()
    contact = first(crm, "contacts")["id"]
    linked, unlinked = crm.new(title="Renewal", primary_contact_id=contact), crm.new(title="Renewal")
    look, lane = crm.courier("deals").look, crm.lane("deals", "create")
    crm.session.client.get("/v1/deals", {"limit": "1"})
    now = crm.clock.now()
    long_ago = now - timedelta(hours=1)
    assert look(lane, [linked], long_ago)[0].verdict == "absent"
    assert look(lane, [linked], now)[0].verdict == "unknown"
    assert look(lane, [unlinked], long_ago)[0].verdict == "unknown"


def test_a_refused_record_is_told_with_the_reason_and_the_others_go_on(relm: Open) -> None:
    crm = relm()
    rows = [crm.new(title="a", company_id="cmp_none"), crm.new(title="b")]
    bad, good = crm.send("deals", *rows)
    assert (bad.verdict, good.verdict) == ("rejected", "created")
    assert "company_id names no company" in str(bad.reason)


# -- known records -------------------------------------------------------------------------------


def test_a_patch_changes_the_fields_it_names_only(relm: Open) -> None:
    crm = relm()
    before = first(crm, "deals")
    (outcome,) = crm.send("deals", crm.change(before["id"], stage="won"))
    after = crm.record("deals", before["id"])
    assert (outcome.verdict, outcome.crm_id) == ("updated", before["id"])
    assert {**after, "updated_at": 0} == {**before, "stage": "won", "updated_at": 0}


@pytest.mark.parametrize("metadata_write", ["replaces", "merges"])
def test_custom_values_of_others_stay_whether_a_patch_merges_or_replaces(
    relm: Open, metadata_write: str
) -> None:
    crm = relm(metadata_write=metadata_write)
    before = first(crm, "deals")
    fields: dict[str, Any] = {"metadata.renews_on": "2027-01-31"}
    row = crm.change(before["id"], **fields)
    crm.send("deals", replace(row, known={"metadata": before["metadata"]}))
    assert crm.record("deals", before["id"])["metadata"] == {**before["metadata"], "renews_on": "2027-01-31"}


@pytest.mark.parametrize("fault", [ApplyThenDrop(), Reset()])
def test_a_lost_patch_is_repeated_and_ends_the_same(relm: Open, fault: Action) -> None:
    crm = relm()
    deal = first(crm, "deals")["id"]
    rule = spoil(crm, fault, "PATCH")
    (outcome,) = crm.send("deals", crm.change(deal, title="Renamed"))
    assert (rule.fired, outcome.verdict, crm.record("deals", deal)["title"]) == (1, "updated", "Renamed")


def test_a_patch_of_a_record_that_is_gone_is_rejected(relm: Open) -> None:
    crm = relm()
    (outcome,) = crm.send("activities", crm.change("act_none", subject="x"))
    assert outcome.verdict == "rejected"


# -- custom fields -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "object_type"),
    [("contacts", "contact"), *zip(OBJECTS, ("company", "deal", "activity"), strict=True)],
)
def test_an_unknown_or_missing_custom_field_is_told_before_anything_is_sent(
    relm: Open, table: str, object_type: str
) -> None:
    crm = relm()
    assert crm.refusal(table, crm.new(**{"metadata.nope": 1})) == (
        "unknown_field: metadata.nope (the workspace has no such custom field)"
    )
    needed: dict[str, Any] = {"key": "region", "label": "Region", "type": "text", "required": True}
    crm.box.tenant("relm").create("fields", object_type=object_type, **needed)
    assert crm.refusal(table, crm.new()) == "missing_required: metadata.region (required by the workspace)"
    assert crm.refusal(table, crm.new(**{"metadata.region": "north"})) is None
    held = replace(crm.change("x_1"), known={"metadata": {"region": "south"}})
    assert crm.refusal(table, held) is None


def test_a_field_of_another_object_does_not_count(relm: Open) -> None:
    crm = relm()
    session = crm.session
    missing = registry("deals").missing(session.client, session.connection, ["renewal_risk", "tier"])
    assert missing == ["tier"]


def test_missing_fields_are_created_by_the_kind_of_their_values_and_can_be_written(relm: Open) -> None:
    crm = relm(unknown_metadata="refused")
    client, connection = crm.session.client, crm.session.connection
    registry("companies").create(
        client, connection, {"arr_eur": "decimal", "is_key": "bool", "segment": "text", "seen": "timestamp"}
    )
    made = {each["key"]: each for each in crm.box.tenant("relm").records("fields")[-3:]}
    assert {key: each["type"] for key, each in made.items()} == {
        "arr_eur": "number",
        "is_key": "bool",
        "seen": "text",
    }
    assert {(each["object_type"], each["required"]) for each in made.values()} == {("company", False)}
    assert made["arr_eur"]["label"] == "Arr eur"
    row = crm.new("p.example", domain="p.example", **{"metadata.arr_eur": 12.5}, **{"metadata.is_key": True})
    assert crm.refusal("companies", row) is None
    assert crm.send("companies", row)[0].verdict == "created"


@pytest.mark.parametrize(("fault", "made"), [(ApplyThenDrop(), 1), (Status(409), 0)])
def test_a_definition_is_made_once_and_one_that_is_there_meanwhile_is_no_error(
    relm: Open, fault: Action, made: int
) -> None:
    crm = relm()
    rule = spoil(crm, fault)
    create_fields(crm.session.client, crm.session.connection, "deals", {"margin": "double"})
    keys = [each["key"] for each in crm.box.tenant("relm").records("fields")]
    assert (rule.fired, keys.count("margin")) == (1, made)


def test_nested_values_are_refused_before_any_field_is_defined(relm: Open) -> None:
    crm = relm()
    with pytest.raises(ConfigError, match=r"relm deals: metadata\.shape: nested values"):
        create_fields(
            crm.session.client, crm.session.connection, "deals", {"margin": "double", "shape": "json"}
        )
    assert len(crm.written("fields")) == 0


# -- bodies --------------------------------------------------------------------------------------


def test_an_id_cannot_lead_a_request_elsewhere() -> None:
    row = Row(1, "k", "../contacts/con_1", "update", {"title": None})
    connection = Connection("relm", "relm", "https://relmcrm.com", "k")
    call = CONTRACT.writes["deals"].lanes["patch"].encode([row], connection)
    assert call.path == "/v1/deals/..%2Fcontacts%2Fcon_1"
    assert decode_json(call.body) == {"title": None}


# -- by whole syncs ------------------------------------------------------------------------------

SYNCS = {
    "companies": ("domain", "name", "'n' || n || '.example' as domain, 'Firm ' || n || {} as name"),
    "deals": ("deal_no", "title", "'D' || n as deal_no, 'Deal ' || n || {} as title"),
    "activities": ("log_no", "subject", "n as log_no, 'Call ' || n || {} as subject"),
}


@pytest.mark.parametrize("table", OBJECTS)
def test_records_are_made_once_then_left_alone_then_changed_where_the_model_changed(
    tmp_path: Path, table: str
) -> None:
    key, field, query = SYNCS[table]
    sync = f'object = "{table}"\nmodel = "marts.leads"\nkey = "{key}"\n[syncs.leads.fields]\n'
    sync += f'{field} = "{field}"\n'
    with Sandbox(records=10) as box:
        desk = Desk(tmp_path, box, "relm", sync)
        counts = []
        for edit in ("''", "''", "case when n = 2 then ' new' else '' end"):
            desk.pull(f"relm.{table}")
            desk.model(f"select {query.format(edit)} from range(1, 4) as t(n)")
            result = desk.push()
            counts.append((result.exit_code, result.counts["created"], result.counts["updated"]))
        assert counts == [(0, 3, 0), (0, 0, 0), (0, 0, 1)]
        texts = [each[field] for each in box.tenant("relm").records(table)]
        assert sorted(each for each in texts if each and each.endswith(" new")) == [f"{texts[-1][:-1]}2 new"]


def test_an_entry_with_another_rows_address_is_that_rows_whatever_its_index_says() -> None:
    rows = [Row(seq, f"l{seq}@x.example", None, "create", {}, match="new") for seq in range(3)]
    entries = [{"index": seq + 1, "email": f"L{seq}@x.example", "id": f"id{seq}"} for seq in range(3)]
    body = {"data": [each | {"status": "created"} for each in entries]}
    lane = CONTRACT.writes["contacts"].lanes["batch"]
    outcomes = lane.decode(rows, Answer(200, {}, encode_json(body)))
    assert [each.crm_id for each in outcomes] == ["id0", "id1", "id2"]


def test_an_address_names_its_row_however_its_letters_are_composed() -> None:
    row = Row(1, "j\u00fcrg@x.example", None, "create", {}, match="new")
    body = {"data": [{"email": "Ju\u0308rg@x.example", "id": "id1", "status": "created"}]}
    lane = CONTRACT.writes["contacts"].lanes["batch"]
    assert lane.decode([row], Answer(200, {}, encode_json(body)))[0].crm_id == "id1"
