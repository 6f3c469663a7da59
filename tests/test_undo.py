"""Taking a push back: what nobody edited is restored, what somebody did is left, both are listed."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.progress import SilentProgress
from pipelines.push import PushResult
from pipelines.settings import load_project
from pipelines.undo import undo
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop, Hang
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.conftest import run_roundtrip
from tests.delivering import Desk, door
from tests.pushing import MORNING, Shop
from tests.pushing import Desk as ByHand
from tests.warm import WarmRuns

FIELDS = {
    "relm": 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n',
    "rally": 'firstName = "first"\nlastName = "last"\nleadScore = "score"\nnotes = "notes"\n',
}
PEOPLE = 4
COLUMNS = "email, first, last, score, notes"
Open = Callable[..., Shop]


_MARKS = count(1)
_WINS = 'conflicts = "model_wins"'  # so that each test can push over the edits of the last one


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Keep one shop for each CRM: tests go on from the state that the last one left."""
    relm, rally = RelmSwitches(rate_limit=None), RallySwitches(rate_limit=None)
    with Sandbox(records=12, relm=relm, rally=rally) as box:

        @cache
        def opened(crm: str) -> Shop:
            made = Shop(tmp_path_factory.mktemp(crm), box, crm, fields=FIELDS[crm], sync=_WINS)
            made.pull()
            return made

        yield opened


@pytest.fixture
def shop(boxes: Open) -> Open:
    """Open the shop of a CRM; `is_pulled` where a test before may have edited by hand."""

    def make(crm: str = "relm", *, is_pulled: bool = False) -> Shop:
        made = boxes(crm)
        if is_pulled:
            made.pull()
        return made

    return make


class Said(SilentProgress):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def take_back(shop: Shop | Desk, run: PushResult, **options: Any) -> PushResult:
    """Undo a run, one request at a time."""
    options = {"confirm": lambda made: True, "progress": SilentProgress(), "in_flight": 1, **options}
    return undo(shop.project, str(run.run_id), **options)


def people(shop: Shop) -> list[dict[str, Any]]:
    """Give the first contacts of the CRM."""
    return [each for each in shop.box.tenant(shop.crm).records("contacts") if each["email"]][:PEOPLE]


def values(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give what is readable of contacts by id; an empty text is as good as none."""
    return {
        each["id"]: {
            "first": (each["first_name"] if "metadata" in each else each["firstName"]) or None,
            "last": (each["last_name"] if "metadata" in each else each["lastName"]) or None,
            "score": each["metadata"].get("lead_score") if "metadata" in each else each["leadScore"],
        }
        for each in records
    }


def rename(shop: Shop) -> PushResult:
    """Push values that nobody has seen yet to the first contacts."""
    turn = next(_MARKS)
    rows = [
        (each["email"], f"New{turn}", f"Newer{turn}", 10 * turn + place, f"Note{turn}")
        for place, each in enumerate(people(shop))
    ]
    shop.model(rows, columns=COLUMNS)
    result = shop.push()
    assert result.counts["updated"] == PEOPLE, result.error
    return result


def held(result: PushResult, reason: str) -> list[tuple[str, list[str]]]:
    """List what is held back for a reason: key and fields."""
    return [(row["key"], sorted(row["fields"])) for row in result.rows if row["reason"] == reason]


def log(desk: ByHand, *, status: str = "updated", connection: str = "relm") -> None:
    """Put a run into the log that made Ann of Old."""
    desk.write(
        "insert into roundtrip.push_log (run_id, sync, connection, object, key, crm_id, action, status, sent,"
        " replaced, pushed_at) values ('run-1', 'leads', ?, 'contacts', 'ann@x.example', 'c1', 'update', ?,"
        """ '{"first_name": "Ann"}', '{"first_name": "Old"}', ?)""",
        [connection, status, MORNING],
    )


# -- the law -------------------------------------------------------------------------------------


_PLACES = st.tuples(st.integers(0, PEOPLE - 1), st.sampled_from(["first", "last", "score"]))
_NAMES = st.sampled_from(["Ann", " Ann ", "ann", "Zoë", "=1+1", "x" * 300])
_ROWS = st.lists(st.tuples(_NAMES, _NAMES, st.integers(0, 3) | st.none()), min_size=PEOPLE, max_size=PEOPLE)
_TURNS = count(1)
_RELM = {"first": "first_name", "last": "last_name", "score": "metadata.lead_score"}


@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # each case goes on from the last one, so none can be made smaller
    suppress_health_check=[HealthCheck.too_slow],
)
@given(rows=_ROWS, edits=st.sets(_PLACES, max_size=6), is_pulled=st.booleans())
def test_every_value_that_nobody_edited_is_restored_and_every_other_left(
    boxes: Open, rows: list[tuple[Any, ...]], edits: set[tuple[int, str]], is_pulled: bool
) -> None:
    lawful = boxes("relm")
    lawful.pull()
    found = people(lawful)
    before = values(found)
    model = [(each["email"], *row, None) for each, row in zip(found, rows, strict=True)]
    lawful.model(model, columns=COLUMNS)
    pushed = lawful.push()
    assert pushed.exit_code == 0
    sent = {(row["crm_id"], name) for row in pushed.rows for name in row["fields"]}
    turn = next(_TURNS)
    edited = {
        (found[place]["id"], name): 1_000 * turn + place if name == "score" else f"by hand {turn} {place}"
        for place, name in sorted(edits)
    }
    for (crm_id, name), value in edited.items():
        field = {"metadata": {"lead_score": value}} if name == "score" else {_RELM[name]: value}
        lawful.box.tenant("relm").edit("contacts", crm_id, **field)
    if is_pulled:
        lawful.pull()
    if not sent:
        return
    result = take_back(lawful, pushed)
    after = values(people(lawful))
    for crm_id, held_before in before.items():
        assert after[crm_id] == {
            name: edited.get((crm_id, name), value) for name, value in held_before.items()
        }
    left = {(row["crm_id"], name) for row in result.rows if row["reason"] for name in row["fields"]}
    assert left == {(crm_id, _RELM[name]) for crm_id, name in edited} & sent


# -- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_undoing_an_undo_gives_the_first_state_again(shop: Open, crm: str) -> None:
    made = shop(crm, is_pulled=True)
    before = values(people(made))
    pushed = rename(made)
    pushed_values = values(people(made))
    undone = take_back(made, pushed)
    assert (values(people(made)), undone.counts["updated"]) == (before, PEOPLE)
    again = take_back(made, undone)
    assert (values(people(made)), again.counts["updated"]) == (pushed_values, PEOPLE)
    assert made.plan().rows == []


def test_what_cannot_be_read_is_left_and_listed(shop: Open) -> None:
    rally = shop("rally")
    result = take_back(rally, rename(rally))
    assert [fields for _, fields in held(result, "not_readable")] == [["notes"]] * PEOPLE
    assert len({each["notes"] for each in people(rally)}) == 1
    assert (result.counts["skipped"], result.exit_code) == (PEOPLE, 0)


def test_of_a_record_that_a_creation_met_nothing_is_emptied(tmp_path: Path) -> None:
    with Sandbox(records=10, relm=RelmSwitches(rate_limit=None)) as box:
        relm = Shop(tmp_path, box, "relm", fields=FIELDS["relm"])
        relm.pull()
        box.tenant("relm").create("contacts", email="ann@new.example", first_name="Ann", phone="+1")
        relm.model([("ann@new.example", "Model", "Lee", 5)])
        pushed = relm.push()
        assert pushed.counts["updated"] == 1
        relm.pull()
        met = relm.contact("ann@new.example")
        result = take_back(relm, pushed)
        fields = ["email", "first_name", "last_name", "metadata.lead_score"]
        assert held(result, "not_known") == [("ann@new.example", fields)]
        assert relm.contact("ann@new.example") == met


def test_a_change_that_met_another_record_is_told_and_nothing_is_written_back_into_that_one(
    tmp_path: Path,
) -> None:
    sync = 'object = "contacts"\nmodel = "marts.leads"\nkey = "primary_email"\n[syncs.leads.fields]\n'
    with Sandbox(records=3) as box:
        tenant = box.tenant("reevo")
        ids = {}
        for name, address in (("Ann", "x@pier.example"), ("Bob", "y@pier.example")):
            emails = [{"email": address, "is_primary": True}]
            made = tenant.create("contacts", primary_email=address, contact_emails=emails, first_name=name)
            ids[name] = made["id"]
        desk = Desk(tmp_path, box, "reevo", sync + 'primary_email = "mail"\nfirst_name = "first"\n')
        desk.pull("reevo.contacts")
        moved = [{"email": "ann@pier.example", "is_primary": True}]
        tenant.edit("contacts", ids["Ann"], primary_email="ann@pier.example", contact_emails=moved)
        taken = [("y@pier.example", True), ("x@pier.example", False)]
        emails = [{"email": each, "is_primary": is_primary} for each, is_primary in taken]
        tenant.edit("contacts", ids["Bob"], contact_emails=emails)
        desk.model("select 'x@pier.example' as mail, 'Anna' as first")
        pushed = desk.push()
        assert (pushed.exit_code, pushed.counts["unknown"], pushed.rows[0]["crm_id"]) == (1, 1, ids["Bob"])
        assert len(held(take_back(desk, pushed), "unknown_outcome")) == 1
        names = {each["id"]: each["first_name"] for each in tenant.records("contacts")}
        assert (names[ids["Ann"]], names[ids["Bob"]]) == ("Ann", "Anna")


def test_what_a_later_run_wrote_is_left_to_the_undo_of_that_run(shop: Open) -> None:
    relm = shop()
    first = rename(relm)
    between = values(people(relm))
    second = rename(relm)
    assert len(held(take_back(relm, first), f"sent_again: {second.run_id}")) == PEOPLE
    undone = take_back(relm, second)
    assert (values(people(relm)), undone.counts["updated"]) == (between, PEOPLE)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_pushes_are_taken_back_one_after_the_other(shop: Open, turns: int) -> None:
    # An undo of an undo brings the later push back, and with it what keeps the first one from being undone.
    relm = shop()
    before = values(people(relm))
    first, last = rename(relm), rename(relm)
    for _ in range(turns):
        last = take_back(relm, last)
        assert last.counts["updated"] == PEOPLE
    result = take_back(relm, first)
    if turns == 2:
        assert len(held(result, f"sent_again: {last.run_id}")) == PEOPLE
    else:
        assert values(people(relm)) == before


def test_a_value_that_a_later_push_sent_anew_is_not_taken_back_with_the_first_one(shop: Open) -> None:
    relm = shop(is_pulled=True)
    email = people(relm)[0]["email"]
    runs = []
    for name in ("One", "Two", "One"):
        relm.model([(email, name, None, None, None)], columns=COLUMNS)
        runs.append(relm.push())
    assert len(held(take_back(relm, runs[0]), f"sent_again: {runs[2].run_id}")) == 1


def test_a_record_that_is_gone_is_left(shop: Open) -> None:
    relm = shop()
    pushed = rename(relm)
    gone = people(relm)[0]
    relm.box.tenant("relm").delete("contacts", gone["id"])
    relm.pull(full=True, accept_deletes=True)
    result = take_back(relm, pushed)
    key = gone["email"].strip().lower()
    assert held(result, "gone") == [(key, ["first_name", "last_name", "metadata.lead_score"])]
    assert result.counts["updated"] == PEOPLE - 1


def test_the_next_push_sends_again_what_an_undo_took_back_and_the_undo_says_so(shop: Open) -> None:
    relm, progress = shop(), Said()
    take_back(relm, rename(relm), progress=progress)
    assert any("the next push sends what was taken back again" in line for line in progress.lines)
    assert relm.plan().counts["update"] == PEOPLE


# -- records that the run made -------------------------------------------------------------------


def test_created_records_stay_and_are_listed_unless_they_are_to_be_deleted(shop: Open) -> None:
    relm = shop()
    relm.leads(3)
    relm.write("alter table marts.leads add column notes varchar")
    pushed = relm.push()
    kept = take_back(relm, pushed)
    assert [key for key, _ in held(kept, "created")] == [f"lead{n}@new.example" for n in range(3)]
    relm.pull()
    relm.by_hand("lead1@new.example", phone="+49 30 1")
    relm.pull()
    relm.by_hand("lead2@new.example", first_name="Theirs")
    result = take_back(relm, pushed, delete_created=True)
    assert (result.counts["deleted"], result.counts["conflict"]) == (1, 2)
    assert [key for key, _ in held(result, "edited_since")] == ["lead1@new.example"]
    assert [len(relm.contacts(f"lead{n}@new.example")) for n in range(3)] == [0, 1, 1]
    assert relm.plan().counts["create"] == 1
    back = take_back(relm, result)
    assert (back.counts["created"], relm.contact("lead0@new.example")["first_name"]) == (1, "F0")


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_a_record_that_somebody_added_to_before_any_pull_is_not_deleted(shop: Open, crm: str) -> None:
    made = shop(crm)
    theirs, ours = f"{crm}1@added.example", f"{crm}2@added.example"
    made.model([(each, "Ann", "Lee", 5, None) for each in (theirs, ours)], columns=COLUMNS)
    pushed = made.push()
    made.by_hand(theirs, phone="+49 30 7")
    result = take_back(made, pushed, delete_created=True)
    assert held(result, "edited_since_plan: phone") == [(theirs, [])]
    assert [len(made.contacts(each)) for each in (theirs, ours)] == [1, 0]
    made.pull()
    seen = take_back(made, pushed, delete_created=True, dry_run=True)
    assert [key for key, _ in held(seen, "edited_since")] == [theirs]


def test_a_deletion_of_ours_is_no_change_by_others(shop: Open) -> None:
    relm = shop()
    relm.model([("gone@new.example", "Gone", "Soon", 1, None)], columns=COLUMNS)
    pushed = relm.push()
    relm.pull()
    (crm_id,) = [row["crm_id"] for row in take_back(relm, pushed, delete_created=True).rows]
    relm.pull()
    told = f"select kind, origin from roundtrip.changes where id = '{crm_id}' order by kind"
    assert relm.read(told) == [("created", "push"), ("deleted", "push")]


@pytest.mark.parametrize(
    ("name", "also", "table"),
    [
        ("relm", "", "deals"),
        ("rally", "", "contacts"),
        ("reevo", "", "accounts"),
        ("relm_modern", "relm_modern", "contacts"),
    ],
)
def test_a_record_is_deleted_once_and_one_that_is_gone_counts_as_deleted(
    tmp_path: Path, name: str, also: str, table: str
) -> None:
    with door(tmp_path, name, also=also) as crm:
        known = crm.box.tenant(name).records(table)[0]["id"]
        for _ in range(2):
            row = crm.row("k", "delete", "id", fields={}, crm_id=known)
            (outcome,) = crm.send(table, row)
            assert (outcome.verdict, outcome.crm_id or known) == ("deleted", known)
        assert [each.id for each in crm.written(table) if each.effect != "create"] == [known]


def test_a_deletion_whose_answer_was_lost_is_looked_up(tmp_path: Path) -> None:
    with door(tmp_path, "relm") as crm:
        known = crm.box.tenant("relm").records("deals")[0]["id"]
        crm.box.faults.add(ApplyThenDrop(), crm="relm", method="DELETE", path="/v1/", times=None)
        (outcome,) = crm.send("deals", crm.row("k", "delete", "id", fields={}, crm_id=known))
        assert outcome.verdict == "deleted"


# -- one record at a time ------------------------------------------------------------------------


def test_accounts_of_reevo_come_back_one_by_one(tmp_path: Path) -> None:
    sync = 'object = "accounts"\nmodel = "marts.leads"\nkey = "domain_name"\n[syncs.leads.fields]\n'
    fields = 'domain_name = "domain"\ndisplay_name = "name"\ndescription = "about"\n'
    with Sandbox(records=6) as box:
        desk = Desk(tmp_path, box, "reevo", sync + fields)
        desk.pull("reevo.accounts")
        known = box.tenant("reevo").records("accounts")[:2]
        domains = [each["domains"][0]["domain_name"] for each in known]
        desk.model(f"select unnest({domains}) as domain, 'Renamed' as name, 'ours' as about")
        pushed = desk.push()
        box.tenant("reevo").edit("accounts", known[1]["id"], description="theirs")
        desk.pull("reevo.accounts")
        result = take_back(desk, pushed)
        after = box.tenant("reevo").records("accounts")[:2]
        assert [each["display_name"] for each in after] == [each["display_name"] for each in known]
        assert [each["description"] for each in after] == [known[0]["description"] or None, "theirs"]
        assert held(result, "edited_since") == [(domains[1], ["description"])]


def test_deals_of_rally_are_met_again_by_name_and_pipeline(tmp_path: Path) -> None:
    sync = 'object = "deals"\nmodel = "marts.leads"\nkey = "name"\n[syncs.leads.fields]\n'
    fields = 'name = "name"\npipelineId = "pipeline"\nstageId = "stage"\nvalue = "value"\n'
    with Sandbox(records=6, rally=RallySwitches(rate_limit=None)) as box:
        desk = Desk(tmp_path, box, "rally", sync + fields)
        desk.pull("rally.deals")
        known = box.tenant("rally").records("deals")[0]
        place = f"'{known['pipelineId']}' as pipeline, '{known['stageId']}' as stage"
        desk.model(
            f"select $name${known['name']}$name$ as name, {place}, 99.5 as value"
            f" union all select 'Brand / new', {place}, 1"
        )
        pushed = desk.push()
        assert (pushed.counts["updated"], pushed.counts["created"]) == (1, 1), pushed.rows
        desk.pull("rally.deals")
        result = take_back(desk, pushed, delete_created=True)
        after = box.tenant("rally").records("deals")
        assert (result.counts["updated"], result.counts["deleted"]) == (1, 1)
        assert [each["value"] for each in after if each["id"] == known["id"]] == [known["value"]]
        assert [each for each in after if each["name"] == "Brand / new"] == []


def test_what_the_api_cannot_clear_is_left_and_listed(tmp_path: Path) -> None:
    sync = 'object = "accounts"\nmodel = "marts.leads"\nkey = "domain_name"\n[syncs.leads.fields]\n'
    fields = 'domain_name = "domain"\nname = "name"\nofficial_website = "site"\n'
    with Sandbox(records=3) as box:
        tenant = box.tenant("reevo")
        domains = [{"domain_name": "pier.example", "is_primary": True}]
        tenant.create("accounts", display_name="Pier", domains=domains)
        desk = Desk(tmp_path, box, "reevo", sync + fields, api_version="v1")
        desk.pull("reevo.accounts")
        desk.model("select 'pier.example' as domain, 'Quay' as name, 'https://pier.example' as site")
        result = take_back(desk, desk.push())
        assert held(result, "cannot_clear") == [("pier.example", ["official_website"])]
        assert tenant.find("accounts", official_website="https://pier.example")["display_name"] == "Pier"


def test_where_nothing_can_be_read_nothing_is_taken_back(tmp_path: Path) -> None:
    sync = 'object = "deals"\nmodel = "marts.leads"\nkey = "own"\n[syncs.leads.fields]\n'
    fields = 'contact_id = "contact"\ntitle = "title"\nstage = "stage"\n'
    with Sandbox(records=3) as box:
        desk = Desk(tmp_path, box, "vivre", sync + fields)
        desk.pull("vivre.deals", "vivre.contacts")
        contact = box.tenant("vivre").records("contacts")[0]["id"]
        desk.model(f"select 1 as own, '{contact}' as contact, 'Loom' as title, 'new' as stage")
        made = take_back(desk, desk.push())
        desk.model(f"select 1 as own, '{contact}' as contact, 'Loom' as title, 'won' as stage")
        changed = take_back(desk, desk.push())
        assert (held(made, "cannot_delete"), held(changed, "not_readable")) == (
            [("1", [])],
            [("1", ["stage"])],
        )
        assert box.tenant("vivre").records("deals", title="Loom")[0]["stage"] == "won"


# -- kills and refusals --------------------------------------------------------------------------


def test_a_push_that_was_killed_half_way_is_settled_and_taken_back(shop: Open, warm_runs: WarmRuns) -> None:
    rally = shop("rally")
    before = values(people(rally))
    rows = [(each["email"], f"Half{n}", "Way", n, None) for n, each in enumerate(people(rally))]
    rally.model(rows, columns=COLUMNS)
    tenant = rally.box.tenant("rally")
    first = len(tenant.ledger)
    rally.box.faults.add(Hang(10, "after"), crm="rally", method="PUT", path="/contacts", nth=3)
    run = warm_runs.start(rally.root, ["push", "leads", "--yes"], rally.environ)
    while len(tenant.ledger) < first + 3:
        time.sleep(0.01)
    run.kill()
    assert run.end() == -9
    rally.box.faults.clear()
    [journal] = (rally.warehouse.home / "journal").glob("*.jsonl")
    with pytest.raises(ConfigError, match="not settled yet"):
        undo(rally.project, journal.stem, dry_run=True, confirm=lambda made: True, progress=SilentProgress())
    result = undo(rally.project, journal.stem, confirm=lambda made: True, progress=SilentProgress())
    assert result.counts["updated"] >= 3
    assert values(people(rally)) == before


def test_a_dry_run_changes_nothing_anywhere(shop: Open) -> None:
    relm = shop()
    pushed = rename(relm)

    def state() -> tuple[Any, ...]:
        files = {path.name: path.read_bytes() for path in relm.warehouse.home.rglob("*") if path.is_file()}
        return relm.warehouse.path.read_bytes(), files, list(relm.box.tenant("relm").ledger)

    before = state()
    result = take_back(relm, pushed, dry_run=True, delete_created=True)
    assert (result.counts["update"], result.counts["updated"], result.run_id) == (PEOPLE, 0, None)
    assert state() == before


def test_an_undo_that_is_not_agreed_to_sends_nothing(shop: Open) -> None:
    relm = shop()
    pushed = rename(relm)
    with pytest.raises(ConfigError, match="not confirmed, nothing was sent"):
        take_back(relm, pushed, confirm=lambda made: False)
    assert {each["first_name"] for each in people(relm)} == {
        relm.read("select any_value(first) from marts.leads")[0][0]
    }


def test_a_run_that_wrote_nothing_is_refused_in_one_line(shop: Open) -> None:
    relm = shop()
    pull_id = relm.read("select min(run_id) from roundtrip.runs where command = 'pull'")[0][0]
    for run_id, reason in (
        (pull_id, r"\(`pull`\) wrote nothing to a CRM"),
        ("20260101T000000Z-0000", "there is no run"),
    ):
        with pytest.raises(ConfigError, match=reason):
            undo(relm.project, run_id, confirm=lambda made: True, progress=SilentProgress())


def test_a_run_into_a_connection_that_is_no_more_is_refused_by_its_name(tmp_path: Path) -> None:
    desk = ByHand(tmp_path)
    log(desk, connection="old_relm")
    with pytest.raises(ConfigError, match="old_relm"):
        undo(desk.project, "run-1", dry_run=True, confirm=lambda made: True, progress=SilentProgress())


def test_a_field_that_is_kept_out_of_sight_is_written_back_by_no_undo(tmp_path: Path) -> None:
    desk = ByHand(tmp_path)
    log(desk)
    config = tmp_path / ".dlt" / "config.toml"
    config.write_text('[sources.relm]\nexclude = ["contacts.first_name"]\n')
    project = load_project(tmp_path, environ=desk.environ)
    with pytest.raises(ConfigError, match=r"contacts\.first_name is kept out of sight"):
        undo(project, "run-1", dry_run=True, confirm=lambda made: True, progress=SilentProgress())


def test_what_nobody_knows_to_be_written_is_left(tmp_path: Path) -> None:
    desk = ByHand(tmp_path)
    desk.mirror({"id": "c1", "email": "ann@x.example", "first_name": "Ann"})
    log(desk, status="unknown")
    result = undo(desk.project, "run-1", dry_run=True, confirm=lambda made: True, progress=SilentProgress())
    assert held(result, "unknown_outcome") == [("ann@x.example", [])]


def test_a_value_that_model_and_crm_came_to_together_since_is_no_longer_ours(tmp_path: Path) -> None:
    desk = ByHand(tmp_path)
    desk.mirror({"id": "c1", "email": "ann@x.example", "first_name": "Anna"})
    desk.remember("ann@x.example", {"first_name": "Anna"}, {"first_name": "Anna"}, crm_id="c1")
    log(desk)
    result = undo(desk.project, "run-1", dry_run=True, confirm=lambda made: True, progress=SilentProgress())
    assert held(result, "edited_since") == [("ann@x.example", ["first_name"])]


def test_the_command_gives_one_object_and_asks_first(tmp_path: Path) -> None:
    done = run_roundtrip(tmp_path, "undo", "20260101T000000Z-0000", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["status"], told["command"]) == (2, "refused", "undo")
    assert "undo asks before it sends" in told["error"]
    assert {"sync", "connection", "object", "counts", "rows"} <= told.keys()
