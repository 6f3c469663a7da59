"""Contacts of each CRM as a dlt destination: real dlt pipelines, the sandbox, kills and bad rows."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from sources.core.incoming import key_of
from sources.rally.writes import UNREADABLE
from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop, Status
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.chaos_push import Strike
from tests.warm import WarmRuns

LEADS = [{"email": f"lead{n}@new.example", "first_name": f"F{n}", "last_name": "L"} for n in range(30)]
SAME = {  # one lead as each CRM's contacts take it
    "relm": {"email": "lee@pier.example", "first_name": "Lee"},
    "rally": {"email": "lee@pier.example", "first_name": "Lee", "lastName": "Ito"},
    "reevo": {"primary_email": "lee@pier.example", "first_name": "Lee"},
    "vivre": {"email": "lee@pier.example", "name": "Lee"},
}

Open = Callable[[str], "Dock"]


class Dock:
    """A folder with a pipeline into one CRM of a sandbox; dlt's settings name the key and the address."""

    def __init__(self, root: Path, box: Sandbox, crm: str) -> None:
        self.root, self.box, self.crm = root, box, crm

    def load(self, *rows: Mapping[str, Any], **wishes: Any) -> None:
        """Run a pipeline with these rows; what waits from an earlier run goes before, and alone."""
        run(self.crm, self.root, rows, **wishes)

    def contacts(self, key: str = "email") -> dict[str, dict[str, Any]]:
        return {each[key]: each for each in self.box.tenant(self.crm).records("contacts")}

    def writes(self) -> int:
        """Count what the CRM applied for us."""
        return sum(each.by == "roundtrip" for each in self.box.tenant(self.crm).ledger)

    def left(self) -> list[dict[str, Any]]:
        """Give the rows that did not land, as they are kept."""
        kept = sorted((self.root / "pipelines").rglob("*.left.ndjson"))
        return [json.loads(line) for path in kept for line in path.read_text().splitlines()]


def run(crm: str, folder: Path, rows: Sequence[Mapping[str, Any]], **wishes: Any) -> None:
    """Run a pipeline with a CRM's contacts as its destination."""
    made = getattr(import_module(f"sources.{crm}"), f"{crm}_contacts")
    work = str(folder / "pipelines")
    dlt.pipeline("dock", destination=made(**wishes), pipelines_dir=work).run(list(rows), table_name="leads")


def main(arguments: Sequence[str]) -> int:
    """Run a pipeline in a process of its own, whose rows stand in a file."""
    crm, file = arguments
    run(crm, Path.cwd(), json.loads(Path(file).read_text()))
    return 0


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    relm, rally = RelmSwitches(rate_limit=None), RallySwitches(rate_limit=None)
    with Sandbox(records=8, relm=relm, rally=rally) as made:
        yield made


@pytest.fixture
def dock(tmp_path: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    for name, value in box.settings().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "CRITICAL")
    box.requests.clear()
    yield lambda crm: Dock(tmp_path, box, crm)
    box.faults.clear()


@pytest.mark.parametrize("crm", SAME)
def test_a_new_contact_is_made_once_and_what_the_crm_holds_is_not_sent_again(dock: Open, crm: str) -> None:
    made = dock(crm)
    key = "primary_email" if crm == "reevo" else "email"
    made.load(SAME[crm])
    assert "lee@pier.example" in made.contacts(key)
    before = made.writes()
    made.load({**SAME[crm], key: " LEE@Pier.example "})
    assert made.writes() == before
    assert len(made.contacts(key)) == len(made.box.tenant(crm).records("contacts"))


@pytest.mark.parametrize("crm", ["relm", "rally", "reevo"])
def test_of_a_known_contact_only_what_differs_changes_though_the_api_replaces_records(
    dock: Open, crm: str
) -> None:
    """Of Rally's contacts, eight fields that nobody can read are out of sight, as the module says."""
    made = dock(crm)
    key = "primary_email" if crm == "reevo" else "email"
    name = "firstName" if crm == "rally" else "first_name"
    known = next(each for each in made.contacts(key).values() if each[key] and each[name])
    made.load({key: known[key], name: "Renamed"})
    after = made.contacts(key)[known[key]]
    changed = {field for field in after if after[field] != known[field]} - {"updated_at", *UNREADABLE}
    assert changed <= {name, "fullName"}
    assert after[name] == "Renamed"


def test_contacts_that_are_there_are_left_where_the_api_only_creates(dock: Open) -> None:
    vivre = dock("vivre")
    known = next(each for each in vivre.contacts().values() if each["email"])
    vivre.load({"email": known["email"], "name": "Other"})
    assert vivre.contacts()[known["email"]] == known
    assert [(row["key"], row["status"]) for row in vivre.left()] == [(known["email"].lower(), "skipped")]


def test_rows_go_in_batches_and_the_last_of_several_with_one_key_counts(dock: Open) -> None:
    relm = dock("relm")
    relm.load(*LEADS, {**LEADS[0], "first_name": "Last"})
    assert sum(each.path.endswith("/batch") for each in relm.box.requests) == 1
    assert relm.contacts()["lead0@new.example"]["first_name"] == "Last"


def test_custom_fields_may_come_as_an_object_or_by_name(dock: Open) -> None:
    relm = dock("relm")
    relm.load(
        {"email": "a@custom.example", "metadata": {"lead_score": 3}},
        {"email": "b@custom.example", "metadata.lead_score": 4},
    )
    scores = [relm.contacts()[f"{name}@custom.example"]["metadata"]["lead_score"] for name in "ab"]
    assert scores == [3, 4]


# -- rows that do not land -----------------------------------------------------------------------


def poison(relm: Dock) -> list[dict[str, Any]]:
    """Make rows of which the CRM refuses one and one cannot be sent at all."""
    bad = {"email": "bad@poison.example", "company_id": "cmp_none"}
    good = [{"email": f"{n}@poison.example", "company_id": None} for n in range(8)]
    return [*good, bad, {"email": "not an address"}]


def test_a_rejected_row_stops_the_load_after_all_others_landed(dock: Open) -> None:
    relm = dock("relm")
    rows = poison(relm)
    with pytest.raises(PipelineStepFailed, match=r"relm contacts: not every row landed \(2 rejected\)"):
        relm.load(*rows)
    assert {f"{n}@poison.example" for n in range(8)} <= relm.contacts().keys()
    assert [(row["key"], row["reason"].split(":")[0]) for row in relm.left()] == [
        ("not an address", "invalid_key"),
        ("bad@poison.example", "validation_failed"),
    ]


def test_rejected_rows_may_be_kept_in_a_file_and_the_load_goes_on(dock: Open) -> None:
    relm = dock("relm")
    relm.load({"email": "bad@kept.example", "company_id": "cmp_none"}, on_rejected="keep")
    (row,) = relm.left()
    assert (row["status"], row["fields"]["company_id"]) == ("rejected", "cmp_none")
    (kept,) = (relm.root / "pipelines").rglob("*.left.ndjson")
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # dlt's own
def test_a_rejected_row_lands_when_its_load_comes_again_and_nothing_else_is_sent(dock: Open) -> None:
    relm = dock("relm")
    relm.box.faults.add(Status(422), crm="relm", path="/batch", times=1)
    with pytest.raises(PipelineStepFailed):
        relm.load({"email": "again@poison.example"})
    relm.load()
    assert "again@poison.example" in relm.contacts()
    assert relm.left() == []


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"email": "a@b.example", "nickname": "X"}, "there is no field 'nickname'"),
        ({"first_name": "X"}, "no column gives email"),
    ],
)
def test_a_column_that_fits_nothing_stops_before_the_first_byte(
    dock: Open, row: dict[str, Any], line: str
) -> None:
    relm = dock("relm")
    with pytest.raises(PipelineStepFailed, match=line):
        relm.load(row)
    assert relm.box.requests == []


@pytest.mark.parametrize(
    ("address", "key"),
    [(" A@B.example ", "a@b.example"), ("a@b", None), ("a b@c.example", None), (None, None), ("@b.c", None)],
)
def test_a_key_is_the_address_trimmed_and_in_small_letters(address: str | None, key: str | None) -> None:
    assert key_of(address) == key


# -- loads that come again -----------------------------------------------------------------------


def test_an_answer_that_was_lost_doubles_nothing(dock: Open) -> None:
    rally = dock("rally")
    rally.box.faults.add(ApplyThenDrop(), crm="rally", method="POST", path="/bulk")
    before = rally.writes()
    rally.load(*({**each, "email": f"lost{each['email']}"} for each in LEADS))
    assert rally.writes() == before + len(LEADS)


@pytest.mark.parametrize(("crm", "when"), [("relm", "applied"), ("rally", "before")])
def test_a_load_that_was_killed_and_comes_again_doubles_nothing(
    dock: Open, warm_runs: WarmRuns, crm: str, when: str
) -> None:
    """The kill falls on the first batch: before it is applied, before its answer, before that is booked."""
    made = dock(crm)
    rows = [{**each, "email": f"{when}{each['email']}"} for each in LEADS]
    (made.root / "rows.json").write_text(json.dumps(rows))
    before, strike = made.writes(), Strike(when)
    made.box.faults.add(strike, crm=crm)
    environ = {**made.box.settings(), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    for code in (-9, 0):
        strike.run = warm_runs.start(made.root, [crm, "rows.json"], environ, main="tests.test_destination")
        assert strike.run.end() == code, strike.run.err
    assert made.writes() == before + len(LEADS)
    assert {each["email"] for each in rows} <= made.contacts().keys()
