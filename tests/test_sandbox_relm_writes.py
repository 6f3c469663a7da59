"""What Relm says of writing by its classic contract, claim by claim and switch by switch."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from tests.relm_doors import NOON, Open, opening


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to the classic Relm, under the switches given."""
    with opening("relm") as opened:
        yield opened


def make_required(box: Sandbox, key: str = "region", kind: str = "text") -> None:
    """Have an admin of the workspace add a required field to contacts."""
    box.tenant("relm").create("fields", object_type="contact", key=key, type=kind, required=True)


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
