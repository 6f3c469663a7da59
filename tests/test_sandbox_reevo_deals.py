"""What Reevo's page says of v1's opportunities, tasks, activities and look-ups, on real HTTP."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sources.sandbox.store import Tenant
from tests.reevo_doors import NOON, Open, an_account, opened

SAM = "sam@ourfirm.example"


@pytest.fixture
def door() -> Iterator[Open]:
    with ExitStack() as stack:
        yield partial(opened, stack, "/api/v1/public")


def a_deal(client: httpx.Client, tenant: Tenant, **fields: Any) -> dict[str, Any]:
    """Create an opportunity over v1."""
    account_id = tenant.records("accounts")[0]["id"] if tenant.records("accounts") else an_account(tenant)
    body = {"display_name": "Pilot", "account_id": account_id} | fields
    made: dict[str, Any] = client.post("/opportunities", json=body).raise_for_status().json()
    return made


# Opportunities


def test_an_opportunity_is_created_in_the_first_stage_and_patched(door: Open) -> None:
    tenant, client = door()
    made = a_deal(client, tenant, amount="10.50", owner_email=SAM)
    body = {"amount": 11, "next_step_due_at": "2026-09-02T16:05:00+01:00", "stage": "won"}
    changed = client.patch(f"/opportunities/{made['id']}", json=body).json()
    assert (made["stage_name"], made["amount"], made["status"]) == ("Lead", 10.5, "PROSPECT")
    assert (changed["stage_name"], changed["amount"]) == ("Lead", 11)
    assert client.get(f"/opportunities/{made['id']}").json() == changed


def test_an_opportunity_needs_an_account_that_exists(door: Open) -> None:
    _, client = door()
    body = {"display_name": "x", "account_id": str(uuid4())}
    assert client.post("/opportunities", json=body).status_code == 404


def test_amounts_may_be_strings(door: Open) -> None:
    tenant, client = door(amounts="string")
    assert a_deal(client, tenant, amount=10.5)["amount"] == "10.5"


@pytest.mark.parametrize(("unknown", "status"), [("refused", 400), ("ignored", 200)])
def test_an_unknown_pipeline_is_refused_or_ignored(door: Open, unknown: str, status: int) -> None:
    tenant, client = door(unknown_pipeline=unknown)
    account_id = tenant.records("accounts")[0]["id"]
    body = {"display_name": "x", "account_id": account_id, "pipeline_name": "None"}
    assert client.post("/opportunities", json=body).status_code == status


@pytest.mark.parametrize(
    ("kind", "left"), [("replaces", ["b@b.example"]), ("adds", ["a@b.example", "b@b.example"])]
)
def test_further_contacts_replace_or_add(door: Open, kind: str, left: list[str]) -> None:
    tenant, client = door(additional_contacts=kind)
    path = f"/opportunities/{a_deal(client, tenant)['id']}"
    client.patch(path, json={"additional_contact_emails": ["a@b.example"]})
    changed = client.patch(path, json={"additional_contact_emails": ["b@b.example"]}).json()
    assert changed["additional_contact_emails"] == left


def test_a_search_without_conditions_lists_all_or_is_refused(door: Open) -> None:
    tenant, listing = door()
    _, refusing = door(empty_search="refused")
    assert len(listing.post("/opportunities/search", json={}).json()) == len(tenant.records("opportunities"))
    assert refusing.post("/opportunities/search", json={}).status_code == 400


def test_opportunities_are_searched_by_each_condition(door: Open) -> None:
    tenant, client = door(records=200)
    for body, name in (
        ({"status": "DEAL"}, "status"),
        ({"stage_name": "Proposal"}, "stage_name"),
        ({"owner_email": SAM}, "owner_email"),
        ({"account_id": tenant.records("opportunities")[0]["account_id"]}, "account_id"),
    ):
        rows = client.post("/opportunities/search", json=body).json()
        assert {row[name] for row in rows} == set(body.values())


@pytest.mark.parametrize(("match", "count"), [("contains", 1), ("exact", 0)])
def test_a_display_name_matches_in_part_or_whole(door: Open, match: str, count: int) -> None:
    tenant, client = door(records=0, name_match=match)
    a_deal(client, tenant)
    assert len(client.post("/opportunities/search", json={"display_name": "ilo"}).json()) == count


def test_a_stage_is_shifted_and_a_closed_one_needs_reasons(door: Open) -> None:
    tenant, client = door()
    path = f"/opportunities/{a_deal(client, tenant)['id']}/shift_stage"
    assert client.post(path, json={"target_stage_name": "Proposal"}).json()["status"] == "DEAL"
    assert client.post(path, json={"target_stage_name": "Closed Won"}).status_code == 400
    body = {"target_stage_name": "Closed Won", "closed_reason_names": ["Good fit"]}
    assert client.post(path, json=body).json()["stage_name"] == "Closed Won"
    assert tenant.find("opportunities", stage="won", outcome="WON")["closed_at"]
    assert client.post(path, json={"target_stage_name": "None"}).status_code == 400


# What can only be written, and the look-ups


def test_a_task_has_the_documented_defaults(door: Open) -> None:
    tenant, client = door(records=0)
    client.post("/tasks", json={"title": "Call", "owner_email": SAM}).raise_for_status()
    task = tenant.find("tasks", title="Call")
    assert (task["status"], task["priority"], task["type"]) == ("OPEN", "MEDIUM", "REMINDER")
    assert client.get("/tasks").status_code == 405


def test_an_activity_is_logged_on_records_that_exist(door: Open) -> None:
    tenant, client = door()
    metadata = {"activity_time": "2026-09-02T16:05:00+01:00", "subject": "Chat", "description": "Stand 14"}
    contact = tenant.records("contacts")[0]["id"]
    path = "/manual_activities"
    good = client.post(path, json={"metadata": metadata, "contact_ids": [contact]})
    bad = client.post(path, json={"metadata": metadata, "contact_ids": [str(uuid4())]})
    assert (good.status_code, bad.status_code) == (200, 404)
    assert tenant.find("activities", id=good.json()["id"])["metadata"]["category"] == "OTHER"


def test_a_user_and_the_mailboxes_of_one_are_found_by_address(door: Open) -> None:
    _, client = door()
    assert [row["email"] for row in client.post("/users/search", json={"email": SAM}).json()] == [SAM]
    assert client.post("/users/search", json={"email": "who@x.example"}).json() == []
    rows = client.post("/mailboxes/search", json={"owner_user_email": SAM}).json()
    assert [row["owner_user_email"] for row in rows] == [SAM]


def test_a_contact_is_in_one_sequence_at_most(door: Open) -> None:
    tenant, client = door()
    sam = tenant.find("users", email=SAM)["id"]
    email = tenant.find("contacts", owner_user_id=sam)["primary_email"]
    body = {"contact_email": email, "sequence_id": tenant.records("sequences")[0]["id"]}
    statuses = [client.post("/sequence_enrollments", json=body).status_code for _ in range(2)]
    assert statuses == [200, 409]
    assert [write.resource for write in tenant.ledger] == ["enrollments"]


def test_lists_may_lag_behind_writes(door: Open) -> None:
    times = [NOON]
    _, client = door(records=0, list_lag_s=30, now=lambda: times[-1])
    client.post("/accounts", json={"name": "P", "domain_name": "p.example"})
    body = {"domain_name": "."}
    assert client.post("/accounts/search", json=body).json() == []
    times.append(NOON + timedelta(seconds=31))
    assert len(client.post("/accounts/search", json=body).json()) == 1
