"""What Vivre's page says, and what its open questions may turn out to be, on real HTTP."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from sources.sandbox.echo import Echo
from sources.sandbox.faults import RevokeKey
from sources.sandbox.vivre_rules import STAGES
from tests.vivre_doors import ARJUN, NOON, Open, contact_in, everything, opening


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to Vivre, under the switches given."""
    with opening() as opened:
        yield opened


# Keys, workspace, permissions, limits


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer vv_live_wrong", "Basic abc"])
def test_without_a_valid_key_the_answer_is_401(door: Open, value: str) -> None:
    _, client = door()
    assert client.get("/contacts", headers={"Authorization": value}).status_code == 401


def test_key_address_and_workspace_are_of_the_documented_form(door: Open) -> None:
    box, _ = door()
    assert box.key("vivre").startswith("vv_live_")
    assert box.base_url("vivre").endswith("/vivre/v1")
    assert box.settings()["SOURCES__VIVRE__WORKSPACE_ID"].startswith("ws_")


@pytest.mark.parametrize(
    ("switch", "missing", "wrong"), [("ignored", 200, 200), ("checked", 200, 403), ("required", 403, 403)]
)
def test_the_workspace_header_is_ignored_checked_or_required(
    door: Open, switch: str, missing: int, wrong: int
) -> None:
    _, client = door(workspace_header=switch)
    assert client.get("/contacts", headers={"X-Workspace-ID": "ws_other"}).status_code == wrong
    assert client.get("/contacts").status_code == 200
    del client.headers["X-Workspace-ID"]
    assert client.get("/contacts").status_code == missing


def test_the_status_of_a_wrong_workspace_can_be_chosen(door: Open) -> None:
    _, client = door(workspace_status=401)
    assert client.get("/contacts", headers={"X-Workspace-ID": "ws_other"}).status_code == 401


@pytest.mark.parametrize(
    ("scope", "switches", "read", "write"),
    [
        ("read", {}, 200, 403),
        ("read", {"permission_status": 401}, 200, 401),
        ("write", {}, 200, 200),
        ("write", {"write_reads": False}, 403, 200),
        ("admin", {"write_reads": False}, 200, 200),
    ],
)
def test_a_key_does_what_its_permission_covers(
    door: Open, scope: str, switches: dict[str, Any], read: int, write: int
) -> None:
    box, client = door(**switches)
    client.headers["Authorization"] = f"Bearer {box.key('vivre', scopes=(scope,))}"
    assert client.get("/contacts").status_code == read
    assert client.post("/contacts", json=ARJUN).status_code == write


def test_a_key_can_die_in_the_middle_of_a_run(door: Open) -> None:
    box, client = door()
    box.faults.add(RevokeKey(), crm="vivre", nth=2)
    assert [client.get("/contacts").status_code for _ in range(3)] == [200, 401, 401]


@pytest.mark.parametrize(("shown", "waits"), [(False, True), (True, False)])
def test_over_the_rate_limit_is_429_with_what_was_chosen_to_be_told(
    door: Open, shown: bool, waits: bool
) -> None:
    _, client = door(rate_limit=1, rate_headers=shown, retry_after=waits, now=lambda: NOON)
    client.get("/contacts")
    answer = client.get("/contacts")
    assert answer.status_code == 429
    assert ("retry-after" in answer.headers, "x-ratelimit-limit" in answer.headers) == (waits, shown)


@pytest.mark.parametrize(("scope", "status"), [("workspace", 429), ("key", 200)])
def test_the_rate_is_counted_by_workspace_or_by_key(door: Open, scope: str, status: int) -> None:
    box, client = door(rate_limit=1, rate_scope=scope)
    client.get("/contacts")
    other = {"Authorization": f"Bearer {box.key('vivre', label='other')}"}
    assert client.get("/contacts", headers=other).status_code == status


@pytest.mark.parametrize(
    ("form", "has_field"), [("error", '"error":{"code"'), ("errors", '"errors":{"email"'), ("text", "email")]
)
def test_a_validation_error_is_400_in_the_form_that_was_chosen(door: Open, form: str, has_field: str) -> None:
    _, client = door(error_body=form)
    answer = client.post("/contacts", json={"name": "Arjun"})
    assert answer.status_code == 400
    assert has_field in answer.text


# Lists


def test_a_list_has_data_total_limit_and_offset(door: Open) -> None:
    _, client = door()
    page = client.get("/contacts", params={"limit": 2, "offset": 3}).json()
    assert list(page) == ["data", "total", "limit", "offset"]
    assert (len(page["data"]), page["total"], page["limit"], page["offset"]) == (2, 20, 2, 3)


def test_a_contact_has_the_documented_fields_and_no_others(door: Open) -> None:
    _, client = door()
    names = {"id", "name", "email", "company", "ai_score", "stage", "created_at"}
    rows = everything(client, "/contacts")
    assert all(set(row) == names for row in rows)
    assert all(row["id"].startswith("cnt_") and row["stage"] in STAGES for row in rows)


@pytest.mark.parametrize(("asked", "given"), [(None, 50), (1, 1), (500, 500), (501, 500)])
def test_a_page_holds_50_by_default_and_500_at_most(door: Open, asked: int | None, given: int) -> None:
    _, client = door(records=510)
    params = {} if asked is None else {"limit": asked}
    page = client.get("/contacts", params=params).json()
    assert (len(page["data"]), page["limit"]) == (given, given)


def test_a_limit_above_the_maximum_may_be_refused_or_told_back_as_asked(door: Open) -> None:
    refusing, echoing = door(over_limit="refused")[1], door(limit_echo="asked")[1]
    assert refusing.get("/contacts", params={"limit": 501}).status_code == 400
    assert echoing.get("/contacts", params={"limit": 501}).json()["limit"] == 501


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "x"}, {"offset": "x"}, {"score_min": "101"}])
def test_parameters_that_make_no_sense_are_400(door: Open, params: dict[str, str]) -> None:
    _, client = door()
    assert client.get("/contacts", params=params).status_code == 400


@pytest.mark.parametrize(("switch", "status"), [("refused", 400), ("zero", 200)])
def test_a_negative_offset_is_refused_or_zero(door: Open, switch: str, status: int) -> None:
    _, client = door(negative_offset=switch)
    assert client.get("/contacts", params={"offset": "-1"}).status_code == status


@pytest.mark.parametrize(("most", "status"), [(None, 200), (100, 400)])
def test_an_offset_beyond_the_end_is_an_empty_page_or_refused(
    door: Open, most: int | None, status: int
) -> None:
    _, client = door(max_offset=most)
    answer = client.get("/contacts", params={"offset": 101})
    assert (answer.status_code, answer.json().get("data", [])) == (status, [])


@pytest.mark.parametrize("order", ["created_desc", "created_asc", "updated_desc"])
def test_the_pages_joined_are_the_collection_in_order(door: Open, order: str) -> None:
    _, client = door(order=order, updated_at="shown")
    rows = everything(client, "/contacts", limit=7)
    stamps = [row[f"{order.partition('_')[0]}_at"] for row in rows]
    assert len({row["id"] for row in rows}) == 20
    assert stamps == sorted(stamps, reverse=order.endswith("desc"))


def test_a_new_contact_shifts_the_pages_and_moves_the_total(door: Open) -> None:
    box, client = door()
    first = client.get("/contacts", params={"limit": 5}).json()
    contact_in(box)
    second = client.get("/contacts", params={"limit": 5, "offset": 5}).json()
    assert second["data"][0]["id"] == first["data"][-1]["id"]
    assert (first["total"], second["total"]) == (20, 21)


@pytest.mark.parametrize(("switch", "orders"), [("stable", {1}), ("shuffled", {2, 3, 4, 5})])
def test_rows_of_the_same_second_keep_their_order_or_not(door: Open, switch: str, orders: set[int]) -> None:
    box, client = door(records=0, ties=switch, now=lambda: NOON)
    for number in range(12):
        contact_in(box, email=f"a{number}@mail.example")
    seen = {tuple(row["id"] for row in client.get("/contacts").json()["data"]) for _ in range(5)}
    assert len(seen) in orders


def test_score_min_leaves_out_lower_and_missing_scores(door: Open) -> None:
    box, client = door(records=0)
    for score in (None, 0, 49, 50, 100):
        contact_in(box, ai_score=score)
    page = client.get("/contacts", params={"score_min": 50}).json()
    assert (page["total"], {row["ai_score"] for row in page["data"]}) == (2, {50, 100})
    assert client.get("/contacts", params={"score_min": 0}).json()["total"] == 4


@pytest.mark.parametrize("text", ["arjun das", "ARJUN@DELTA", "delta agro"])
def test_search_reads_name_address_and_company_whatever_the_case(door: Open, text: str) -> None:
    box, client = door(records=0)
    contact_in(box, company="Delta Agro")
    contact_in(box, name="Meera", email="meera@kaveri.example")
    assert client.get("/contacts", params={"search": text}).json()["total"] == 1


def test_search_may_mind_the_case(door: Open) -> None:
    box, client = door(records=0, search_folds_case=False)
    contact_in(box)
    assert client.get("/contacts", params={"search": "arjun das"}).json()["total"] == 0
    assert client.get("/contacts", params={"search": "Arjun"}).json()["total"] == 1


@pytest.mark.parametrize(("switch", "partial", "shuffled"), [("contains", 1, 0), ("words", 0, 1)])
def test_search_finds_any_part_or_whole_words_in_any_order(
    door: Open, switch: str, partial: int, shuffled: int
) -> None:
    box, client = door(records=0, search=switch)
    contact_in(box, email="a.das+x@deltaagro.example")
    totals = [
        client.get("/contacts", params={"search": text}).json()["total"]
        for text in ("delt", "x+das.a@deltaagro.example", "a.das+x@deltaagro.example")
    ]
    assert totals == [partial, shuffled, 1]


def test_the_search_index_may_lag_behind_the_list(door: Open) -> None:
    times = [NOON]
    _, client = door(records=0, search_lag_s=30, now=lambda: times[-1])
    client.post("/contacts", json=ARJUN)
    assert client.get("/contacts").json()["total"] == 1
    assert client.get("/contacts", params={"search": "arjun"}).json()["total"] == 0
    times.append(NOON + timedelta(seconds=30))
    assert client.get("/contacts", params={"search": "arjun"}).json()["total"] == 1


# Contacts


@pytest.mark.parametrize(
    ("switches", "list_has", "single_has"),
    [
        ({}, set(), set()),
        ({"updated_at": "shown"}, {"updated_at"}, {"updated_at"}),
        ({"also_shown": ("tags", "phone")}, {"tags", "phone"}, {"tags", "phone"}),
        ({"shown_by_id": ("tags",)}, set(), {"tags"}),
    ],
)
def test_undocumented_fields_are_shown_as_chosen(
    door: Open, switches: dict[str, Any], list_has: set[str], single_has: set[str]
) -> None:
    box, client = door(records=0, **switches)
    id = contact_in(box)
    documented = {"id", "name", "email", "company", "ai_score", "stage", "created_at"}
    assert set(client.get("/contacts").json()["data"][0]) - documented == list_has
    assert set(client.get(f"/contacts/{id}").json()["data"]) - documented == single_has


@pytest.mark.parametrize(("switch", "has_it"), [("null", True), ("missing", False)])
def test_empty_fields_are_null_or_missing(door: Open, switch: str, has_it: bool) -> None:
    box, client = door(records=0, nulls=switch)
    contact_in(box, company=None)
    assert ("company" in client.get("/contacts").json()["data"][0]) is has_it


@pytest.mark.parametrize("switch", ["data", "bare"])
def test_a_single_contact_is_wrapped_or_bare(door: Open, switch: str) -> None:
    box, client = door(single=switch)
    id = contact_in(box)
    body = client.get(f"/contacts/{id}").json()
    assert (body["data"] if switch == "data" else body)["id"] == id


def test_an_unknown_contact_is_404(door: Open) -> None:
    _, client = door()
    assert client.get("/contacts/cnt_0").status_code == 404


def test_a_created_contact_is_in_the_list_and_in_the_ledger(door: Open) -> None:
    box, client = door()
    sent = ARJUN | {"company": "Delta Agro", "stage": "proposal", "tags": ["referral"]}
    answer = client.post("/contacts", json=sent)
    (write,) = box.tenant("vivre").ledger
    assert (answer.status_code, answer.json()["data"]["stage"]) == (200, "proposal")
    assert (write.op, write.resource, write.fields) == ("create", "contacts", sent)
    assert client.get("/contacts").json()["data"][0]["id"] == write.id == answer.json()["data"]["id"]


def test_a_new_contact_starts_at_stage_new_with_the_score_that_was_chosen(door: Open) -> None:
    plain, scored = door()[1], door(new_score=50)[1]
    first, second = (client.post("/contacts", json=ARJUN).json()["data"] for client in (plain, scored))
    assert (first["stage"], first["ai_score"]) == ("new", None)
    assert second["ai_score"] == 50


@pytest.mark.parametrize(("switch", "names"), [("data", {"data"}), ("id", {"id"}), ("empty", set())])
def test_the_answer_to_a_create_has_the_form_that_was_chosen(
    door: Open, switch: str, names: set[str]
) -> None:
    _, client = door(created=switch, create_status=201)
    answer = client.post("/contacts", json=ARJUN)
    assert (answer.status_code, set(answer.json())) == (201, names)


def test_a_created_contact_may_come_back_bare(door: Open) -> None:
    _, client = door(created="bare")
    assert client.post("/contacts", json=ARJUN).json()["email"] == ARJUN["email"]


@pytest.mark.parametrize(
    ("switch", "status", "total"), [("refused", 400, 1), ("merged", 200, 1), ("duplicated", 200, 2)]
)
def test_an_address_that_exists_is_refused_merged_or_duplicated(
    door: Open, switch: str, status: int, total: int
) -> None:
    box, client = door(records=0, existing_email=switch)
    contact_in(box, company="Old")
    answer = client.post("/contacts", json=ARJUN | {"email": "ARJUN@deltaagro.example", "company": "New"})
    assert answer.status_code == status
    assert len(box.tenant("vivre").records("contacts")) == total
    assert len(box.tenant("vivre").records("contacts", company="New")) == (status == 200)


def test_addresses_may_be_told_apart_by_case(door: Open) -> None:
    box, client = door(email_match="exact")
    contact_in(box)
    upper = ARJUN | {"email": "ARJUN@deltaagro.example"}
    assert client.post("/contacts", json=upper).status_code == 200
    assert client.post("/contacts", json=ARJUN).status_code == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"email": None},
        {"email": "nobody"},
        {"stage": "lost"},
        {"tags": "one"},
        {"tags": [1]},
        {"company": 7},
    ],
)
def test_a_contact_that_breaks_a_rule_is_400_and_not_kept(door: Open, wrong: dict[str, Any]) -> None:
    box, client = door(records=0)
    assert client.post("/contacts", json=ARJUN | wrong).status_code == 400
    assert box.tenant("vivre").records("contacts") == []


@pytest.mark.parametrize(
    ("switches", "sent", "status"),
    [
        ({"email_checked": False}, {"email": "nobody"}, 200),
        ({}, {"shoe_size": 9}, 200),
        ({"unknown_field": "refused"}, {"shoe_size": 9}, 400),
        ({}, {"company": "x" * 300}, 200),
        ({"max_text": 255}, {"company": "x" * 300}, 400),
        ({"other_stage": "kept"}, {"stage": "lost"}, 200),
    ],
)
def test_how_strict_fields_are_judged_can_be_chosen(
    door: Open, switches: dict[str, Any], sent: dict[str, Any], status: int
) -> None:
    _, client = door(**switches)
    assert client.post("/contacts", json=ARJUN | sent).status_code == status


def test_values_are_kept_as_the_echo_bends_them(door: Open) -> None:
    box, client = door(echo=Echo(trims=True, lower=("email",)))
    shown = client.post("/contacts", json={"name": " Arjun ", "email": "Arjun@Delta.example"}).json()["data"]
    assert (shown["name"], shown["email"]) == ("Arjun", "arjun@delta.example")
    assert box.tenant("vivre").ledger[-1].fields["name"] == " Arjun "


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_contact_cannot_be_updated_unless_switched_on(door: Open, method: str) -> None:
    (closed_box, closed), (open_box, opened) = door(), door(contact_update=(method,))
    sent = {"company": "Delta"}
    assert closed.request(method, f"/contacts/{contact_in(closed_box)}", json=sent).status_code == 404
    answer = opened.request(method, f"/contacts/{contact_in(open_box)}", json=sent)
    assert (answer.status_code, answer.json()["data"]["company"]) == (200, "Delta")


def test_put_may_replace_a_contact_but_never_its_score(door: Open) -> None:
    box, client = door(contact_update=("PUT",), put="replaces")
    id = contact_in(box, company="Delta", ai_score=54)
    shown = client.put(f"/contacts/{id}", json=ARJUN).json()["data"]
    assert (shown["company"], shown["ai_score"]) == (None, 54)


def test_an_update_to_an_address_of_another_is_refused(door: Open) -> None:
    box, client = door(contact_update=("PATCH",))
    id = contact_in(box, email="other@mail.example")
    contact_in(box)
    assert client.patch(f"/contacts/{id}", json={"email": ARJUN["email"]}).status_code == 400


@pytest.mark.parametrize("path", ["/contacts/cnt_1001", "/deals/dl_71"])
def test_nothing_can_be_deleted(door: Open, path: str) -> None:
    box, client = door()
    assert client.delete(path).status_code == 405
    assert box.tenant("vivre").ledger == []


# Made-up people


def test_people_are_shared_with_the_other_crms_and_some_are_awkward(door: Open) -> None:
    box, client = door(records=50)
    rows = everything(client, "/contacts", limit=500)
    known = {record["email"] for record in box.tenant("relm").records("contacts")}
    assert len(known & {row["email"] for row in rows}) == 47
    assert any("DROP TABLE" in row["name"] for row in rows)
    assert any(row["email"] != row["email"].lower() for row in rows)
    assert {row["ai_score"] is None for row in rows} == {True, False}
