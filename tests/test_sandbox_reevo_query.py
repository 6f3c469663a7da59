"""How Reevo's v2 queries: pages, cursors, filters and sorts, on real HTTP."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from sources.sandbox import Sandbox
from sources.sandbox.faults import ExpireCursor
from tests.reevo_doors import NOON, Open, Row, a_contact, code, everything, found, opened

BY_UPDATE = [{"field": "updated_at", "direction": "asc"}]


@pytest.fixture
def door() -> Iterator[Open]:
    with ExitStack() as stack:
        yield partial(opened, stack, "/api/v2")


# Pages


def test_an_empty_query_enumerates_50_at_a_time(door: Open) -> None:
    tenant, client = door(records=120)
    page = client.post("/contact/_query", json={}).json()
    assert len(page["data"]) == 50
    ids = [row["id"] for row in everything(client, "contact", {})]
    assert ids == [row["id"] for row in tenant.records("contacts")]


def test_the_limits_are_switches(door: Open) -> None:
    _, client = door(v2_default_limit=2, v2_max_limit=3)
    sizes = [len(client.post("/contact/_query", json=body).json()["data"]) for body in ({}, {"limit": 9})]
    assert sizes == [2, 3]


@pytest.mark.parametrize(("over", "status"), [("capped", 200), ("refused", 400)])
def test_a_limit_over_100_is_capped_or_refused(door: Open, over: str, status: int) -> None:
    _, client = door(records=120, over_limit=over)
    answer = client.post("/contact/_query", json={"limit": 200})
    assert answer.status_code == status
    assert status == 400 or len(answer.json()["data"]) == 100


@pytest.mark.parametrize(
    "sort",
    [
        BY_UPDATE,
        [*BY_UPDATE, {"field": "id", "direction": "asc"}],
        [{"field": "created_at", "direction": "desc"}],
        [{"field": "last_name", "direction": "desc"}, {"field": "updated_at", "direction": "asc"}],
        [{"field": "cus_field__Score", "direction": "asc"}],
    ],
)
def test_the_pages_joined_are_the_collection_sorted(door: Open, sort: list[Row]) -> None:
    tenant, client = door(records=60)
    rows = everything(client, "contact", {"sort": sort, "limit": 7})
    assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in tenant.records("contacts"))
    name, is_descending = sort[0]["field"], sort[0]["direction"] == "desc"
    values = [row["attributes"][name]["value"] for row in rows]
    filled = [value for value in values if value is not None and value != ""]
    assert filled == sorted(filled, reverse=is_descending)
    assert values[: len(filled)] == filled


def test_rows_edited_between_pages_are_neither_missed_nor_lost(door: Open) -> None:
    tenant, client = door(records=30)
    page = client.post("/contact/_query", json={"sort": BY_UPDATE, "limit": 10}).json()
    late = page["data"][0]["id"]
    tenant.edit("contacts", late, title="Moved")
    more = {"cursor": page["next_cursor"], "limit": 100}
    rows = client.post("/contact/_query", json=more).json()["data"]
    assert len(rows) == 21
    assert rows[-1]["id"] == late


def test_the_cursor_carries_its_query_and_refuses_another(door: Open) -> None:
    _, client = door()
    asked = {"sort": BY_UPDATE, "filters": [{"field": "title", "operator": "exists"}]}
    cursor = client.post("/contact/_query", json=asked | {"limit": 1}).json()["next_cursor"]
    assert client.post("/contact/_query", json={"cursor": cursor}).status_code == 200
    assert client.post("/contact/_query", json=asked | {"cursor": cursor}).status_code == 200
    other = {"cursor": cursor, "sort": BY_UPDATE}
    assert code(client.post("/contact/_query", json=other)) == (400, "invalid_cursor")
    assert code(client.post("/account/_query", json={"cursor": cursor})) == (400, "invalid_cursor")


def test_a_cursor_may_need_its_query_again(door: Open) -> None:
    _, client = door(cursor_needs_query=True)
    asked = {"sort": BY_UPDATE}
    cursor = client.post("/contact/_query", json=asked | {"limit": 1}).json()["next_cursor"]
    assert code(client.post("/contact/_query", json={"cursor": cursor})) == (400, "invalid_cursor")
    assert client.post("/contact/_query", json=asked | {"cursor": cursor}).status_code == 200


@pytest.mark.parametrize("cursor", ["nonsense", "e30", 7])
def test_a_broken_cursor_is_400(door: Open, cursor: Any) -> None:
    _, client = door()
    assert code(client.post("/contact/_query", json={"cursor": cursor})) == (400, "invalid_cursor")


def test_a_cursor_expires_where_it_has_a_lifetime(door: Open) -> None:
    times = [NOON]
    _, client = door(cursor_ttl_s=60, now=lambda: times[-1])
    cursor = client.post("/contact/_query", json={"limit": 1}).json()["next_cursor"]
    times.append(NOON + timedelta(seconds=61))
    assert code(client.post("/contact/_query", json={"cursor": cursor})) == (400, "invalid_cursor")


def test_a_cursor_in_a_body_can_be_made_to_expire() -> None:
    with Sandbox(records=5) as box:
        headers = {"Authorization": f"Bearer {box.key('reevo')}"}
        url = f"{box.base_url('reevo')}/api/v2/contact/_query"
        box.faults.add(ExpireCursor())
        first = httpx.post(url, json={"limit": 1}, headers=headers, trust_env=False)
        body = {"cursor": first.json()["next_cursor"]}
        assert code(httpx.post(url, json=body, headers=headers, trust_env=False)) == (400, "invalid_cursor")
        assert httpx.post(url, json=body, headers=headers, trust_env=False).status_code == 200


def test_the_next_cursor_may_stand_under_meta(door: Open) -> None:
    _, client = door(next_cursor="meta")
    page = client.post("/contact/_query", json={"limit": 1}).json()
    assert list(page) == ["data", "meta"]
    assert page["meta"]["next_cursor"]


def test_queries_may_lag_behind_writes(door: Open) -> None:
    times = [NOON]
    tenant, client = door(records=0, list_lag_s=30, now=lambda: times[-1])
    id = a_contact(tenant)
    assert found(client, "contact") == []
    assert client.get(f"/contact/{id}").status_code == 200
    times.append(NOON + timedelta(seconds=31))
    assert len(found(client, "contact")) == 1


# Filters and sorts


@pytest.mark.parametrize(
    ("operator", "value", "scores"),
    [
        ("eq", 2, [2]),
        ("ne", 2, [1, 3.5, None]),
        ("in", [1, 2], [1, 2]),
        ("not_in", [1, 2], [3.5, None]),
        ("gt", 2, [3.5]),
        ("gte", 2, [2, 3.5]),
        ("lt", 2, [1]),
        ("lte", 2, [1, 2]),
        ("between", [2, 3.5], [2, 3.5]),
        ("exists", None, [1, 2, 3.5]),
        ("not_exists", None, [None]),
    ],
)
def test_operators_compare_numbers_as_numbers(
    door: Open, operator: str, value: Any, scores: list[Any]
) -> None:
    tenant, client = door(records=0)
    for score in (1, 2, 3.5, None):
        tenant.create("contacts", cus_field__Score=score)
    rows = found(client, "contact", {"field": "cus_field__Score", "operator": operator, "value": value})
    shown = [row["attributes"]["cus_field__Score"]["value"] for row in rows]
    assert sorted(shown, key=str) == sorted(scores, key=str)


@pytest.mark.parametrize(
    ("operator", "value"), [("contains", "EA"), ("starts_with", "he"), ("ends_with", "D")]
)
def test_operators_on_text_are_blind_to_case(door: Open, operator: str, value: str) -> None:
    tenant, client = door(records=0)
    for title in ("Head", "Buyer", None):
        tenant.create("contacts", title=title)
    rows = found(client, "contact", {"field": "title", "operator": operator, "value": value})
    assert [row["attributes"]["title"]["value"] for row in rows] == ["Head"]


def test_groups_join_by_and_or_and_not(door: Open) -> None:
    tenant, client = door(records=0)
    for title in ("CEO", "CFO", "Buyer"):
        tenant.create("contacts", title=title)
    one, two = ({"field": "title", "operator": "eq", "value": title} for title in ("CEO", "CFO"))
    assert len(found(client, "contact", {"or": [one, two]})) == 2
    assert len(found(client, "contact", one, two)) == 0
    assert len(found(client, "contact", {"and": [one, {"not": two}]})) == 1
    assert len(found(client, "contact", {"not": {"or": [one, two]}})) == 1


def test_what_changed_since_a_moment_can_be_asked_for(door: Open) -> None:
    tenant, client = door()
    id = tenant.records("contacts")[3]["id"]
    edited = tenant.edit("contacts", id, title="Neu")["updated_at"]
    since = {"field": "updated_at", "operator": "gte", "value": edited.isoformat()}
    body = {"filters": [since], "sort": BY_UPDATE}
    assert [row["id"] for row in client.post("/contact/_query", json=body).json()["data"]] == [id]


def test_updated_at_may_not_be_filterable_and_id_not_sortable(door: Open) -> None:
    _, client = door(updated_at_filter=False, id_sortable=False)
    since = {"field": "updated_at", "operator": "gte", "value": "2020-01-01T00:00:00Z"}
    fields = {row["api_name"]: row for row in client.get("/_schema/contact").json()["attributes"]}
    assert (fields["updated_at"]["is_filterable"], fields["id"]["is_sortable"]) == (False, False)
    assert code(client.post("/contact/_query", json={"filters": [since]})) == (400, "invalid_filter_field")
    assert code(client.post("/contact/_query", json={"sort": [{"field": "id"}]})) == (400, "unsortable_field")


def test_filters_reach_through_references_lists_and_relationships(door: Open) -> None:
    tenant, client = door(records=60)
    email = {"field": "owner_user_id.email", "operator": "eq", "value": "sam@ourfirm.example"}
    sam = tenant.find("users", email="sam@ourfirm.example")["id"]
    rows = found(client, "contact", email)
    assert {row["attributes"]["owner_user_id"]["value"]["related_record_id"] for row in rows} == {sam}
    other = tenant.find("contacts")["contact_emails"][-1]["email"]
    assert len(found(client, "contact", {"field": "contact_emails", "operator": "eq", "value": other})) == 1
    path = {"field": "accounts.domains.domain_name", "operator": "ends_with", "value": ".example"}
    assert 0 < len(found(client, "contact", path)) < 60
    stage = {"field": "stage", "operator": "in", "value": ["Closed Won", "lost"]}
    deals = tenant.records("opportunities", stage="won") + tenant.records("opportunities", stage="lost")
    assert len(found(client, "opportunity", stage)) == len(deals)


@pytest.mark.parametrize(
    ("node", "refusal"),
    [
        ({"field": "shoe", "operator": "eq", "value": 1}, "invalid_filter_field"),
        ({"field": "address", "operator": "exists"}, "invalid_filter_field"),
        ({"field": "title", "operator": "gt", "value": "x"}, "invalid_filter_operator"),
        ({"field": "updated_at", "operator": "gte", "value": "2026-01-01"}, "invalid_filter_value"),
        ({"field": "cus_field__Score", "operator": "between", "value": [1]}, "invalid_filter_value"),
        (
            {"not": {"not": {"not": {"not": {"field": "title", "operator": "exists"}}}}},
            "filter_depth_exceeded",
        ),
        ({"field": "a.b.c.d.e", "operator": "exists"}, "filter_depth_exceeded"),
    ],
)
def test_a_filter_that_will_not_do_is_400_by_name(door: Open, node: Row, refusal: str) -> None:
    _, client = door()
    assert code(client.post("/contact/_query", json={"filters": [node]})) == (400, refusal)


def test_the_depth_of_filters_is_a_switch(door: Open) -> None:
    _, client = door(filter_depth=4)
    node: Row = {"field": "title", "operator": "exists"}
    for depth, status in ((4, 200), (5, 400)):
        filters = node
        for _ in range(depth):
            filters = {"not": filters}
        assert client.post("/contact/_query", json={"filters": [filters]}).status_code == status


def test_three_fields_sort_and_four_do_not(door: Open) -> None:
    _, client = door()
    four = [{"field": name} for name in ("title", "first_name", "last_name", "id")]
    assert client.post("/contact/_query", json={"sort": four[:3]}).status_code == 200
    assert code(client.post("/contact/_query", json={"sort": four})) == (400, "sort_too_many_fields")
    assert (
        code(client.post("/contact/_query", json={"sort": [{"field": "domains"}]}))[1] == "unsortable_field"
    )
