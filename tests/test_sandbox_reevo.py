"""What Reevo's page says of v1, and what its open questions may turn out to be, on real HTTP."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sources.sandbox import Sandbox
from sources.sandbox.reevo_switches import ReevoSwitches
from tests.reevo_doors import NOON, Open, an_account, opened

SAM = "sam@ourfirm.example"


@pytest.fixture
def door() -> Iterator[Open]:
    with ExitStack() as stack:
        yield partial(opened, stack, "/api/v1/public")


# Keys, permissions, errors


def test_no_key_is_422_with_a_list_of_details(door: Open) -> None:
    _, client = door()
    del client.headers["x-api-key"]
    answer = client.post("/accounts/search", json={"domain_name": "."})
    assert answer.status_code == 422
    assert [set(row) for row in answer.json()["detail"]] == [{"type", "loc", "msg", "input"}]


def test_a_wrong_key_is_401_in_the_generic_shape(door: Open) -> None:
    _, client = door()
    answer = client.post("/users/search", json={"email": SAM}, headers={"x-api-key": "wrong"})
    assert answer.status_code == 401
    assert answer.json()["error_response_type"] == "GENERIC"
    assert answer.json()["error"] == "UnauthorizedError"
    assert answer.json()["details"] is None


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_key_is_told_so(status: int) -> None:
    with Sandbox(records=1, reevo=ReevoSwitches(expired_status=status)) as box:
        headers = {"x-api-key": box.key("reevo")}
        box.revoke("reevo")
        url = f"{box.base_url('reevo')}/api/v1/public/users/search"
        answer = httpx.post(url, json={"email": SAM}, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["message"]) == (status, "API key has expired")


def test_an_unknown_path_and_a_wrong_method_need_no_key(door: Open) -> None:
    _, client = door()
    del client.headers["x-api-key"]
    unknown, wrong = client.get("/nothing"), client.get("/accounts")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize("status", [403, 401])
def test_a_lacking_permission_is_named(door: Open, status: int) -> None:
    _, client = door(scopes=("accounts.write",), permission_status=status)
    answer = client.post("/account_contact", json={"email": "a@pier.example"})
    assert answer.status_code == status
    assert "contacts.write" in answer.json()["message"]
    assert "accounts.write" not in answer.json()["message"]


def test_write_implies_read_on_the_same_resource_only(door: Open) -> None:
    _, client = door(scopes=("accounts.write",))
    assert client.post("/accounts/search", json={"domain_name": "."}).status_code == 200
    assert client.post("/opportunities/search", json={}).status_code == 403


@pytest.mark.parametrize(("kind", "status"), [("tolerated", 200), ("required", 422)])
def test_payload_type_is_tolerated_or_required(door: Open, kind: str, status: int) -> None:
    _, client = door(payload_type=kind)
    path, body = "/accounts/search", {"domain_name": "."}
    assert client.post(path, json=body).status_code == status
    assert client.post(path, json=body, params={"payload_type": "json"}).status_code == 200


def test_a_used_up_quota_is_429_without_a_hint_how_long(door: Open) -> None:
    _, client = door(quota=1)
    statuses = [client.post("/opportunities/search", json={}).status_code for _ in range(2)]
    answer = client.post("/opportunities/search", json={})
    assert statuses == [200, 429]
    assert "quota" in answer.json()["message"]
    assert "retry-after" not in answer.headers


def test_a_rate_limit_tells_nothing_unless_switched_so(door: Open) -> None:
    _, silent = door(rate_limit=1, now=lambda: NOON)
    _, telling = door(rate_limit=1, now=lambda: NOON, retry_after=True, rate_headers=True)
    answers = [client.post("/opportunities/search", json={}) for client in (silent, silent, telling, telling)]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
    assert not {"retry-after", "x-ratelimit-limit"} & set(answers[1].headers)
    assert {"retry-after", "x-ratelimit-limit"} <= set(answers[3].headers)


@pytest.mark.parametrize(
    ("path", "body", "loc"),
    [
        ("/account_contact", {}, ["body", "email"]),
        ("/account_contact", {"email": "none"}, ["body", "email"]),
        ("/accounts", {"name": None}, ["body", "name"]),
        ("/opportunities", {"display_name": "x", "account_id": "7"}, ["body", "account_id"]),
        ("/opportunities/search", {"status": "WON"}, ["body", "status"]),
        ("/tasks", {"title": "x", "owner_email": SAM, "due_at": "2026-01-01T00:00:00"}, ["body", "due_at"]),
        ("/tasks", {"title": "x", "owner_email": SAM, "type": "FAX"}, ["body", "type"]),
        ("/manual_activities", {"metadata": {}}, ["body", "metadata", "activity_time"]),
    ],
)
def test_a_body_that_does_not_fit_is_422_and_says_where(
    door: Open, path: str, body: dict[str, Any], loc: list[str]
) -> None:
    tenant, client = door()
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == loc
    assert tenant.ledger == []


def test_bytes_that_are_no_json_are_422(door: Open) -> None:
    _, client = door()
    assert client.post("/accounts", content=b"{").json()["detail"][0]["type"] == "json_invalid"


@pytest.mark.parametrize(("missing", "status"), [("refused", 404), ("null", 200)])
def test_an_unknown_id_is_404_or_null(door: Open, missing: str, status: int) -> None:
    _, client = door(missing_record=missing)
    answer = client.get(f"/contacts/{uuid4()}")
    assert answer.status_code == status
    assert (answer.json() or {"error": "NotFoundError"})["error"] == "NotFoundError"


def test_an_id_that_is_no_uuid_is_422(door: Open) -> None:
    _, client = door()
    assert client.get("/contacts/7").json()["detail"][0]["loc"] == ["path", "contact_id"]


# Accounts


def test_an_account_search_answers_a_bare_array_without_time_stamps(door: Open) -> None:
    _, client = door()
    rows = client.post("/accounts/search", json={"domain_name": ".", "limit": 2}).json()
    known = "id name status official_website domain_name linkedin_url facebook_url zoominfo_url x_url"
    assert len(rows) == 2
    assert set(rows[0]) == {*known.split(), "owner_email", "custom_fields"}


def test_limit_and_offset_walk_every_account_with_a_domain_in_order_of_creation(door: Open) -> None:
    tenant, client = door(records=100)
    rows: list[dict[str, Any]] = []
    while page := client.post(
        "/accounts/search", json={"domain_name": ".", "limit": 7, "offset": len(rows)}
    ).json():
        rows += page
    accounts = tenant.records("accounts")
    assert [row["id"] for row in rows] == [row["id"] for row in accounts if row["domains"]]
    assert len(rows) < len(accounts)


def test_the_order_may_be_the_other_way(door: Open) -> None:
    tenant, client = door(v1_order="created_desc")
    rows = client.post("/opportunities/search", json={}).json()
    assert [row["id"] for row in rows] == [row["id"] for row in tenant.records("opportunities")][::-1]


def test_a_page_may_be_shorter_by_default(door: Open) -> None:
    _, client = door(v1_default_limit=3)
    assert len(client.post("/opportunities/search", json={}).json()) == 3


def test_a_limit_is_capped_without_a_word(door: Open) -> None:
    _, client = door(v1_max_limit=3)
    assert len(client.post("/accounts/search", json={"domain_name": ".", "limit": 500}).json()) == 3


@pytest.mark.parametrize(("match", "count"), [("folded", 1), ("exact", 0)])
def test_a_domain_matches_as_a_part_of_it(door: Open, match: str, count: int) -> None:
    tenant, client = door(records=0, domain_match=match)
    an_account(tenant)
    assert len(client.post("/accounts/search", json={"domain_name": "IER.ex"}).json()) == count


@pytest.mark.parametrize(
    ("empty", "status", "count"), [("all", 200, 1), ("none", 200, 0), ("refused", 400, 4)]
)
def test_an_empty_domain_lists_all_or_none_or_is_refused(
    door: Open, empty: str, status: int, count: int
) -> None:
    tenant, client = door(records=0, empty_domain=empty)
    an_account(tenant)
    answer = client.post("/accounts/search", json={"domain_name": ""})
    assert (answer.status_code, len(answer.json())) == (status, count)


def test_an_account_is_created_read_and_changed_but_not_its_domain(door: Open) -> None:
    tenant, client = door(records=0)
    body = {"name": "Pier", "domain_name": "pier.example", "owner_email": SAM}
    made = client.post("/accounts", json=body)
    path = f"/accounts/{made.json()['id']}"
    changed = client.patch(path, json={"name": "Pier 2", "domain_name": "other.example"}).json()
    assert made.status_code == 200
    assert changed == client.get(path).json()
    assert (changed["name"], changed["domain_name"]) == ("Pier 2", "pier.example")
    assert changed["owner_email"] == SAM
    assert [(write.op, write.resource) for write in tenant.ledger] == [
        ("create", "accounts"),
        ("update", "accounts"),
    ]


@pytest.mark.parametrize(("duplicates", "status"), [("refused", 409), ("allowed", 200)])
def test_a_second_account_with_a_domain_is_refused_or_not(door: Open, duplicates: str, status: int) -> None:
    tenant, client = door(records=0, duplicates=duplicates)
    an_account(tenant)
    assert client.post("/accounts", json={"name": "P", "domain_name": "Pier.example"}).status_code == status


@pytest.mark.parametrize(("kind", "keys"), [("full", 11), ("id", 1), ("empty", 0)])
def test_a_create_answers_as_much_as_it_does(door: Open, kind: str, keys: int) -> None:
    _, client = door(create_answer=kind, create_status=201)
    made = client.post("/accounts", json={"name": "P"})
    assert (made.status_code, len(made.json())) == (201, keys)


def test_answers_may_come_wrapped(door: Open) -> None:
    _, client = door(single="data")
    assert list(client.post("/opportunities/search", json={}).json()) == ["data"]
    assert list(client.post("/accounts", json={"name": "P"}).json()) == ["data"]


@pytest.mark.parametrize(("clears", "url"), [(False, "https://x.example/p"), (True, None)])
def test_null_is_not_set_or_clears(door: Open, clears: bool, url: str | None) -> None:
    tenant, client = door(records=0, null_clears_v1=clears)
    id = an_account(tenant, x_url="https://x.example/p")
    assert client.patch(f"/accounts/{id}", json={"x_url": None}).json()["x_url"] == url


@pytest.mark.parametrize(("unknown", "status"), [("refused", 400), ("ignored", 200)])
def test_an_unknown_owner_or_custom_field_is_refused_or_ignored(
    door: Open, unknown: str, status: int
) -> None:
    _, client = door(unknown_owner=unknown, unknown_custom_field=unknown)
    for more in ({"owner_email": "who@pier.example"}, {"custom_fields": {"cus_field__None": "x"}}):
        answer = client.post("/accounts", json={"name": "P", **more})
        assert answer.status_code == status
        assert answer.json().get("error", "BadRequestError") == "BadRequestError"


def test_a_broken_rule_may_have_another_status(door: Open) -> None:
    _, client = door(rule_status=422)
    answer = client.post("/accounts", json={"name": "P", "owner_email": "who@pier.example"})
    assert (answer.status_code, answer.json()["error"]) == (422, "BadRequestError")


# The upsert, and finding contacts


def test_the_upsert_makes_both_once_and_links_them(door: Open) -> None:
    tenant, client = door(records=0)
    body = {"email": "nadia@tidewater.example", "first_name": "Nadia", "company": "Tidewater"}
    first = client.post("/account_contact", json=body).json()
    again = client.post("/account_contact", json=body | {"email": "NADIA@tidewater.example"}).json()
    assert first == again
    assert first["account"]["domain_name"] == "tidewater.example"
    assert first["contact"]["accounts"] == [{"id": first["account"]["id"], "name": "Tidewater"}]
    assert len(tenant.records("contacts")) == len(tenant.records("accounts")) == 1
    assert {write.op for write in tenant.ledger if write.resource != "edges"} == {"upsert"}


def test_a_field_left_out_or_null_in_the_upsert_stays(door: Open) -> None:
    tenant, client = door(records=0)
    client.post("/account_contact", json={"email": "a@b.example", "first_name": "A", "title": "CEO"})
    client.post("/account_contact", json={"email": "a@b.example", "title": None})
    contact = tenant.find("contacts")
    assert (contact["first_name"], contact["title"]) == ("A", "CEO")


@pytest.mark.parametrize(("makes", "count"), [(False, 0), (True, 1)])
def test_a_free_mail_address_makes_no_account_unless_switched_so(door: Open, makes: bool, count: int) -> None:
    tenant, client = door(records=0, free_mail_accounts=makes)
    assert client.post("/account_contact", json={"email": "a@gmail.com"}).status_code == 200
    assert len(tenant.records("accounts")) == count


@pytest.mark.parametrize(("match", "count"), [("domain", 1), ("name", 2)])
def test_the_upsert_matches_accounts_by_domain_or_by_name(door: Open, match: str, count: int) -> None:
    tenant, client = door(records=0, account_match=match)
    an_account(tenant)
    body = {"email": "a@b.example", "company": "Other", "account_website": "https://www.pier.example/x"}
    client.post("/account_contact", json=body)
    assert len(tenant.records("accounts")) == count


@pytest.mark.parametrize(("kind", "keys"), [("nested", {"account", "contact"}), ("empty", set())])
def test_the_upsert_answers_nested_or_nothing(door: Open, kind: str, keys: set[str]) -> None:
    _, client = door(upsert_answer=kind)
    assert set(client.post("/account_contact", json={"email": "a@b.example"}).json()) == keys


def test_the_upsert_may_answer_ids(door: Open) -> None:
    tenant, client = door(records=0, upsert_answer="ids")
    ids = client.post("/account_contact", json={"email": "a@b.example"}).json()
    assert ids == {"contact_id": tenant.find("contacts")["id"], "account_id": tenant.find("accounts")["id"]}


def test_custom_fields_go_by_name_or_id_and_as_text(door: Open) -> None:
    tenant, client = door(records=0)
    region = tenant.find("fields", api_name="cus_field__Region")["id"]
    custom = {region: "EMEA", "cus_field__Score": "7.5", "cus_field__Topics": ["emea", "priority"]}
    body = {"email": "a@b.example", "contact_custom_fields": custom}
    made = client.post("/account_contact", json=body).json()["contact"]
    assert tenant.find("contacts")["cus_field__Score"] == 7.5
    assert made["custom_fields"] == {
        "cus_field__Region": "EMEA",
        "cus_field__Score": "7.5",
        "cus_field__Topics": ["emea", "priority"],
    }


@pytest.mark.parametrize("value", [7, {"a": "b"}, True])
def test_a_custom_field_that_is_no_text_is_422(door: Open, value: object) -> None:
    _, client = door()
    body = {"email": "a@b.example", "contact_custom_fields": {"cus_field__Score": value}}
    assert client.post("/account_contact", json=body).status_code == 422


def test_contacts_cannot_be_searched_unless_switched_so(door: Open) -> None:
    tenant, without = door()
    _, having = door(contacts_search=True)
    email = tenant.records("contacts")[0]["primary_email"]
    assert without.post("/contacts/search", json={"contact_email": email}).status_code == 405
    rows = having.post("/contacts/search", json={"contact_email": email.upper()}).json()
    assert [row["email"] for row in rows] == [email]
    assert having.post("/contacts/search", json={}).status_code == 400


def test_contacts_are_searched_by_owner_50_at_a_time(door: Open) -> None:
    tenant, client = door(records=300, contacts_search=True)
    sam = tenant.find("users", email=SAM)["id"]
    owned = tenant.records("contacts", owner_user_id=sam)
    rows = client.post("/contacts/search", json={"owner_email": SAM}).json()
    assert [row["id"] for row in rows] == [row["id"] for row in owned[:50]]


def test_one_key_retrieves_account_and_contact(door: Open) -> None:
    _, client = door(records=0)
    body = {"email": "a@b.example", "company": "B", "phone_number": "+1503"}
    made = client.post("/account_contact", json=body).json()
    for key in (
        {"contact_email": "a@b.example"},
        {"account_domain": "b.example"},
        {"contact_phone_number": "+1503"},
    ):
        assert client.get("/account_and_contact_retrieval", params=key).json() == made
    both = {"contact_email": "a@b.example", "account_domain": "b.example"}
    assert client.get("/account_and_contact_retrieval", params=both).status_code == 400


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("pair", 200, {"account": None, "contact": None}),
        ("lists", 200, {"accounts": [], "contacts": []}),
        ("refused", 404, None),
    ],
)
def test_a_retrieval_of_nothing_answers_as_switched(
    door: Open, kind: str, status: int, body: dict[str, Any] | None
) -> None:
    _, client = door(retrieval=kind)
    answer = client.get("/account_and_contact_retrieval", params={"contact_email": "no@one.example"})
    assert answer.status_code == status
    assert body is None or answer.json() == body
