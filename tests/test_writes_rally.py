"""What Rally takes beside contacts: companies by domain, deals by name and pipeline, activities by bulk."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.core.bodies import decode_json
from sources.core.client import Answer
from sources.core.connector import Connection
from sources.core.errors import UncertainError
from sources.core.rows import Outcome, Row
from sources.rally import CONTRACT
from sources.rally.lanes import decode_bulk
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Refusal, Response
from sources.sandbox.faults import Action, ApplyThenDrop, Reset, Rule, Scene
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.wire import Wire
from tests.delivering import Desk, Door, door

Open = Callable[..., Door]
DEFAULTS = Connection("rally", "rally", "https://x.rallycrm.io/api/v1", "k")


@pytest.fixture
def rally(tmp_path: Path) -> Iterator[Open]:
    """Open a door to Rally under the options and switches given."""
    with ExitStack() as stack:

        def make(options: dict[str, Any] | None = None, **switches: Any) -> Door:
            wanted = RallySwitches(**{"rate_limit": None, **switches})
            return stack.enter_context(door(tmp_path, "rally", switches=wanted, **(options or {})))

        yield make


def pipeline(crm: Door) -> tuple[str, list[str]]:
    """Give the id of the only pipeline, and of its stages in order."""
    stages = sorted(crm.box.tenant("rally").records("stages"), key=lambda each: each["position"])
    return stages[0]["pipelineId"], [each["id"] for each in stages]


def a_deal(crm: Door, **fields: Any) -> Row:
    """Make a row for a deal that the CRM has never seen."""
    pipeline_id, stages = pipeline(crm)
    return crm.new(**{"name": "Depot rollout", "pipelineId": pipeline_id, "stageId": stages[0], **fields})


def known(crm: Door, table: str, row: Row) -> Row:
    """Give a row what a pull has seen of its record."""
    write = crm.write(table)
    record = crm.record(table, row.crm_id)
    return replace(row, known={name: record[name] for name in write.fields if record[name] is not None})


def an_activity(crm: Door, subject: str, **fields: Any) -> Row:
    return crm.new(subject, activityType="call", subject=subject, **fields)


def subjects(crm: Door) -> list[str]:
    """List the subjects of the activities that the CRM holds, with repeats."""
    return sorted(each["subject"] for each in crm.box.tenant("rally").records("activities"))


def spoil(crm: Door, fault: Action) -> Rule:
    """Let the next bulk go wrong."""
    return crm.box.faults.add(fault, crm="rally", method="POST", path=r"/bulk\?")


def body_of(table: str, lane: str, *rows: Row, **options: Any) -> Any:
    """Encode rows for a lane under options."""
    connection = replace(DEFAULTS, options=options)
    return decode_json(CONTRACT.writes[table].lanes[lane].encode(rows, connection).body)


# -- companies -----------------------------------------------------------------------------------


def test_new_companies_go_in_bulks_of_a_hundred(rally: Open) -> None:
    crm = rally()
    rows = [crm.new(f"{n}.example", name=f"C{n}", domain=f"{n}.example") for n in range(250)]
    outcomes = crm.send("companies", *rows)
    assert [each.verdict for each in outcomes] == ["created"] * 250
    assert crm.asked("POST", "/companies/bulk") == 3
    assert crm.record("companies", outcomes[249].crm_id)["domain"] == "249.example"


def test_a_known_company_is_upserted_with_all_that_was_pulled(rally: Open) -> None:
    crm = rally(upsert_update="replaces")
    before = crm.box.tenant("rally").records("companies")[0]
    row = crm.change(before["id"], before["domain"].upper(), match="key", industry="Ships")
    (outcome,) = crm.send("companies", known(crm, "companies", row))
    assert outcome == Outcome(row.seq, "updated", before["id"])
    after = crm.record("companies", before["id"])
    assert {**after, "updated_at": 0} == {**before, "industry": "Ships", "updated_at": 0}


def test_a_company_whose_domain_changes_is_met_by_its_id(rally: Open) -> None:
    crm = rally()
    before = crm.box.tenant("rally").records("companies")[0]
    row = known(crm, "companies", crm.change(before["id"], domain="new.example"))
    crm.send("companies", row)
    assert crm.record("companies", before["id"])["domain"] == "new.example"
    assert {each.op for each in crm.written("companies")} == {"update"}


def test_a_company_that_somebody_added_meanwhile_is_updated_not_doubled(rally: Open) -> None:
    crm = rally(bulk_existing="fails")
    theirs = crm.box.tenant("rally").create("companies", name="Pier", domain="pier.example")
    (outcome,) = crm.send("companies", crm.new("pier.example", name="Pier Ltd", domain="pier.example"))
    assert (outcome.verdict, outcome.crm_id) == ("updated", theirs["id"])
    assert crm.record("companies", theirs["id"])["name"] == "Pier Ltd"


def test_a_lost_bulk_of_companies_is_looked_for_and_none_is_made_twice(rally: Open) -> None:
    crm = rally()
    rows = [crm.new(f"{n}.example", name=f"C{n}", domain=f"{n}.example") for n in range(5)]
    fault = spoil(crm, ApplyThenDrop())
    assert [each.verdict for each in crm.send("companies", *rows)] == ["created"] * 5
    assert (fault.fired, len(crm.written("companies"))) == (1, 5)


def test_a_tenant_that_merges_gets_the_changes_and_the_required_fields_only() -> None:
    held = {"name": "Pier", "domain": "pier.example", "city": "Leeds"}
    row = Row(1, "pier.example", "c1", "update", {"phone": "1"}, known=held)
    assert body_of("companies", "upsert", row, put_semantics="merge") == {
        "name": "Pier",
        "domain": "pier.example",
        "phone": "1",
    }


def test_a_bulk_goes_as_the_tenant_wants_it(rally: Open) -> None:
    crm = rally({"bulk_body": "object"}, bulk_body="object")
    (outcome,) = crm.send("companies", crm.new("a.example", name="A", domain="a.example", tags=["x", "y"]))
    assert crm.record("companies", outcome.crm_id)["tags"] == ["x", "y"]


# -- deals ---------------------------------------------------------------------------------------


def test_a_new_deal_goes_by_bulk_and_keeps_its_amount_to_the_cent(rally: Open) -> None:
    crm = rally()
    (outcome,) = crm.send("deals", a_deal(crm, value=Decimal("42000.55"), currency="EUR"))
    assert outcome.verdict == "created"
    assert crm.record("deals", outcome.crm_id)["value"] == 42000.55
    assert crm.asked("POST", "/deals/bulk") == 1


def test_a_move_to_another_stage_alone_goes_by_the_stage_endpoint(rally: Open) -> None:
    crm = rally()
    deal = crm.box.tenant("rally").records("deals")[0]
    stage = next(each for each in pipeline(crm)[1] if each != deal["stageId"])
    (outcome,) = crm.send("deals", known(crm, "deals", crm.change(deal["id"], stageId=stage)))
    assert outcome.verdict == "updated"
    assert crm.record("deals", deal["id"])["stageId"] == stage
    assert crm.asked("PATCH", f"/deals/{deal['id']}/stage") == 1


def test_a_deal_that_moves_and_changes_takes_the_probability_of_its_new_stage(rally: Open) -> None:
    crm = rally(put="replaces")
    deal = crm.box.tenant("rally").records("deals")[0]
    won = pipeline(crm)[1][4]
    crm.send("deals", known(crm, "deals", crm.change(deal["id"], stageId=won, value=5)))
    after = crm.record("deals", deal["id"])
    assert (after["stageId"], after["probability"], after["value"]) == (won, 100, 5)
    assert (after["contactId"], after["name"]) == (deal["contactId"], deal["name"])


def test_of_two_deals_with_one_name_the_known_one_is_changed(rally: Open) -> None:
    crm = rally(deal_name_match="folded")
    tenant = crm.box.tenant("rally")
    pipeline_id, stages = pipeline(crm)
    fields = {"pipelineId": pipeline_id, "stageId": stages[0], "currency": "USD", "status": "open"}
    twins = [tenant.create("deals", name=name, **fields)["id"] for name in ("Depot", "depot")]
    crm.send("deals", known(crm, "deals", crm.change(twins[1], match="key", value=7)))
    assert [crm.record("deals", each)["value"] for each in twins] == [None, 7]


def test_a_lost_bulk_of_deals_is_found_by_name_and_pipeline(rally: Open) -> None:
    crm = rally()
    rows = [a_deal(crm, name=f"Deal {n}") for n in range(3)]
    fault = spoil(crm, ApplyThenDrop())
    assert [each.verdict for each in crm.send("deals", *rows)] == ["created"] * 3
    assert (fault.fired, len(crm.written("deals"))) == (1, 3)


def test_a_deal_the_crm_refuses_is_told_with_the_reason_and_the_others_are_made(rally: Open) -> None:
    crm = rally()
    rows = [a_deal(crm, name="good"), a_deal(crm, name="bad", companyId="no-guid"), a_deal(crm, name="fine")]
    outcomes = crm.send("deals", *rows)
    assert [each.verdict for each in outcomes] == ["created", "rejected", "created"]
    assert "companyId" in str(outcomes[1].reason)


def test_the_stage_of_new_deals_can_be_set_once_for_all() -> None:
    write = CONTRACT.writes["deals"]
    assert write.defaults(replace(DEFAULTS, options={"new_deal_stage": "s1"})) == {"stageId": "s1"}
    assert write.defaults(DEFAULTS) == {"stageId": None}


# -- activities ----------------------------------------------------------------------------------


def test_new_activities_go_in_bulks_and_their_ids_are_read_back(rally: Open) -> None:
    crm = rally()
    outcomes = crm.send("activities", *(an_activity(crm, f"Call {n}") for n in range(130)))
    assert crm.asked("POST", "/activities/bulk") == 2
    assert len({each.crm_id for each in outcomes}) == 130
    assert crm.record("activities", outcomes[77].crm_id)["subject"] == "Call 77"


def test_a_known_activity_is_put_whole(rally: Open) -> None:
    crm = rally(put="replaces")
    before = crm.box.tenant("rally").records("activities")[0]
    row = known(crm, "activities", crm.change(before["id"], status="completed", body="Done"))
    crm.send("activities", row)
    after = crm.record("activities", before["id"])
    assert (after["status"], after["body"], after["subject"]) == ("completed", "Done", before["subject"])
    assert after["contactId"] == before["contactId"]


def test_a_bad_activity_in_a_bulk_is_named_and_none_of_the_others_is_made_twice(rally: Open) -> None:
    crm = rally()
    rows = [an_activity(crm, f"Call {n}", priority="low" if n != 2 else "extreme") for n in range(5)]
    outcomes = crm.send("activities", *rows)
    assert [each.verdict for each in outcomes].count("created") == 4
    assert "priority" in str(outcomes[2].reason)
    assert len(crm.written("activities")) == 4


def test_activities_whose_answer_was_lost_are_recognised_by_what_was_sent(rally: Open) -> None:
    crm = rally()
    fault = spoil(crm, ApplyThenDrop())
    rows = [an_activity(crm, subject) for subject in ("Same", "Same", "Other")]
    outcomes = crm.send("activities", *rows)
    assert [each.verdict for each in outcomes] == ["created"] * 3
    assert len({each.crm_id for each in outcomes}) == 3
    assert (fault.fired, len(crm.written("activities"))) == (1, 3)


@dataclass(frozen=True)
class HalfDone(Action):
    """The CRM works a bulk off row by row, and a gateway gives up before it is through."""

    def instead(self, scene: Scene, wire: Wire) -> Response:
        tenant = scene.simulator.tenant
        tenant.create("activities", by="roundtrip", **json.loads(scene.request.body)[0])
        return scene.simulator.refused(Refusal(504, "gateway", "time-out"))


def test_the_rest_of_a_bulk_that_is_seen_half_done_stays_open(rally: Open) -> None:
    """The CRM may still be at work on it: sent again now, it would be there twice."""
    crm = rally()
    spoil(crm, HalfDone())
    outcomes = crm.send("activities", *(an_activity(crm, f"Call {n}") for n in range(3)))
    assert [each.verdict for each in outcomes] == ["created", "unknown", "unknown"]
    assert crm.asked("POST", "/activities/bulk") == 1


@pytest.mark.parametrize("fault", [Reset(), ApplyThenDrop()])
def test_activities_that_no_list_shows_yet_stay_open_and_are_not_sent_again(
    rally: Open, fault: Action
) -> None:
    crm = rally(list_lag_s=60.0)
    spoil(crm, fault)
    outcomes = crm.send("activities", an_activity(crm, "Call"))
    assert [each.verdict for each in outcomes] == ["unknown"]
    assert isinstance(crm.delivery.error, UncertainError)
    assert crm.asked("POST", "/activities/bulk") == 1


def test_a_bulk_of_activities_left_open_by_a_kill_is_settled_by_looking(rally: Open) -> None:
    crm = rally()
    courier, lane = crm.courier("activities"), crm.lane("activities", "bulk")
    batch = courier.batch(lane, [an_activity(crm, f"Call {n}") for n in range(3)])
    courier.request(batch.call, lane)
    assert [each.verdict for each in courier.settle(batch)] == ["created"] * 3
    assert len(crm.written("activities")) == 3


def test_absence_of_an_activity_counts_once_every_list_must_show_it(rally: Open) -> None:
    crm = rally()
    lane, row = crm.lane("activities", "bulk"), an_activity(crm, "Call")
    crm.session.client.get("/contacts", {"limit": "1"})
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    assert crm.courier("activities").look(lane, [row], long_ago)[0].verdict == "absent"
    assert crm.courier("activities").look(lane, [row], crm.clock.now())[0].verdict == "unknown"


def test_an_older_activity_of_the_same_content_is_not_taken_for_ours(rally: Open) -> None:
    crm = rally()
    old = crm.box.tenant("rally").records("activities")[0]
    row = crm.new(activityType=old["activityType"], subject=old["subject"])
    (outcome,) = crm.courier("activities").look(crm.lane("activities", "bulk"), [row], crm.clock.now())
    assert outcome.crm_id is None


# -- by whole syncs ------------------------------------------------------------------------------

SYNCS = {
    "companies": (
        "domain",
        ("name", "phone"),
        "'n' || n || '.example' as domain, 'Firm ' || n as name, '+1' || {} as phone",
    ),
    "deals": (
        "name",
        ("name", "pipelineId", "stageId", "notes"),
        "'Deal ' || n as name, '{pipeline}' as pipelineId, '{stage}' as stageId, 'about' || {} as notes",
    ),
    "activities": (
        "log_no",
        ("activityType", "subject", "body"),
        "n as log_no, 'note' as activityType, 'Note ' || n as subject, 'Body' || {} as body",
    ),
}


@pytest.mark.parametrize("table", SYNCS)
def test_records_are_made_once_then_left_alone_then_changed_where_the_model_changed(
    tmp_path: Path, table: str
) -> None:
    key, fields, query = SYNCS[table]
    mapping = "\n".join(f'{each} = "{each}"' for each in fields)
    sync = f'object = "{table}"\nmodel = "marts.leads"\nkey = "{key}"\n[syncs.leads.fields]\n{mapping}\n'
    with Sandbox(records=10) as box:
        desk = Desk(tmp_path, box, "rally", sync)
        stage = box.tenant("rally").records("stages")[0]
        counts = []
        for edit in ("''", "''", "case when n = 2 then ' new' else '' end"):
            desk.pull(f"rally.{table}")
            columns = query.format(edit, pipeline=stage["pipelineId"], stage=stage["id"])
            desk.model(f"select {columns} from range(1, 4) as t(n)")
            result = desk.push()
            counts.append((result.exit_code, result.counts["created"], result.counts["updated"]))
        assert counts == [(0, 3, 0), (0, 0, 0), (0, 0, 1)]
        held = [each[fields[-1]] for each in box.tenant("rally").records(table)]
        assert sum(str(each).endswith(" new") for each in held) == 1


def test_a_stage_moved_by_the_model_moves_the_deal(tmp_path: Path) -> None:
    sync = (
        'object = "deals"\nmodel = "marts.leads"\nkey = "id"\nmode = "update"\n'
        '[syncs.leads.fields]\nstageId = "stage"\n'
    )
    with Sandbox(records=10) as box:
        desk = Desk(tmp_path, box, "rally", sync)
        desk.pull("rally.deals")
        deal, stages = box.tenant("rally").records("deals")[0], box.tenant("rally").records("stages")
        stage = next(each["id"] for each in stages if each["id"] != deal["stageId"])
        desk.model(f"select '{deal['id']}' as id, '{stage}' as stage")
        assert desk.push().counts["updated"] == 1
        assert box.tenant("rally").find("deals", id=deal["id"])["stageId"] == stage
        assert next(each.path for each in box.requests if each.method == "PATCH").endswith("/stage")


def test_a_company_is_met_by_its_domain_however_the_model_spells_it(tmp_path: Path) -> None:
    sync = (
        'object = "companies"\nmodel = "marts.leads"\nkey = "domain"\n[syncs.leads.fields]\nphone = "phone"\n'
    )
    with Sandbox(records=10) as box:
        desk = Desk(tmp_path, box, "rally", sync)
        desk.pull("rally.companies")
        before = box.tenant("rally").records("companies")
        desk.model(f"select 'HTTPS://www.{before[0]['domain'].upper()}/about' as domain, '+1' as phone")
        assert desk.push().counts["updated"] == 1
        after = box.tenant("rally").records("companies")
        assert (len(after), after[0]["phone"]) == (len(before), "+1")
        assert after[0]["domain"] == before[0]["domain"]


# -- laws ----------------------------------------------------------------------------------------


@given(created=st.integers(0, 4), updated=st.integers(0, 4), failed=st.integers(0, 4), rows=st.integers(1, 4))
def test_a_bulk_counts_as_done_only_by_a_clean_count(
    created: int, updated: int, failed: int, rows: int
) -> None:
    batch = [Row(n, f"k{n}", None, "create", {}) for n in range(rows)]
    body = b'{"created":%d,"updated":%d,"failed":%d,"createdIds":[],"errors":[]}' % (created, updated, failed)
    verdicts = {each.verdict for each in decode_bulk(batch, Answer(200, {}, body))}
    is_clean, is_failed = (
        (created, updated, failed) == (rows, 0, 0),
        (created, updated, failed) == (0, 0, rows),
    )
    assert verdicts == {"created" if is_clean else "absent" if is_failed else "unknown"}
