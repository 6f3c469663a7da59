"""What Vivre takes: creates that may never be repeated, deals changed by id, money in the smallest unit."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.core.bodies import decode_json
from sources.core.errors import ConfigError
from sources.core.rows import Row
from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop, ApplyThenStatus, HalfBody, Reset
from sources.sandbox.vivre_rules import VivreSwitches
from sources.vivre import writes
from tests.delivering import Desk, Door, door

Open = Callable[..., Door]
CREATE = r"^/vivre/v1/contacts\?"


@pytest.fixture
def vivre(tmp_path: Path) -> Iterator[Open]:
    """Open a door to Vivre under the options and switches given."""
    with ExitStack() as stack:

        def opened(**given: Any) -> Door:
            names = {option.name for option in writes.OPTIONS} - {"deal_update"}
            options = {name: given.pop(name) for name in names & given.keys()}
            options |= {"deal_update": given["deal_update"]} if "deal_update" in given else {}
            return stack.enter_context(door(tmp_path, "vivre", switches=VivreSwitches(**given), **options))

        yield opened


def lead(crm: Door, key: str = "lee@pier.example", **fields: Any) -> Row:
    return crm.new(key, **{"name": "Lee", "email": key, **fields})


def a_contact(crm: Door) -> str:
    return str(crm.box.tenant("vivre").records("contacts")[0]["id"])


def a_deal(crm: Door, key: str = "d1", **fields: Any) -> Row:
    return crm.new(
        key, **{"contact_id": a_contact(crm), "title": "Loom", "value": Decimal(1_250_000), **fields}
    )


def at(crm: Door, email: str) -> list[dict[str, Any]]:
    held = crm.box.tenant("vivre").records("contacts")
    return [each for each in held if each["email"].strip().lower() == email]


# -- contacts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("created", ["data", "bare", "id", "empty"])
@pytest.mark.parametrize("status", [200, 201])
def test_a_contact_is_created_and_its_id_told_whatever_the_answer(
    vivre: Open, created: str, status: int
) -> None:
    crm = vivre(created=created, create_status=status)
    (outcome,) = crm.send("contacts", lead(crm, stage="proposal", tags=["referral"]))
    (held,) = at(crm, "lee@pier.example")
    assert (outcome.verdict, outcome.crm_id) == ("created", held["id"])
    assert (held["stage"], held["tags"]) == ("proposal", ["referral"])


def test_ids_that_no_answer_tells_are_asked_for_all_at_once(vivre: Open) -> None:
    crm = vivre(created="empty", create_status=201, search_lag_s=3_600)
    outcomes = crm.send("contacts", *[lead(crm, f"l{i}@new.example") for i in range(4)])
    held = [at(crm, f"l{i}@new.example")[0]["id"] for i in range(4)]
    assert [each.crm_id for each in outcomes] == held
    assert crm.asked("GET", "/contacts") == 5


def test_contacts_take_creates_only() -> None:
    assert writes.WRITES["contacts"].modes == {"create"}
    assert not any(each.updatable for each in writes.WRITES["contacts"].fields.values())


@pytest.mark.parametrize("existing", ["refused", "merged", "duplicated"])
def test_an_address_that_is_there_is_never_sent(vivre: Open, existing: str) -> None:
    crm = vivre(existing_email=existing)
    crm.box.tenant("vivre").create("contacts", name="Lee", email="Lee@Pier.example")
    assert "already_in_crm" in str(crm.refusal("contacts", lead(crm)))


def test_a_part_of_an_address_is_another_address(vivre: Open) -> None:
    crm = vivre()
    crm.box.tenant("vivre").create("contacts", name="Lee", email="bruce.lee@pier.example")
    assert crm.refusal("contacts", lead(crm)) is None


def test_an_existing_address_that_slipped_through_is_rejected_with_the_reason(vivre: Open) -> None:
    crm = vivre(look_before_create=False)
    crm.box.tenant("vivre").create("contacts", name="Lee", email="lee@pier.example")
    assert crm.refusal("contacts", lead(crm)) is None
    (outcome,) = crm.send("contacts", lead(crm))
    assert (outcome.verdict, "already exists" in str(outcome.reason)) == ("rejected", True)


@pytest.mark.parametrize("fault", [ApplyThenDrop(), ApplyThenStatus(500), HalfBody()])
@pytest.mark.parametrize("lag_s", [0.0, 3_600.0])
def test_a_lost_contact_is_found_by_search_or_in_the_list_and_never_sent_twice(
    vivre: Open, fault: Any, lag_s: float
) -> None:
    crm = vivre(existing_email="duplicated", search_lag_s=lag_s)
    rule = crm.box.faults.add(fault, method="POST", path=CREATE)
    (outcome,) = crm.send("contacts", lead(crm))
    assert (rule.fired, outcome.verdict, len(at(crm, "lee@pier.example"))) == (1, "created", 1)
    assert outcome.crm_id == at(crm, "lee@pier.example")[0]["id"]


def test_a_contact_that_never_arrived_is_free_again_once_it_would_show(vivre: Open) -> None:
    crm = vivre()
    crm.box.faults.add(Reset(), method="POST", path=CREATE)
    courier = crm.courier("contacts")
    (outcome,) = crm.send("contacts", lead(crm))
    crm.clock.sleep(300)
    (settled,) = courier.settle(crm.log.batches[0])
    assert (outcome.verdict, settled.verdict, at(crm, "lee@pier.example")) == ("unknown", "absent", [])


def test_a_stage_that_the_vendor_does_not_know_is_told_before_sending(vivre: Open) -> None:
    crm = vivre()
    assert crm.refusal("contacts", lead(crm, stage="lost")) == (
        "stage: the value is none of new, qualified, proposal, won"
    )


# -- deals ---------------------------------------------------------------------------------------


def test_a_deal_is_created_with_its_value_in_the_smallest_unit(vivre: Open) -> None:
    crm = vivre()
    (outcome,) = crm.send("deals", a_deal(crm, value=Decimal("1250000.00")))
    assert (outcome.verdict, crm.record("deals", outcome.crm_id)["value"]) == ("created", 1_250_000)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_deal_is_won_by_the_request_that_the_option_names(vivre: Open, method: str) -> None:
    crm = vivre(deal_update=f"{method} /deals/{{id}}")
    (made,) = crm.send("deals", a_deal(crm))
    row = crm.change(str(made.crm_id), "d1", stage="won", closed_at="2026-07-01T09:15:00Z")
    (won,) = crm.send("deals", replace(row, known={"title": "Loom", "value": 1_250_000, "id": "x"}))
    held = crm.record("deals", made.crm_id)
    assert (won.verdict, held["stage"], held["closed_at"]) == ("updated", "won", "2026-07-01T09:15:00Z")
    assert crm.asked(method, "/deals/") == 1


def test_a_put_carries_what_is_known_of_a_deal(vivre: Open) -> None:
    crm = vivre(deal_update="PUT /deals/{id}")
    row = replace(crm.change("dl_1", stage="won"), known={"title": "Loom", "value": Decimal(5), "id": "dl_1"})
    call = crm.lane("deals", "change").encode([row], crm.session.connection)
    assert (call.method, call.path) == ("PUT", "/deals/dl_1")
    assert decode_json(call.body) == {"title": "Loom", "value": 5, "stage": "won"}


def test_an_id_cannot_lead_to_another_path(vivre: Open) -> None:
    crm = vivre()
    call = crm.lane("deals", "change").encode(
        [crm.change("../contacts/1", stage="won")], crm.session.connection
    )
    assert call.path == "/deals/..%2Fcontacts%2F1"


def test_a_new_deal_takes_no_time_of_closing(vivre: Open) -> None:
    crm = vivre()
    reason = crm.refusal("deals", a_deal(crm, closed_at="2026-07-01T09:15:00Z"))
    assert reason == "closed_at: the API takes it for records that are there, not for new ones"


def test_stages_of_deals_are_those_of_the_setting(vivre: Open) -> None:
    crm = vivre(deal_stages="new, lost")
    assert crm.refusal("deals", a_deal(crm, stage="lost")) is None
    assert crm.refusal("deals", a_deal(crm, stage="won")) == "stage: the value is none of new, lost"


def test_a_fraction_of_the_smallest_unit_is_told_before_sending(vivre: Open) -> None:
    crm = vivre()
    assert "no whole number" in str(crm.refusal("deals", a_deal(crm, value=Decimal("12500.50"))))


@given(st.integers(1, 10**12), st.integers(0, 4))
def test_a_value_scaled_once_too_often_or_not_at_all_is_held_back(value: int, places: int) -> None:
    check, unit = writes._scaled_once(10**places), 10**places
    for old, new in ((value, value * unit), (value * unit, value)):
        row = Row(1, "d1", "dl_1", "update", {"value": Decimal(new)}, {"value": str(old)})
        assert (check(row) is not None) == (places > 0)
    assert check(Row(1, "d1", "dl_1", "update", {"value": value * unit + 1}, {"value": value})) is None


def test_the_guard_of_the_scale_can_be_lifted(vivre: Open) -> None:
    row = Row(1, "d1", "dl_1", "update", {"value": 500}, {"value": 5})
    assert vivre().refusal("deals", row) is not None


def test_without_the_guard_any_change_of_value_is_sent(vivre: Open) -> None:
    row = Row(1, "d1", "dl_1", "update", {"value": 500}, {"value": 5})
    assert vivre(scale_guard=False).refusal("deals", row) is None


@pytest.mark.parametrize("name", ["deals", "activities"])
def test_what_cannot_be_read_back_is_sent_at_most_once(vivre: Open, name: str) -> None:
    crm = vivre()
    crm.box.faults.add(ApplyThenDrop(), method="POST", path=f"/{name}\\?", nth=2)
    rows = {
        "deals": [a_deal(crm, f"d{i}") for i in range(3)],
        "activities": [crm.new(f"a{i}", contact_id=a_contact(crm), type="call") for i in range(3)],
    }
    assert [each.verdict for each in crm.send(name, *rows[name])] == ["created", "unknown", "absent"]
    assert len(crm.written(name)) == 2


@pytest.mark.parametrize(("status", "verdict"), [(201, "created"), (200, "unknown")])
def test_a_deal_whose_answer_shows_nothing_is_created_only_where_the_status_says_so(
    vivre: Open, status: int, verdict: str
) -> None:
    """Nothing can be asked about a new deal: a success that names none may be anything."""
    crm = vivre(created="empty", create_status=status)
    (outcome,) = crm.send("deals", a_deal(crm))
    assert (outcome.verdict, outcome.crm_id) == (verdict, None)


@pytest.mark.parametrize(("is_shown", "verdict"), [(True, "updated"), (False, "unknown")])
def test_a_lost_change_is_told_only_where_a_deal_can_be_read(
    vivre: Open, is_shown: bool, verdict: str
) -> None:
    crm = vivre(deal_by_id=is_shown)
    (made,) = crm.send("deals", a_deal(crm))
    crm.box.faults.add(ApplyThenDrop(), method="PATCH", path="/deals/", times=None)
    (outcome,) = crm.send("deals", crm.change(str(made.crm_id), "d1", stage="won"))
    assert outcome.verdict == verdict


# -- activities ----------------------------------------------------------------------------------


def test_an_activity_is_logged_with_its_deal(vivre: Open) -> None:
    crm = vivre()
    (deal,) = crm.send("deals", a_deal(crm))
    row = crm.new("a1", contact_id=a_contact(crm), deal_id=deal.crm_id, type="meeting", note="Samples")
    (outcome,) = crm.send("activities", row)
    held = crm.record("activities", outcome.crm_id)
    assert (outcome.verdict, held["deal_id"], held["note"]) == ("created", deal.crm_id, "Samples")


def test_a_type_that_the_vendor_does_not_know_is_told_before_sending(vivre: Open) -> None:
    crm = vivre()
    row = crm.new("a1", contact_id="cnt_1", type="fax")
    assert crm.refusal("activities", row) == "type: the value is none of call, email, meeting, note"


# -- by whole syncs ------------------------------------------------------------------------------


def test_new_contacts_are_synced_and_known_ones_left_alone(tmp_path: Path) -> None:
    sync = (
        'object = "contacts"\nmodel = "marts.leads"\nkey = "email"\nmode = "create"\n'
        '[syncs.leads.fields]\nname = "name"\ncompany = "company"\n'
    )
    with Sandbox(records=10) as box:
        desk = Desk(tmp_path, box, "vivre", sync)
        desk.pull("vivre.contacts")
        known = box.tenant("vivre").records("contacts")[0]["email"]
        desk.model(
            "select 'lee@pier.example' as email, 'Lee' as name, 'Pier' as company"
            f" union all select '{known}', 'Other', 'Other'"
        )
        first = desk.push()
        desk.pull("vivre.contacts")
        second = desk.push()
        assert [first.counts[each] for each in ("created", "updated", "unchanged")] == [1, 0, 1]
        assert [second.counts[each] for each in ("created", "updated")] == [0, 0]


def test_a_sync_that_would_change_contacts_is_refused_when_it_is_read(tmp_path: Path) -> None:
    sync = 'object = "contacts"\nmodel = "marts.leads"\nkey = "email"\n[syncs.leads.fields]\nname = "name"\n'
    with Sandbox(records=2) as box, pytest.raises(ConfigError, match="mode = 'create'"):
        Desk(tmp_path, box, "vivre", sync).project.sync("leads")


@pytest.mark.parametrize("is_listed", [False, True])
def test_deals_are_synced_by_the_models_own_key_and_closed(tmp_path: Path, is_listed: bool) -> None:
    sync = (
        'object = "deals"\nmodel = "marts.leads"\nkey = "own"\n[syncs.leads.fields]\n'
        'contact_id = "contact_id"\ntitle = "title"\nvalue = "paise"\nstage = "stage"\nclosed_at = "closed"\n'
    )
    with Sandbox(records=3, vivre=VivreSwitches(deals_listed=is_listed)) as box:
        contact = box.tenant("vivre").records("contacts")[0]["id"]
        desk = Desk(tmp_path, box, "vivre", sync, deals_listed=is_listed)
        desk.pull()
        row = f"select i as own, '{contact}' as contact_id, 'Loom' as title, 700 + i as paise"
        desk.model(f"{row}, 'new' as stage, null::timestamptz as closed from range(3) t(i)")
        first, quiet = desk.push(), desk.push()
        assert (first.counts["created"], quiet.counts["unchanged"]) == (3, 3)
        desk.model(f"{row}, 'won' as stage, timestamptz '2026-02-03 10:00:00Z' as closed from range(3) t(i)")
        assert desk.push().counts["updated"] == 3
        held = box.tenant("vivre").records("deals", title="Loom")
        assert [(each["value"], each["stage"], each["closed_at"]) for each in held] == [
            (700 + i, "won", "2026-02-03T10:00:00Z") for i in range(3)
        ]


def test_activities_are_logged_once(tmp_path: Path) -> None:
    sync = (
        'object = "activities"\nmodel = "marts.leads"\nkey = "own"\nmode = "create"\n'
        '[syncs.leads.fields]\ncontact_id = "contact_id"\ntype = "type"\nnote = "note"\n'
    )
    with Sandbox(records=3) as box:
        contact = box.tenant("vivre").records("contacts")[0]["id"]
        desk = Desk(tmp_path, box, "vivre", sync)
        desk.pull()
        desk.model(
            f"select i as own, '{contact}' as contact_id, 'call' as type, 'n' || i as note from range(3) t(i)"
        )
        first, second = desk.push(), desk.push()
        assert (first.counts["created"], second.counts["created"]) == (3, 0)
