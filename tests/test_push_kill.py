"""A push killed with SIGKILL at any instant, then run again: nothing lost, nothing doubled, nothing open."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sources.core.errors import AuthError
from sources.core.journal import Header, Journal, left_over, read
from sources.core.rows import Row
from sources.core.sessions import open_session
from sources.core.writing import Courier
from sources.rally import CONNECTOR as RALLY
from sources.relm import CONNECTOR as RELM
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Response
from sources.sandbox.faults import Action, Hang, Scene, Status
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.wire import Wire
from tests.pushing import Shop

REPOSITORY = Path(__file__).parent.parent
LEADS = 600
MAPPINGS = {
    "relm": 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n',
    "rally": 'firstName = "first"\nlastName = "last"\nleadScore = "score"\n',
}
_PUSH = """
import sys
from pathlib import Path
from pipelines.progress import SilentProgress
from pipelines.push import push
from pipelines.settings import load_project
project = load_project(Path(sys.argv[1]))
result = push(project, "leads", confirm=lambda plan: True, progress=SilentProgress(), in_flight=2)
print(result.counts, result.error or "")
sys.exit(result.exit_code)
"""
Open = Callable[..., Shop]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Open]:
    """Open a shop on a sandbox of this process, pulled once, with leads that the CRM has never seen."""
    boxes: list[Sandbox] = []

    def make(crm: str, *, options: str = "", **switches: Any) -> Shop:
        rules: dict[str, Any] = {"relm": RelmSwitches, "rally": RallySwitches}
        box = Sandbox(records=10, **{crm: rules[crm](**{"rate_limit": None, **switches})})
        boxes.append(box)
        made = Shop(tmp_path, box.__enter__(), crm, fields=MAPPINGS[crm], options=options)
        made.pull()
        made.leads(LEADS)
        return made

    yield make
    for box in boxes:
        box.__exit__(None, None, None)


def start(shop: Shop) -> "subprocess.Popen[str]":
    """Start a push in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _PUSH, str(shop.root)],
        cwd=REPOSITORY,
        env={**os.environ, **shop.environ, "DLT_PROJECT_DIR": str(shop.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> int:
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), out + err
    return process.returncode


def kill_when(process: "subprocess.Popen[str]", is_due: Callable[[], bool], *, after_s: float = 0.0) -> None:
    """Kill a process with SIGKILL as soon as a condition holds, unless it ends before."""
    while process.poll() is None and not is_due():
        time.sleep(0.001)
    if process.poll() is None:
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
    finish(process)


def kill_at_line(shop: Shop, line: int, *, after_s: float = 0.0) -> None:
    """Start a push and kill it when its journal has so many lines, or a little later."""
    kill_when(start(shop), lambda: journal_lines(shop) >= line, after_s=after_s)


def journal_lines(shop: Shop) -> int:
    return sum(path.read_bytes().count(b"\n") for path in left_over(shop.warehouse.home / "journal"))


def applied(shop: Shop) -> Counter[str]:
    """Count how often the CRM applied a write of ours, by address."""
    tenant = shop.box.tenant(shop.crm)
    writes = list(tenant.ledger)  # before the records: a write that lands in between must find its address
    addresses = {each["id"]: each["email"] for each in tenant.records("contacts")}
    return Counter(addresses[write.id] for write in writes if "@new.example" in addresses[write.id])


def assert_all_is_well(shop: Shop) -> None:
    """Every lead is in the CRM once, was written once, and is in log and ledger; nothing is left to do."""
    assert len(applied(shop)) == LEADS
    assert set(applied(shop).values()) == {1}
    assert left_over(shop.warehouse.home / "journal") == []
    assert shop.read("select count(*) from roundtrip.ledger where key like '%@new.example'") == [(LEADS,)]
    assert shop.read("select status, count(*), count(distinct key) from roundtrip.push_log group by 1") == [
        ("created", LEADS, LEADS)
    ]
    assert shop.plan().rows == []


@pytest.mark.parametrize("crm", ["relm", "rally"])
@pytest.mark.parametrize("line", [1, 2, 4])
def test_killed_at_a_line_of_its_journal_and_run_again_it_ends_right(shop: Open, crm: str, line: int) -> None:
    """The lines are header, intents and outcomes: the kill falls before, within and after a request."""
    made = shop(crm, options="batch_size = 100" if crm == "relm" else "")
    kill_at_line(made, line)
    assert finish(start(made)) == 0
    assert_all_is_well(made)


@pytest.mark.parametrize("crm", ["relm", "rally"])
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_instants_again_and_again_it_ends_right(shop: Open, crm: str, seed: int) -> None:
    rng = random.Random(f"{crm} {seed}")
    made = shop(crm, options="batch_size = 50" if crm == "relm" else "")
    made.box.faults.add(Hang(0.05, "after"), crm=crm, path="/contacts/", times=None, probability=0.5)
    for _ in range(3):
        kill_at_line(made, rng.randint(0, 12), after_s=rng.random() / 10)
    assert finish(start(made)) == 0
    assert_all_is_well(made)


@pytest.mark.parametrize("existing", ["fails", "duplicates"])
def test_a_bulk_that_was_applied_but_never_answered_is_found_again(shop: Open, existing: str) -> None:
    """Rally has no idempotency key, and may let a second bulk make every contact twice."""
    rally = shop("rally", bulk_existing=existing)
    rally.box.faults.add(Hang(5, "after"), crm="rally", method="POST", path="/bulk", times=None)
    process = start(rally)
    kill_when(process, lambda: len(applied(rally)) >= 100)
    rally.box.faults.clear()
    assert finish(start(rally)) == 0
    assert_all_is_well(rally)


def test_a_pull_between_the_kill_and_the_next_push_changes_nothing(shop: Open) -> None:
    relm = shop("relm", options="batch_size = 100")
    relm.box.faults.add(Hang(5, "after"), crm="relm", method="POST", path="/batch", nth=3, times=None)
    kill_when(start(relm), lambda: len(applied(relm)) >= 300)
    relm.box.faults.clear()
    relm.pull()
    assert finish(start(relm)) == 0
    assert_all_is_well(relm)


@dataclass(frozen=True)
class Late(Action):
    """Keep a request on the way until it may land."""

    lands: threading.Event

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        assert self.lands.wait(60)
        return None


def test_a_request_that_lands_after_the_pull_that_followed_the_kill_is_not_made_again(shop: Open) -> None:
    """A killed push may leave bytes on the way: the CRM applies them when a pull has already been past."""
    relm = shop("relm", options="batch_size = 100")
    late = Late(threading.Event())
    relm.box.faults.add(late, crm="relm", method="POST", path="/batch", nth=3, times=None)
    kill_when(start(relm), lambda: journal_lines(relm) >= 6)
    relm.pull()
    assert len(applied(relm)) == 200
    late.lands.set()
    while len(applied(relm)) < 300:
        time.sleep(0.01)
    relm.box.faults.clear()
    assert finish(start(relm)) == 0
    assert_all_is_well(relm)


# -- what a restart does with one open request ---------------------------------------------------


def open_journal(shop: Shop, row: Row, *, age: timedelta = timedelta(0), is_sent: bool = True) -> Path:
    """Leave the journal of a push that was killed around its only request."""
    at = datetime.now(UTC) - age
    connector = {"relm": RELM, "rally": RALLY}[shop.crm]
    with open_session(connector, shop.project.connection(shop.crm)) as session:
        write = session.contract.writes["contacts"]
        header = Header("20260101T000000Z-dead", "leads", shop.crm, "contacts", "seal", at)
        journal = Journal.begin(shop.warehouse.home / "journal", header)
        courier = Courier(session, write, journal, run_id=header.run_id, clock=_Past(age))
        lane = write.lanes[write.lane(row, session.connection)]
        batch = courier.batch(lane, [row])
        journal.intent(batch)
        if is_sent:
            courier.request(batch.call, lane)
        journal.close()
    return journal.path


class _Past:
    """A clock that is behind."""

    def __init__(self, age: timedelta) -> None:
        self.age_s = age.total_seconds()

    def time(self) -> float:
        return time.time() - self.age_s

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def new(shop: Shop, **fields: Any) -> Row:
    names = {"relm": ("first_name", "last_name"), "rally": ("firstName", "lastName")}[shop.crm]
    values = dict(zip(names, ("F0", "L0"), strict=True))
    return Row(
        1,
        "lead0@new.example",
        None,
        "create",
        {"email": "lead0@new.example", **values, **fields},
        match="new",
    )


@pytest.mark.parametrize("crm", ["relm", "rally"])
@pytest.mark.parametrize("is_sent", [True, False])
@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=3)], ids=["at once", "days later"])
def test_an_open_request_is_settled_once_whether_it_was_applied_or_not(
    shop: Open, crm: str, is_sent: bool, age: timedelta
) -> None:
    made = shop(crm)
    open_journal(made, new(made), age=age, is_sent=is_sent)
    made.leads(1)
    made.push()
    assert made.contact("lead0@new.example")["email"] == "lead0@new.example"
    creations = [
        change
        for change in made.box.tenant(crm).feed
        if change.action == "inserted" and change.record_id == made.contact("lead0@new.example")["id"]
    ]
    assert len(creations) == 1
    assert left_over(made.warehouse.home / "journal") == []


def test_an_upsert_is_not_repeated_over_a_newer_edit(shop: Open) -> None:
    rally = shop("rally")
    person = rally.box.tenant("rally").records("contacts")[0]
    change = {"firstName": "Ours"}
    before = {"firstName": person["firstName"]}
    row = Row(1, person["email"].strip().lower(), person["id"], "update", change, before, person)
    open_journal(rally, row, is_sent=False)
    rally.by_hand(person["email"].strip(), firstName="Hand")
    rally.model([(person["email"], "Ours", None, None)])
    result = rally.push()
    assert rally.contact(person["email"].strip())["firstName"] == "Hand"
    assert [(each["status"], each["reason"]) for each in result.rows] == [("unknown", "unknown_outcome")]


def known(shop: Shop, first: str) -> Row:
    """Make the row of a change that goes out with all that is known of its record."""
    person = shop.box.tenant(shop.crm).records("contacts")[0]
    name = {"relm": "first_name", "rally": "firstName"}[shop.crm]
    change, before = {name: first}, {name: person[name]}
    return Row(1, str(person["email"]).strip().lower(), person["id"], "update", change, before, person)


def test_a_change_under_a_key_that_is_still_alive_is_not_repeated_over_newer_edits(shop: Open) -> None:
    """The bytes carry the whole record as it was: repeating them would take back what was edited since."""
    relm = shop("relm", dedup_update="replaces")
    row = known(relm, "Ours")
    open_journal(relm, row, is_sent=False)
    relm.by_hand(row.key, first_name="Hand", phone="+49 30 1")
    relm.model([(row.key, "Ours", None, None)])
    assert told(relm.push()) == [("unknown", "unknown_outcome")]
    assert (relm.contact(row.key)["first_name"], relm.contact(row.key)["phone"]) == ("Hand", "+49 30 1")


def test_a_change_that_took_no_effect_is_planned_anew_and_spares_the_other_fields(shop: Open) -> None:
    relm = shop("relm", dedup_update="replaces")
    row = known(relm, "Ours")
    open_journal(relm, row, is_sent=False)
    relm.by_hand(row.key, phone="+49 30 1")
    relm.declare(MAPPINGS["relm"], 'recheck_after = "0s"')
    relm.model([(row.key, "Ours", None, None)])
    assert told(relm.push()) == [("updated", None)]
    assert (relm.contact(row.key)["first_name"], relm.contact(row.key)["phone"]) == ("Ours", "+49 30 1")


def test_a_new_record_that_somebody_else_made_meanwhile_is_not_written_over(shop: Open) -> None:
    relm = shop("relm")
    open_journal(relm, new(relm), is_sent=False)
    relm.box.tenant("relm").create("contacts", email="lead0@new.example", first_name="Hand", phone="+1")
    relm.leads(1)
    assert told(relm.push()) == [("unknown", "unknown_outcome")]
    assert relm.contact("lead0@new.example")["first_name"] == "Hand"


def test_a_killed_bulk_of_changes_is_not_completed_from_nothing(shop: Open) -> None:
    """The journal does not keep what is known of a record, which a body that replaces it must hold."""
    rally = shop("rally", options='bulk_existing = "updates"', bulk_existing="updates")
    row = known(rally, "Ours")
    row = replace(row, fields={**row.fields, "lastName": "New"}, before={**row.before, "lastName": "Old"})
    rally.by_hand(row.key, lastName="Old", phone="+49 30 1", title="CEO")
    rally.pull()
    open_journal(rally, row, is_sent=False)
    rally.model([(row.key, "Ours", "New", None)])
    assert told(rally.push()) == [("updated", None)]
    (contact,) = rally.contacts(row.key)
    assert (contact["firstName"], contact["phone"], contact["title"]) == ("Ours", "+49 30 1", "CEO")


def told(result: Any) -> list[tuple[str, str | None]]:
    return [(row["status"], row["reason"]) for row in result.rows]


def test_a_settling_that_was_stopped_as_well_is_gone_on_with_and_every_row_is_booked(shop: Open) -> None:
    """Each life of a journal sends batches of its own: their ids must not hide those of the life before."""
    rally = shop("rally")
    path = open_journal(rally, new(rally), is_sent=False)
    with open_session(RALLY, rally.project.connection("rally")) as session:
        journal = Journal.resume(path)
        courier = Courier(session, session.contract.writes["contacts"], journal, run_id="r", prefix="c")
        other = replace(new(rally, email="lead1@new.example"), seq=2, key="lead1@new.example")
        journal.intent(courier.batch(courier.write.lanes["bulk"], [other]))
        journal.close()
    rally.leads(2)
    rally.box.faults.add(Status(401), crm="rally", method="GET", nth=2)
    with pytest.raises(AuthError):
        rally.push()
    rally.push()
    booked = rally.read("select key, status from roundtrip.push_log where run_id like '%dead' order by key")
    assert booked == [("lead0@new.example", "created"), ("lead1@new.example", "created")]


def test_while_the_crm_cannot_be_asked_the_journal_waits(shop: Open) -> None:
    rally = shop("rally")
    path = open_journal(rally, new(rally), is_sent=False)
    rally.box.revoke("rally")
    rally.leads(1)
    with pytest.raises(AuthError):
        rally.push()
    story = read(path)
    assert story is not None
    assert len(story.open) == 1


def test_a_journal_that_was_published_but_not_deleted_is_not_booked_twice(shop: Open) -> None:
    relm = shop("relm")
    relm.leads(1)
    relm.push()
    (run_id,) = relm.read("select run_id from roundtrip.push_log")[0]
    header = Header(run_id, "leads", "relm", "contacts", "seal", datetime.now(UTC))
    Journal.begin(relm.warehouse.home / "journal", header).close()
    relm.push()
    assert left_over(relm.warehouse.home / "journal") == []
    assert relm.read("select count(*) from roundtrip.push_log") == [(1,)]
