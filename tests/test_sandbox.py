"""The sandbox as a whole: who lives in it, its doors, its clock and its way out."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from sources.sandbox import Sandbox
from sources.sandbox.people import World
from sources.sandbox.server import simulators

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Run a sandbox with a few people."""
    with Sandbox(records=50, now=lambda: NOON) as running:
        yield running


@pytest.fixture
def client(box: Sandbox) -> Iterator[httpx.Client]:
    """Open a client that is signed in nowhere."""
    with httpx.Client(base_url=box.url, trust_env=False, verify=False) as opened:
        yield opened


def relm_key(box: Sandbox) -> dict[str, str]:
    """Return the header that signs in to Relm."""
    return {"Authorization": f"Bearer {box.key('relm')}"}


# People


def test_the_same_seed_makes_the_same_people() -> None:
    worlds = [World(0, 100, seed, NOON) for seed in (1, 1, 2)]
    assert worlds[0].people() == worlds[1].people()
    assert worlds[0].deals() == worlds[1].deals()
    assert worlds[0].people() != worlds[2].people()


def test_two_crms_share_most_of_their_people(box: Sandbox) -> None:
    relm, rally = (
        {record["email"].lower() for record in box.tenant(crm).records("contacts")}
        for crm in ("relm", "rally")
    )
    assert len(relm) == len(rally) == 50
    assert len(relm & rally) == 40


def test_the_numbers_of_records_follow_the_number_of_people(box: Sandbox) -> None:
    tenant = box.tenant("relm")
    assert [len(tenant.records(name)) for name in ("companies", "deals", "activities")] == [10, 13, 100]


def test_addresses_and_companies_are_told_apart() -> None:
    world = World(0, 3000, 1, NOON)
    assert len({person.email.lower() for person in world.people()}) == 3000
    assert len({company.domain for company in world.companies()}) == 600
    assert len({company.name for company in world.companies()}) == 600


def test_awkward_values_are_among_them(box: Sandbox) -> None:
    tenant = box.tenant("relm")
    text = repr(tenant.records("contacts")) + repr(tenant.records("activities"))
    odds = ("=1+1", "<b>", "DROP TABLE", "\\x1b[31m", "O'Brien", "美咲", "Long story", "'last_name': None")
    for odd in odds:
        assert odd in text
    emails = [record["email"] for record in box.tenant("relm").records("contacts")]
    assert any(email != email.lower() for email in emails)


def test_deals_stand_in_every_stage_and_activities_within_half_a_year(box: Sandbox) -> None:
    stages = {deal["stage"] for deal in box.tenant("relm").records("deals")}
    assert {"lead", "qualified", "proposal", "negotiation", "won", "lost"} == stages
    times = [activity["created_at"] for activity in box.tenant("relm").records("activities")]
    assert NOON - timedelta(days=181) < min(times) <= max(times) < NOON


# By hand


def test_an_edit_by_hand_is_seen_by_the_api_and_booked_under_its_author(
    box: Sandbox, client: httpx.Client
) -> None:
    contact = box.tenant("relm").records("contacts")[0]
    path = f"/relm/v1/contacts/{contact['id']}"
    client.get(path, headers=relm_key(box))
    box.tenant("relm").edit("contacts", contact["id"], by="ana@example.com", phone="42")
    assert client.get(path, headers=relm_key(box)).json()["phone"] == "42"
    assert box.tenant("relm").ledger[-1].by == "ana@example.com"


def test_find_raises_when_there_is_none(box: Sandbox) -> None:
    with pytest.raises(LookupError):
        box.tenant("relm").find("contacts", email="nobody@pier.example")


def test_what_is_handed_out_is_a_copy(box: Sandbox) -> None:
    box.tenant("relm").records("contacts")[0]["metadata"]["tier"] = "tin"
    assert box.tenant("relm").records("contacts")[0]["metadata"]["tier"] != "tin"


def test_the_clock_drives_stamps_and_the_date_header(box: Sandbox, client: httpx.Client) -> None:
    made = client.post("/relm/v1/contacts", json={"email": "a@b.example"}, headers=relm_key(box))
    assert made.json()["created_at"] == "2026-03-01T12:00:00Z"
    assert parsedate_to_datetime(made.headers["date"]) == NOON


# Doors


def test_settings_make_every_crm_a_connection(box: Sandbox) -> None:
    settings = box.settings()
    for crm in simulators():
        assert settings[f"SOURCES__{crm.upper()}__BASE_URL"] == box.base_url(crm)
        assert settings[f"SOURCES__{crm.upper()}__API_KEY"] == box.key(crm)


def test_a_crm_may_have_a_second_workspace() -> None:
    with Sandbox(records=3, also={"rally_emea": "rally"}) as box:
        assert box.settings()["SOURCES__RALLY_EMEA__CRM"] == "rally"
        box.tenant("rally_emea").create("companies", name="Only here")
        assert len(box.tenant("rally").records("companies")) == 1
        assert box.key("rally_emea") != box.key("rally")


def test_switches_of_an_unknown_crm_are_an_error() -> None:
    with pytest.raises(ValueError, match="no such CRM: relmm"):
        Sandbox(relmm=None)


def test_requests_are_logged_with_their_status(box: Sandbox, client: httpx.Client) -> None:
    client.get("/relm/v1/contacts?limit=1", headers=relm_key(box))
    client.get("/relm/v1/contacts")
    assert box.requests == [
        ("relm", "GET", "/v1/contacts", "limit=1", 200),
        ("relm", "GET", "/v1/contacts", "", 401),
    ]


def test_an_unknown_crm_is_404(client: httpx.Client) -> None:
    assert client.get("/nocrm/v1/contacts").status_code == 404


def test_a_body_of_unknown_length_is_refused(box: Sandbox, client: httpx.Client) -> None:
    answer = client.post("/relm/v1/contacts", content=iter([b"{}"]), headers=relm_key(box))
    assert answer.status_code == 411


def test_many_writers_at_once_lose_nothing(box: Sandbox) -> None:
    def write(number: int) -> int:
        headers = relm_key(box)
        with httpx.Client(base_url=box.url, headers=headers, trust_env=False, verify=False) as own:
            return own.post("/relm/v1/contacts", json={"email": f"p{number}@pier.example"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(40))) == {201}
    assert [entry.seq for entry in box.tenant("relm").ledger] == list(range(1, 41))


# The side door


def test_the_side_door_shows_ledger_records_and_requests(box: Sandbox, client: httpx.Client) -> None:
    client.post("/relm/v1/contacts", json={"email": "a@b.example"}, headers=relm_key(box))
    ledger = client.get("/_sandbox/ledger/relm").json()
    records = client.get("/_sandbox/records/relm/contacts").json()
    assert [(write["op"], write["fields"]) for write in ledger] == [("create", {"email": "a@b.example"})]
    assert len(records) == 51
    assert len(client.get("/_sandbox/requests").json()) == 1
    assert client.get("/_sandbox/settings").json() == box.settings()


def test_the_side_door_edits_by_hand(box: Sandbox, client: httpx.Client) -> None:
    made = client.post("/_sandbox/create/relm/companies", json={"name": "Pier"}).json()
    client.post(f"/_sandbox/edit/relm/companies/{made['id']}", json={"domain": "pier.example"})
    assert box.tenant("relm").find("companies", name="Pier")["domain"] == "pier.example"
    client.post(f"/_sandbox/delete/relm/companies/{made['id']}")
    assert client.post(f"/_sandbox/edit/relm/companies/{made['id']}", json={}).status_code == 400


def test_the_side_door_orders_faults(box: Sandbox, client: httpx.Client) -> None:
    rule: dict[str, Any] = {"action": "status", "with": {"code": 503}, "crm": "relm", "times": 1}
    assert client.post("/_sandbox/faults", json=[rule]).json() == {"rules": 1}
    statuses = [client.get("/relm/v1/deals", headers=relm_key(box)).status_code for _ in range(2)]
    assert statuses == [503, 200]
    assert client.delete("/_sandbox/faults").json() == {"rules": 0}


@pytest.mark.parametrize("rule", [{"action": "no such"}, {"action": "status"}, {"with": {}}])
def test_a_fault_that_makes_no_sense_is_refused(client: httpx.Client, rule: dict[str, Any]) -> None:
    assert client.post("/_sandbox/faults", json=rule).status_code == 400


@pytest.mark.parametrize("headers", [{"Host": "attacker.example:80"}, {"Origin": "http://attacker.example"}])
def test_the_side_door_is_shut_to_web_pages(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.get("/_sandbox/settings", headers=headers).status_code == 403


# Coming and going


def test_it_listens_on_loopback_only(box: Sandbox) -> None:
    assert box.url.startswith("http://127.0.0.1:")


def test_after_the_context_nobody_answers() -> None:
    with Sandbox(records=1) as box:
        url = box.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_serve_prints_settings_and_ends_on_a_signal() -> None:
    code = "from sources.sandbox.serve import serve; serve(records=3)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(10) == 0
    assert first.startswith("export SOURCES__")
