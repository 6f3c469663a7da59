"""What Relm says of reaching and reading its modern contract, claim by claim and switch by switch."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from sources.sandbox import Sandbox
from tests.relm_doors import LISTS, NAME, NOON, Open, everything, made, opening, refused


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to the modern Relm, under the switches given."""
    with opening(NAME) as opened:
        yield opened


# How it is reached


def test_it_is_served_only_where_a_workspace_is_asked_for() -> None:
    with Sandbox(records=1) as box:
        assert NAME not in box.crms
        assert httpx.get(f"{box.url}/{NAME}/v1/contacts", trust_env=False).status_code == 404


def test_settings_make_it_a_connection_of_relm_beside_the_classic_one(door: Open) -> None:
    box, _ = door(records=1)
    settings = box.settings()
    assert settings["SOURCES__RELM_MODERN__CRM"] == "relm"
    assert settings["SOURCES__RELM_MODERN__BASE_URL"] == f"{box.url}/relm_modern/v1"
    assert settings["SOURCES__RELM_MODERN__API_KEY"].startswith("relm_live_")
    assert settings["SOURCES__RELM__API_KEY"].startswith("sk_live_")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer relm_live_wrong", "Bearer relm_test_wrong"])
def test_without_a_valid_key_the_answer_is_401_in_both_error_shapes(door: Open, value: str) -> None:
    _, client = door()
    answer = client.get("/contacts", headers={"Authorization": value})
    assert refused(answer) == (401, "unauthorized", None)
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}


@pytest.mark.parametrize(("shape", "is_both"), [("401", False), ("always", True), ("never", False)])
def test_other_errors_are_problem_documents(door: Open, shape: str, is_both: bool) -> None:
    _, client = door(classic_errors=shape)
    body = client.get("/contacts/con_none").json()
    assert body["type"] == "https://relmcrm.com/errors/not_found"
    assert {"title", "status", "detail", "code", "request_id"} <= set(body)
    assert body["request_id"].startswith("req_")
    assert ("error" in body) == is_both


def test_an_error_made_by_a_fault_has_the_same_shape(door: Open) -> None:
    box, client = door()
    box.faults.add_plain({"action": "status", "with": {"code": 500}, "crm": NAME, "times": 1})
    assert client.get("/contacts").json()["status"] == 500


def test_a_body_that_is_no_json_object_is_bad_request(door: Open) -> None:
    _, client = door()
    assert refused(client.post("/contacts", content=b"{")) == (400, "bad_request", None)
    assert refused(client.post("/contacts", json=[])) == (400, "bad_request", None)


def test_a_test_key_reaches_a_mode_of_its_own(door: Open) -> None:
    box, client = door()
    simulator: Any = box.simulator(NAME)
    test_key = {"Authorization": f"Bearer {simulator.test_mode.key()}"}
    mine = client.post("/contacts", json={"email": "a@b.example"}, headers=test_key).json()
    assert mine["mode"] == "test"
    assert refused(client.get(f"/contacts/{mine['id']}")) == (404, "not_found", None)
    assert client.get("/contacts", headers=test_key).json()["data"] == [mine]
    assert client.get("/contacts").json()["data"][0]["mode"] == "live"


def test_test_mode_is_not_counted_and_forgets_after_seven_days(door: Open) -> None:
    times = [NOON]
    box, client = door(now=lambda: times[-1], plan="free", quota=1)
    simulator: Any = box.simulator(NAME)
    client.headers["Authorization"] = f"Bearer {simulator.test_mode.key()}"
    assert made(client)["mode"] == "test"
    assert len(client.get("/contacts").json()["data"]) == 1
    times.append(NOON + timedelta(days=7))
    assert client.get("/contacts").json()["data"] == []


# Limits


def test_every_answer_tells_rate_and_quota(door: Open) -> None:
    _, client = door(rate_limit=100, quota=50, quota_used=7, now=lambda: NOON)
    headers = client.get("/contacts/con_none").headers
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("100", "99")
    assert (headers["x-quota-limit"], headers["x-quota-remaining"]) == ("50", "42")
    assert int(headers["x-quota-reset"]) == int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())


def test_the_members_of_the_header_families_may_be_called_otherwise(door: Open) -> None:
    _, client = door(rate_members=("Max", "Left", "At"), quota_members=("Max", "Left", "At"))
    headers = client.get("/contacts").headers
    assert {"x-ratelimit-left", "x-quota-left"} <= set(headers)
    assert "x-ratelimit-remaining" not in headers


@pytest.mark.parametrize("tells", [True, False])
def test_over_the_rate_limit_is_429_rate_limited(door: Open, tells: bool) -> None:
    _, client = door(rate_limit=2, retry_after=tells, now=lambda: NOON)
    answers = [client.get("/deals") for _ in range(3)]
    assert refused(answers[-1]) == (429, "rate_limited", None)
    assert answers[-1].headers.get("retry-after") == ("60" if tells else None)


def test_the_free_plan_stops_hard_until_the_next_month(door: Open) -> None:
    times = [NOON]
    _, client = door(plan="free", quota=2, now=lambda: times[-1])
    answers = [client.get("/deals") for _ in range(3)]
    assert refused(answers[-1]) == (429, "quota_exceeded", None)
    assert "retry-after" not in answers[-1].headers
    times.append(NOON + timedelta(days=31))
    assert client.get("/deals").status_code == 200


@pytest.mark.parametrize(
    ("cap", "code"), [(None, None), (0, "quota_exceeded"), (0.001, "spend_cap_reached"), (1, None)]
)
def test_a_paid_plan_goes_on_as_far_as_its_cap(door: Open, cap: float | None, code: str | None) -> None:
    _, client = door(plan="pro", quota=1, overage_cap_usd=cap)
    last = [client.get("/deals") for _ in range(3)][-1]
    assert last.json().get("code") == code


@pytest.mark.parametrize(("plan", "limit"), [("free", 1_000), ("pro", 100_000), ("scale", 2_000_000)])
def test_usage_tells_the_plan_and_what_is_used(door: Open, plan: str, limit: int) -> None:
    _, client = door(plan=plan, now=lambda: NOON)
    client.get("/contacts")
    usage = client.get("/usage").json()
    assert usage["limit"] == limit
    assert (usage["period"], usage["used"], usage["overage"], usage["plan"]) == ("2026-03", 2, 0, plan)


@pytest.mark.parametrize(("is_free", "status"), [(False, 429), (True, 200)])
def test_usage_may_be_asked_for_when_nothing_else_may(door: Open, is_free: bool, status: int) -> None:
    _, client = door(plan="free", quota=0, usage_is_free=is_free)
    assert client.get("/contacts").status_code == 429
    assert client.get("/usage").status_code == status


def test_the_cap_on_overage_is_a_setting_of_the_workspace(door: Open) -> None:
    _, client = door()
    assert client.get("/settings").json()["overage_cap_usd"] is None
    assert client.patch("/settings", json={"overage_cap_usd": 5}).json()["overage_cap_usd"] == 5
    assert client.patch("/settings", json={"overage_cap_usd": -1}).status_code == 422


# Lists


@pytest.mark.parametrize("resource", LISTS)
def test_a_list_has_the_documented_envelope_and_its_records_the_documented_stamps(
    door: Open, resource: str
) -> None:
    _, client = door()
    page = client.get(f"/{resource}", params={"limit": 2}).json()
    assert list(page) == ["object", "data", "has_more", "next_cursor"]
    shared = {"id", "object", "custom_fields", "version", "mode", "created_at", "updated_at", "deleted"}
    assert all(shared <= set(row) for row in page["data"])


@pytest.mark.parametrize(("asked", "given"), [(None, 25), (1, 1), (100, 100), (1000, 100)])
def test_a_page_holds_25_by_default_and_is_cut_to_100(door: Open, asked: int | None, given: int) -> None:
    _, client = door(records=110)
    params = {} if asked is None else {"limit": asked}
    assert len(client.get("/contacts", params=params).json()["data"]) == given


@pytest.mark.parametrize("order", ["created_asc", "created_desc"])
def test_the_pages_joined_are_the_collection_in_order(door: Open, order: str) -> None:
    box, client = door(order=order)
    ids = [record["id"] for record in box.tenant(NAME).records("contacts")]
    rows = everything(client, "/contacts", limit=7)
    assert [row["id"] for row in rows] == (ids if order == "created_asc" else ids[::-1])


def test_a_row_deleted_between_pages_shifts_nothing(door: Open) -> None:
    box, client = door()
    first = client.get("/contacts", params={"limit": 5}).json()
    box.tenant(NAME).delete("contacts", first["data"][0]["id"])
    second = client.get("/contacts", params={"limit": 100, "cursor": first["next_cursor"]}).json()
    assert len(first["data"]) + len(second["data"]) == 30


def test_the_last_page_may_give_a_cursor_that_reaches_what_is_made_later(door: Open) -> None:
    _, client = door(last_cursor="given")
    page = client.get("/contacts", params={"limit": 100}).json()
    new = made(client)
    later = client.get("/contacts", params={"cursor": page["next_cursor"]}).json()
    assert page["has_more"] is False
    assert [row["id"] for row in later["data"]] == [new["id"]]


@pytest.mark.parametrize("cursor", ["nonsense", "e30"])
def test_a_broken_cursor_is_400_invalid_cursor(door: Open, cursor: str) -> None:
    _, client = door()
    assert refused(client.get("/contacts", params={"cursor": cursor})) == (400, "invalid_cursor", None)


def test_a_cursor_expires_where_it_has_a_lifetime(door: Open) -> None:
    times = [NOON]
    _, client = door(cursor_ttl_s=60, now=lambda: times[-1])
    cursor = client.get("/contacts", params={"limit": 1}).json()["next_cursor"]
    times.append(NOON + timedelta(seconds=61))
    assert client.get("/contacts", params={"cursor": cursor}).status_code == 400


@pytest.mark.parametrize("name", ["updated_at", "filter[email][eq]", "sort", "phone"])
def test_an_unknown_filter_is_400_with_those_there_are(door: Open, name: str) -> None:
    _, client = door()
    answer = client.get("/contacts", params={name: "x"})
    assert refused(answer) == (400, "bad_request", name)
    assert {"q", "email", "company_id", "type"} <= set(answer.json()["valid_options"])


@pytest.mark.parametrize(
    ("name", "value"), [("limit", "many"), ("limit", "0"), ("include_deleted", "perhaps")]
)
def test_a_control_that_makes_no_sense_is_400(door: Open, name: str, value: str) -> None:
    _, client = door()
    assert refused(client.get("/contacts", params={name: value})) == (400, "bad_request", name)


@pytest.mark.parametrize(
    ("resource", "field", "name"),
    [
        ("contacts", "email", "email"),
        ("contacts", "company_id", "company_id"),
        ("contacts", "type", "type"),
        ("companies", "domain", "domain"),
        ("deals", "pipeline", "pipeline"),
        ("deals", "stage", "stage"),
        ("deals", "primary_contact_id", "primary_contact_id"),
        ("activities", "contact_id", "contact_id"),
        ("activities", "deal_id", "deal_id"),
        ("activities", "type", "type"),
    ],
)
def test_a_filter_gives_exactly_the_records_that_have_the_value(
    door: Open, resource: str, field: str, name: str
) -> None:
    _, client = door()
    rows = everything(client, f"/{resource}")
    value = next(row[field] for row in rows if row[field] is not None)
    wanted = [row for row in rows if row[field] == value]
    assert 0 < len(wanted) < len(rows)
    assert everything(client, f"/{resource}", **{name: value}) == wanted


def test_filters_combine(door: Open) -> None:
    _, client = door(records=100)
    rows = everything(client, "/deals", pipeline="sales", stage="won")
    assert {(row["pipeline"], row["stage_type"]) for row in rows} == {("sales", "won")}


@pytest.mark.parametrize("name", ["pipeline", "pipeline_id"])
def test_deals_can_be_asked_for_by_the_pipelines_id(door: Open, name: str) -> None:
    _, client = door()
    id = client.get("/pipelines/partners").json()["id"]
    assert {row["pipeline"] for row in everything(client, "/deals", **{name: id})} == {"partners"}


@pytest.mark.parametrize(
    ("resource", "text", "fields"),
    [
        ("contacts", "ADA LOVE", {"first_name": "Ada", "last_name": "Lovelace"}),
        ("contacts", "99887", {"phone": "+4499887766"}),
        ("contacts", "in/ada-l", {"linkedin_url": "https://linkedin.example/in/ada-l"}),
        ("companies", "quay", {"name": "Northern Quay"}),
        ("deals", "zeppelin", {"title": "One Zeppelin"}),
    ],
)
def test_q_looks_into_names_and_addresses(
    door: Open, resource: str, text: str, fields: dict[str, str]
) -> None:
    _, client = door()
    record = made(client, resource, **fields)
    assert [row["id"] for row in everything(client, f"/{resource}", q=text)] == [record["id"]]


def test_lists_may_lag_behind_writes(door: Open) -> None:
    times = [NOON]
    _, client = door(records=0, list_lag_s=30, now=lambda: times[-1])
    record = made(client)
    assert client.get("/contacts").json()["data"] == []
    assert client.get(f"/contacts/{record['id']}").status_code == 200
    times.append(NOON + timedelta(seconds=30))
    assert client.get("/contacts").json()["data"] == [record]


def test_search_covers_contacts_companies_and_deals(door: Open) -> None:
    _, client = door(records=0)
    for resource, fields in (("contacts", {"last_name": "Zeta"}), ("companies", {"name": "Zeta"})):
        made(client, resource, **fields)
    made(client, "deals", title="Zeta deal")
    answer = client.get("/search", params={"q": "zeta", "limit": 2}).json()
    assert [row["type"] for row in answer["results"]] == ["contact", "company"]
    assert answer["has_more"] is True
    assert client.get("/search").status_code == 400


# Set-up


def test_the_schema_tells_filters_fields_and_value_sets(door: Open) -> None:
    _, client = door()
    schema = client.get("/schema").json()
    objects = {each["key"]: each for each in schema["objects"]}
    assert list(objects) == ["contact", "company", "deal", "activity"]
    assert objects["deal"]["id_prefix"] == "deal_"
    assert "primary_contact_id" in objects["deal"]["list_filters"]
    assert "custom_fields.tier" in {field["key"] for field in objects["contact"]["fields"]}
    assert "lead" in {value["value"] for value in schema["enum_groups"]["contact.type"]}
    assert schema["list_controls"] == ["limit", "cursor", "include_deleted"]


def test_a_value_made_in_its_set_can_be_used_and_made_again(door: Open) -> None:
    _, client = door()
    value = {"group": "contact.type", "value": "press", "label": "Press"}
    sets = [client.post("/enums", json=value) for _ in range(2)]
    assert [answer.status_code for answer in sets] == [201, 201]
    assert sets[0].json() == sets[1].json()
    assert made(client, type="press")["type"] == "press"
    assert {row["group"] for row in client.get("/enums").json()["data"]} > {"contact.type"}


def test_a_field_made_can_be_written_and_not_be_made_again(door: Open) -> None:
    _, client = door()
    field = {"object": "company", "key": "vip", "data_type": "boolean"}
    assert client.post("/fields", json=field).status_code == 201
    assert made(client, "companies", custom_fields={"vip": True})["custom_fields"] == {"vip": True}
    assert refused(client.post("/fields", json=field)) == (409, "conflict", "key")
    assert refused(client.post("/fields", json={**field, "data_type": "bool"}))[1] == "unknown_value"


def test_stage_keys_repeat_across_pipelines(door: Open) -> None:
    _, client = door()
    keys = {
        row["key"]: {stage["key"] for stage in row["stages"]}
        for row in client.get("/pipelines").json()["data"]
    }
    assert keys["partners"] < keys["sales"]


def test_a_pipeline_can_be_made_renamed_made_default_and_deleted(door: Open) -> None:
    _, client = door()
    sent = {"key": "new", "name": "New", "stages": [{"key": "in"}, {"key": "out", "type": "won"}]}
    assert client.post("/pipelines", json=sent).json()["id"].startswith("pl_")
    assert refused(client.post("/pipelines", json=sent)) == (409, "conflict", "key")
    assert client.post("/pipelines/new/default").json()["is_default"] is True
    deal = made(client, "deals")
    client.patch("/pipelines/new", json={"name": "Newer"})
    assert client.get(f"/deals/{deal['id']}").json()["pipeline_name"] == "Newer"
    assert client.delete("/pipelines/new").status_code == 409
    client.post("/pipelines/sales/default")
    client.delete(f"/deals/{deal['id']}")
    assert client.delete("/pipelines/new").json()["deleted"] is True


def test_stages_can_be_added_changed_reordered_and_deleted(door: Open) -> None:
    _, client = door(records=0)
    path = "/pipelines/partners"
    client.post(f"{path}/stages", json={"key": "legal", "ordinal": 1})
    client.patch(f"{path}/stages/legal", json={"label": "Legal check"})
    order = ["legal", "lead", "proposal", "won", "lost"]
    stages = client.post(f"{path}/stages/reorder", json={"order": order}).json()["stages"]
    assert [stage["key"] for stage in stages] == order
    assert (stages[0]["label"], stages[0]["ordinal"]) == ("Legal check", 0)
    assert client.delete(f"{path}/stages/legal").status_code == 200
    assert client.delete(f"{path}/stages/legal").status_code == 404


def test_a_stage_with_deals_in_it_stays(door: Open) -> None:
    _, client = door()
    assert client.delete("/pipelines/sales/stages/won").status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", "/pipelines", {"key": "new"}),
        ("POST", "/pipelines", {"key": "new", "name": "New", "stages": {}}),
        ("POST", "/pipelines/sales/stages", {"key": "x", "type": "maybe"}),
        ("POST", "/pipelines/sales/stages", {"key": "x", "ordinal": "first"}),
        ("POST", "/pipelines/sales/stages/reorder", {"order": ["won"]}),
        ("PATCH", "/pipelines/sales", {"nmae": "Sales"}),
        ("POST", "/types", {"label": "No key"}),
    ],
)
def test_a_set_up_that_makes_no_sense_is_422(door: Open, method: str, path: str, sent: Any) -> None:
    _, client = door()
    assert client.request(method, path, json=sent).status_code == 422


def test_a_type_can_be_made(door: Open) -> None:
    _, client = door()
    answer = client.post("/types", json={"key": "vessel", "label": "Vessel"})
    assert (answer.status_code, answer.json()["data"][0]["key"]) == (201, "vessel")


# People and faults


def test_people_are_shared_with_the_other_crms_and_some_have_no_address(door: Open) -> None:
    box, client = door(records=50)
    addresses = {row["email"] for row in everything(client, "/contacts")}
    assert None in addresses
    known = {record["email"] for record in box.tenant("relm").records("contacts")}
    assert len(known & addresses) == 49


def test_a_write_lost_on_the_way_back_is_in_the_ledger(door: Open) -> None:
    box, client = door()
    box.faults.add_plain({"action": "apply_then_drop", "crm": NAME, "method": "POST", "times": 1})
    with pytest.raises(httpx.TransportError):
        client.post("/contacts", json={"first_name": "Ada"})
    assert [write.op for write in box.tenant(NAME).ledger] == ["create"]


def test_a_revoked_key_is_401(door: Open) -> None:
    box, client = door()
    box.revoke(NAME)
    assert client.get("/contacts").status_code == 401
