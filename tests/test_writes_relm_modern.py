"""What Relm Modern takes: batches of 100 operations, single updates under the version planned on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.core.bodies import decode_json, encode_json
from sources.core.client import Answer
from sources.core.errors import QuotaError
from sources.core.rows import Outcome, Row
from sources.relm.modern_results import decode_batch
from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop, ApplyThenStatus, HalfBody, Reset, Status
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from tests.delivering import Desk, Door, door

Open = Callable[..., Door]
NAME = "relm_modern"
BATCH = r"/batch\?"
AT = "2026-02-03T10:00:00Z"


@pytest.fixture
def relm(tmp_path: Path) -> Iterator[Open]:
    """Open a door to Relm's modern contract under the options and switches given."""
    with ExitStack() as stack:

        def opened(**given: Any) -> Door:
            options = {name: given.pop(name) for name in ("update_by",) if name in given}
            switches = RelmModernSwitches(**given)
            return stack.enter_context(door(tmp_path, NAME, also=NAME, switches=switches, **options))

        yield opened


def leads(crm: Door, number: int) -> list[Row]:
    return [
        crm.new(f"l{i}@new.example", email=f"l{i}@new.example", first_name=f"F{i}") for i in range(number)
    ]


def someone(crm: Door, table: str = "contacts") -> dict[str, Any]:
    return crm.box.tenant(NAME).records(table)[0]


def verdicts(outcomes: list[Outcome]) -> list[str]:
    return [each.verdict for each in outcomes]


# -- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["rows", "results", "http", "bare"])
def test_250_leads_go_in_three_batches_and_every_shape_of_answer_tells_their_ids(
    relm: Open, answer: str
) -> None:
    crm = relm(batch_answer=answer)
    rows = leads(crm, 250)
    outcomes = crm.send("contacts", *rows)
    held = {each["email"]: each["id"] for each in crm.box.tenant(NAME).records("contacts")}
    assert set(verdicts(outcomes)) == {"created"}
    assert [each.crm_id for each in outcomes] == [held[row.key] for row in rows]
    assert crm.asked("POST", "/batch") == 3


def test_a_bad_row_is_rejected_with_its_reason_and_the_others_land(relm: Open) -> None:
    crm = relm()
    rows = leads(crm, 3)
    rows[1] = replace(rows[1], fields={**rows[1].fields, "type": "friend"})
    outcomes = crm.send("contacts", *rows)
    assert verdicts(outcomes) == ["created", "rejected", "created"]
    assert outcomes[1].reason == "unknown_value: type does not take this value (type)"


def test_a_batch_that_fails_whole_is_halved_to_the_bad_row_in_at_most_15_calls(relm: Open) -> None:
    crm = relm(batch_atomic=True)
    rows = leads(crm, 100)
    rows[37] = replace(rows[37], fields={**rows[37].fields, "type": "friend"})
    outcomes = crm.send("contacts", *rows)
    assert [place for place, each in enumerate(outcomes) if each.verdict == "rejected"] == [37]
    assert str(outcomes[37].reason).startswith("unknown_value")
    assert verdicts(outcomes).count("created") == 99
    assert crm.asked("POST", "/batch") <= 15


@pytest.mark.parametrize("duplicate", ["conflict", "existing"])
@pytest.mark.parametrize("answer", ["rows", "http"])
def test_an_address_that_is_there_is_rejected_and_the_existing_record_named(
    relm: Open, duplicate: str, answer: str
) -> None:
    crm = relm(duplicate_create=duplicate, batch_answer=answer)
    there = crm.box.tenant(NAME).create("contacts", email="l0@new.example", first_name="Hand")
    first, second = crm.send("contacts", *leads(crm, 2))
    assert (first.verdict, first.crm_id, second.verdict) == ("rejected", there["id"], "created")
    assert str(first.reason).startswith("already_in_crm")
    assert crm.record("contacts", there["id"])["first_name"] == "Hand"


def test_creates_and_updates_of_all_four_objects(relm: Open) -> None:
    crm = relm()
    (company,) = crm.send("companies", crm.new("pier.example", name="Pier", domain="pier.example"))
    (contact,) = crm.send(
        "contacts", crm.new("lee@pier.example", email="lee@pier.example", company_id=company.crm_id)
    )
    deal = {"title": "Crane", "value_cents": 1_250, "currency": "EUR", "primary_contact_id": contact.crm_id}
    (made,) = crm.send("deals", crm.new("d1", **deal))
    activity = {"type": "call", "body": "Rang", "contact_id": contact.crm_id, "occurred_at": AT}
    (logged,) = crm.send("activities", crm.new("a1", **activity))
    changes: list[tuple[str, Outcome, dict[str, Any]]] = [
        ("companies", company, {"domain": "quay.example"}),
        ("deals", made, {"value_cents": 99}),
        ("activities", logged, {"body": "Rang twice"}),
    ]
    for name, outcome, changed in changes:
        (updated,) = crm.send(name, crm.change(str(outcome.crm_id), **changed))
        assert (outcome.verdict, updated.verdict) == ("created", "updated")
        assert changed.items() <= crm.record(name, outcome.crm_id).items()


def test_updates_share_a_batch(relm: Open) -> None:
    crm = relm()
    held = crm.box.tenant(NAME).records("contacts")[:5]
    outcomes = crm.send("contacts", *[crm.change(each["id"], phone="+1") for each in held])
    assert (verdicts(outcomes), len(crm.box.requests)) == (["updated"] * 5, 1)


def test_a_record_that_is_gone_is_rejected_and_the_others_land(relm: Open) -> None:
    crm = relm()
    rows = [crm.change("con_GONE", phone="+1"), crm.change(someone(crm)["id"], phone="+1")]
    outcomes = crm.send("contacts", *rows)
    assert verdicts(outcomes) == ["rejected", "updated"]
    assert str(outcomes[0].reason).startswith("not_found")


def test_custom_values_go_out_whole_and_the_required_name_with_every_change(relm: Open) -> None:
    crm = relm(patch_needs_name=True)
    known = {"title": "Crane", "custom_fields": {"tier": "gold"}, "version": 3}
    sized: dict[str, Any] = {"custom_fields.size": 7}
    row = replace(crm.change("deal_1", **sized), known=known)
    call = crm.lane("deals", "batch").encode([row, row], crm.session.connection)
    patch = {"title": "Crane", "custom_fields": {"tier": "gold", "size": 7}}
    operation = {"object": "deal", "method": "update", "id": "deal_1", "patch": patch}
    assert decode_json(call.body) == {"operations": [operation, operation]}


# -- single updates ------------------------------------------------------------------------------


def test_an_update_alone_names_the_version_it_was_planned_on(relm: Open) -> None:
    crm = relm()
    held = someone(crm)
    row = replace(crm.change(held["id"], phone="+1"), known={"version": held["version"]})
    first, second = (
        crm.send("contacts", row)[0],
        crm.send("contacts", replace(row, fields={"phone": "+2"}))[0],
    )
    assert (first.verdict, second.verdict) == ("updated", "conflict")
    assert second.reason == "edited_since_plan: phone"
    assert crm.record("contacts", held["id"])["phone"] == "+1"


def test_updates_can_go_one_by_one(relm: Open) -> None:
    crm = relm(update_by="patch")
    rows = [
        replace(crm.change(each["id"], phone="+1"), known={"version": each["version"]})
        for each in crm.box.tenant(NAME).records("contacts")[:3]
    ]
    crm.box.tenant(NAME).edit("contacts", str(rows[1].crm_id), phone="by hand")
    assert verdicts(crm.send("contacts", *rows)) == ["updated", "conflict", "updated"]
    assert (crm.asked("PATCH", "/contacts/"), crm.asked("POST", "/batch")) == (3, 0)


@pytest.mark.parametrize("spelling", ["bare", "quoted"])
def test_a_version_stands_in_the_header_as_the_setting_says(relm: Open, spelling: str) -> None:
    crm = relm(if_match=spelling)
    connection = crm.session.connection
    connection = replace(connection, options={**connection.options, "if_match": spelling})
    row = replace(crm.change("con_1", phone="+1"), known={"version": 3})
    call = crm.lane("contacts", "patch").encode([row], connection)
    assert call.headers == {"If-Match": "3" if spelling == "bare" else '"3"'}


# -- lost answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [ApplyThenDrop(), ApplyThenStatus(500), HalfBody()])
def test_a_lost_batch_is_looked_up_and_never_sent_again(relm: Open, fault: Any) -> None:
    crm = relm()
    rule = crm.box.faults.add(fault, method="POST", path=BATCH)
    outcomes = crm.send("contacts", *leads(crm, 30))
    assert (rule.fired, set(verdicts(outcomes)), crm.asked("POST", "/batch")) == (1, {"created"}, 1)
    assert len(crm.written("contacts")) == 30


def test_rows_of_a_lost_batch_that_never_arrived_are_free_once_they_would_show(relm: Open) -> None:
    crm = relm()
    crm.box.faults.add(Reset(), method="POST", path=BATCH)
    courier = crm.courier("contacts")
    lost = crm.send("contacts", *leads(crm, 3))
    crm.clock.sleep(300)
    settled = courier.settle(crm.log.batches[0])
    assert (verdicts(lost), verdicts(settled)) == (["unknown"] * 3, ["absent"] * 3)


def test_lost_updates_are_told_by_their_records(relm: Open) -> None:
    crm = relm()
    held = crm.box.tenant(NAME).records("contacts")[:3]
    rows = [replace(crm.change(each["id"], phone="+1"), before={"phone": each["phone"]}) for each in held]
    crm.box.faults.add(ApplyThenDrop(), method="POST", path=BATCH)
    assert verdicts(crm.send("contacts", *rows)) == ["updated"] * 3


def test_lost_updates_that_never_arrived_are_told_as_well(relm: Open) -> None:
    crm = relm()
    held = crm.box.tenant(NAME).records("contacts")[:2]
    rows = [replace(crm.change(each["id"], phone="+1"), before={"phone": each["phone"]}) for each in held]
    crm.box.faults.add(Reset(), method="POST", path=BATCH)
    assert verdicts(crm.send("contacts", *rows)) == ["absent"] * 2


@pytest.mark.parametrize("name", ["companies", "deals", "activities"])
def test_lost_creations_are_found_by_what_was_sent(relm: Open, name: str) -> None:
    crm = relm()
    lee = someone(crm)["id"]
    rows = {
        "companies": [crm.new(f"c{i}.example", name=f"C{i}", domain=f"c{i}.example") for i in range(3)],
        "deals": [crm.new(f"d{i}", title="Crane", value_cents=i, primary_contact_id=lee) for i in range(3)],
        "activities": [crm.new(f"a{i}", body="Rang", contact_id=lee, occurred_at=AT) for i in range(3)],
    }
    rule = crm.box.faults.add(ApplyThenDrop(), method="POST", path=BATCH)
    outcomes = crm.send(name, *rows[name])
    assert (rule.fired, verdicts(outcomes)) == (1, ["created"] * 3)
    assert len({each.crm_id for each in outcomes}) == len(crm.written(name)) == 3


# -- limits --------------------------------------------------------------------------------------


def test_a_used_up_quota_stops_the_run_with_what_was_done_kept(relm: Open) -> None:
    crm = relm(plan="free", quota=150)
    outcomes = crm.send("contacts", *leads(crm, 250))
    assert isinstance(crm.delivery.error, QuotaError)
    assert [verdicts(outcomes).count(each) for each in ("created", "absent")] == [100, 150]
    assert len(crm.written("contacts")) == 100


def test_no_batch_is_larger_than_the_vendor_allows(relm: Open) -> None:
    crm = relm()
    assert {write.lanes["batch"].size for write in crm.session.contract.writes.values()} == {100}


# -- reading answers -----------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.sampled_from(["created", "failed", "con_1", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "results", "index", "status", "id", "error", "code", "detail"]), inner
        )
    ),
    max_leaves=20,
)


@given(_JSON, st.integers(1, 3))
def test_any_answer_gives_one_outcome_per_row_in_order(body: Any, number: int) -> None:
    rows = [Row(place + 7, f"k{place}", None, "create", {"email": "x@y.example"}) for place in range(number)]
    outcomes = decode_batch(rows, Answer(200, {}, encode_json(body)))
    assert [each.seq for each in outcomes] == [row.seq for row in rows]
    assert all(each.crm_id for each in outcomes if each.verdict == "created")


def test_results_in_another_order_are_matched_by_their_index() -> None:
    rows = [Row(1, "a", None, "create", {}), Row(2, "b", None, "create", {})]
    results = [
        {"index": 1, "status": "created", "id": "con_b"},
        {"index": 0, "status": "created", "id": "con_a"},
    ]
    outcomes = decode_batch(rows, Answer(200, {}, encode_json({"data": results})))
    assert [each.crm_id for each in outcomes] == ["con_a", "con_b"]


def test_fewer_results_than_rows_leave_all_rows_open() -> None:
    rows = [Row(1, "a", None, "create", {}), Row(2, "b", None, "create", {})]
    outcomes = decode_batch(rows, Answer(200, {}, encode_json([{"status": "created", "id": "con_a"}])))
    assert verdicts(outcomes) == ["unknown", "unknown"]


# -- by whole syncs ------------------------------------------------------------------------------


def test_contacts_are_synced_and_a_second_cycle_sends_nothing(tmp_path: Path) -> None:
    sync = (
        'object = "contacts"\nmodel = "marts.leads"\nkey = "email"\n'
        '[syncs.leads.fields]\nfirst_name = "first"\nphone = "phone"\n'
    )
    with Sandbox(records=10, also={NAME: NAME}) as box:
        desk = Desk(tmp_path, box, NAME, sync)
        desk.pull(f"{NAME}.contacts")
        known = box.tenant(NAME).records("contacts")[0]["email"]
        desk.model(
            "select 'lead' || i || '@new.example' as email, 'F' || i as first, '+1' as phone"
            f" from range(150) t(i) union all select '{known}', 'Known', '+2'"
        )
        first = desk.push()
        desk.pull(f"{NAME}.contacts")
        second = desk.push()
        assert [first.counts[each] for each in ("created", "updated")] == [150, 1]
        assert [second.counts[each] for each in ("created", "updated", "unchanged")] == [0, 0, 151]


def a_sync(name: str, key: str, *fields: str) -> str:
    mapped = "".join(f'"{each}" = "{each}"\n' for each in fields)
    return f'object = "{name}"\nmodel = "marts.leads"\nkey = "{key}"\n[syncs.leads.fields]\n{mapped}'


@pytest.mark.parametrize(
    ("name", "key", "fields"),
    [
        ("companies", "domain", ("domain", "name")),
        ("deals", "own", ("title", "value_cents", "primary_contact_id")),
        ("activities", "own", ("body", "contact_id")),
    ],
)
def test_the_other_objects_are_synced_as_well(
    tmp_path: Path, name: str, key: str, fields: tuple[str, ...]
) -> None:
    with Sandbox(records=10, also={NAME: NAME}) as box:
        lee = someone_in(box)
        desk = Desk(tmp_path, box, NAME, a_sync(name, key, *fields))
        desk.pull(f"{NAME}.{name}")
        row = (
            "'c' || i || '.example' as domain, 'own' || i as own, 'Crane' as title,"
            f" '{lee}' as primary_contact_id, '{lee}' as contact_id, 100 + i as value_cents"
        )
        desk.model(f"select {row}, 'Pier' as name, 'Rang' as body from range(120) t(i)")
        first, quiet = desk.push(), desk.push()
        assert (first.counts["created"], quiet.counts["unchanged"]) == (120, 120)
        desk.pull(f"{NAME}.{name}")
        desk.model(
            f"select {row.replace('100', '900')}, 'Quay' as name, 'Rang twice' as body from range(120) t(i)"
        )
        assert (desk.push().counts["updated"], desk.push().counts["unchanged"]) == (120, 120)
        assert len(written_in(box, name)) == 240


def someone_in(box: Sandbox) -> str:
    return str(box.tenant(NAME).records("contacts")[0]["id"])


def written_in(box: Sandbox, table: str) -> list[str]:
    return [each.id for each in box.tenant(NAME).ledger if each.resource == table and each.by == "roundtrip"]


def test_an_edit_made_since_the_plan_is_not_overwritten_by_a_single_update(tmp_path: Path) -> None:
    with Sandbox(records=5, also={NAME: NAME}) as box:
        known = box.tenant(NAME).records("contacts")[0]
        desk = Desk(tmp_path, box, NAME, a_sync("contacts", "email", "email", "phone"), update_by="patch")
        desk.pull(f"{NAME}.contacts")
        desk.model(f"select '{known['email']}' as email, '+1' as phone")
        box.tenant(NAME).edit("contacts", known["id"], phone="by hand")
        result = desk.push()
        assert (result.counts["conflict"], result.exit_code) == (1, 1)
        assert result.rows[0]["reason"] == "edited_since_plan: phone"
        assert box.tenant(NAME).find("contacts", id=known["id"])["phone"] == "by hand"


def test_a_version_that_moved_for_another_field_is_taken_up_and_the_update_lands(tmp_path: Path) -> None:
    with Sandbox(records=5, also={NAME: NAME}) as box:
        known = box.tenant(NAME).records("contacts")[0]
        desk = Desk(tmp_path, box, NAME, a_sync("contacts", "email", "email", "phone"), update_by="patch")
        desk.pull(f"{NAME}.contacts")
        desk.model(f"select '{known['email']}' as email, '+1' as phone")
        box.tenant(NAME).edit("contacts", known["id"], first_name="by hand")
        assert desk.push().counts["updated"] == 1
        shown = box.tenant(NAME).find("contacts", id=known["id"])
        assert (shown["phone"], shown["first_name"]) == ("+1", "by hand")


def test_an_operation_that_was_put_off_ends_the_push_with_an_error(relm: Open) -> None:
    """It is neither written nor refused: the row is told of nowhere but in the error."""
    crm = relm()
    told = [
        {"index": 0, "status": "created", "id": "con_1"},
        {"index": 1, "status": "failed", "error": {"status": 429, "code": "rate_limited"}},
    ]
    answer = Status(200, body=encode_json({"object": "batch", "data": told}).decode())
    crm.box.faults.add(answer, crm=NAME, method="POST", path="/batch", times=1)
    assert verdicts(crm.send("contacts", *leads(crm, 2))) == ["created", "absent"]
    assert "1 of 2 rows undone: rate_limited" in str(crm.delivery.error)
