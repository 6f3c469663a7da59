"""What Relm says of writing by its modern contract, claim by claim and switch by switch."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from sources.sandbox.echo import Echo
from tests.relm_doors import LISTS, NAME, NOON, Open, batch, everything, keyed, made, opening, refused


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to the modern Relm, under the switches given."""
    with opening(NAME) as opened:
        yield opened


# Single records


def test_a_contact_is_kept_as_sent_with_version_one(door: Open) -> None:
    _, client = door(now=lambda: NOON)
    sent: dict[str, Any] = {
        "first_name": "Ada",
        "email": "Ada@Pier.example",
        "type": "lead",
        "custom_fields": {"tier": "gold"},
    }
    record = made(client, **sent)
    assert {name: record[name] for name in sent} == sent
    assert (record["version"], record["deleted"], record["object"]) == (1, False, "contact")
    assert record["created_at"] == record["updated_at"] == "2026-03-01T12:00:00Z"
    assert client.get(f"/contacts/{record['id']}").json() == record


def test_stamps_may_have_fractions(door: Open) -> None:
    _, client = door(now=lambda: NOON, fraction_digits=3)
    assert made(client)["created_at"] == "2026-03-01T12:00:00.000Z"


def test_values_may_come_back_bent(door: Open) -> None:
    _, client = door(echo=Echo(trims=True, lower=("email",)))
    assert made(client, email=" Ada@Pier.example ")["email"] == "ada@pier.example"


def test_a_deal_shows_where_it_stands_and_starts_in_the_default_pipeline(door: Open) -> None:
    _, client = door()
    deal = made(client, "deals", value_cents=1_200)
    assert (deal["pipeline"], deal["pipeline_name"], deal["currency"]) == ("sales", "Sales", "USD")
    assert (deal["stage"], deal["stage_label"], deal["stage_type"]) == ("lead", "Lead", "open")
    won = client.patch(f"/deals/{deal['id']}", json={"stage": "won"}).json()
    assert (won["pipeline"], won["stage_type"]) == ("sales", "won")


def test_an_activity_happens_now_unless_told(door: Open) -> None:
    _, client = door(now=lambda: NOON)
    contact = made(client)["id"]
    activity = made(client, "activities", type="call", contact_id=contact)
    assert activity["occurred_at"] == "2026-03-01T12:00:00Z"
    assert not {"subject", "company_id"} & set(activity)


@pytest.mark.parametrize(
    ("resource", "sent", "code", "field"),
    [
        ("contacts", {"frist_name": "Ada"}, "unknown_field", "frist_name"),
        ("contacts", {"first_name": "Ada", "version": 3}, "unknown_field", "version"),
        (
            "contacts",
            {"first_name": "Ada", "custom_fields": {"shoe": 9}},
            "unknown_field",
            "custom_fields.shoe",
        ),
        ("contacts", {"first_name": "Ada", "type": "leed"}, "unknown_value", "type"),
        ("contacts", {"custom_fields": {"tier": "tin"}}, "unknown_value", "custom_fields.tier"),
        ("contacts", {"custom_fields": {"lead_score": "9"}}, "validation_failed", "custom_fields.lead_score"),
        ("contacts", {"email": "nonsense"}, "validation_failed", "email"),
        ("contacts", {"first_name": 7}, "validation_failed", "first_name"),
        ("contacts", {"company_id": "cmp_none"}, "invalid_reference", "company_id"),
        ("contacts", {"type": "lead"}, "identifier_required", None),
        ("companies", {"domain": "pier.example"}, "validation_failed", "name"),
        ("deals", {"value_cents": 5}, "validation_failed", "title"),
        ("deals", {"title": "D", "value_cents": 5.5}, "validation_failed", "value_cents"),
        ("deals", {"title": "D", "close_date": "soon"}, "validation_failed", "close_date"),
        ("deals", {"title": "D", "stage": "negotiaton"}, "unknown_value", "stage"),
        ("deals", {"title": "D", "pipeline": "sails"}, "unknown_value", "pipeline"),
        ("deals", {"title": "D", "pipeline": "partners", "stage": "qualified"}, "unknown_value", "stage"),
        ("activities", {"type": "call"}, "validation_failed", "contact_id"),
        ("activities", {"contact_id": "con_none"}, "invalid_reference", "contact_id"),
    ],
)
def test_what_cannot_stand_is_422_with_code_and_field(
    door: Open, resource: str, sent: dict[str, Any], code: str, field: str | None
) -> None:
    box, client = door()
    assert refused(client.post(f"/{resource}", json=sent)) == (422, code, field)
    assert box.tenant(NAME).ledger == []


@pytest.mark.parametrize(
    ("sent", "suggestion"), [({"frist_name": "Ada"}, "first_name"), ({"type": "leed"}, "lead")]
)
def test_what_is_unknown_is_answered_with_options_and_a_suggestion(
    door: Open, sent: dict[str, str], suggestion: str
) -> None:
    _, client = door()
    body = client.post("/contacts", json=sent).json()
    assert suggestion in body["valid_options"]
    assert body["suggestion"] == suggestion


def test_a_deleted_record_is_no_reference(door: Open) -> None:
    _, client = door()
    company = made(client, "companies")["id"]
    client.delete(f"/companies/{company}")
    assert refused(client.post("/contacts", json={"company_id": company}))[1] == "invalid_reference"


def test_unknown_custom_fields_may_be_kept(door: Open) -> None:
    _, client = door(unknown_custom="kept")
    assert made(client, custom_fields={"shoe": 9})["custom_fields"] == {"shoe": 9}


def test_a_required_custom_field_makes_every_write_without_it_fail(door: Open) -> None:
    _, client = door()
    record = made(client)
    field = {"object": "contact", "key": "region", "required": True}
    assert client.post("/fields", json=field).status_code == 201
    answer = client.patch(f"/contacts/{record['id']}", json={"phone": "42"})
    assert refused(answer) == (422, "validation_failed", "custom_fields.region")


@pytest.mark.parametrize(
    ("write", "held"), [("replaces", {"lead_score": 5}), ("merges", {"tier": "gold", "lead_score": 5})]
)
def test_custom_fields_are_replaced_or_merged(door: Open, write: str, held: dict[str, Any]) -> None:
    _, client = door(custom_write=write)
    id = made(client, custom_fields={"tier": "gold"})["id"]
    changed = client.patch(f"/contacts/{id}", json={"custom_fields": {"lead_score": 5}}).json()
    assert changed["custom_fields"] == held


@pytest.mark.parametrize(
    ("null", "status", "phone"), [("clears", 200, None), ("ignored", 200, "42"), ("refused", 422, "42")]
)
def test_null_clears_is_ignored_or_refused(door: Open, null: str, status: int, phone: str | None) -> None:
    _, client = door(null=null)
    id = made(client, phone="42")["id"]
    assert client.patch(f"/contacts/{id}", json={"phone": None}).status_code == status
    assert client.get(f"/contacts/{id}").json()["phone"] == phone


@pytest.mark.parametrize(("needs", "status"), [(False, 200), (True, 422)])
@pytest.mark.parametrize(
    ("resource", "sent"), [("companies", {"domain": "x.example"}), ("deals", {"value_cents": 1})]
)
def test_a_patch_may_need_the_required_field(
    door: Open, resource: str, sent: dict[str, Any], needs: bool, status: int
) -> None:
    _, client = door(patch_needs_name=needs)
    record = made(client, resource)
    assert client.patch(f"/{resource}/{record['id']}", json=sent).status_code == status


# Versions


def test_each_write_raises_the_version_by_one_whoever_writes(door: Open) -> None:
    box, client = door()
    record = made(client)
    client.patch(f"/contacts/{record['id']}", json={"phone": "1"})
    box.tenant(NAME).edit("contacts", record["id"], phone="2")
    assert client.get(f"/contacts/{record['id']}").json()["version"] == 3


def test_if_match_with_another_version_is_412_and_changes_nothing(door: Open) -> None:
    _, client = door()
    record = made(client, phone="1")
    path = f"/contacts/{record['id']}"
    assert client.patch(path, json={"phone": "2"}, headers={"If-Match": "1"}).status_code == 200
    answer = client.patch(path, json={"phone": "3"}, headers={"If-Match": "1"})
    assert refused(answer) == (412, "version_conflict", None)
    assert client.get(path).json()["phone"] == "2"


@pytest.mark.parametrize(
    ("switch", "value", "status"),
    [
        ("either", "1", 200),
        ("either", '"1"', 200),
        ("bare", "1", 200),
        ("bare", '"1"', 400),
        ("quoted", "1", 400),
        ("quoted", '"1"', 200),
        ("either", "one", 400),
    ],
)
def test_if_match_may_have_to_be_bare_or_quoted(door: Open, switch: str, value: str, status: int) -> None:
    _, client = door(if_match=switch)
    path = f"/contacts/{made(client)['id']}"
    assert client.patch(path, json={"phone": "2"}, headers={"If-Match": value}).status_code == status


# Duplicates


def test_a_duplicate_email_is_409_conflict_with_the_existing_record(door: Open) -> None:
    box, client = door()
    record = made(client, email="ada@pier.example")
    answer = client.post("/contacts", json={"email": "ADA@pier.example"})
    assert refused(answer) == (409, "conflict", "email")
    assert answer.json()["existing"] == record
    assert len(box.tenant(NAME).ledger) == 1


@pytest.mark.parametrize(("member", "holds"), [("contact", {"contact"}), (None, set())])
def test_the_existing_record_may_stand_elsewhere_or_nowhere(
    door: Open, member: str | None, holds: set[str]
) -> None:
    _, client = door(conflict_member=member)
    made(client, email="ada@pier.example")
    body = client.post("/contacts", json={"email": "ada@pier.example"}).json()
    assert {"contact", "existing"} & set(body) == holds


def test_a_duplicate_create_may_return_the_existing_record_unchanged(door: Open) -> None:
    _, client = door(duplicate_create="existing")
    record = made(client, email="ada@pier.example", phone="1")
    answer = client.post("/contacts", json={"email": "ada@pier.example", "phone": "2"})
    assert (answer.status_code, answer.json()) == (200, record)


@pytest.mark.parametrize(("match", "status"), [("folded", 409), ("exact", 201)])
def test_addresses_are_compared_folded_or_exactly(door: Open, match: str, status: int) -> None:
    _, client = door(email_match=match)
    made(client, email="ada@pier.example")
    assert client.post("/contacts", json={"email": "Ada@pier.example"}).status_code == status


def test_a_patch_cannot_take_the_address_of_another_contact(door: Open) -> None:
    _, client = door()
    made(client, email="ada@pier.example")
    id = made(client, email="bob@pier.example")["id"]
    assert client.patch(f"/contacts/{id}", json={"email": "ada@pier.example"}).status_code == 409
    assert client.patch(f"/contacts/{id}", json={"email": "bob@pier.example"}).status_code == 200


# Deleting and restoring


@pytest.mark.parametrize("resource", LISTS)
def test_a_deleted_record_is_shown_only_where_asked_for_and_can_be_restored(
    door: Open, resource: str
) -> None:
    _, client = door()
    id = client.get(f"/{resource}", params={"limit": 1}).json()["data"][0]["id"]
    assert client.delete(f"/{resource}/{id}").json()["deleted"] is True
    assert id not in {row["id"] for row in everything(client, f"/{resource}")}
    gone = [row["id"] for row in everything(client, f"/{resource}", include_deleted="true") if row["deleted"]]
    assert gone == [id]
    assert client.post(f"/{resource}/{id}/restore").json()["deleted"] is False
    assert client.get(f"/{resource}/{id}").status_code == 200


@pytest.mark.parametrize(("by_id", "status"), [("missing", 404), ("shown", 200)])
def test_a_deleted_record_cannot_be_changed_and_may_be_read(door: Open, by_id: str, status: int) -> None:
    _, client = door(deleted_by_id=by_id)
    path = f"/contacts/{made(client)['id']}"
    client.delete(path)
    assert client.get(path).status_code == status
    assert client.patch(path, json={"phone": "1"}).status_code == 404
    assert client.delete(path).status_code == 404


def test_a_delete_by_hand_is_soft_too_and_booked(door: Open) -> None:
    box, client = door()
    id = made(client)["id"]
    box.tenant(NAME).delete("contacts", id)
    row = next(row for row in everything(client, "/contacts", include_deleted="true") if row["id"] == id)
    assert (row["deleted"], row["version"]) == (True, 2)
    assert box.tenant(NAME).ledger[-1].op == "delete"


@pytest.mark.parametrize(("deleted_email", "status"), [("free", 201), ("held", 409)])
def test_the_address_of_a_deleted_contact_is_free_or_held(
    door: Open, deleted_email: str, status: int
) -> None:
    _, client = door(deleted_email=deleted_email)
    id = made(client, email="ada@pier.example")["id"]
    client.delete(f"/contacts/{id}")
    assert client.post("/contacts", json={"email": "ada@pier.example"}).status_code == status
    assert client.post(f"/contacts/{id}/restore").status_code == {201: 409, 409: 200}[status]


def test_a_deleted_record_may_be_erased_after_a_while(door: Open) -> None:
    times = [NOON]
    _, client = door(restore_window_s=60, now=lambda: times[-1])
    id = made(client)["id"]
    client.delete(f"/contacts/{id}")
    times.append(NOON + timedelta(seconds=61))
    assert client.post(f"/contacts/{id}/restore").status_code == 404
    assert id not in {row["id"] for row in everything(client, "/contacts", include_deleted="true")}


# Idempotency


@pytest.mark.parametrize("resource", LISTS)
def test_a_create_with_a_known_key_and_body_is_answered_again(door: Open, resource: str) -> None:
    box, client = door()
    contact = box.tenant(NAME).records("contacts")[0]["id"]
    needed: dict[str, dict[str, Any]] = {"contacts": {"first_name": "Ada"}, "companies": {"name": "Pier"}}
    needed |= {"deals": {"title": "Deal"}, "activities": {"contact_id": contact}}
    first, second = (keyed(client, f"/{resource}", needed[resource]) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert [write.idempotency_key for write in box.tenant(NAME).ledger] == ["k1"]


def test_a_known_key_with_another_body_is_409_reused(door: Open) -> None:
    _, client = door()
    keyed(client, "/contacts", {"first_name": "Ada"})
    assert refused(keyed(client, "/contacts", {"first_name": "Bob"})) == (409, "idempotency_key_reused", None)


def test_a_repeat_may_find_the_first_request_still_running(door: Open) -> None:
    _, client = door(repeats_in_progress=1)
    answers = [keyed(client, "/contacts", {"first_name": "Ada"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 409, 201]
    assert answers[1].json()["code"] == "idempotency_in_progress"


def test_keys_are_forgotten_after_their_window(door: Open) -> None:
    times = [NOON]
    _, client = door(idempotency_window_s=60, now=lambda: times[-1])
    first = keyed(client, "/contacts", {"first_name": "Ada"}).json()
    times.append(NOON + timedelta(seconds=60))
    assert keyed(client, "/contacts", {"first_name": "Ada"}).json()["id"] != first["id"]


@pytest.mark.parametrize(("counts", "status"), [(False, 201), (True, 409)])
def test_a_key_may_hold_for_one_path_only(door: Open, counts: bool, status: int) -> None:
    _, client = door(idempotency_path_counts=counts)
    keyed(client, "/contacts", {"first_name": "Ada"})
    assert keyed(client, "/deals", {"first_name": "Ada"}).status_code == status


@pytest.mark.parametrize(("replays", "status"), [("all", 422), ("successes", 201)])
def test_a_refusal_is_kept_as_first_answer_or_not(door: Open, replays: str, status: int) -> None:
    _, client = door(replays=replays)
    sent = {"first_name": "Ada", "type": "fresh"}
    assert keyed(client, "/contacts", sent).status_code == 422
    client.post("/enums", json={"group": "contact.type", "value": "fresh"})
    assert keyed(client, "/contacts", sent).status_code == status


def test_a_batch_takes_no_idempotency_key(door: Open) -> None:
    box, client = door()
    create = {"object": "contact", "method": "create", "data": {"first_name": "Ada"}}
    for _ in range(2):
        keyed(client, "/batch", {"operations": [create]})
    assert len(box.tenant(NAME).ledger) == 2


# Batch


def test_a_batch_answers_200_with_a_result_for_each_operation_in_order(door: Open) -> None:
    box, client = door()
    contact, company = made(client), made(client, "companies")
    answer = batch(
        client,
        {"object": "deal", "method": "create", "data": {"title": "New"}},
        {"object": "contact", "method": "update", "id": contact["id"], "patch": {"phone": "42"}},
        {"object": "contact", "method": "create", "data": {"email": "nonsense"}},
        {"object": "company", "method": "delete", "id": company["id"]},
    )
    rows = answer.json()["data"]
    assert answer.status_code == 200
    assert [row["status"] for row in rows] == ["created", "updated", "failed", "deleted"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert (rows[2]["error"]["code"], rows[2]["error"]["field"]) == ("validation_failed", "email")
    assert [write.op for write in box.tenant(NAME).ledger[2:]] == ["create", "update", "delete"]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("nonsense", "validation_failed"),
        ({"object": "contact", "method": "upsert"}, "unknown_value"),
        ({"object": "pipeline", "method": "create", "data": {}}, "unknown_value"),
        ({"object": "contact", "method": "create"}, "validation_failed"),
        ({"object": "contact", "method": "update", "id": "con_none", "patch": {}}, "not_found"),
    ],
)
def test_an_operation_that_makes_no_sense_fails_alone(door: Open, operation: Any, code: str) -> None:
    _, client = door()
    good = {"object": "contact", "method": "create", "data": {"first_name": "Ada"}}
    rows = batch(client, operation, good).json()["data"]
    assert [row["status"] for row in rows] == ["failed", "created"]
    assert rows[0]["error"]["code"] == code


@pytest.mark.parametrize(
    ("duplicate", "done"), [("conflict", ["created", "failed"]), ("existing", ["created", "existing"])]
)
def test_an_address_twice_in_a_batch_makes_one_contact(door: Open, duplicate: str, done: list[str]) -> None:
    _, client = door(duplicate_create=duplicate)
    create = {"object": "contact", "method": "create", "data": {"email": "ada@pier.example"}}
    assert [row["status"] for row in batch(client, create, create).json()["data"]] == done


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 413)])
def test_a_batch_holds_100_operations(door: Open, count: int, status: int) -> None:
    box, client = door()
    create = {"object": "contact", "method": "create", "data": {"first_name": "Ada"}}
    answer = batch(client, *[create] * count)
    assert answer.status_code == status
    assert answer.json().get("code") == (None if status == 200 else "payload_too_large")
    assert len(box.tenant(NAME).ledger) == (100 if status == 200 else 0)


def test_a_batch_without_a_list_is_422(door: Open) -> None:
    _, client = door()
    assert refused(client.post("/batch", json={})) == (422, "validation_failed", "operations")


def test_each_operation_counts_as_one_request(door: Open) -> None:
    box, client = door(plan="free", quota=3)
    create = {"object": "contact", "method": "create", "data": {"first_name": "Ada"}}
    assert refused(batch(client, *[create] * 4))[1] == "quota_exceeded"
    assert box.tenant(NAME).ledger == []
    assert batch(client, create, create).headers["x-quota-remaining"] == "0"


def test_a_batch_may_fail_whole(door: Open) -> None:
    box, client = door(batch_atomic=True)
    good = {"object": "contact", "method": "create", "data": {"first_name": "Ada"}}
    answer = batch(client, good, {**good, "data": {"type": "lead"}})
    assert refused(answer) == (422, "identifier_required", None)
    assert box.tenant(NAME).ledger == []


@pytest.mark.parametrize("shape", ["rows", "results", "http", "bare"])
def test_the_answer_to_a_batch_may_have_other_shapes(door: Open, shape: str) -> None:
    _, client = door(batch_answer=shape)
    create = {"object": "contact", "method": "create", "data": {"first_name": "Ada"}}
    body = batch(client, create, {**create, "data": {}}).json()
    member = {"rows": "data", "results": "results", "http": "results"}.get(shape)
    rows = body[member] if member else body
    assert [row["status"] for row in rows] == ([201, 422] if shape == "http" else ["created", "failed"])
    assert rows[1]["error"]["code"] == "identifier_required"
