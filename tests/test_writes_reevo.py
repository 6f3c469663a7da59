"""What Reevo takes, by both of its APIs: one record per request, nothing twice, nothing lost in silence."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sources.core.arriving import Recheck
from sources.core.bodies import decode_json
from sources.core.client import Answer
from sources.core.errors import ConfigError
from sources.core.rows import Row
from sources.core.writing import Courier
from sources.sandbox.faults import ApplyThenDrop, ApplyThenStatus, Html, Reset
from sources.sandbox.reevo_switches import ReevoSwitches
from tests.delivering import Door, door

Open = Callable[..., Door]
OPTIONS = {
    "api_version",
    "contact_match",
    "own_key_field",
    "payload_type",
    "upsert_semantics",
    "look_before_create",
}
AT = "2026-02-03T10:00:00Z"


@pytest.fixture
def reevo(tmp_path: Path) -> Iterator[Open]:
    """Open a door to Reevo under the options and switches given."""
    with ExitStack() as stack:

        def opened(**given: Any) -> Door:
            options = {name: given.pop(name) for name in OPTIONS & given.keys()}
            return stack.enter_context(door(tmp_path, "reevo", switches=ReevoSwitches(**given), **options))

        yield opened


def account(crm: Door, domain: str = "pier.example", **fields: Any) -> str:
    domains = [{"domain_name": domain, "is_primary": True}]
    made = crm.box.tenant("reevo").create("accounts", display_name="Pier", domains=domains, **fields)
    return str(made["id"])


def contact(crm: Door, *emails: str, **fields: Any) -> str:
    listed = [{"email": each, "is_primary": not place} for place, each in enumerate(emails)]
    made = crm.box.tenant("reevo").create(
        "contacts", primary_email=emails[0], contact_emails=listed, **fields
    )
    return str(made["id"])


def opportunity(crm: Door, **fields: Any) -> str:
    given = {"display_name": "Dock", "account_id": account(crm), "stage": "lead", **fields}
    return str(crm.box.tenant("reevo").create("opportunities", **given)["id"])


def a_user(crm: Door) -> dict[str, Any]:
    return crm.box.tenant("reevo").records("users")[0]


def defined(crm: Door, record_type: str, api_name: str, value_type: str = "string", **more: Any) -> None:
    crm.box.tenant("reevo").create(
        "fields", record_type=record_type, api_name=api_name, value_type=value_type, **more
    )


# -- v2: contacts and accounts -------------------------------------------------------------------


@pytest.mark.parametrize("match", ["contact_emails", "primary_email"])
def test_a_new_contact_is_asserted_under_its_address_as_the_model_spells_it(reevo: Open, match: str) -> None:
    crm = reevo(contact_match=match)
    row = crm.new("lee@pier.example", primary_email="Lee@Pier.example", first_name="Lee", sms_consent=True)
    (outcome,) = crm.send("contacts", row)
    held = crm.record("contacts", outcome.crm_id)
    assert (outcome.verdict, held["primary_email"], held["first_name"]) == (
        "created",
        "Lee@Pier.example",
        "Lee",
    )


def test_an_assert_of_a_known_contact_keeps_its_other_addresses(reevo: Open) -> None:
    crm = reevo()
    crm_id = contact(crm, "old@pier.example", "lee@pier.example")
    (outcome,) = crm.send(
        "contacts", crm.new("lee@pier.example", primary_email="lee@pier.example", title="CEO")
    )
    held = crm.record("contacts", crm_id)
    assert (outcome.verdict, outcome.crm_id, held["title"]) == ("updated", crm_id, "CEO")
    assert [each["email"] for each in held["contact_emails"]] == ["old@pier.example", "lee@pier.example"]


def test_a_contact_is_changed_by_id_where_its_address_would_miss_it(reevo: Open) -> None:
    crm = reevo()
    crm_id = contact(crm, "moved@pier.example")
    (outcome,) = crm.send("contacts", crm.change(crm_id, "lee@pier.example", title="CEO", stage="Customer"))
    held = crm.record("contacts", crm_id)
    assert (outcome.verdict, held["title"], held["stage"]) == ("updated", "CEO", "customer")


def test_a_null_clears_an_attribute_in_v2(reevo: Open) -> None:
    crm = reevo()
    crm_id = contact(crm, "lee@pier.example", title="CEO")
    crm.send("contacts", crm.change(crm_id, "lee@pier.example", title=None))
    assert crm.record("contacts", crm_id)["title"] is None


def test_an_owner_is_named_by_address_and_a_strange_one_is_refused_with_the_reason(reevo: Open) -> None:
    crm = reevo()
    user = a_user(crm)
    good = crm.new("a@pier.example", primary_email="a@pier.example", owner_email=user["email"])
    bad = crm.new("b@pier.example", primary_email="b@pier.example", owner_email="no@body.example")
    created, rejected = crm.send("contacts", good, bad)
    assert crm.record("contacts", created.crm_id)["owner_user_id"] == user["id"]
    assert (rejected.verdict, "There is no such user" in str(rejected.reason)) == ("rejected", True)


def test_two_records_with_one_address_are_told_as_ambiguous(reevo: Open) -> None:
    crm = reevo(duplicates="allowed")
    contact(crm, "lee@pier.example")
    contact(crm, "lee@pier.example")
    (outcome,) = crm.send("contacts", crm.new("lee@pier.example", primary_email="lee@pier.example"))
    assert (outcome.verdict, "More than one record" in str(outcome.reason)) == ("rejected", True)


def test_an_account_is_asserted_by_its_domain_with_money_as_text(reevo: Open) -> None:
    crm = reevo()
    row = crm.new(
        "quay.example",
        domain_name="quay.example",
        display_name="Quay",
        estimated_annual_revenue=Decimal("1200000.50"),
    )
    created, again = crm.send("accounts", row)[0], crm.send("accounts", row)[0]
    held = crm.record("accounts", created.crm_id)
    assert (created.verdict, again.verdict, again.crm_id) == ("created", "updated", created.crm_id)
    assert (held["domains"][0]["domain_name"], held["estimated_annual_revenue"]) == (
        "quay.example",
        "1200000.50",
    )


@pytest.mark.parametrize("fault", [ApplyThenDrop(), ApplyThenStatus(500), Html()])
def test_an_assert_whose_answer_is_lost_is_sent_again_and_made_once(reevo: Open, fault: Any) -> None:
    crm = reevo()
    crm.box.faults.add(fault, crm="reevo", method="POST", path="_assert")
    (outcome,) = crm.send("contacts", crm.new("lee@pier.example", primary_email="lee@pier.example"))
    assert outcome.verdict in ("created", "updated")
    assert len(crm.box.tenant("reevo").records("contacts", primary_email="lee@pier.example")) == 1


def test_the_schema_tells_before_sending_what_it_does_not_take(reevo: Open) -> None:
    crm = reevo()
    email = {"primary_email": "lee@pier.example"}
    strange = crm.new("lee@pier.example", **email, **{"attributes.cus_field__Nope": "x"})
    fixed = crm.new("lee@pier.example", **email, **{"attributes.display_name": "Lee"})
    assert crm.refusal("contacts", strange) == "unknown_field: the schema has no attribute cus_field__Nope"
    assert crm.refusal("contacts", fixed) == "display_name: the schema says that it cannot be set"
    assert crm.refusal("contacts", crm.new("lee@pier.example", **email, first_name="Lee")) is None
    lacking = crm.new("quay.example", domain_name="quay.example")
    assert str(crm.refusal("accounts", lacking)).startswith("missing_required: display_name")


def test_a_custom_attribute_keeps_its_type(reevo: Open) -> None:
    crm = reevo()
    defined(crm, "contact", "cus_field__Size", "number")
    row = crm.new("lee@pier.example", primary_email="lee@pier.example", **{"attributes.cus_field__Size": 7})
    assert crm.refusal("contacts", row) is None
    (outcome,) = crm.send("contacts", row)
    assert crm.record("contacts", outcome.crm_id)["cus_field__Size"] == 7


def test_a_contact_made_without_its_address_is_never_called_written(reevo: Open) -> None:
    crm = reevo()
    decode = crm.lane("contacts", "assert").decode
    body = b'{"data":{"id":"7","attributes":{"contact_emails":[]}},"meta":{"action":"created"}}'
    answer = Answer(201, {}, body)
    (outcome,) = decode([crm.new("lee@pier.example", primary_email="lee@pier.example")], answer)
    assert (outcome.verdict, outcome.reason) == ("unknown", "the CRM made a record without its primary_email")


# -- v2: opportunities, tasks, activities --------------------------------------------------------


def a_deal(crm: Door, key: str = "d1", **fields: Any) -> Row:
    given = {"display_name": "Crane", "stage": "Lead", "account_id": account(crm), **fields}
    return crm.new(key, **given)


def test_an_opportunity_is_created_and_its_stage_changed_by_id(reevo: Open) -> None:
    crm = reevo()
    (made,) = crm.send("opportunities", a_deal(crm, amount=Decimal("900.10")))
    (changed,) = crm.send("opportunities", crm.change(str(made.crm_id), stage="Closed Won", amount=1000))
    held = crm.record("opportunities", made.crm_id)
    assert (made.verdict, changed.verdict) == ("created", "updated")
    assert (held["stage"], held["amount"]) == ("won", "1000")


def test_a_stage_whose_criteria_are_not_met_is_refused_with_the_reason(reevo: Open) -> None:
    crm = reevo(entrance_criteria=(("won", "amount"),))
    crm_id = opportunity(crm)
    (outcome,) = crm.send("opportunities", crm.change(crm_id, stage="Closed Won"))
    assert (outcome.verdict, "The stage needs amount" in str(outcome.reason)) == ("rejected", True)


def test_a_lost_opportunity_is_found_by_what_was_sent_and_not_made_twice(reevo: Open) -> None:
    crm = reevo()
    crm.box.faults.add(ApplyThenDrop(), crm="reevo", method="POST", path=r"/opportunity\?")
    (outcome,) = crm.send("opportunities", a_deal(crm, stage="lead", amount=Decimal("5.50")))
    assert (outcome.verdict, len(crm.written("opportunities"))) == ("created", 1)
    assert outcome.crm_id == crm.written("opportunities")[0].id


def test_of_two_alike_none_is_taken_for_the_lost_one(reevo: Open) -> None:
    crm = reevo()
    deal = a_deal(crm)
    crm.send("opportunities", deal)
    crm.box.faults.add(ApplyThenDrop(), crm="reevo", method="POST", path=r"/opportunity\?")
    (outcome,) = crm.send("opportunities", replace(deal, seq=99, key="d2"))
    assert (outcome.verdict, len(crm.written("opportunities"))) == ("unknown", 2)


def test_the_syncs_own_key_tells_a_lost_creation_from_its_twin(reevo: Open) -> None:
    crm = reevo(own_key_field="cus_field__Key")
    defined(crm, "opportunity", "cus_field__Key", is_unique=True)
    deal = a_deal(crm)
    crm.send("opportunities", deal)
    crm.box.faults.add(ApplyThenDrop(), crm="reevo", method="POST", path=r"/opportunity\?")
    (outcome,) = crm.send("opportunities", replace(deal, seq=99, key="d2"))
    assert (outcome.verdict, outcome.crm_id) == ("created", crm.written("opportunities")[1].id)


def test_an_own_key_that_the_schema_does_not_know_stops_the_push(reevo: Open) -> None:
    crm = reevo(own_key_field="cus_field__Key")
    with pytest.raises(ConfigError, match="has no attribute 'cus_field__Key'"):
        crm.refusal("opportunities", a_deal(crm))


def test_a_creation_that_never_arrived_stays_open_until_it_would_show(reevo: Open) -> None:
    crm = reevo()
    crm.box.faults.add(Reset(), crm="reevo", method="POST", path=r"/opportunity\?")
    courier, deal = crm.courier("opportunities"), a_deal(crm)
    (outcome,) = crm.send("opportunities", deal)
    assert (outcome.verdict, crm.written("opportunities")) == ("unknown", [])
    crm.clock.sleep(300)
    assert [each.verdict for each in courier.settle(crm.log.batches[0])] == ["absent"]


def test_a_task_is_created_and_closed(reevo: Open) -> None:
    crm = reevo()
    (made,) = crm.send("tasks", crm.new("t1", title="Call", priority="HIGH", due_at=AT))
    (closed,) = crm.send("tasks", crm.change(str(made.crm_id), "t1", status="COMPLETED"))
    held = crm.record("tasks", made.crm_id)
    assert (made.verdict, closed.verdict) == ("created", "updated")
    assert (held["title"], held["priority"], held["status"]) == ("Call", "HIGH", "COMPLETED")


def an_activity(crm: Door, key: str = "a1", **links: Any) -> Row:
    metadata = {"activity_time": AT, "subject": "Fair", "description": "Stand 4", "category": "EVENT"}
    return crm.new(key, **{f"metadata.{name}": value for name, value in metadata.items()}, **links)


def test_an_activity_is_logged_and_a_lost_one_is_found_on_the_record_it_hangs_on(reevo: Open) -> None:
    crm = reevo()
    lee = contact(crm, "lee@pier.example")
    crm.box.faults.add(ApplyThenDrop(), crm="reevo", method="POST", path=r"/activity\?")
    (outcome,) = crm.send("activities", an_activity(crm, contact_ids=[lee]))
    assert (outcome.verdict, len(crm.written("activities"))) == ("created", 1)
    assert crm.record("activities", outcome.crm_id)["metadata"]["subject"] == "Fair"


def test_an_activity_that_hangs_on_nothing_stays_open_when_its_answer_is_lost(reevo: Open) -> None:
    crm = reevo()
    crm.box.faults.add(ApplyThenDrop(), crm="reevo", method="POST", path=r"/activity\?")
    (outcome,) = crm.send("activities", an_activity(crm))
    assert (outcome.verdict, len(crm.written("activities"))) == ("unknown", 1)


# -- v1 ------------------------------------------------------------------------------------------


@pytest.fixture
def v1(reevo: Open) -> Open:
    return lambda **given: reevo(api_version="v1", **given)


@pytest.mark.parametrize("answer", ["nested", "ids", "empty"])
def test_account_contact_makes_a_contact_with_its_account_whatever_it_answers(v1: Open, answer: str) -> None:
    crm = v1(upsert_answer=answer)
    row = crm.new("lee@pier.example", email="lee@pier.example", first_name="Lee", company="Pier")
    (outcome,) = crm.send("contacts", row)
    held = crm.box.tenant("reevo").find("contacts", primary_email="lee@pier.example")
    assert (outcome.verdict, outcome.crm_id) == ("created", held["id"])
    assert (
        crm.box.tenant("reevo").find("accounts", display_name="Pier")["domains"][0]["domain_name"]
        == "pier.example"
    )


def test_ids_that_no_answer_tells_are_asked_for(v1: Open) -> None:
    crm = v1(upsert_answer="empty", create_answer="empty")
    people = [crm.new(f"l{i}@new.example", email=f"l{i}@new.example") for i in range(3)]
    firms = [crm.new(f"c{i}.example", name=f"C{i}", domain_name=f"c{i}.example") for i in range(3)]
    assert all(each.crm_id for each in [*crm.send("contacts", *people), *crm.send("accounts", *firms)])


def test_every_write_of_v1_asks_for_json_as_the_vendor_wants(v1: Open) -> None:
    crm = v1(payload_type="required")
    sent = crm.send("contacts", crm.new("lee@pier.example", email="lee@pier.example"))
    assert [each.verdict for each in sent] == ["created"]
    assert crm.box.requests[-1].query == "payload_type=json"


def test_payload_type_can_be_left_out(reevo: Open) -> None:
    crm = reevo(api_version="v1", payload_type=False)
    (call,) = [crm.lane("tasks", "create").encode([crm.new(title="x")], crm.session.connection)]
    assert call.params == ()


def test_an_update_of_a_contact_carries_what_is_known_of_it_unless_told_that_it_merges(v1: Open) -> None:
    crm = v1()
    row = replace(
        crm.change("c1", "lee@pier.example", match="key", title="CEO"),
        known={"email": "Lee@pier.example", "first_name": "Lee", "custom_fields": {"cus_field__Size": 7}},
    )
    encode, connection = crm.lane("contacts", "upsert").encode, crm.session.connection
    merging = replace(connection, options={**connection.options, "upsert_semantics": "merge"})
    assert decode_json(encode([row], connection).body) == {
        "email": "Lee@pier.example",
        "first_name": "Lee",
        "title": "CEO",
        "contact_custom_fields": {"cus_field__Size": "7"},
    }
    assert decode_json(encode([row], merging).body) == {"email": "Lee@pier.example", "title": "CEO"}


def test_v1_clears_nothing_and_changes_no_contact_by_id(v1: Open) -> None:
    crm = v1()
    cleared = crm.change("c1", "lee@pier.example", match="key", title=None)
    custom = crm.change("c1", "lee@pier.example", match="key", **{"custom_fields.x": None})
    moved = crm.change("c1", "lee@pier.example", title="CEO")
    assert crm.refusal("contacts", cleared) == "title: the API cannot clear it"
    assert crm.refusal("contacts", custom) == "custom_fields.x: the API cannot clear it"
    assert "v1 cannot change a contact by id" in str(crm.refusal("contacts", moved))
    for write in crm.session.contract.writes.values():
        assert not any(each.clearable for each in write.fields.values())


@pytest.mark.parametrize("shape", [{}, {"single": "data"}, {"create_answer": "id"}, {"create_status": 201}])
def test_an_account_is_created_once_and_changed_by_id(v1: Open, shape: dict[str, Any]) -> None:
    crm = v1(**shape)
    (made,) = crm.send("accounts", crm.new("quay.example", name="Quay", domain_name="quay.example"))
    (changed,) = crm.send("accounts", crm.change(str(made.crm_id), "quay.example", name="The Quay"))
    held = crm.record("accounts", made.crm_id)
    assert (made.verdict, changed.verdict, held["display_name"]) == ("created", "updated", "The Quay")


def test_an_account_whose_domain_is_there_already_is_not_made_again(v1: Open) -> None:
    crm = v1(duplicates="allowed")
    account(crm, "pier.example")
    new = crm.new("pier.example", name="Pier", domain_name="pier.example")
    part = crm.new("ier.example", name="Ier", domain_name="ier.example")
    assert "already_in_crm" in str(crm.refusal("accounts", new))
    assert crm.refusal("accounts", part) is None


def test_a_domain_cannot_be_changed(v1: Open) -> None:
    crm = v1()
    row = crm.change("a1", "quay.example", domain_name="other.example")
    assert crm.refusal("accounts", row) == "domain_name: the API cannot change it"


def test_a_lost_account_is_found_by_its_domain_and_a_lost_opportunity_by_its_name(v1: Open) -> None:
    crm = v1()
    crm.box.faults.add(ApplyThenDrop(), method="POST", path=r"/accounts\?|/opportunities\?", times=2)
    (made,) = crm.send("accounts", crm.new("quay.example", name="Quay", domain_name="quay.example"))
    deal = crm.new("d1", display_name="Crane", account_id=made.crm_id, amount=Decimal("5.50"))
    (found,) = crm.send("opportunities", deal)
    assert (made.verdict, found.verdict) == ("created", "created")
    assert found.crm_id == crm.written("opportunities")[0].id
    assert [len(crm.written(each)) for each in ("accounts", "opportunities")] == [1, 1]


def test_a_stage_is_shifted_after_the_other_changes(v1: Open) -> None:
    crm = v1()
    crm_id = opportunity(crm)
    row = crm.change(crm_id, amount=Decimal(70), stage_name="Closed Lost", closed_reason_names=["Price"])
    (outcome,) = crm.send("opportunities", row)
    held = crm.record("opportunities", crm_id)
    assert (outcome.verdict, held["amount"], held["stage"]) == ("updated", "70", "lost")
    assert [each.path.rpartition("/")[2] for each in crm.box.requests] == [crm_id, "shift_stage"]


def test_a_stage_that_cannot_be_shifted_is_rejected_with_the_reason(v1: Open) -> None:
    crm = v1()
    (outcome,) = crm.send("opportunities", crm.change(opportunity(crm), stage_name="Closed Won"))
    assert (outcome.verdict, "closed_reason_names" in str(outcome.reason)) == ("rejected", True)


def test_an_opportunity_takes_no_stage_when_it_is_created(v1: Open) -> None:
    crm = v1()
    row = crm.new("d1", display_name="Crane", account_id="a1", stage_name="Proposal")
    reason = "stage_name: the API takes it for records that are there, not for new ones"
    assert crm.refusal("opportunities", row) == reason


@pytest.mark.parametrize("name", ["tasks", "activities"])
def test_what_cannot_be_read_is_sent_at_most_once(v1: Open, name: str) -> None:
    crm = v1()
    email = a_user(crm)["email"]
    crm.box.faults.add(ApplyThenDrop(), method="POST", path=r"/tasks\?|/manual_activities\?", nth=2)
    rows = {
        "tasks": [crm.new(f"t{i}", title="Call", owner_email=email, due_at=AT) for i in range(3)],
        "activities": [an_activity(crm, f"a{i}") for i in range(3)],
    }
    assert [each.verdict for each in crm.send(name, *rows[name])] == ["created", "unknown", "absent"]
    assert (len(crm.written(name)), crm.write(name).modes) == (2, frozenset({"create"}))


def test_a_contact_that_is_gone_does_not_void_the_look_at_the_others(reevo: Open) -> None:
    crm = reevo(api_version="v1", retrieval="refused")
    gone, edited = contact(crm, "gone@new.example"), contact(crm, "ann@new.example", first_name="Hand")
    crm.box.tenant("reevo").delete("contacts", gone)
    rows = [
        crm.change(gone, "gone@new.example", match="key", first_name="Model"),
        crm.change(edited, "ann@new.example", match="key", first_name="Model"),
    ]
    recheck = Recheck(crm.clock.now() - timedelta(hours=1), timedelta(0))
    write = crm.write("contacts")
    courier = Courier(crm.session, write, crm.log, run_id="run", clock=crm.clock, recheck=recheck)
    told = {each.seq: each.reason for each in courier.dispatch(write.lanes["upsert"], rows)}
    assert told == {rows[0].seq: "not_shown", rows[1].seq: "edited_since_plan: first_name"}
    assert crm.written("contacts") == []
