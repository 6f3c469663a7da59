"""What lies below a record in Reevo's v2: relationships, addresses, domains; and activities."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest

from tests.reevo_doors import NOON, Open, a_contact, an_account, code, everything, held, opened


@pytest.fixture
def door() -> Iterator[Open]:
    with ExitStack() as stack:
        yield partial(opened, stack, "/api/v2")


# Relationships, lists below a record, activities


def test_a_contact_and_an_account_are_related_with_role_and_primary(door: Open) -> None:
    tenant, client = door(records=0)
    contact, account = a_contact(tenant), an_account(tenant)
    body = {"related_record_match": {"domain_name": "pier.example"}, "role": "Buyer", "is_primary": True}
    path = f"/contact/{contact}/relationship/accounts"
    made = client.post(path, json=body)
    listed = client.get(f"/account/{account}/relationship/contacts").json()
    assert (made.status_code, made.json()["parent"]["id"]) == (201, contact)
    assert made.json()["item"]["role"] == "Buyer"
    assert [row["related_record_id"] for row in listed["items"]] == [contact]
    assert client.patch(f"{path}/{account}", json={"role": "CFO"}).json()["item"]["role"] == "CFO"
    assert client.delete(f"{path}/{account}").status_code == 204
    assert client.get(path).json()["items"] == []


def test_a_new_primary_account_demotes_the_one_before(door: Open) -> None:
    tenant, client = door(records=0)
    path = f"/contact/{a_contact(tenant)}/relationship/accounts"
    for domain in ("a.example", "b.example"):
        client.post(path, json={"related_record_id": an_account(tenant, domain), "is_primary": True})
    assert [row["is_primary"] for row in client.get(path).json()["items"]] == [False, True]


def test_an_opportunity_has_contacts(door: Open) -> None:
    tenant, client = door()
    deal = tenant.records("opportunities")[0]["id"]
    path = f"/opportunity/{deal}/relationship/contacts"
    client.post(path, json={"related_record_id": a_contact(tenant)}).raise_for_status()
    assert len(client.get(path).json()["items"]) == 2
    page = client.get(path, params={"limit": 1}).json()
    assert len(client.get(path, params={"cursor": page["next_cursor"]}).json()["items"]) == 1


def test_a_relationship_answer_may_come_wrapped(door: Open) -> None:
    tenant, client = door(relationship_answer="data")
    assert list(client.get(f"/contact/{a_contact(tenant)}/relationship/accounts").json()) == ["data"]


def test_relationship_errors_have_their_codes(door: Open) -> None:
    tenant, client = door()
    path = f"/contact/{a_contact(tenant)}/relationship"
    nobody = {"related_record_id": str(uuid4())}
    assert code(client.get(f"{path}/boats")) == (404, "unknown_relationship")
    assert code(client.post(f"{path}/accounts", json=nobody)) == (404, "target_record_not_found")
    assert code(client.post(f"{path}/accounts", json={})) == (422, "field_required_missing")


@pytest.mark.parametrize(("touches", "moved"), [(False, False), (True, True)])
def test_a_relationship_moves_updated_at_only_if_switched_so(door: Open, touches: bool, moved: bool) -> None:
    times = [NOON]
    tenant, client = door(records=0, relationships_touch=touches, now=lambda: times[-1])
    id, account = a_contact(tenant), an_account(tenant)
    times.append(NOON + timedelta(hours=1))
    client.post(f"/contact/{id}/relationship/accounts", json={"related_record_id": account})
    assert (tenant.find("contacts")["updated_at"] > NOON) == moved


def test_addresses_are_added_changed_and_taken_away(door: Open) -> None:
    tenant, client = door(records=0)
    id = a_contact(tenant)
    path = f"/contact/{id}/attribute/contact_emails"
    body = {"email": "two@pier.example", "is_primary": True, "labels": ["WORK"]}
    made = client.post(path, json=body).json()["data"]
    assert made == {"id": made["id"], "envelope": {"id": made["id"], **body}}
    assert held(client.get(f"/contact/{id}"), "primary_email") == "two@pier.example"
    assert sum(row["is_primary"] for row in tenant.find("contacts")["contact_emails"]) == 1
    changed = client.patch(f"{path}/{made['id']}", json={"email": "2@pier.example", "is_primary": True})
    assert changed.json()["data"]["envelope"]["email"] == "2@pier.example"
    assert client.delete(f"{path}/{made['id']}").status_code == 204
    assert tenant.find("contacts")["primary_email"] == "lee@pier.example"


def test_an_address_is_on_one_contact_only(door: Open) -> None:
    tenant, client = door(records=0)
    a_contact(tenant)
    path = f"/contact/{a_contact(tenant, 'b@b.example')}/attribute/contact_emails"
    body = {"email": "lee@pier.example", "is_primary": False}
    assert code(client.post(path, json=body)) == (422, "field_value_invalid")


def test_domains_are_keyed_by_themselves(door: Open) -> None:
    tenant, client = door(records=0)
    path = f"/account/{an_account(tenant)}/attribute/domains"
    made = client.post(path, json={"domain_name": "two.example"})
    assert made.json() == {"data": {"domain_name": "two.example", "is_primary": False}}
    assert client.patch(f"{path}/two.example", json={"is_primary": True}).status_code == 200
    assert [row["is_primary"] for row in tenant.find("accounts")["domains"]] == [False, True]
    assert client.delete(f"{path}/pier.example").status_code == 204


def test_a_type_without_lists_says_so(door: Open) -> None:
    tenant, client = door()
    path = f"/opportunity/{tenant.records('opportunities')[0]['id']}/attribute/contact_emails"
    assert code(client.post(path, json={"email": "a@b.example"})) == (422, "sub_resource_not_supported")


@pytest.mark.parametrize(("touches", "moved"), [(True, True), (False, False)])
def test_an_item_moves_updated_at_unless_switched_off(door: Open, touches: bool, moved: bool) -> None:
    times = [NOON]
    tenant, client = door(records=0, sub_resources_touch=touches, now=lambda: times[-1])
    path = f"/contact/{a_contact(tenant)}/attribute/contact_phone_numbers"
    times.append(NOON + timedelta(hours=1))
    client.post(path, json={"phone_number": "+1503", "is_primary": True}).raise_for_status()
    assert (tenant.find("contacts")["updated_at"] > NOON) == moved


@pytest.mark.parametrize(("touches", "moved"), [(True, True), (False, False)])
def test_the_same_value_again_moves_updated_at_or_not(door: Open, touches: bool, moved: bool) -> None:
    times = [NOON]
    tenant, client = door(records=0, same_values_touch=touches, now=lambda: times[-1])
    path = f"/contact/{a_contact(tenant, title='CEO')}"
    times.append(NOON + timedelta(hours=1))
    client.patch(path, json={"attributes": {"title": "CEO"}})
    assert (tenant.find("contacts")["updated_at"] > NOON) == moved
    client.patch(path, json={"attributes": {"title": "CFO"}})
    assert tenant.find("contacts")["updated_at"] > NOON


def test_an_activity_is_logged_and_queried_in_its_scope(door: Open) -> None:
    tenant, client = door(records=0)
    contact = a_contact(tenant)
    metadata = {"activity_time": "2026-09-02T16:05:00+01:00", "subject": "Chat", "description": "x"}
    made = client.post("/activity", json={"attributes": {"metadata": metadata, "contact_ids": [contact]}})
    assert made.json()["data"]["metadata"] == metadata | {"category": "OTHER"}
    rows = client.post("/activity/_query", json={"contact_id": contact}).json()["data"]
    assert [row["id"] for row in rows] == [made.json()["data"]["id"]]
    assert client.post("/activity/_query", json={"contact_id": str(uuid4())}).json()["data"] == []
    assert code(client.post("/activity/_query", json={})) == (422, "field_required_missing")


def test_activities_page_and_have_a_window_of_creation(door: Open) -> None:
    tenant, client = door(records=60)
    account = next(row["account_id"] for row in tenant.records("activities") if row["account_id"])
    mine = tenant.records("activities", account_id=account)
    rows = everything(client, "activity", {"account_id": account, "limit": 2})
    assert [row["id"] for row in rows] == [row["id"] for row in mine]
    window = {"account_id": account, "created_from": mine[1]["created_at"].isoformat()}
    assert len(client.post("/activity/_query", json=window).json()["data"]) == len(mine) - 1
