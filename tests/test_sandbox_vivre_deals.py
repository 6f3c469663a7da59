"""What Vivre's page says of deals and activities, and what it leaves open, on real HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sources.sandbox.faults import ApplyThenDrop
from sources.sandbox.vivre_rules import STAGES
from tests.vivre_doors import ARJUN, NOON, Open, contact_in, deal_in, everything, opening


@pytest.fixture
def door() -> Iterator[Open]:
    """Open a sandbox and a client signed in to Vivre, under the switches given."""
    with opening() as opened:
        yield opened


# Deals


@pytest.mark.parametrize("path", ["/deals", "/deals/dl_71", "/activities"])
@pytest.mark.parametrize("status", [404, 405])
def test_deals_and_activities_cannot_be_read(door: Open, path: str, status: int) -> None:
    _, client = door(absent_status=status)
    assert client.get(path).status_code == status


def test_deals_and_activities_may_turn_out_to_be_readable(door: Open) -> None:
    box, client = door(deals_listed=True, deal_by_id=True, activities_listed=True)
    deals, activities = everything(client, "/deals"), everything(client, "/activities", limit=7)
    assert len(deals) == len(box.tenant("vivre").records("deals"))
    assert len(activities) == len(box.tenant("vivre").records("activities"))
    assert client.get(f"/deals/{deals[0]['id']}").json()["data"] == deals[0]


def test_a_created_deal_keeps_its_value_in_the_smallest_unit(door: Open) -> None:
    box, client = door()
    sent = {"contact_id": contact_in(box), "title": "Loom retrofit", "value": 1_250_000}
    answer = client.post("/deals", json=sent)
    kept = box.tenant("vivre").find("deals", title="Loom retrofit")
    assert answer.status_code == 200
    assert (kept["id"], kept["value"], kept["stage"]) == (answer.json()["data"]["id"], 1_250_000, "new")
    assert kept["id"].startswith("dl_")


@pytest.mark.parametrize(
    "wrong", [{"contact_id": None}, {"title": ""}, {"contact_id": "cnt_0"}, {"value": "1"}]
)
def test_a_deal_that_breaks_a_rule_is_400(door: Open, wrong: dict[str, Any]) -> None:
    box, client = door()
    sent = {"contact_id": contact_in(box), "title": "Loom"} | wrong
    assert client.post("/deals", json=sent).status_code == 400


def test_references_may_go_unchecked(door: Open) -> None:
    _, client = door(references_checked=False)
    assert client.post("/deals", json={"contact_id": "cnt_0", "title": "Loom"}).status_code == 200


@pytest.mark.parametrize(
    ("switches", "sent", "status", "kept"),
    [
        ({}, 12.5, 400, None),
        ({"fractional_value": "rounded"}, 12.6, 200, 13),
        ({"fractional_value": "kept"}, 12.5, 200, 12.5),
        ({}, -100, 400, None),
        ({"negative_value": "kept"}, -100, 200, -100),
        ({}, 100.0, 200, 100),
    ],
)
def test_a_value_that_is_fractional_or_negative_is_treated_as_chosen(
    door: Open, switches: dict[str, Any], sent: float, status: int, kept: float | None
) -> None:
    box, client = door(**switches)
    answer = client.post("/deals", json={"contact_id": contact_in(box), "title": "Loom", "value": sent})
    assert answer.status_code == status
    assert answer.json().get("data", {}).get("value") == kept


@pytest.mark.parametrize(
    ("switches", "status"),
    [({}, 400), ({"deal_stages": (*STAGES, "lost")}, 200), ({"other_stage": "kept"}, 200)],
)
def test_a_stage_beyond_the_four_is_refused_unless_it_is_there(
    door: Open, switches: dict[str, Any], status: int
) -> None:
    box, client = door(**switches)
    assert client.patch(f"/deals/{deal_in(box)}", json={"stage": "lost"}).status_code == status


def test_a_deal_is_closed_by_a_partial_update(door: Open) -> None:
    box, client = door()
    id = deal_in(box)
    sent = {"stage": "won", "closed_at": "2026-01-01T09:15:00Z"}
    assert client.patch(f"/deals/{id}", json=sent).status_code == 200
    kept = box.tenant("vivre").find("deals", id=id)
    assert (kept["title"], kept["stage"], kept["closed_at"]) == ("Loom", "won", "2026-01-01T09:15:00Z")
    assert box.tenant("vivre").ledger[-1].fields == sent


@pytest.mark.parametrize("line", ["PUT /deals/{id}", "POST /deals/{id}/stage", "PATCH /deals/{id}"])
def test_the_request_line_of_the_deal_update_can_be_chosen(door: Open, line: str) -> None:
    box, client = door(deal_update=line)
    method, path = line.replace("{id}", deal_in(box)).split()
    assert client.request(method, path, json={"stage": "won"}).status_code == 200
    assert client.request(method, path + "/else", json={"stage": "won"}).status_code == 404


def test_other_request_lines_of_the_deal_update_are_not_there(door: Open) -> None:
    box, client = door()
    id = deal_in(box)
    assert client.put(f"/deals/{id}", json={"stage": "won"}).status_code == 404
    assert client.patch("/deals/dl_0", json={"stage": "won"}).status_code == 404


@pytest.mark.parametrize(
    ("switches", "value"), [({}, 5), ({"deal_update_fields": ("stage", "closed_at")}, 1_250_000)]
)
def test_which_fields_a_deal_update_takes_can_be_chosen(
    door: Open, switches: dict[str, Any], value: int
) -> None:
    box, client = door(**switches)
    id = deal_in(box)
    assert client.patch(f"/deals/{id}", json={"value": 5}).status_code == 200
    assert box.tenant("vivre").find("deals", id=id)["value"] == value


@pytest.mark.parametrize(
    ("switch", "status", "closed_at"),
    [("now", 200, "2026-03-01T12:00:00Z"), ("null", 200, None), ("refused", 400, None)],
)
def test_a_win_without_a_close_time_is_treated_as_chosen(
    door: Open, switch: str, status: int, closed_at: str | None
) -> None:
    box, client = door(closed_at_missing=switch, now=lambda: NOON)
    id = deal_in(box)
    assert client.patch(f"/deals/{id}", json={"stage": "won"}).status_code == status
    assert box.tenant("vivre").find("deals", id=id)["closed_at"] == closed_at


@pytest.mark.parametrize(
    ("switch", "status", "closed_at"),
    [("kept", 200, "2026-04-01T00:00:00Z"), ("dropped", 200, None), ("refused", 400, None)],
)
def test_a_close_time_without_a_win_is_treated_as_chosen(
    door: Open, switch: str, status: int, closed_at: str | None
) -> None:
    box, client = door(closed_at_unless_won=switch)
    id = deal_in(box)
    answer = client.patch(f"/deals/{id}", json={"closed_at": "2026-04-01T00:00:00Z"})
    assert answer.status_code == status
    assert box.tenant("vivre").find("deals", id=id)["closed_at"] == closed_at


@pytest.mark.parametrize(("switch", "status"), [("kept", 200), ("refused", 400)])
def test_a_close_time_in_the_past_is_kept_or_refused(door: Open, switch: str, status: int) -> None:
    box, client = door(past_closed_at=switch, now=lambda: NOON)
    sent = {"stage": "won", "closed_at": "2026-02-28T00:00:00Z"}
    assert client.patch(f"/deals/{deal_in(box)}", json=sent).status_code == status


@pytest.mark.parametrize(("moves", "stage"), [(False, "new"), (True, "won")])
def test_a_win_may_move_the_contact_without_a_line_in_the_ledger(door: Open, moves: bool, stage: str) -> None:
    box, client = door(won_moves_contact=moves)
    id = deal_in(box)
    before = len(box.tenant("vivre").ledger)
    client.patch(f"/deals/{id}", json={"stage": "won"})
    assert box.tenant("vivre").find("contacts", email=ARJUN["email"])["stage"] == stage
    assert len(box.tenant("vivre").ledger) == before + 1


# Activities


def test_a_logged_activity_is_kept_and_stamped_by_the_crm(door: Open) -> None:
    box, client = door(now=lambda: NOON)
    sent = {"contact_id": contact_in(box), "type": "meeting", "note": "Walked through sample batches."}
    id = client.post("/activities", json=sent | {"created_at": "2020-01-01T00:00:00Z"}).json()["data"]["id"]
    kept = box.tenant("vivre").find("activities", id=id)
    assert (kept["type"], kept["created_at"]) == ("meeting", NOON)


@pytest.mark.parametrize(
    "wrong", [{"type": "sms"}, {"type": None}, {"contact_id": None}, {"deal_id": "dl_0"}]
)
def test_an_activity_that_breaks_a_rule_is_400(door: Open, wrong: dict[str, Any]) -> None:
    box, client = door()
    sent = {"contact_id": contact_in(box), "type": "call"} | wrong
    assert client.post("/activities", json=sent).status_code == 400


@pytest.mark.parametrize(("checked", "status"), [(False, 200), (True, 400)])
def test_a_deal_of_another_contact_may_be_refused(door: Open, checked: bool, status: int) -> None:
    box, client = door(pair_checked=checked)
    deal_id, contact_id = deal_in(box), contact_in(box, email="other@mail.example")
    sent = {"contact_id": contact_id, "deal_id": deal_id, "type": "call"}
    assert client.post("/activities", json=sent).status_code == status


@pytest.mark.parametrize(("moves", "score"), [(True, 55), (False, 54)])
def test_an_activity_moves_the_score_of_its_contact(door: Open, moves: bool, score: int) -> None:
    box, client = door(activity_moves_score=moves)
    id = contact_in(box, ai_score=54)
    client.post("/activities", json={"contact_id": id, "type": "call"})
    assert client.get(f"/contacts/{id}").json()["data"]["ai_score"] == score


def test_a_create_whose_answer_is_lost_has_happened(door: Open) -> None:
    box, client = door()
    box.faults.add(ApplyThenDrop(), crm="vivre", method="POST")
    sent = {"contact_id": contact_in(box), "type": "call", "note": "Once"}
    with pytest.raises(httpx.TransportError):
        client.post("/activities", json=sent)
    assert len(box.tenant("vivre").records("activities", note="Once")) == 1
