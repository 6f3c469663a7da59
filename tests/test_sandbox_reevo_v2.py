"""What Reevo's pages say of v2 and its records, and what its open questions may turn out to be."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from sources.sandbox.faults import Status
from tests.reevo_doors import NOON, Open, Row, a_contact, an_account, code, found, held, opened


@pytest.fixture
def door() -> Iterator[Open]:
    with ExitStack() as stack:
        yield partial(opened, stack, "/api/v2")


# Keys, presence, errors


def test_health_needs_no_key(door: Open) -> None:
    _, client = door()
    del client.headers["authorization"]
    assert client.get("/health").status_code == 200
    assert client.post("/contact/_query", json={}).status_code == 401


def test_the_key_may_come_in_the_header_of_v1(door: Open) -> None:
    _, client = door()
    key = client.headers.pop("authorization").removeprefix("Bearer ")
    assert client.post("/contact/_query", json={}, headers={"X-Api-Key": key}).status_code == 200


def test_a_revoked_key_is_401() -> None:
    with Sandbox(records=1) as box:
        headers = {"Authorization": f"Bearer {box.key('reevo')}"}
        box.revoke("reevo")
        url = f"{box.base_url('reevo')}/api/v2/contact/_query"
        assert httpx.post(url, json={}, headers=headers, trust_env=False).status_code == 401


def test_a_deployment_may_have_no_v2(door: Open) -> None:
    _, client = door(has_v2=False)
    assert client.get("/health").json() == {"detail": "Not Found"}
    assert client.post("/contact/_query", json={}).status_code == 404


@pytest.mark.parametrize(("enforced", "status"), [(True, 403), (False, 200)])
def test_permissions_hold_for_v2_unless_switched_off(door: Open, enforced: bool, status: int) -> None:
    _, client = door(scopes=("contacts.write",), v2_permissions=enforced)
    assert client.post("/contact/_query", json={}).status_code == 200
    assert client.post("/account/_query", json={}).status_code == status


@pytest.mark.parametrize(
    ("shape", "keys"), [("flat", ["code"]), ("detail", ["detail", "code"]), ("errors", ["errors", 0, "code"])]
)
def test_an_error_has_its_code_in_one_of_four_places(door: Open, shape: str, keys: list[Any]) -> None:
    _, client = door(v2_error=shape)
    found: Any = client.get("/boat/1").json()
    for key in keys:
        found = found[key]
    assert found == "unknown_record_type"


def test_field_and_filter_errors_may_have_other_statuses(door: Open) -> None:
    _, client = door(field_status=400, filter_status=422)
    unknown = [{"field": "shoe", "operator": "eq", "value": 9}]
    assert code(client.post("/contact", json={"attributes": {"shoe": 9}})) == (400, "unknown_field")
    assert code(client.post("/contact/_query", json={"filters": unknown})) == (422, "invalid_filter_field")


def test_v1_and_v2_know_a_record_by_the_same_id(door: Open) -> None:
    tenant, client = door()
    id = tenant.records("contacts")[0]["id"]
    url = str(client.base_url).replace("/api/v2/", f"/api/v1/public/contacts/{id}")
    key = client.headers["authorization"].removeprefix("Bearer ")
    v1 = httpx.get(url, headers={"x-api-key": key}, trust_env=False).json()
    assert v1["email"] == held(client.get(f"/contact/{id}"), "primary_email")


def test_a_fault_speaks_the_shape_of_the_contract_it_hits() -> None:
    with Sandbox(records=1) as box:
        headers = {"Authorization": f"Bearer {box.key('reevo')}", "x-api-key": box.key("reevo")}
        box.faults.add(Status(500), times=2)
        base = f"{box.base_url('reevo')}/api"
        v1 = httpx.post(f"{base}/v1/public/opportunities/search", json={}, headers=headers, trust_env=False)
        v2 = httpx.post(f"{base}/v2/contact/_query", json={}, headers=headers, trust_env=False)
    assert (v1.status_code, v1.json()["error_response_type"]) == (500, "GENERIC")
    assert code(v2) == (500, "fault")


# Records and values


def test_a_record_has_stamps_on_top_and_enveloped_attributes(door: Open) -> None:
    tenant, client = door(now=lambda: NOON)
    id = a_contact(tenant, first_name="Lee", last_name="Pier")
    record = client.get(f"/contact/{id}").json()["data"]
    assert list(record) == ["id", "record_type", "created_at", "updated_at", "attributes"]
    assert (record["record_type"], record["updated_at"]) == ("contact", "2026-03-01T12:00:00Z")
    assert record["attributes"]["display_name"] == {"value_type": "string", "value": "Lee Pier"}
    assert record["attributes"]["stage"]["value"]["api_name"] == "lead"
    [email] = record["attributes"]["contact_emails"]
    assert email["value_type"] == "contact_email"
    assert email["value"]["email"] == "lee@pier.example"


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("envelope", {"value_type": "string", "value": None}), ("bare", None), ("left_out", 0)],
)
def test_an_empty_attribute_comes_in_one_of_three_forms(door: Open, kind: str, shown: Any) -> None:
    tenant, client = door(null_attributes=kind)
    attributes = client.get(f"/contact/{a_contact(tenant)}").json()["data"]["attributes"]
    assert attributes.get("title", 0) == shown


@pytest.mark.parametrize(("kind", "shown"), [("number", 7.5), ("string", "7.5")])
def test_numbers_are_numbers_or_strings(door: Open, kind: str, shown: Any) -> None:
    tenant, client = door(numbers=kind)
    id = a_contact(tenant, cus_field__Score=7.5)
    assert held(client.get(f"/contact/{id}"), "cus_field__Score") == shown


def test_stamps_may_stand_on_top_only_and_be_finer(door: Open) -> None:
    tenant, client = door(stamps_in_attributes=False, fraction_digits=6, now=lambda: NOON)
    record = client.get(f"/contact/{a_contact(tenant)}").json()["data"]
    assert record["updated_at"] == "2026-03-01T12:00:00.000000Z"
    assert "updated_at" not in record["attributes"]


def test_an_opportunity_shows_money_stage_and_outcome(door: Open) -> None:
    tenant, client = door()
    deal = tenant.find("opportunities", stage="won")
    answer = client.get(f"/opportunity/{deal['id']}")
    assert held(answer, "amount") == {"amount": deal["amount"]}
    assert held(answer, "stage")["closing_probability"] == "100"
    assert held(answer, "outcome") == "WON"
    assert held(answer, "account_id")["related_record_type"] == "account"


@pytest.mark.parametrize(("name", "other"), [("display_name", "name"), ("name", "display_name")])
def test_an_account_is_named_one_way(door: Open, name: str, other: str) -> None:
    _, client = door(account_name=name)
    made = client.post("/account", json={"attributes": {name: "Pier"}})
    assert held(made, name) == "Pier"
    assert code(client.post("/account", json={"attributes": {other: "Pier"}})) == (422, "unknown_field")


def test_the_schema_describes_what_can_be_done_with_a_field(door: Open) -> None:
    _, client = door()
    schema = client.get("/_schema/contact").json()
    fields = {field["api_name"]: field for field in schema["attributes"]}
    assert (schema["api_name"], schema["supports_custom_fields"]) == ("contact", True)
    assert fields["updated_at"]["is_filterable"]
    assert fields["updated_at"]["is_sortable"]
    assert not fields["updated_at"]["is_updatable"]
    assert "gte" in fields["updated_at"]["filter_operators"]
    assert fields["cus_field__Ref"]["is_custom"]
    assert fields["cus_field__Ref"]["is_unique"]
    assert fields["contact_emails"]["type_info"] == {"is_array": True, "value_type": "contact_email"}
    assert [edge["api_name"] for edge in schema["relationships"]] == ["accounts", "opportunities"]


def test_a_custom_field_added_by_hand_shows_at_once(door: Open) -> None:
    tenant, client = door()
    id = a_contact(tenant)
    client.get(f"/contact/{id}")
    tenant.create("fields", record_type="contact", api_name="cus_field__New", value_type="boolean")
    changed = client.patch(f"/contact/{id}", json={"attributes": {"cus_field__New": True}})
    assert held(changed, "cus_field__New") is True


def test_an_unknown_record_type_is_404(door: Open) -> None:
    _, client = door()
    for answer in (client.get("/_schema/boat"), client.post("/boat/_query", json={}), client.get("/boat/1")):
        assert code(answer) == (404, "unknown_record_type")


# Create, patch, archive


@pytest.mark.parametrize(
    ("record_type", "body", "change"),
    [
        ("contact", {"primary_email": "a@b.example"}, {"title": "CEO"}),
        ("account", {"display_name": "Pier"}, {"description": "x"}),
        ("task", {"title": "Call"}, {"status": "CLOSED"}),
        ("note", {"note_html": "<p>x</p>"}, {"is_private": True}),
        ("cus_object__Site", {"display_name": "Yard"}, {"city": "Leeds"}),
    ],
)
def test_records_are_created_read_changed_and_archived(
    door: Open, record_type: str, body: Row, change: Row
) -> None:
    tenant, client = door(records=0)
    made = client.post(f"/{record_type}", json={"attributes": body})
    path = f"/{record_type}/{made.json()['data']['id']}"
    changed = client.patch(path, json={"attributes": change})
    assert (made.status_code, changed.status_code) == (201, 200)
    assert {name: held(changed, name) for name in body | change} == body | change
    assert client.delete(path).status_code == 204
    assert code(client.get(path)) == (404, "record_not_found")
    assert [write.op for write in tenant.ledger] == ["create", "update", "delete"]


def test_an_opportunity_needs_name_stage_and_account(door: Open) -> None:
    tenant, client = door()
    whole = {"display_name": "x", "stage": "Proposal", "account_id": an_account(tenant)}
    for name in whole:
        rest = {key: value for key, value in whole.items() if key != name}
        assert code(client.post("/opportunity", json={"attributes": rest})) == (422, "field_required_missing")
    made = client.post("/opportunity", json={"attributes": whole | {"amount": "10.50"}})
    assert (held(made, "status"), held(made, "amount")) == ("DEAL", {"amount": "10.50"})


@pytest.mark.parametrize(
    ("attributes", "refusal"),
    [
        ({"shoe": 9}, "unknown_field"),
        ({"updated_at": "2026-01-01T00:00:00Z"}, "field_not_updatable"),
        ({"display_name": "x"}, "field_not_updatable"),
        ({"first_name": 7}, "field_value_invalid"),
        ({"stage": "none"}, "field_value_invalid"),
        ({"primary_email": "none"}, "field_value_invalid"),
        ({"cus_field__Topics": ["none"]}, "field_value_invalid"),
        ({"cus_field__Score": "7"}, "field_value_invalid"),
        ({"contact_emails": "a@b.example"}, "field_value_invalid"),
    ],
)
def test_an_attribute_that_will_not_do_is_422_by_name(door: Open, attributes: Row, refusal: str) -> None:
    tenant, client = door()
    path = f"/contact/{a_contact(tenant)}"
    writes = len(tenant.ledger)
    answer = client.patch(path, json={"attributes": attributes})
    assert code(answer) == (422, refusal)
    assert answer.json()["error"]["field"] == next(iter(attributes))
    assert len(tenant.ledger) == writes


def test_a_patch_leaves_sets_and_clears(door: Open) -> None:
    tenant, client = door()
    id = a_contact(tenant, first_name="Lee", title="CEO", middle_name="X")
    changed = client.patch(f"/contact/{id}", json={"attributes": {"title": "CFO", "middle_name": None}})
    assert [held(changed, name) for name in ("first_name", "title", "middle_name")] == ["Lee", "CFO", None]


def test_values_may_come_in_envelopes_and_references_by_match(door: Open) -> None:
    tenant, client = door()
    owner = {"related_record_match": {"email": "sam@ourfirm.example"}}
    sent = {"title": {"value_type": "string", "value": "CEO"}, "owner_user_id": owner}
    changed = client.patch(f"/contact/{a_contact(tenant)}", json={"attributes": sent})
    assert held(changed, "title") == "CEO"
    sam = tenant.find("users", email="sam@ourfirm.example")["id"]
    assert held(changed, "owner_user_id") == {"related_record_id": sam, "related_record_type": "user"}


def test_a_reference_to_nothing_is_404(door: Open) -> None:
    tenant, client = door()
    body = {"attributes": {"owner_user_id": str(uuid4())}}
    assert code(client.patch(f"/contact/{a_contact(tenant)}", json=body)) == (404, "target_record_not_found")


def test_a_sent_list_replaces_the_list_and_what_follows_from_it(door: Open) -> None:
    tenant, client = door()
    emails = ["b@b.example", {"email": "c@b.example", "is_primary": True, "labels": ["WORK"]}]
    path = f"/contact/{a_contact(tenant)}"
    changed = client.patch(path, json={"attributes": {"contact_emails": emails}})
    rows = [row["value"] for row in changed.json()["data"]["attributes"]["contact_emails"]]
    assert held(changed, "primary_email") == "c@b.example"
    assert [(row["email"], row["is_primary"]) for row in rows] == [
        ("b@b.example", False),
        ("c@b.example", True),
    ]


def test_the_primary_address_may_be_derived_only(door: Open) -> None:
    _, client = door(primary_email_writable=False)
    body = {"attributes": {"primary_email": "a@b.example"}}
    assert code(client.post("/contact", json=body)) == (422, "field_not_creatable")


@pytest.mark.parametrize(("duplicates", "status"), [("refused", 422), ("allowed", 201)])
def test_a_second_contact_with_an_address_is_refused_or_not(door: Open, duplicates: str, status: int) -> None:
    tenant, client = door(duplicates=duplicates)
    a_contact(tenant)
    body = {"attributes": {"primary_email": "LEE@pier.example"}}
    assert client.post("/contact", json=body).status_code == status


def test_a_unique_custom_field_is_held_once(door: Open) -> None:
    tenant, client = door()
    a_contact(tenant, cus_field__Ref="r1")
    body = {"attributes": {"primary_email": "b@b.example", "cus_field__Ref": "r1"}}
    assert code(client.post("/contact", json=body)) == (422, "field_value_invalid")


def test_a_stage_may_have_entrance_criteria(door: Open) -> None:
    tenant, client = door(entrance_criteria=(("customer", "title"),))
    path = f"/contact/{a_contact(tenant)}"
    refused = client.patch(path, json={"attributes": {"stage": "customer"}})
    assert code(refused) == (422, "stage_entrance_criteria_not_met")
    both = {"stage": "Customer", "title": "CEO"}
    assert held(client.patch(path, json={"attributes": both}), "stage")["api_name"] == "customer"


def test_a_meeting_is_read_only(door: Open) -> None:
    tenant, client = door()
    path = f"/meeting/{tenant.records('meetings')[0]['id']}"
    assert client.get(path).status_code == 200
    assert code(client.delete(path)) == (422, "record_not_writable")


def test_the_crm_may_keep_another_value_than_was_sent(door: Open) -> None:
    tenant, client = door(echo=Echo(trims=True))
    made = client.post("/contact", json={"attributes": {"first_name": " Lee "}})
    assert held(made, "first_name") == "Lee"
    assert tenant.ledger[0].fields == {"first_name": " Lee "}


@pytest.mark.parametrize(
    ("archived", "count", "flag"), [("shown", 1, False), ("flagged", 1, True), ("hidden", 0, False)]
)
def test_what_is_archived_is_hidden_shown_or_flagged(
    door: Open, archived: str, count: int, flag: bool
) -> None:
    tenant, client = door(records=0, archived=archived)
    client.delete(f"/contact/{a_contact(tenant)}")
    rows = found(client, "contact")
    assert len(rows) == count
    assert [row["attributes"].get("is_archived") for row in rows if flag] == [
        {"value_type": "boolean", "value": True}
    ] * flag


# Assert


def test_an_assert_creates_and_then_updates(door: Open) -> None:
    tenant, client = door(records=0)
    body = {"match": {"contact_emails": "a@b.example"}, "attributes": {"first_name": "A"}}
    first = client.post("/contact/_assert", json=body)
    again = client.post("/contact/_assert", json=body | {"attributes": {"title": "CEO"}})
    assert (first.status_code, first.json()["meta"]) == (201, {"action": "created"})
    assert (again.status_code, again.json()["meta"]) == (200, {"action": "updated"})
    assert first.json()["data"]["id"] == again.json()["data"]["id"]
    assert [held(again, name) for name in ("primary_email", "first_name", "title")] == [
        "a@b.example",
        "A",
        "CEO",
    ]
    assert [(write.op, write.effect) for write in tenant.ledger] == [
        ("upsert", "create"),
        ("upsert", "update"),
    ]


def test_an_assert_finds_a_contact_by_any_of_its_addresses_and_by_a_unique_field(door: Open) -> None:
    tenant, client = door(records=0)
    id = a_contact(tenant, cus_field__Ref="r1")
    tenant.edit(
        "contacts",
        id,
        contact_emails=[
            {"id": str(uuid4()), "email": email, "is_primary": place == 0, "labels": []}
            for place, email in enumerate(("lee@pier.example", "second@pier.example"))
        ],
    )
    for match in ({"primary_email": "Second@pier.example"}, {"cus_field__Ref": "r1"}):
        answer = client.post("/contact/_assert", json={"match": match, "attributes": {}})
        assert answer.json()["data"]["id"] == id


def test_an_account_is_asserted_by_domain_which_is_no_attribute(door: Open) -> None:
    tenant, client = door(records=0)
    body = {"match": {"domain_name": "pier.example"}, "attributes": {"display_name": "Pier"}}
    actions = [client.post("/account/_assert", json=body).json()["meta"]["action"] for _ in range(2)]
    assert actions == ["created", "updated"]
    assert tenant.find("accounts")["domains"] == [{"domain_name": "pier.example", "is_primary": True}]
    sent = {"attributes": {"display_name": "x", "domain_name": "pier.example"}}
    assert code(client.post("/account", json=sent)) == (422, "unknown_field")


def test_two_hits_are_ambiguous(door: Open) -> None:
    tenant, client = door()
    a_contact(tenant), a_contact(tenant)
    body = {"match": {"primary_email": "lee@pier.example"}, "attributes": {"title": "CEO"}}
    assert code(client.post("/contact/_assert", json=body)) == (409, "ambiguous_match")


@pytest.mark.parametrize("match", [{}, {"title": "CEO"}, {"primary_email": "a@b.example", "id": "x"}])
def test_a_match_by_no_single_unique_field_is_refused(door: Open, match: Row) -> None:
    _, client = door()
    body = {"match": match, "attributes": {}}
    assert code(client.post("/contact/_assert", json=body)) == (422, "invalid_matching_field")


def test_match_keys_may_be_fewer(door: Open) -> None:
    _, client = door(account_match_keys=("id",), contact_match=("primary_email",))
    for record_type, match in (
        ("account", {"domain_name": "a.example"}),
        ("contact", {"contact_emails": "a@b.c"}),
    ):
        answer = client.post(f"/{record_type}/_assert", json={"match": match, "attributes": {}})
        assert code(answer) == (422, "invalid_matching_field")


def test_opportunities_cannot_be_asserted(door: Open) -> None:
    _, client = door()
    assert client.post("/opportunity/_assert", json={"match": {}, "attributes": {}}).status_code == 404
