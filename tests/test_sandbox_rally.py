"""What Rally's pages say, and what their open questions may turn out to be, on real HTTP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import httpx
import pytest

from sources.sandbox import Sandbox
from sources.sandbox.rally_rules import WRITE_ONLY, RallySwitches
from sources.sandbox.store import utc_now

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = "2000-01-01T00:00:00Z"
LEE = {"firstName": "Lee", "lastName": "Pier", "email": "lee@pier.example"}
Open: TypeAlias = Callable[..., tuple[Sandbox, httpx.Client]]


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to Rally, under the switches given."""
    with ExitStack() as stack:

        def opened(
            *,
            records: int = 30,
            now: Callable[[], datetime] = utc_now,
            scopes: tuple[str, ...] | None = None,
            **switches: Any,
        ) -> tuple[Sandbox, httpx.Client]:
            box = stack.enter_context(Sandbox(records=records, rally=RallySwitches(**switches), now=now))
            headers = {"X-Api-Key": box.key("rally", scopes=scopes)}
            client = httpx.Client(
                base_url=box.base_url("rally"), headers=headers, trust_env=False, verify=False
            )
            return box, stack.enter_context(client)

        yield opened


def ticking(start: datetime) -> Callable[[], datetime]:
    """Return a clock that goes on by a second at each look."""
    looks = iter(range(10**9))
    return lambda: start + timedelta(seconds=next(looks))


def stage_id(box: Sandbox, name: str) -> str:
    """Return the id of a stage by its name."""
    return str(box.tenant("rally").find("stages", name=name)["id"])


def deal_body(box: Sandbox, stage: str = "Lead") -> dict[str, Any]:
    """Return what a new deal needs."""
    pipeline = box.tenant("rally").records("pipelines")[0]
    return {"name": "Depot", "pipelineId": pipeline["id"], "stageId": stage_id(box, stage)}


# Keys, scopes, limits


@pytest.mark.parametrize(
    "headers", [{"X-Api-Key": "rk_live_no"}, {"X-Api-Key": "", "Authorization": "Bearer x"}]
)
def test_without_a_valid_key_the_answer_is_401(door: Open, headers: dict[str, str]) -> None:
    _, client = door()
    assert client.get("/contacts", headers=headers).status_code == 401


def test_a_read_key_reads_and_does_not_write(door: Open) -> None:
    box, client = door(scopes=("read",))
    assert client.get("/contacts").status_code == 200
    assert client.post("/contacts", json=LEE).status_code == 403
    assert box.tenant("rally").ledger == []


@pytest.mark.parametrize(("scope", "status"), [("write", 403), ("admin", 201)])
def test_webhooks_need_an_admin_key(door: Open, scope: str, status: int) -> None:
    _, client = door(scopes=(scope,))
    body = {"name": "n", "url": "https://hook.example", "events": ["contact.created"]}
    assert client.post("/webhooks", json=body).status_code == status


def test_the_1001st_request_of_a_minute_is_429(door: Open) -> None:
    _, client = door(records=0, now=lambda: NOON)
    answers = [client.get("/contacts", params={"limit": 1}) for _ in range(1001)]
    assert {answer.status_code for answer in answers[:1000]} == {200}
    assert answers[1000].status_code == 429
    assert answers[0].headers["x-ratelimit-limit"] == "1000"
    assert answers[1000].headers["x-ratelimit-remaining"] == "0"
    assert int(answers[1000].headers["x-ratelimit-reset"]) == int(NOON.timestamp()) + 60
    assert "retry-after" not in answers[1000].headers


def test_a_sliding_window_frees_one_request_at_a_time(door: Open) -> None:
    times = [NOON]
    _, client = door(rate_limit=2, rate_window="sliding", now=lambda: times[-1])
    client.get("/deals")
    times.append(NOON + timedelta(seconds=30))
    client.get("/deals")
    times.append(NOON + timedelta(seconds=61))
    assert [client.get("/deals").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("path", ["/pipelines", "/stages", "/users", "/contacts/nobody"])
def test_what_rally_does_not_have_is_404(door: Open, path: str) -> None:
    _, client = door()
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_the_unversioned_path_means_the_same(door: Open) -> None:
    box, client = door()
    assert client.get(f"{box.url}/rally/api/contacts").content == client.get("/contacts").content


# Lists


@pytest.mark.parametrize("resource", ["contacts", "companies", "deals", "activities"])
def test_offset_pages_joined_are_the_collection(door: Open, resource: str) -> None:
    box, client = door()
    rows: list[dict[str, Any]] = []
    while page := client.get(f"/{resource}", params={"limit": 7, "offset": len(rows)}).json():
        rows += page
    assert [row["id"] for row in rows] == [record["id"] for record in box.tenant("rally").records(resource)]


@pytest.mark.parametrize(("asked", "given"), [(None, 50), (1, 1), (1000, 200)])
def test_a_page_holds_50_by_default_and_is_capped_in_silence(
    door: Open, asked: int | None, given: int
) -> None:
    _, client = door(records=210)
    params = {} if asked is None else {"limit": asked}
    assert len(client.get("/contacts", params=params).json()) == given


def test_a_limit_above_the_maximum_may_be_refused(door: Open) -> None:
    _, client = door(over_limit="refused")
    assert client.get("/contacts", params={"limit": 201}).status_code == 400


def test_a_contact_has_the_documented_fields_and_shows_none_that_are_write_only(door: Open) -> None:
    _, client = door()
    row = client.get("/contacts").json()[0]
    expected = (
        "id tenantId firstName lastName fullName email phone mobile title department companyId "
        "lifecycleStage leadSource leadScore tags isUnsubscribed lastContactedAt ownerId createdAt updatedAt"
    )
    assert set(row) == set(expected.split())
    assert row["fullName"] == f"{row['firstName']} {row['lastName']}"


def test_tags_are_text_on_contacts_and_a_list_on_companies(door: Open) -> None:
    _, client = door()
    assert any(isinstance(row["tags"], str) for row in client.get("/contacts").json())
    assert all(isinstance(row["tags"], list) for row in client.get("/companies").json())


def test_fields_narrow_a_row(door: Open) -> None:
    _, client = door()
    rows = client.get("/contacts", params={"fields": "email,phone", "limit": 1}).json()
    assert set(rows[0]) == {"email", "phone"}


def test_fields_may_always_bring_some_along(door: Open) -> None:
    _, client = door(fields_always=("id", "updatedAt"))
    assert set(client.get("/deals", params={"fields": "name"}).json()[0]) == {"name", "id", "updatedAt"}


@pytest.mark.parametrize(("inclusive", "count"), [(False, 0), (True, 1)])
def test_updated_since_may_or_may_not_include_the_moment(door: Open, inclusive: bool, count: int) -> None:
    box, client = door(since_inclusive=inclusive)
    contact = box.tenant("rally").records("contacts")[0]
    edited = box.tenant("rally").edit("contacts", contact["id"], phone="1")
    since = edited["updated_at"].strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = client.get("/contacts", params={"updatedSince": since}).json()
    assert [row["id"] for row in rows] == [contact["id"]] * count


def test_updated_since_does_not_see_deletions(door: Open) -> None:
    box, client = door()
    box.tenant("rally").delete("contacts", box.tenant("rally").records("contacts")[0]["id"])
    assert len(client.get("/contacts", params={"updatedSince": LONG_AGO}).json()) == 29


def test_an_unreadable_moment_is_400(door: Open) -> None:
    _, client = door()
    assert client.get("/contacts", params={"updatedSince": "yesterday"}).status_code == 400


def test_in_update_order_an_edited_row_moves_to_the_end(door: Open) -> None:
    box, client = door(list_order="updated")
    first = client.get("/contacts").json()[0]["id"]
    box.tenant("rally").edit("contacts", first, phone="1")
    assert client.get("/contacts").json()[-1]["id"] == first


# Change feed


def test_the_feed_tells_every_change_in_order_with_a_singular_type(door: Open) -> None:
    box, client = door(now=ticking(NOON))
    made = client.post("/contacts", json=LEE).json()
    box.tenant("rally").edit("contacts", made["id"], by="ops@example.com", phone="1")
    client.delete(f"/contacts/{made['id']}")
    entries = client.get("/sync/changes", params={"since": "2026-03-01T12:00:00Z"}).json()
    assert [entry["action"] for entry in entries] == ["inserted", "updated", "deleted"]
    assert {(entry["entityType"], entry["entityId"]) for entry in entries} == {("contact", made["id"])}
    assert entries[1]["changedBy"] == "ops@example.com"
    assert [entry["id"] for entry in entries] == sorted(entry["id"] for entry in entries)


def test_the_feed_reaches_back_to_what_was_always_there(door: Open) -> None:
    box, client = door()
    entries = client.get("/sync/changes", params={"since": LONG_AGO, "entities": "deals"}).json()
    inserted = {entry["entityId"] for entry in entries if entry["action"] == "inserted"}
    assert inserted == {record["id"] for record in box.tenant("rally").records("deals")}
    assert entries == sorted(entries, key=lambda entry: (entry["changedAt"], entry["id"]))


def test_the_feed_needs_since(door: Open) -> None:
    _, client = door()
    assert client.get("/sync/changes").status_code == 400


@pytest.mark.parametrize(("asked", "given"), [(None, 1000), (1, 1), (1001, 1001)])
def test_the_feed_gives_1000_entries_unless_asked_for_more(door: Open, asked: int | None, given: int) -> None:
    _, client = door(records=400)
    params: dict[str, Any] = {"since": LONG_AGO} | ({} if asked is None else {"limit": asked})
    assert len(client.get("/sync/changes", params=params).json()) == given


@pytest.mark.parametrize(("inclusive", "count"), [(False, 0), (True, 1)])
def test_the_feed_excludes_its_since_unless_it_is_inclusive(door: Open, inclusive: bool, count: int) -> None:
    _, client = door(feed_inclusive=inclusive, now=lambda: NOON)
    client.post("/contacts", json=LEE)
    entries = client.get("/sync/changes", params={"since": "2026-03-01T12:00:00Z"}).json()
    assert len(entries) == count


@pytest.mark.parametrize(("gap", "status"), [("silent", 200), ("refused", 410)])
def test_the_feed_may_forget(door: Open, gap: str, status: int) -> None:
    _, client = door(feed_retention_days=1, feed_gap=gap)
    answer = client.get("/sync/changes", params={"since": LONG_AGO})
    assert answer.status_code == status
    assert len(answer.json()) < 60


def test_the_feed_may_lag(door: Open) -> None:
    times = [NOON]
    _, client = door(feed_lag_s=60, now=lambda: times[-1])
    client.post("/contacts", json=LEE)
    asked = {"since": "2026-03-01T11:59:59Z"}
    assert client.get("/sync/changes", params=asked).json() == []
    times.append(NOON + timedelta(seconds=61))
    assert len(client.get("/sync/changes", params=asked).json()) == 1


@pytest.mark.parametrize(("mode", "status"), [("ignored", 200), ("refused", 400)])
def test_an_unknown_entity_is_ignored_or_refused(door: Open, mode: str, status: int) -> None:
    _, client = door(feed_unknown_entities=mode)
    asked = {"since": LONG_AGO, "entities": "contacts,contact"}
    assert client.get("/sync/changes", params=asked).status_code == status


# Writes


@pytest.mark.parametrize(
    ("resource", "body"),
    [
        ("contacts", LEE),
        ("companies", {"name": "Pier", "annualRevenue": 1.5, "tags": ["a"]}),
        ("activities", {"activityType": "call", "subject": "s", "scheduledAt": "2026-01-01"}),
    ],
)
def test_records_are_created_read_replaced_and_deleted(
    door: Open, resource: str, body: dict[str, Any]
) -> None:
    _, client = door(records=0)
    made = client.post(f"/{resource}", json=body)
    path = f"/{resource}/{made.json()['id']}"
    assert made.status_code == 201
    assert client.put(path, json=body).json()["id"] == made.json()["id"]
    assert client.get(path).json()["createdAt"] == made.json()["createdAt"]
    assert [client.delete(path).status_code for _ in range(2)] == [204, 404]
    assert client.get(path).status_code == 404


def test_a_deleted_record_may_answer_410_and_its_second_delete_204(door: Open) -> None:
    _, client = door(gone_status=410, second_delete=204)
    id = client.get("/contacts").json()[0]["id"]
    assert [client.delete(f"/contacts/{id}").status_code for _ in range(2)] == [204, 204]
    assert client.get(f"/contacts/{id}").status_code == 410


@pytest.mark.parametrize("missing", ["firstName", "lastName", "email"])
def test_a_contact_without_a_required_field_is_400_naming_it(door: Open, missing: str) -> None:
    _, client = door()
    answer = client.post("/contacts", json={name: value for name, value in LEE.items() if name != missing})
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [missing]


@pytest.mark.parametrize(
    "more",
    [{"leadScore": 101}, {"leadScore": "5"}, {"companyId": "x"}, {"tags": ["a"]}, {"email": "nothing"}],
)
def test_a_value_of_the_wrong_kind_is_400(door: Open, more: dict[str, Any]) -> None:
    box, client = door()
    assert client.post("/contacts", json=LEE | more).status_code == 400
    assert box.tenant("rally").ledger == []


@pytest.mark.parametrize(
    ("mode", "status", "count"), [("conflict", 409, 1), ("merges", 200, 1), ("duplicates", 201, 2)]
)
def test_a_second_create_with_an_address_is_a_switch(door: Open, mode: str, status: int, count: int) -> None:
    box, client = door(records=0, create_existing=mode)
    client.post("/contacts", json=LEE)
    again = client.post("/contacts", json=LEE | {"email": " LEE@pier.example "})
    assert again.status_code == status
    assert len(box.tenant("rally").records("contacts")) == count


def test_write_only_fields_are_kept_and_never_returned(door: Open) -> None:
    box, client = door(records=0)
    hidden = dict.fromkeys(WRITE_ONLY, "x")
    made = client.post("/contacts", json=LEE | hidden).json()
    assert not WRITE_ONLY & set(made)
    assert not WRITE_ONLY & set(client.get(f"/contacts/{made['id']}").json())
    assert box.tenant("rally").records("contacts")[0].items() >= hidden.items()


@pytest.mark.parametrize(("mode", "city"), [("replaces", None), ("merges", "Leeds")])
def test_a_put_replaces_or_merges(door: Open, mode: str, city: str | None) -> None:
    box, client = door(records=0, put=mode)
    made = client.post("/contacts", json=LEE | {"city": "Leeds"}).json()
    client.put(f"/contacts/{made['id']}", json=LEE | {"phone": "1"})
    assert box.tenant("rally").records("contacts")[0]["city"] == city


def test_an_upsert_tells_created_from_updated_by_address(door: Open) -> None:
    box, client = door(records=0)
    answers = [
        client.put("/contacts/upsert", json=LEE | {"email": email}).json()
        for email in ("lee@pier.example", "LEE@pier.example ")
    ]
    assert [answer["action"] for answer in answers] == ["created", "updated"]
    assert answers[0]["id"] == answers[1]["id"]
    assert [(write.op, write.effect) for write in box.tenant("rally").ledger] == [
        ("upsert", "create"),
        ("upsert", "update"),
    ]


@pytest.mark.parametrize(("reset", "stage"), [(True, "lead"), (False, "customer")])
def test_an_upsert_without_lifecycle_stage_may_demote(door: Open, reset: bool, stage: str) -> None:
    box, client = door(records=0, lifecycle_reset=reset)
    client.post("/contacts", json=LEE | {"lifecycleStage": "customer"})
    client.put("/contacts/upsert", json=LEE)
    assert box.tenant("rally").records("contacts")[0]["lifecycleStage"] == stage


def test_an_upsert_may_answer_the_record(door: Open) -> None:
    _, client = door(upsert_reply="record")
    assert client.put("/contacts/upsert", json=LEE).json()["fullName"] == "Lee Pier"


def test_companies_are_upserted_by_domain(door: Open) -> None:
    box, client = door(records=0)
    for name in ("Pier", "Pier Ltd"):
        client.put("/companies/upsert", json={"name": name, "domain": "pier.example"})
    assert [company["name"] for company in box.tenant("rally").records("companies")] == ["Pier Ltd"]
    assert client.put("/companies/upsert", json={"name": "No domain"}).status_code == 400


def test_deals_are_upserted_by_name_and_pipeline(door: Open) -> None:
    box, client = door(records=0)
    for value in (1, 2):
        client.put("/deals/upsert", json=deal_body(box) | {"value": value})
    assert [deal["value"] for deal in box.tenant("rally").records("deals")] == [2]


def test_moving_a_deal_to_closed_won_closes_it(door: Open) -> None:
    box, client = door()
    made = client.post("/deals", json=deal_body(box)).json()
    assert (made["status"], made["probability"], made["stageName"]) == ("open", 10, "Lead")
    moved = client.patch(f"/deals/{made['id']}/stage", json={"stageId": stage_id(box, "Closed Won")}).json()
    assert (moved["status"], moved["probability"], moved["stageName"]) == ("won", 100, "Closed Won")
    assert moved["actualCloseDate"] is not None


def test_a_deal_shows_the_name_its_contact_has_now(door: Open) -> None:
    box, client = door()
    contact = box.tenant("rally").records("contacts")[0]["id"]
    made = client.post("/deals", json=deal_body(box) | {"contactId": contact}).json()
    box.tenant("rally").edit("contacts", contact, firstName="New", lastName="Name")
    assert client.get(f"/deals/{made['id']}").json()["contactName"] == "New Name"


def test_a_deal_needs_a_stage_of_its_pipeline(door: Open) -> None:
    box, client = door()
    other = box.tenant("rally").create("pipelines", name="Other")
    assert client.post("/deals", json=deal_body(box) | {"pipelineId": other["id"]}).status_code == 400


def test_money_may_come_as_text(door: Open) -> None:
    box, client = door(decimals="string")
    assert client.post("/deals", json=deal_body(box) | {"value": 42000.5}).json()["value"] == "42000.50"


def test_bant_is_kept_per_deal(door: Open) -> None:
    _, client = door()
    path = f"/deals/{client.get('/deals').json()[0]['id']}/bant"
    assert client.put(path, json={"budget": "yes"}).status_code == 200
    assert client.get(path).json() == {"budget": "yes"}


# Bulk


def people(count: int) -> list[dict[str, str]]:
    """Return bodies of new contacts."""
    return [LEE | {"email": f"p{number}@pier.example"} for number in range(count)]


@pytest.mark.parametrize(
    ("mode", "counts"), [("fails", (2, 0, 1)), ("updates", (2, 1, 0)), ("duplicates", (3, 0, 0))]
)
def test_bulk_counts_and_an_existing_address_is_a_switch(
    door: Open, mode: str, counts: tuple[int, int, int]
) -> None:
    _, client = door(records=0, bulk_existing=mode)
    client.post("/contacts", json=LEE)
    result = client.post("/contacts/bulk", json=[*people(2), LEE]).json()
    assert (result["created"], result["updated"], result["failed"]) == counts
    assert len(result["createdIds"]) == result["created"]
    assert len(result["errors"]) == result["failed"]


def test_bulk_takes_100_and_refuses_101(door: Open) -> None:
    box, client = door(records=0)
    assert client.post("/contacts/bulk", json=people(101)).status_code == 400
    assert box.tenant("rally").ledger == []
    assert client.post("/contacts/bulk", json=people(100)).json()["created"] == 100


@pytest.mark.parametrize(
    ("shape", "statuses"), [("array", [200, 400]), ("object", [400, 200]), ("either", [200, 200])]
)
def test_the_body_of_bulk_is_a_switch(door: Open, shape: str, statuses: list[int]) -> None:
    _, client = door(bulk_body=shape, bulk_existing="updates")
    bodies: list[Any] = [people(1), {"contacts": people(1)}]
    assert [client.post("/contacts/bulk", json=body).status_code for body in bodies] == statuses


@pytest.mark.parametrize(
    ("switches", "error"),
    [
        ({}, "The email field is required."),
        ({"bulk_errors_name_row": True}, "Row 1: The email field is required."),
        ({"bulk_errors": "objects"}, {"message": "The email field is required."}),
    ],
)
def test_errors_of_bulk_are_text_or_objects(door: Open, switches: dict[str, Any], error: Any) -> None:
    _, client = door(**switches)
    rows = [{"firstName": "A", "lastName": "B"}]
    assert client.post("/contacts/bulk", json=rows).json()["errors"] == [error]


def test_an_atomic_bulk_is_refused_whole(door: Open) -> None:
    box, client = door(bulk_atomic=True)
    assert client.post("/contacts/bulk", json=[*people(1), {}]).status_code == 400
    assert box.tenant("rally").ledger == []


def test_activities_have_bulk_and_no_upsert(door: Open) -> None:
    _, client = door()
    row = {"activityType": "note", "subject": "s"}
    assert client.post("/activities/bulk", json=[row, row]).json()["created"] == 2
    assert client.put("/activities/upsert", json=row).status_code == 404
