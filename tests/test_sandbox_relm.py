"""What Relm's page says, and what its open questions may turn out to be, on real HTTP."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.relm_doors import NOON, Open, everything, opening


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to the classic Relm, under the switches given."""
    with opening("relm") as opened:
        yield opened


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
