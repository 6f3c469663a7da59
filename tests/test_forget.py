"""`roundtrip forget`: afterwards no file of the project holds the person, and no pull brings them back."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cli import main
from pipelines.enrich import enrich
from pipelines.erasing import FORGOTTEN, Eraser
from pipelines.forget import ForgetResult, forget
from pipelines.plan import plan
from pipelines.progress import SilentProgress
from pipelines.pushing.forgotten import keyed_digest_sql
from pipelines.settings import Project, load_project
from pipelines.syncs import FieldRule, Sync
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError
from sources.core.privacy import keyed_digest
from sources.sandbox import Sandbox
from tests.pulling import environ_of, project_for, pulled, rows

EMAIL = "ada.quillfeather@forgetme.example"
NAME = "Ada Quillfeather"
PHONE = "+49 555 010 7788"
NAMES = ("relm", "rally")
ODD = "jürg.o'hara\"x@forgetme.example"
TEXTS = [f"{EMAIL},{EMAIL};<{EMAIL.upper()}>", f"Write to {EMAIL}.", f"n{EMAIL} x.{EMAIL} {EMAIL}.uk"]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Serve two CRMs that both know one person, with a deal and activities that speak of her."""
    with Sandbox(records=8) as made:
        for crm, names in (
            ("relm", {"first_name": "Ada", "last_name": "Quillfeather"}),
            ("rally", {"firstName": "Ada", "lastName": "Quillfeather", "fullName": NAME}),
        ):
            tenant = made.tenant(crm)
            person = tenant.create("contacts", email=f" {EMAIL.upper()} ", phone=PHONE, **names)
            pointer = "contactId" if crm == "rally" else "contact_id"
            tenant.create(
                "activities",
                **{pointer: person["id"]},
                **({"activityType": "note"} if crm == "rally" else {"type": "note"}),
                subject=f"Lunch with {NAME}",
                body=f"Her number is {PHONE}",
            )
        person = made.tenant("rally").find("contacts", phone=PHONE)
        deal = made.tenant("rally").records("deals")[0]
        made.tenant("rally").edit(
            "deals", deal["id"], contactId=person["id"], contactName=NAME, notes=f"Ask {NAME} at {EMAIL}."
        )
        yield made


@pytest.fixture(scope="module")
def forgotten(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, ForgetResult]:
    """Pull, enrich, let her record change, pull again, and forget her."""
    project = project_for(box, tmp_path_factory.mktemp("forgotten"), *NAMES)
    pulled(project, *(f"{name}.{each}" for name in NAMES for each in ("contacts", "deals", "activities")))
    enrich(project, progress=SilentProgress())
    person = box.tenant("rally").find("contacts", phone=PHONE)
    box.tenant("rally").edit("contacts", person["id"], department="Sales of Ada Quillfeather")
    pulled(project, "rally.contacts")
    assert rows(project, "select count(*) from crm.contacts where email_key = ?", EMAIL) == [(2,)]
    with Warehouse(project.warehouse).generation() as con:
        con.execute("create table marts.mails as select ? as email, ? as body", [EMAIL, f"Dear {EMAIL}"])
        con.execute(
            "create table main.texts as select unnest($1) as text, $1 as list, {'mail': $2} as object",
            [TEXTS, f"{EMAIL}"],
        )
        con.execute(
            "insert into roundtrip.push_log by name select 'r' as run_id, 'rally' as connection,"
            " 'contacts' as object, ? as key, 'updated' as status, ?::json as sent, ?::json as replaced",
            [EMAIL, json.dumps({"firstName": "Ada"}), json.dumps({"phone": PHONE})],
        )
        con.execute(
            "insert into roundtrip.ledger by name"
            " select 'rally' as connection, 'contacts' as object, ? as key",
            [EMAIL],
        )
    assert EMAIL.encode() in on_disk(project.warehouse.parent)
    return project, forget(project, EMAIL, confirm=lambda result: True, progress=SilentProgress())


@pytest.fixture(scope="module")
def pulled_once(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = project_for(box, tmp_path_factory.mktemp("pulled"), "relm")
    pulled(project, "relm.contacts")
    return project


@pytest.fixture
def small(pulled_once: Project, tmp_path: Path) -> Project:
    """Give a test a warehouse of its own with Relm's contacts."""
    shutil.copyfile(pulled_once.warehouse, tmp_path / "warehouse.duckdb")
    return replace(pulled_once, root=tmp_path, warehouse=tmp_path / "warehouse.duckdb")


def on_disk(folder: Path) -> bytes:
    """Give every byte that a project has on disk, without the longer addresses of others."""
    found = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).lower()
    for longer in TEXTS[2].split():
        found = found.replace(longer.lower().encode(), b"")
    return found


def test_no_file_of_the_project_holds_address_name_or_telephone(
    forgotten: tuple[Project, ForgetResult],
) -> None:
    project, result = forgotten
    assert result.is_done
    found = on_disk(project.warehouse.parent)
    assert [text for text in (EMAIL, NAME, PHONE) if text.lower().encode() in found] == []


def test_contacts_and_activities_go_and_deals_lose_their_pointer(
    forgotten: tuple[Project, ForgetResult],
) -> None:
    project, result = forgotten
    told = {(row["table"], row["action"]): row["rows"] for row in result.tables}
    assert told["rally.contacts", "deleted"] == told["relm.contacts", "deleted"] == 1
    assert told["rally.activities", "deleted"] >= 1
    assert told["rally.deals", "unlinked"] == 1
    assert rows(project, "select notes, contact_id from rally.deals where notes like '%forgotten%'") == [
        ("Ask [forgotten] at [forgotten].", None)
    ]


def test_texts_of_any_table_lose_the_address_and_longer_ones_stay(
    forgotten: tuple[Project, ForgetResult],
) -> None:
    project, _ = forgotten
    assert rows(project, "select text from main.texts") == [
        ("[forgotten],[forgotten];<[forgotten]>",),
        ("Write to [forgotten].",),
        (TEXTS[2],),
    ]
    assert rows(project, "select distinct list[2], object.mail from main.texts") == [
        ("Write to [forgotten].", "[forgotten]")
    ]
    assert rows(project, "select count(*) from marts.mails") == [(0,)]


@pytest.fixture(scope="module")
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("create schema roundtrip; create table roundtrip.connections (connection varchar)")
        yield con


_OTHERS = [f"n{EMAIL}", f"x.{EMAIL}", f"{EMAIL}.uk", f"{EMAIL}er", "nobody"]


@given(
    words=st.lists(st.sampled_from([EMAIL, EMAIL.title(), *_OTHERS]), min_size=1, max_size=6),
    between=st.sampled_from([" ", ",", "; ", ">,<", '"', "\n", ". "]),
)
@settings(max_examples=50, deadline=None)
def test_of_any_text_the_address_goes_and_the_addresses_of_others_stay(
    scratch: duckdb.DuckDBPyConnection, words: list[str], between: str
) -> None:
    left = [word if word in _OTHERS else FORGOTTEN for word in words]
    scratch.execute("create or replace table texts as select ? as text", [between.join(words)])
    Eraser(scratch, [], {EMAIL}).scrub("main", "texts", [EMAIL])
    assert scratch.execute("select text from texts").fetchall() == [(between.join(left),)]


def test_that_a_push_happened_stays_without_what_it_sent(forgotten: tuple[Project, ForgetResult]) -> None:
    project, _ = forgotten
    assert rows(project, "select status, key, sent, replaced from roundtrip.push_log") == [
        ("updated", None, None, None)
    ]
    assert rows(project, "select count(*) from roundtrip.ledger") == [(0,)]


def test_views_keys_and_other_people_are_as_they_were(forgotten: tuple[Project, ForgetResult]) -> None:
    project, _ = forgotten
    assert rows(project, "select count(*) from crm.contacts where email_key = ?", EMAIL) == [(0,)]
    assert rows(project, "select count(*) > 8 from crm.contacts") == [(True,)]
    assert (
        rows(project, "select count(*) from duckdb_constraints() where constraint_type = 'PRIMARY KEY'")[0][0]
        >= 3
    )


def test_no_pull_brings_the_person_back(forgotten: tuple[Project, ForgetResult]) -> None:
    project, _ = forgotten
    assert pulled(project, "rally.contacts", "rally.activities", full=True).exit_code == 0
    assert EMAIL.encode() not in on_disk(project.warehouse.parent)
    assert rows(project, "select count(*) from rally.contacts where _deleted_at is not null") == [(0,)]


def test_no_push_makes_the_person_anew(forgotten: tuple[Project, ForgetResult]) -> None:
    project, _ = forgotten
    declared = replace(
        project,
        syncs={
            "leads": Sync("leads", "relm", "contacts", "email", (FieldRule("phone", "phone"),), "main.leads")
        },
    )
    with Warehouse(project.warehouse).generation() as con:
        con.execute("create table main.leads as select ? as email, '1' as phone", [f" {EMAIL.title()}"])
    held = plan(declared, "leads", progress=SilentProgress())
    with Warehouse(project.warehouse).generation() as con:
        con.execute("drop table main.leads")
    assert [(row["action"], row["reason"]) for row in held.rows] == [("skipped", "forgotten")]
    assert held.counts["create"] == 0


@pytest.mark.parametrize("secret", ["", "a key", "k" * 100])
def test_the_digest_in_sql_is_the_one_of_the_settings(secret: str) -> None:
    with duckdb.connect() as con:
        digests = con.execute(f"select {keyed_digest_sql('$1', secret)}", ["jürg@x.example"]).fetchall()
    assert digests == [(keyed_digest(secret)("jürg@x.example"),)]


def test_what_lies_beyond_reach_is_told_and_no_address_is(forgotten: tuple[Project, ForgetResult]) -> None:
    project, result = forgotten
    assert "delete them there" in result.text
    assert "backups" in result.text
    assert EMAIL not in json.dumps(result.payload()) + result.text
    assert rows(
        project, "select count(*) from roundtrip.runs where command = 'forget' and status = 'ok'"
    ) == [(1,)]


def test_a_dry_run_tells_the_same_and_changes_nothing(small: Project) -> None:
    before = small.warehouse.read_bytes()
    result = forget(small, EMAIL, dry_run=True, confirm=lambda _: False, progress=SilentProgress())
    assert [row for row in result.tables if row["table"] == "relm.contacts"] != []
    assert not result.is_done
    assert small.warehouse.read_bytes() == before
    with pytest.raises(ConfigError, match="not confirmed"):
        forget(small, EMAIL, confirm=lambda _: False, progress=SilentProgress())
    assert small.warehouse.read_bytes() == before
    nobody = forget(small, "nobody@nowhere.example", confirm=lambda _: True, progress=SilentProgress())
    assert (nobody.tables, nobody.is_done) == ([], False)


def test_an_address_with_letters_and_quotes_of_every_kind_is_found_in_json_too(small: Project) -> None:
    with Warehouse(small.warehouse).generation() as con:
        con.execute(
            "create table marts.odd as select unnest([?, ?])::json as said",
            [json.dumps({"mail": ODD}), json.dumps({"mail": ODD.upper()}, ensure_ascii=False)],
        )
    forget(small, ODD, confirm=lambda _: True, progress=SilentProgress())
    assert rows(small, "select distinct said->>'mail' from marts.odd") == [("[forgotten]",)]


def test_an_address_kept_as_a_digest_is_found(box: Sandbox, tmp_path: Path) -> None:
    environ = environ_of(box) | {"ROUNDTRIP__HASH_KEY": "k" * 32, "SOURCES__RELM__HASH": '["contacts.email"]'}
    project = replace(load_project(tmp_path, environ=environ), default_connections=("relm",))
    pulled(project, "relm.contacts")
    result = forget(project, EMAIL, confirm=lambda _: True, progress=SilentProgress())
    assert {"table": "relm.contacts", "action": "deleted", "rows": 1} in result.tables


def test_a_journal_that_waits_is_settled_first(small: Project) -> None:
    journal = small.warehouse.parent / ".roundtrip" / "journal"
    journal.mkdir(parents=True)
    (journal / "20260101T000000Z-0000.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="stopped half way"):
        forget(small, EMAIL, confirm=lambda _: True, progress=SilentProgress())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ada@acme.example",), "there is no terminal"),
        (("ada", "--yes"), "not an e-mail address"),
        (("ada@acme.example", "--yes"), "no warehouse yet"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["forget", *words, "--json"]) == 2
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told in shown["error"]
    assert shown["tables"] == []
