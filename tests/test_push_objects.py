"""Pushing what is no contact: by domain, by name, by the model's own key, by the CRM's ids."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.plan import PlanResult, plan
from pipelines.progress import SilentProgress
from pipelines.pull import pull
from pipelines.push import PushResult, push
from pipelines.pushing.compare import domain_key, is_host
from pipelines.render import exit_code_of
from pipelines.settings import load_project
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError, GuardError
from sources.sandbox import Sandbox
from sources.sandbox.faults import ApplyThenDrop, Status
from sources.sandbox.rally_rules import RallySwitches
from tests.conftest import run_roundtrip
from tests.pulling import environ_of


class Bench:
    """One CRM of the sandbox with the sync `rows` from `marts.rows` into some object of it."""

    def __init__(self, root: Path, box: Sandbox, crm: str) -> None:
        self.root, self.box, self.crm = root, box, crm
        self.environ = {key: value for key, value in environ_of(box).items() if f"__{crm.upper()}__" in key}
        (root / ".dlt").mkdir(exist_ok=True)

    def declare(self, name: str, fields: str, *, key: str, sync: str = "", options: str = "") -> None:
        """Declare the sync; `fields` names the fields whose columns bear their names."""
        mapped = "".join(f'"{field}" = "{field.rpartition(".")[2].lower()}"\n' for field in fields.split())
        (self.root / ".dlt" / "config.toml").write_text(
            f'[sources.{self.crm}]\n{options}\n[syncs.rows]\nconnection = "{self.crm}"\nobject = "{name}"\n'
            f'model = "marts.rows"\nkey = "{key}"\n{sync}\n[syncs.rows.fields]\n{mapped}',
            encoding="utf-8",
        )
        self.object = name
        self.project = load_project(self.root, environ=self.environ)
        self.warehouse = Warehouse(self.project.warehouse)

    def pull(self, **options: Any) -> None:
        result = pull(self.project, [f"{self.crm}.{self.object}"], progress=SilentProgress(), **options)
        assert result.exit_code == 0, result.error

    def model(self, columns: str, *rows: Sequence[Any]) -> None:
        """Make the model of these rows."""
        marks = ", ".join("(" + ", ".join("?" * len(row)) + ")" for row in rows)
        self.write(
            f"create or replace table marts.rows as select * from (values {marks}) as model({columns})",
            [value for row in rows for value in row],
        )

    def write(self, query: str, values: Sequence[Any] = ()) -> None:
        with self.warehouse.lock("test"), self.warehouse.generation() as con:
            con.execute(query, list(values))

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with self.warehouse.reading() as con:
            return con.execute(query).fetchall()

    def plan(self) -> PlanResult:
        return plan(self.project, "rows", progress=SilentProgress())

    def push(self, **options: Any) -> PushResult:
        agreed = {"confirm": lambda made: True, "progress": SilentProgress(), **options}
        return push(self.project, "rows", **agreed)

    def sent(self) -> tuple[int, int]:
        """Push and give what was created and updated, all else having gone well."""
        result = self.push()
        assert result.exit_code == 0, (result.error, result.rows)
        return result.counts["created"], result.counts["updated"]

    def held(self) -> list[tuple[str | None, str, str | None]]:
        """Give the rows that the plan holds back."""
        return [(row["key"], row["action"], row["reason"]) for row in self.plan().rows if row["reason"]]

    def records(self, table: str = "", **having: Any) -> list[dict[str, Any]]:
        """Give the CRM's records of the object that have these values."""
        held = self.box.tenant(self.crm).records(table or self.object)
        return [each for each in held if all(each[name] == value for name, value in having.items())]

    def writes(self) -> list[str]:
        """List the requests that were no reading."""
        return [f"{each.method} {each.path}" for each in self.box.requests if each.method != "GET"]


Open = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Open]:
    """Open a bench on one CRM under switches."""
    with ExitStack() as stack:

        def make(crm: str, *, switches: Any = None) -> Bench:
            free = RallySwitches(rate_limit=None) if crm == "rally" else None
            given: dict[str, Any] = {crm: switches or free} if switches or free else {}
            box = stack.enter_context(Sandbox(records=20, **given))
            return Bench(tmp_path, box, crm)

        yield make


# -- by domain -----------------------------------------------------------------------------------


def test_companies_of_relm_are_met_by_domain_whatever_its_spelling(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("companies", "domain name", key="domain")
    relm.pull()
    known = relm.records()[0]
    spelling = f" https://WWW.{known['domain'].strip().upper()}/about?x=1"
    relm.model("domain, name", (spelling, "Renamed"), ("new.example", "New"), ("nonsense", "None"))
    assert relm.held() == [("nonsense", "rejected", "invalid_key")]
    result = relm.push()
    assert (result.counts["created"], result.counts["updated"]) == (1, 1)
    (after,) = relm.records(id=known["id"])
    assert (after["name"], after["domain"]) == ("Renamed", known["domain"])
    assert [each["name"] for each in relm.records(domain="new.example")] == ["New"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        *(
            (text, "acme.co.uk")
            for text in ("acme.co.uk", " ACME.co.uk\n", "https://www.acme.co.uk:80/a?b#c")
        ),
        *((text, "acme.co.uk") for text in ("//acme.co.uk.", "www.acme.co.uk/", "ftp://Acme.Co.Uk")),
        ("bücher.example", "bücher.example"),
        *((text, None) for text in ("", "acme", "a@acme.com", "acme.com x", "a..b", ".com", "http://", None)),
    ],
)
def test_a_domain_is_told_from_any_spelling_of_it(text: str | None, key: str | None) -> None:
    query = f"select k, {is_host('k')} from (select {domain_key('$1::varchar')} as k)"
    ((found, is_valid),) = duckdb.execute(query, [text]).fetchall()
    assert (found if is_valid else None) == key


@pytest.mark.parametrize("crm", ["relm", "rally"])
def test_after_push_and_pull_the_plan_for_companies_is_empty(bench: Open, crm: str) -> None:
    shop = bench(crm)
    shop.declare("companies", "domain name", key="domain")
    shop.pull()
    domains = [each["domain"].upper() for each in shop.records() if each["domain"]]
    shop.model(
        "domain, name", ("HTTPS://www.fresh.example/", "Fresh"), *((each, "Other") for each in domains)
    )
    assert shop.sent() == (1, len(domains))
    shop.pull()
    assert shop.plan().rows == []
    assert shop.read("select count(*) from roundtrip.ledger where crm_id is null") == [(0,)]


def test_an_id_that_no_answer_told_is_filled_in_by_domain(bench: Open) -> None:
    rally = bench("rally")
    rally.declare("companies", "domain name", key="domain")
    rally.pull()
    rally.model("domain, name", ("www.fresh.example", "Fresh"))
    rally.sent()
    rally.write("update roundtrip.ledger set crm_id = null")
    rally.pull()
    (made,) = rally.records(name="Fresh")
    assert rally.read("select key, crm_id from roundtrip.ledger") == [("fresh.example", made["id"])]


# -- by name and pipeline ------------------------------------------------------------------------


def deals(bench: Open) -> tuple[Bench, str, list[str]]:
    """Give Rally with a sync of deals, its pipeline, and the stages in order."""
    rally = bench("rally")
    rally.declare("deals", "name pipelineId stageId value", key="name")
    rally.pull()
    stages = sorted(rally.records("stages"), key=lambda each: each["position"])
    return rally, stages[0]["pipelineId"], [each["id"] for each in stages]


COLUMNS = "name, pipelineid, stageid, value"


def test_deals_of_rally_are_created_once_and_then_updated(bench: Open) -> None:
    rally, pipeline, stages = deals(bench)
    rally.model(COLUMNS, ("Pier", pipeline, stages[0], 100), ("Quay", pipeline, stages[0], 200))
    assert rally.sent() == (2, 0)
    rally.pull()
    assert rally.plan().rows == []
    rally.model(COLUMNS, ("Pier", pipeline, stages[1], 100), ("Quay", pipeline, stages[0], 250))
    assert rally.sent() == (0, 2)
    assert [each["stageId"] for each in rally.records(name="Pier")] == [stages[1]]
    assert [each["value"] for each in rally.records(name="Quay")] == [250]


def test_a_key_of_two_parts_is_shown_to_people_as_such(bench: Open) -> None:
    rally, pipeline, stages = deals(bench)
    rally.model(COLUMNS, ("Pier", pipeline, stages[0], 100))
    assert [row["key"] for row in rally.plan().rows] == [f"Pier / {pipeline}"]
    rally.sent()
    assert rally.read("select key from roundtrip.push_log") == [(f"Pier / {pipeline}",)]


def test_a_lost_deal_whose_name_looks_like_a_key_of_two_parts_is_found_again(bench: Open) -> None:
    rally, pipeline, stages = deals(bench)
    rally.model(COLUMNS, ("Pier / Renewal", pipeline, stages[0], 100))
    rally.box.faults.add(ApplyThenDrop(), crm="rally", method="POST", path="/deals/bulk", times=1)
    rally.box.faults.add(Status(400), crm="rally", method="GET", path="/deals", times=None)
    assert rally.push().counts["unknown"] == 1
    rally.box.faults.clear()
    assert rally.sent() == (0, 0)
    assert len(rally.records(name="Pier / Renewal")) == 1


def test_two_deals_of_one_name_in_a_pipeline_are_ambiguous_and_rows_without_a_part_invalid(
    bench: Open,
) -> None:
    rally, _, stages = deals(bench)
    one, two = rally.records()[:2]
    rally.box.tenant("rally").edit("deals", two["id"], name=one["name"], pipelineId=one["pipelineId"])
    rally.pull()
    rally.model(COLUMNS, (one["name"], one["pipelineId"], stages[1], 1), ("Pier", None, stages[0], 1))
    assert [row[1:] for row in rally.held()] == [("rejected", "ambiguous"), ("rejected", "invalid_key")]
    assert rally.plan().counts["update"] == 0


# -- by the model's own key ----------------------------------------------------------------------


def test_deals_of_relm_are_created_once_and_then_updated_by_the_id_given(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("deals", "title stage value_cents", key="number")
    relm.pull()
    relm.model("number, title, stage, value_cents", (7, "Pier", "open", 100), (8, "Pier", "open", 100))
    assert relm.sent() == (2, 0)
    assert relm.plan().rows == []
    relm.pull()
    assert relm.plan().rows == []
    relm.model("number, title, stage, value_cents", (7, "Pier", "won", 100), (8, "Pier", "open", 100))
    assert relm.sent() == (0, 1)
    assert sorted(each["stage"] for each in relm.records(title="Pier")) == ["open", "won"]
    assert relm.read("select key from roundtrip.push_log where status = 'updated'") == [("7",)]


def test_a_row_without_its_own_key_is_held_back(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("deals", "title", key="number")
    relm.pull()
    relm.model("number, title", (None, "Pier"), ("", "Quay"))
    assert [row[1:] for row in relm.held()] == [("rejected", "invalid_key")] * 2


def test_a_deal_that_was_deleted_in_the_crm_is_not_made_again(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("deals", "title", key="number")
    relm.pull()
    relm.model("number, title", (7, "Pier"))
    relm.sent()
    relm.pull()
    (made,) = relm.records(title="Pier")
    relm.box.tenant("relm").delete("deals", made["id"])
    relm.pull(full=True, accept_deletes=True)
    assert relm.held() == [("7", "skipped", "not_there")]
    assert relm.sent() == (0, 0)


def test_a_creation_with_an_unknown_outcome_is_not_repeated_after_a_look(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("deals", "title", key="number")
    relm.pull()
    relm.model("number, title", (7, "Pier"))
    relm.write(
        "insert into roundtrip.push_log (run_id, sync, connection, object, key, status, pushed_at)"
        " values ('r', 'rows', 'relm', 'deals', '7', 'unknown', '2026-01-01')"
    )
    relm.pull()
    assert relm.held() == [("7", "skipped", "unknown_outcome")]


def test_activities_of_rally_are_created_once(bench: Open) -> None:
    rally = bench("rally")
    rally.declare("activities", "activityType subject", key="number", sync='mode = "create"')
    rally.pull()
    rows = [(number, "call", f"Call {number}") for number in range(30)]
    rally.model("number, activitytype, subject", *rows)
    assert rally.sent() == (30, 0)
    for _ in range(2):
        assert rally.sent() == (0, 0)
        rally.pull()
    assert len({each["subject"] for each in rally.records()} & {row[2] for row in rows}) == 30


# -- by the CRM's ids ----------------------------------------------------------------------------


def test_deals_are_updated_by_the_ids_that_the_crm_gave(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("deals", "stage", key="id", sync='mode = "update"')
    relm.pull()
    known = relm.records()[0]
    relm.model("id, stage", (known["id"], "negotiation"), ("deal_none", "won"))
    assert relm.held() == [("deal_none", "skipped", "not_there")]
    assert relm.sent() == (0, 1)
    assert [each["stage"] for each in relm.records(id=known["id"])] == ["negotiation"]
    relm.pull()
    assert relm.plan().counts["update"] == 0


def test_a_contact_without_an_address_keeps_none_when_it_is_updated_by_id(bench: Open) -> None:
    rally = bench("rally", switches=RallySwitches(rate_limit=None, put="merges", required_contact=()))
    rally.declare("contacts", "title", key="id", sync='mode = "update"')
    someone = rally.records("contacts")[0]
    rally.box.tenant("rally").edit("contacts", someone["id"], email=None)
    rally.pull()
    rally.model("id, title", (someone["id"], "Captain"))
    assert rally.sent() == (0, 1)
    assert [(each["title"], each["email"]) for each in rally.records(id=someone["id"])] == [("Captain", None)]


def test_a_change_is_noted_once_though_two_syncs_have_written_the_record(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("companies", "domain name", key="domain")
    relm.pull()
    known = next(each for each in relm.records() if each["domain"])
    relm.model("domain, name", (known["domain"], "By domain"))
    relm.sent()
    relm.declare("companies", "name", key="id", sync='mode = "update"\nconflicts = "model_wins"')
    relm.model("id, name", (known["id"], "By id"))
    relm.pull()
    relm.sent()
    relm.pull()
    assert relm.read(
        "select new_value, origin from roundtrip.changes where field = 'name' order by changed_at"
    ) == [
        ("By domain", "push"),
        ("By id", "push"),
    ]


# -- what an API cannot do -----------------------------------------------------------------------


def test_contacts_of_vivre_are_created_and_never_again(bench: Open) -> None:
    vivre = bench("vivre")
    vivre.declare("contacts", "name email", key="email", sync='mode = "create"')
    vivre.pull()
    known = vivre.records()[0]["email"]
    vivre.model("name, email", ("Lee", "lee@pier.example"), ("Other", known))
    assert vivre.sent() == (1, 0)
    vivre.pull()
    vivre.box.requests.clear()
    assert vivre.sent() == (0, 0)
    assert vivre.writes() == []
    vivre.declare("contacts", "name email", key="email")
    with pytest.raises(
        ConfigError, match=r"syncs\.rows\.mode is 'upsert', but vivre contacts .*'create'"
    ) as refused:
        vivre.push()
    assert exit_code_of(refused.value) == 2


def test_deals_of_vivre_go_by_the_ledger_where_no_list_shows_them(bench: Open) -> None:
    vivre = bench("vivre")
    vivre.declare("deals", "contact_id title value stage", key="number")
    vivre.pull()
    contact, columns = vivre.records("contacts")[0]["id"], "number, contact_id, title, value, stage"
    vivre.model(columns, (1, contact, "Loom", 1_250_000, "new"), (2, contact, "Kiln", 99, "new"))
    before = len(vivre.records())
    assert vivre.sent() == (2, 0)
    vivre.pull()
    assert vivre.sent() == (0, 0)
    vivre.model(columns, (1, contact, "Loom", 1_250_000, "won"), (2, contact, "Kiln", 99, "new"))
    assert vivre.sent() == (0, 1)
    assert len(vivre.records()) == before + 2
    assert [each["stage"] for each in vivre.records(title="Loom")] == ["won"]


def test_a_share_of_what_cannot_be_shown_trips_the_guard_and_a_number_does_not(bench: Open) -> None:
    vivre = bench("vivre")
    vivre.declare("deals", "contact_id title", key="number", sync="max_changes = 0.5")
    vivre.pull()
    vivre.model("number, contact_id, title", (1, vivre.records("contacts")[0]["id"], "Loom"))
    with pytest.raises(GuardError, match="give a number"):
        vivre.push()
    vivre.declare("deals", "contact_id title", key="number", sync="max_changes = 5")
    assert vivre.sent() == (1, 0)


# -- fields that cannot always be written ----------------------------------------------------------


def test_undefined_custom_fields_stop_the_push_until_they_are_to_be_created(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("companies", "domain metadata.tier metadata.spend", key="domain")
    relm.pull()
    relm.model("domain, tier, spend", ("fresh.example", "gold", 12.5))
    for attempt in (relm.plan, relm.push):
        relm.box.requests.clear()
        with pytest.raises(ConfigError, match=r"metadata\.tier, metadata\.spend.*--create-fields"):
            attempt()
        assert relm.writes() == []
    assert relm.push(create_fields=True).counts["created"] == 1
    made = {each["key"]: each["type"] for each in relm.records("fields")}
    assert (made["tier"], made["spend"]) == ("text", "number")
    assert relm.records(domain="fresh.example")[0]["metadata"] == {"tier": "gold", "spend": 12.5}
    relm.pull()
    assert relm.plan().rows == []


def test_the_command_line_defines_fields_only_where_it_is_told_to(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("companies", "domain metadata.tier", key="domain")
    relm.pull()
    relm.model("domain, tier", ("fresh.example", "gold"))
    refused = run_roundtrip(relm.root, "push", "rows", "--yes", **relm.environ)
    assert (refused.returncode, "--create-fields" in refused.stderr) == (2, True)
    done = run_roundtrip(relm.root, "push", "rows", "--yes", "--create-fields", **relm.environ)
    assert done.returncode == 0, done.stderr
    assert len(relm.records(domain="fresh.example")) == 1


def test_a_push_that_is_not_confirmed_defines_no_fields(bench: Open) -> None:
    relm = bench("relm")
    relm.declare("companies", "domain metadata.tier", key="domain")
    relm.pull()
    relm.model("domain, tier", ("fresh.example", "gold"))
    relm.box.requests.clear()
    with pytest.raises(ConfigError, match="not confirmed"):
        relm.push(create_fields=True, confirm=lambda made: False)
    assert relm.writes() == []


def test_a_field_that_only_records_that_are_there_take_follows_by_itself(bench: Open) -> None:
    vivre = bench("vivre")
    vivre.declare("deals", "contact_id title closed_at", key="number")
    vivre.pull()
    contact = vivre.records("contacts")[0]["id"]
    vivre.model("number, contact_id, title, closed_at", (1, contact, "Loom", "2026-03-01T00:00:00Z"))
    assert vivre.sent() == (1, 0)
    assert vivre.sent() == (0, 1)
    assert vivre.sent() == (0, 0)
    assert [str(each["closed_at"])[:10] for each in vivre.records(title="Loom")] == ["2026-03-01"]


def test_tasks_that_no_answer_shows_are_made_once_and_their_changes_held_back(bench: Open) -> None:
    reevo = bench("reevo")
    once, older = 'mode = "create"', 'api_version = "v1"'
    reevo.declare("tasks", "title owner_email", key="number", sync=once, options=older)
    owner = reevo.records("users")[0]["email"]
    reevo.model("number, title, owner_email", (1, "Call", owner))
    assert reevo.sent() == (1, 0)
    assert reevo.sent() == (0, 0)
    reevo.model("number, title, owner_email", (1, "Call back", owner))
    assert reevo.held() == [("1", "skipped", "cannot_update")]


def test_contacts_of_reevo_are_asserted_and_then_at_rest(bench: Open) -> None:
    reevo = bench("reevo")
    fields = "primary_email first_name attributes.title attributes.cus_field__Region"
    reevo.declare("contacts", fields, key="primary_email")
    reevo.pull()
    known = next(each for each in reevo.records() if each["primary_email"])
    columns = "primary_email, first_name, title, cus_field__region"
    reevo.model(
        columns,
        (known["primary_email"].upper(), "Renamed", "Captain", "US"),
        ("lee@pier.example", "Lee", "Cook", "US"),
    )
    assert reevo.sent() == (1, 1)
    (after,) = reevo.records(id=known["id"])
    assert (after["first_name"], after["title"], after["cus_field__Region"]) == ("Renamed", "Captain", "US")
    reevo.pull()
    assert reevo.plan().rows == []
