"""What Relm's page says, and what its open questions may turn out to be, on real HTTP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import httpx
import pytest

from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.store import utc_now

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Open: TypeAlias = Callable[..., tuple[Sandbox, httpx.Client]]


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to Relm, under the switches given."""
    with ExitStack() as stack:

        def opened(
            *, records: int = 30, now: Callable[[], datetime] = utc_now, **switches: Any
        ) -> tuple[Sandbox, httpx.Client]:
            box = stack.enter_context(Sandbox(records=records, relm=RelmSwitches(**switches), now=now))
            headers = {"Authorization": f"Bearer {box.key('relm')}"}
            client = httpx.Client(
                base_url=box.base_url("relm"), headers=headers, trust_env=False, verify=False
            )
            return box, stack.enter_context(client)

        yield opened


def everything(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """Walk a list to its end."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(path, params=params | cursor).raise_for_status().json()
        rows += page["data"]
        if not page["has_more"]:
            return rows
        cursor = {"cursor": page["next_cursor"]}


def make_required(box: Sandbox, key: str = "region", kind: str = "text") -> None:
    """Have an admin of the workspace add a required field to contacts."""
    box.tenant("relm").create("fields", object_type="contact", key=key, type=kind, required=True)


# Keys, headers, envelopes


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer sk_live_wrong", "Basic abc"])
def test_without_a_valid_key_the_answer_is_401_in_the_error_envelope(door: Open, value: str) -> None:
    _, client = door()
    answer = client.get("/v1/contacts", headers={"Authorization": value})
    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"code", "message"}


def test_every_answer_tells_version_and_rate(door: Open) -> None:
    _, client = door(rate_limit=100)
    answer = client.get("/v1/contacts/con_none")
    assert answer.status_code == 404
    assert answer.headers["relm-version"]
    assert answer.headers["x-ratelimit-limit"] == "100"
    assert answer.headers["x-ratelimit-remaining"] == "99"


def test_over_the_rate_limit_is_429_with_retry_after_in_seconds(door: Open) -> None:
    _, client = door(rate_limit=2, now=lambda: NOON)
    statuses = [client.get("/v1/deals").status_code for _ in range(3)]
    answer = client.get("/v1/deals")
    assert statuses == [200, 200, 429]
    assert answer.headers["retry-after"] == "60"
    assert int(answer.headers["x-ratelimit-reset"]) == int(NOON.timestamp()) + 60


def test_the_rate_window_opens_again_at_its_reset(door: Open) -> None:
    times = [NOON]
    _, client = door(rate_limit=1, now=lambda: times[-1])
    assert client.get("/v1/deals").status_code == 200
    assert client.get("/v1/deals").status_code == 429
    times.append(NOON + timedelta(seconds=61))
    assert client.get("/v1/deals").status_code == 200


def test_a_test_key_reaches_a_mode_of_its_own(door: Open) -> None:
    box, client = door()
    simulator: Any = box.simulator("relm")
    test_key = {"Authorization": f"Bearer {simulator.test_mode.key()}"}
    assert client.get("/v1/contacts", headers=test_key).json()["data"] == []
    assert client.get("/v1/contacts").json()["data"] != []


def test_an_unknown_path_is_404_and_a_wrong_method_405(door: Open) -> None:
    _, client = door()
    assert client.get("/v1/nothing").status_code == 404
    assert client.put("/v1/contacts").status_code == 405


# Lists


def test_a_list_has_the_documented_envelope(door: Open) -> None:
    _, client = door()
    page = client.get("/v1/contacts", params={"limit": 2}).json()
    assert list(page) == ["object", "data", "has_more", "next_cursor"]
    assert (page["object"], len(page["data"]), page["has_more"]) == ("list", 2, True)


@pytest.mark.parametrize(("asked", "given"), [(None, 50), (1, 1), (200, 200), (1000, 200)])
def test_a_page_holds_50_by_default_and_200_at_most(door: Open, asked: int | None, given: int) -> None:
    _, client = door(records=210)
    params = {} if asked is None else {"limit": asked}
    assert len(client.get("/v1/contacts", params=params).json()["data"]) == given


def test_a_limit_above_the_maximum_may_be_refused(door: Open) -> None:
    _, client = door(over_limit="refused")
    assert client.get("/v1/contacts", params={"limit": 201}).status_code == 400


@pytest.mark.parametrize("order", ["created_asc", "created_desc"])
def test_the_pages_joined_are_the_collection_in_order(door: Open, order: str) -> None:
    box, client = door(order=order)
    rows = everything(client, "/v1/contacts", limit=7)
    ids = [record["id"] for record in box.tenant("relm").records("contacts")]
    assert [row["id"] for row in rows] == (ids if order == "created_asc" else ids[::-1])


def test_a_row_deleted_between_pages_shifts_nothing(door: Open) -> None:
    box, client = door()
    first = client.get("/v1/contacts", params={"limit": 5}).json()
    box.tenant("relm").delete("contacts", first["data"][-1]["id"])
    second = client.get("/v1/contacts", params={"limit": 100, "cursor": first["next_cursor"]}).json()
    assert len(first["data"]) + len(second["data"]) == 30


@pytest.mark.parametrize("cursor", ["nonsense", "e30", "WyJhIl0"])
def test_a_broken_cursor_is_400(door: Open, cursor: str) -> None:
    _, client = door()
    answer = client.get("/v1/contacts", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")


def test_a_cursor_expires_where_it_has_a_lifetime(door: Open) -> None:
    times = [NOON]
    _, client = door(cursor_ttl_s=60, now=lambda: times[-1])
    cursor = client.get("/v1/contacts", params={"limit": 1}).json()["next_cursor"]
    times.append(NOON + timedelta(seconds=61))
    assert client.get("/v1/contacts", params={"cursor": cursor}).status_code == 400


def test_a_cursor_bound_to_its_filters_refuses_others(door: Open) -> None:
    _, client = door(cursor_binds_filters=True)
    asked: dict[str, str] = {"limit": "1", "filter[currency]": "USD"}
    cursor = client.get("/v1/deals", params=asked).json()["next_cursor"]
    assert client.get("/v1/deals", params=asked | {"cursor": cursor}).status_code == 200
    assert client.get("/v1/deals", params={"cursor": cursor}).status_code == 400


def test_a_cursor_that_carries_its_filters_needs_them_no_more(door: Open) -> None:
    _, client = door(cursor_carries_filters=True)
    page = client.get("/v1/deals", params={"limit": 1, "filter[currency]": "USD"}).json()
    rest = client.get("/v1/deals", params={"cursor": page["next_cursor"]}).json()["data"]
    assert {row["currency"] for row in rest} == {"USD"}


# Filters


@pytest.mark.parametrize(
    ("op", "value", "amounts"),
    [
        ("eq", "200", [200]),
        ("neq", "200", [100, 300]),
        ("gt", "200", [300]),
        ("gte", "200", [200, 300]),
        ("lt", "200", [100]),
        ("lte", "200", [100, 200]),
        ("in", "100,300", [100, 300]),
    ],
)
def test_operators_compare_numbers_as_numbers(door: Open, op: str, value: str, amounts: list[int]) -> None:
    box, client = door(records=0)
    for cents in (100, 200, 300):
        box.tenant("relm").create("deals", title="d", value_cents=cents)
    rows = client.get("/v1/deals", params={f"filter[value_cents][{op}]": value}).json()["data"]
    assert [row["value_cents"] for row in rows] == amounts


@pytest.mark.parametrize(("pattern", "count"), [("%OTHER%", 1), ("an_ther", 1), ("other", 0)])
def test_ilike_takes_wildcards_whatever_the_case(door: Open, pattern: str, count: int) -> None:
    box, client = door(records=0)
    box.tenant("relm").create("companies", name="Another")
    rows = client.get("/v1/companies", params={"filter[name][ilike]": pattern}).json()["data"]
    assert len(rows) == count


def test_ilike_may_mean_contains(door: Open) -> None:
    box, client = door(records=0, ilike="contains")
    box.tenant("relm").create("companies", name="Another")
    assert client.get("/v1/companies", params={"filter[name][ilike]": "OTHER"}).json()["data"]


def test_a_bare_field_and_a_filter_without_operator_mean_equal(door: Open) -> None:
    _, client = door()
    bare = client.get("/v1/deals", params={"stage": "won"}).json()["data"]
    short = client.get("/v1/deals", params={"filter[stage]": "won"}).json()["data"]
    assert bare == short
    assert {row["stage"] for row in bare} == {"won"}


def test_filters_combine_by_and_and_reach_into_metadata(door: Open) -> None:
    _, client = door(records=100)
    asked = {"filter[metadata.renewal_risk]": "low", "filter[stage][in]": "won,lost"}
    rows = client.get("/v1/deals", params=asked).json()["data"]
    assert {row["metadata"]["renewal_risk"] for row in rows} == {"low"}
    assert {row["stage"] for row in rows} <= {"won", "lost"}


@pytest.mark.parametrize(
    ("switches", "status", "count"), [({}, 400, 0), ({"unknown_filter": "ignored"}, 200, 30)]
)
def test_a_filter_on_an_unknown_field_is_refused_or_ignored(
    door: Open, switches: dict[str, Any], status: int, count: int
) -> None:
    _, client = door(**switches)
    answer = client.get("/v1/contacts", params={"filter[shoe_size]": "9"})
    assert answer.status_code == status
    assert len(answer.json().get("data", [])) == count


def test_records_changed_since_a_moment_can_be_asked_for(door: Open) -> None:
    box, client = door()
    contact = box.tenant("relm").records("contacts")[0]
    edited = box.tenant("relm").edit("contacts", contact["id"], first_name="Neu")
    asked = {"filter[updated_at][gte]": edited["updated_at"].isoformat()}
    assert [row["id"] for row in client.get("/v1/contacts", params=asked).json()["data"]] == [contact["id"]]


@pytest.mark.parametrize(
    ("switches", "count"),
    [
        ({"updated_at_filter": "works"}, 0),
        ({"updated_at_filter": "ignored"}, 30),
        ({"unknown_filter": "ignored"}, 30),
    ],
)
def test_hidden_time_stamps_may_still_filter(door: Open, switches: dict[str, Any], count: int) -> None:
    _, client = door(updated_at="hidden", **switches)
    rows = client.get("/v1/contacts", params={"filter[updated_at][gte]": "2999-01-01T00:00:00Z"}).json()
    assert len(rows["data"]) == count
    assert "updated_at" not in client.get("/v1/contacts").json()["data"][0]


# Single records


@pytest.mark.parametrize(
    ("resource", "body", "change"),
    [
        ("contacts", {"email": "lee@pier.example"}, {"phone": "1"}),
        ("companies", {"name": "Pier"}, {"domain": "pier.example"}),
        ("deals", {"title": "Pilot", "value_cents": 5}, {"stage": "won"}),
        ("activities", {"type": "call", "occurred_at": "2026-01-01T00:00:00Z"}, {"body": "x"}),
    ],
)
def test_records_are_created_read_changed_and_deleted(
    door: Open, resource: str, body: dict[str, Any], change: dict[str, Any]
) -> None:
    box, client = door(records=0)
    made = client.post(f"/v1/{resource}", json=body)
    path = f"/v1/{resource}/{made.json()['id']}"
    assert made.status_code == 201
    assert client.patch(path, json=change).json().items() >= (body | change).items()
    assert client.get(path).json().items() >= (body | change).items()
    assert client.delete(path).json()["deleted"] is True
    assert [client.get(path).status_code, client.delete(path).status_code] == [404, 404]
    assert [write.op for write in box.tenant("relm").ledger] == ["create", "update", "delete"]


def test_a_single_record_may_come_wrapped(door: Open) -> None:
    _, client = door(single="data", create_status=200, delete_answer="empty")
    made = client.post("/v1/contacts", json={"email": "a@b.example"})
    assert (made.status_code, set(made.json())) == (200, {"data"})
    assert client.delete(f"/v1/contacts/{made.json()['data']['id']}").status_code == 204


def test_a_second_contact_with_an_address_is_a_conflict_whatever_the_case(door: Open) -> None:
    _, client = door()
    client.post("/v1/contacts", json={"email": "a@b.example"})
    assert client.post("/v1/contacts", json={"email": " A@B.example "}).status_code == 409


@pytest.mark.parametrize(
    "body",
    [{"email": 1}, {"email": "no address"}, {"company_id": "cmp_none"}, {"metadata": []}, {"first_name": 2}],
)
def test_a_value_that_does_not_fit_is_422_and_nothing_is_written(door: Open, body: dict[str, Any]) -> None:
    box, client = door()
    assert client.post("/v1/contacts", json=body).status_code == 422
    assert box.tenant("relm").ledger == []


@pytest.mark.parametrize(("mode", "left"), [("replaces", {"b": 2}), ("merges", {"a": 1, "b": 2})])
def test_a_patch_of_metadata_replaces_or_merges(door: Open, mode: str, left: dict[str, int]) -> None:
    box, client = door(metadata_write=mode)
    contact = box.tenant("relm").create("contacts", email="a@b.example", metadata={"a": 1})
    changed = client.patch(f"/v1/contacts/{contact['id']}", json={"metadata": {"b": 2}})
    assert changed.json()["metadata"] == left


@pytest.mark.parametrize(("clears", "phone"), [(True, None), (False, "1")])
def test_null_clears_or_does_not(door: Open, clears: bool, phone: str | None) -> None:
    box, client = door(null_clears=clears)
    contact = box.tenant("relm").create("contacts", email="a@b.example", phone="1")
    assert client.patch(f"/v1/contacts/{contact['id']}", json={"phone": None}).json()["phone"] == phone


def test_the_crm_may_keep_another_value_than_was_sent(door: Open) -> None:
    box, client = door(echo=Echo(trims=True, lower=("email",)))
    made = client.post("/v1/contacts", json={"email": "A@B.example", "first_name": " Lee "}).json()
    assert (made["email"], made["first_name"]) == ("a@b.example", "Lee")
    assert box.tenant("relm").ledger[0].fields["first_name"] == " Lee "


# Custom fields


def test_a_required_custom_field_stops_every_write_without_it(door: Open) -> None:
    box, client = door()
    contact = box.tenant("relm").records("contacts")[0]
    make_required(box)
    body = {"email": "new@b.example", "metadata": {"region": "emea"}}
    assert client.post("/v1/contacts", json={"email": "new@b.example"}).status_code == 422
    assert client.patch(f"/v1/contacts/{contact['id']}", json={"phone": "1"}).status_code == 422
    assert client.post("/v1/contacts", json=body).status_code == 201


def test_a_required_field_may_have_to_be_in_every_body(door: Open) -> None:
    box, client = door(required_in="body")
    make_required(box)
    contact = box.tenant("relm").create("contacts", email="a@b.example", metadata={"region": "emea"})
    assert client.patch(f"/v1/contacts/{contact['id']}", json={"phone": "1"}).status_code == 422


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("text", "x", 1),
        ("number", 1.5, "1.5"),
        ("bool", True, "true"),
        ("date", "2026-01-31", "31.1.2026"),
        ("select", "gold", "tin"),
    ],
)
def test_custom_values_are_checked_by_type(door: Open, kind: str, good: Any, bad: Any) -> None:
    _, client = door(records=0)
    definition: dict[str, Any] = {"object_type": "deal", "key": "k", "label": "K", "type": kind}
    definition |= {"options": {"choices": ["gold"]}} if kind == "select" else {}
    assert client.post("/v1/schema/fields", json=definition).status_code == 201
    assert client.post("/v1/deals", json={"title": "a", "metadata": {"k": good}}).status_code == 201
    assert client.post("/v1/deals", json={"title": "b", "metadata": {"k": bad}}).status_code == 422


def test_the_registry_is_listed_by_object_and_shrinks_on_delete(door: Open) -> None:
    _, client = door()
    fields = client.get("/v1/schema/fields", params={"object_type": "deal"}).json()["data"]
    assert {field["key"] for field in fields} == {"renewal_risk", "renews_on"}
    client.delete(f"/v1/schema/fields/{fields[0]['id']}")
    assert len(client.get("/v1/schema/fields", params={"object_type": "deal"}).json()["data"]) == 1


# Batch


def test_a_batch_answers_row_by_row_and_one_bad_row_leaves_the_rest(door: Open) -> None:
    _, client = door()
    rows = [{"email": "a@b.example"}, {"email": "broken"}, {"email": "A@b.example"}]
    answer = client.post("/v1/contacts/batch", json={"contacts": rows, "dedup_on": ["email"]})
    assert answer.status_code == 200
    assert [row["status"] for row in answer.json()["data"]] == ["created", "failed", "updated"]
    assert [row["index"] for row in answer.json()["data"]] == [0, 1, 2]
    assert answer.json()["data"][1]["error"]["code"] == "validation_failed"


def test_without_dedup_an_existing_address_fails(door: Open) -> None:
    box, client = door()
    email = box.tenant("relm").records("contacts")[0]["email"]
    answer = client.post("/v1/contacts/batch", json={"contacts": [{"email": email}]})
    assert answer.json()["data"][0]["status"] == "failed"


@pytest.mark.parametrize(("mode", "phone"), [("merges", "1"), ("replaces", None)])
def test_an_upsert_merges_or_replaces(door: Open, mode: str, phone: str | None) -> None:
    box, client = door(dedup_update=mode)
    box.tenant("relm").create("contacts", email="a@b.example", phone="1")
    row = {"email": "a@b.example", "first_name": "Lee"}
    client.post("/v1/contacts/batch", json={"contacts": [row], "dedup_on": ["email"]})
    assert box.tenant("relm").find("contacts", email="a@b.example")["phone"] == phone


def test_500_contacts_fit_in_a_batch_and_501_do_not(door: Open) -> None:
    box, client = door(records=0)
    rows = [{"email": f"p{number}@b.example"} for number in range(501)]
    assert client.post("/v1/contacts/batch", json={"contacts": rows}).status_code == 400
    assert box.tenant("relm").ledger == []
    assert client.post("/v1/contacts/batch", json={"contacts": rows[:500]}).status_code == 200
    assert len(box.tenant("relm").records("contacts")) == 500


@pytest.mark.parametrize(("names_row", "told"), [(True, True), (False, False)])
def test_an_atomic_batch_is_refused_whole(door: Open, names_row: bool, told: bool) -> None:
    box, client = door(batch_atomic=True, batch_atomic_names_row=names_row)
    rows = [{"email": "a@b.example"}, {"email": "broken"}]
    answer = client.post("/v1/contacts/batch", json={"contacts": rows, "dedup_on": ["email"]})
    assert answer.status_code == 422
    assert ("contacts[1]" in answer.json()["error"]["message"]) is told
    assert box.tenant("relm").ledger == []


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ("results", {"object", "results"}),
        ("contacts", {"object", "contacts"}),
        ("counts", {"object", "created", "updated", "failed"}),
        ("empty", set()),
    ],
)
def test_a_batch_may_answer_in_other_shapes(door: Open, shape: str, keys: set[str]) -> None:
    box, client = door(batch_answer=shape)
    answer = client.post("/v1/contacts/batch", json={"contacts": [{"email": "a@b.example"}]})
    assert set(answer.json()) == keys
    assert box.tenant("relm").find("contacts", email="a@b.example")


# Idempotency


def test_the_same_key_and_body_give_the_first_answer_and_write_once(door: Open) -> None:
    box, client = door()
    answers = [
        client.post("/v1/contacts", json={"email": "a@b.example"}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert [write.idempotency_key for write in box.tenant("relm").ledger] == ["k"]


def test_the_same_key_with_another_body_is_a_conflict(door: Open) -> None:
    _, client = door()
    client.post("/v1/contacts", content=b'{"email":"a@b.example"}', headers={"Idempotency-Key": "k"})
    other = client.post("/v1/contacts", content=b'{"email": "a@b.example"}', headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


def test_a_key_is_forgotten_after_24_hours(door: Open) -> None:
    times = [NOON]
    _, client = door(now=lambda: times[-1])
    client.post("/v1/deals", json={"title": "a"}, headers={"Idempotency-Key": "k"})
    times.append(NOON + timedelta(hours=24))
    assert client.post("/v1/deals", json={"title": "b"}, headers={"Idempotency-Key": "k"}).status_code == 201


@pytest.mark.parametrize(("mode", "second"), [("all", 422), ("successes", 201)])
def test_a_refusal_may_be_replayed_too(door: Open, mode: str, second: int) -> None:
    box, client = door(replays=mode)
    make_required(box)
    sent = {"json": {"email": "a@b.example"}, "headers": {"Idempotency-Key": "k"}}
    assert client.post("/v1/contacts", **sent).status_code == 422  # type: ignore[arg-type]
    field = box.tenant("relm").find("fields", key="region")
    box.tenant("relm").delete("fields", field["id"])
    assert client.post("/v1/contacts", **sent).status_code == second  # type: ignore[arg-type]


# Associations, search, webhook endpoints


def test_associations_join_two_records_and_go_with_them(door: Open) -> None:
    _, client = door(records=0)
    contact = client.post("/v1/contacts", json={"email": "a@b.example"}).json()["id"]
    deal = client.post("/v1/deals", json={"title": "a"}).json()["id"]
    edge = {"from_type": "contact", "from_id": contact, "to_type": "deal", "to_id": deal, "label": "buyer"}
    assert client.post("/v1/associations", json=edge).status_code == 201
    assert client.post("/v1/associations", json=edge).status_code == 409
    assert len(client.get("/v1/associations", params={"from_id": contact}).json()["data"]) == 1
    client.delete(f"/v1/deals/{deal}")
    assert client.get("/v1/associations").json()["data"] == []


def test_an_association_with_nothing_is_422(door: Open) -> None:
    _, client = door()
    edge = {"from_type": "contact", "from_id": "con_no", "to_type": "deal", "to_id": "deal_no"}
    assert client.post("/v1/associations", json=edge).status_code == 422


def test_search_looks_across_objects(door: Open) -> None:
    box, client = door(records=0)
    box.tenant("relm").create("contacts", email="zebra@b.example")
    box.tenant("relm").create("deals", title="Zebra crossing")
    found = client.get("/v1/search", params={"q": "zebra"}).json()["data"]
    assert [row["object"] for row in found] == ["contact", "deal"]


def test_a_webhook_secret_is_shown_once(door: Open) -> None:
    _, client = door()
    made = client.post("/v1/webhooks", json={"url": "https://hook.example", "event_types": ["*"]}).json()
    assert made["secret"].startswith("whsec_")
    assert "secret" not in client.get("/v1/webhooks").json()["data"][0]
    assert client.delete(f"/v1/webhooks/{made['id']}").json()["deleted"] is True


def test_a_list_may_lag_behind_a_write_while_the_record_does_not(door: Open) -> None:
    times = [NOON]
    box, client = door(list_lag_s=30, now=lambda: times[-1])
    made = client.post("/v1/contacts", json={"email": "a@b.example"}).json()
    contact = box.tenant("relm").records("contacts")[0]
    client.patch(f"/v1/contacts/{contact['id']}", json={"phone": "42"})
    assert "42" not in {row["phone"] for row in everything(client, "/v1/contacts")}
    assert client.get(f"/v1/contacts/{made['id']}").status_code == 200
    assert made["id"] not in {row["id"] for row in everything(client, "/v1/contacts")}
    times.append(NOON + timedelta(seconds=31))
    rows = everything(client, "/v1/contacts")
    assert made["id"] in {row["id"] for row in rows}
    assert "42" in {row["phone"] for row in rows}
