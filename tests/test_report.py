"""What the page of `roundtrip report` says, and that nothing of what it quotes can do anything there."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.pulling.views import write_views
from pipelines.report import compose, report
from pipelines.reporting.sections import Section
from pipelines.settings import Project, load_project
from pipelines.warehouse import RunRecord, Warehouse, sql
from sources.core.errors import ConfigError
from tests.conftest import Roundtrip
from tests.pages import Parsed, readable

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
EVIL = "\u202e\x1b[31m\u2028</title></script><script>a('x')</script><img src=//e.x onerror=a()>"

DEALS = [  # connection, id, stage, status, amount, currency, probability, closed_at
    ("relm", "1", "lead", "open", 100, "EUR", 0.1, None),
    ("relm", "2", "lead", "open", 50, "USD", 0.1, None),
    ("rally", "3", "Lead", "open", 200, "EUR", 0.1, None),
    ("rally", "4", "Proposal", "open", None, None, 0.5, None),
    ("relm", "5", EVIL, "open", 7, EVIL, 0.9, None),
    ("relm", "6", "won", "won", 1000, "EUR", 1.0, NOW - timedelta(days=2)),
    ("relm", "7", "won", "won", 500, "USD", 1.0, NOW - timedelta(days=40)),
    ("rally", "8", "lost", "lost", 9, "EUR", 0.0, NOW - timedelta(days=41)),
    ("rally", "9", "lost", "lost", 9, "EUR", 0.0, NOW - timedelta(days=900)),
    ("rally", "10", "won", "won", 9, "EUR", 1.0, NOW + timedelta(days=9)),
]
STAYS = [  # connection, id, stage, days ago entered, days ago left
    ("relm", "1", "lead", 30, None),
    ("relm", "6", "lead", 20, 10),
    ("relm", "6", "proposal", 10, 2),
    ("relm", "6", "won", 2, None),
    ("rally", "8", "Lead", 49, 41),
    ("rally", "8", "lost", 41, None),
    ("rally", "4", "Lead", 16, 4),
    ("rally", "4", "Proposal", 4, None),
]
LOG = [  # run, key, status, error, hours ago
    ("p1", "anna.old@corp.example", "rejected", "email anna.old@corp.example is taken", 50),
    ("p1", "bert@corp.example", "rejected", "email bert@corp.example is taken", 50),
    ("p2", "bert@corp.example", "rejected", "email bert@corp.example is taken", 2),
    ("p2", "carl@corp.example", "updated", None, 2),
    ("p2", EVIL, "conflict", EVIL, 2),
]


def project_at(root: Path) -> Project:
    return load_project(root, environ={})


def fill(con: duckdb.DuckDBPyConnection) -> None:
    """Write a small warehouse by hand: what pulls, pushes and enrich would have left."""
    write_views(con)
    for crm in ("relm", "rally"):
        con.execute("insert into roundtrip.connections (connection, crm) values (?, ?)", [crm, crm])
    con.execute("create schema made")
    con.execute(
        "create table made.deals (connection varchar, id varchar, stage varchar, status varchar,"
        " amount decimal(18,2), currency varchar, probability double, closed_at timestamptz)"
    )
    con.executemany("insert into made.deals values (?, ?, ?, ?, ?, ?, ?, ?)", DEALS)
    con.execute("create or replace view crm.deals as from made.deals")
    con.execute("create table made.activities (connection varchar, type varchar, occurred_at timestamptz)")
    moments = [("call", 3), ("CALL", 3), (EVIL, 10), ("call", 800), ("call", -5)]
    for kind, days in moments:
        con.execute("insert into made.activities values ('relm', ?, ?)", [kind, NOW - timedelta(days=days)])
    con.execute("create or replace view crm.activities as from made.activities")
    for connection, id, stage, entered, left in STAYS:
        moments_of_stay = [None if days is None else NOW - timedelta(days=days) for days in (entered, left)]
        con.execute(
            "insert into roundtrip.deal_stays values (?, ?, ?, ?, ?)",
            [connection, id, stage, *moments_of_stay],
        )
    for run, key, status, error, hours in LOG:
        con.execute(
            "insert into roundtrip.push_log (run_id, sync, connection, object, key, status, error, pushed_at)"
            " values (?, 'leads', 'relm', 'contacts', ?, ?, ?, ?)",
            [run, key, status, error, NOW - timedelta(hours=hours)],
        )
    for resource, hours, error in (("contacts", 2, None), ("deals", 60, None), ("tasks", 2, "503 " + EVIL)):
        con.execute(
            "insert into roundtrip.resource_state"
            " (connection, resource, strategy, last_complete_at, last_error)"
            " values ('relm', ?, 'full', ?, ?)",
            [resource, NOW - timedelta(hours=hours), error],
        )
    con.execute(
        "insert into roundtrip.runs values ('r1', ?, ?, ?, 'failed', '{}', ?)",
        ["pull", NOW - timedelta(hours=60), NOW - timedelta(hours=59), f"dora@corp.example {EVIL}"],
    )
    con.execute(
        "create table marts.enriched_leads (email_key varchar, lead_score integer, lead_grade varchar)"
    )
    con.execute(
        "insert into marts.enriched_leads values ('a@b.example', 12, 'D'), ('c@d.example', 80, ?)", [EVIL]
    )


def filled(root: Path, more: str = "") -> Project:
    made = project_at(root)
    warehouse = Warehouse(made.warehouse)
    with warehouse.lock("test"), warehouse.generation() as con:
        fill(con)
        con.execute(more)
    return made


def sections(project: Project, **options: Any) -> dict[str, Section]:
    """Ask for the sections alone, undrawn."""
    return {each.anchor: each for each in compose(project, now=NOW, **options).sections}


def page_of(project: Project, **options: Any) -> Parsed:
    made = report(project, out=project.root / "page.html", now=NOW, **options)
    return Parsed(made.path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return filled(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(project: Project) -> Parsed:
    return page_of(project)


# -- a page that can be mailed -------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself_and_holds_no_script(page: Parsed) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")} | (
            attributes.keys() & {"src", "style"}
        )
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in page.style
    assert "url(" not in page.style


def test_the_policy_of_the_page_allows_its_own_style_alone(page: Parsed) -> None:
    [policy] = [each["content"] for _, each in page.tags if each.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_text_is_shown_as_text_wherever_it_stands(page: Parsed) -> None:
    shown = "\\u202e\\x1b[31m\\u2028</title></script><script>a('x')</script><img src=//e.x onerror=a()>"
    for part in ("pipeline", "activity", "scores", "rejections", "runs"):
        assert shown.lower() in page.parts[part].text.lower(), part
    assert not {"\u202e", "\x1b", "\u2028"} & set(page.source)


def test_the_warehouse_stays_as_it_was_and_is_not_waited_for(project: Project) -> None:
    warehouse = Warehouse(project.warehouse)
    before = project.warehouse.read_bytes()
    with warehouse.lock("pull"):
        warehouse.build.write_bytes(b"half of the next generation")
        assert sections(project)["pipeline"].title.startswith("5 open deals")
        warehouse.build.unlink()
    assert project.warehouse.read_bytes() == before


def test_every_drawing_is_named_and_has_its_numbers_in_a_table_beside_it(page: Parsed) -> None:
    drawn = {name: part for name, part in page.parts.items() if part.drawings}
    assert {"pipeline", "closings", "conversion", "days", "activity", "scores", "pushes"} == drawn.keys()
    assert all(all(part.drawings) and part.tables for part in drawn.values())


# -- deals ---------------------------------------------------------------------------------------


def test_money_is_added_within_a_currency_only(page: Parsed) -> None:
    [table] = page.parts["pipeline"].tables.values()
    assert table[0][:5] == ["Stage", "Deals", "Share", "EUR", "USD"]
    assert page.parts["pipeline"].row("Lead")[:4] == ["3", "60 %", "300", "50"]
    assert "350" not in page.text


def test_one_stage_spelt_in_two_ways_counts_as_one_and_stages_stand_in_their_order(page: Parsed) -> None:
    [table] = page.parts["pipeline"].tables.values()
    assert [row[0] for row in table[1:3]] == ["Lead", "Proposal"]


def test_conversion_tells_what_became_of_deals_that_left_a_stage(page: Parsed) -> None:
    # left, went on, won, lost, went back, deleted
    assert page.parts["conversion"].row("Lead") == ["3", "2", "0", "1", "0", "0", "67 %"]
    assert page.parts["conversion"].row("Proposal") == ["1", "0", "1", "0", "0", "0", "100 %"]


def test_days_in_stage_are_medians_of_ended_and_of_open_stays(page: Parsed) -> None:
    # left, median of 8, 10 and 12 days, nine of ten within, there now, days so far
    assert page.parts["days"].row("Lead") == ["3", "10", "12", "1", "30"]
    assert page.parts["days"].row("Proposal") == ["1", "8.0", "8.0", "1", "4.0"]


def test_won_and_lost_are_counted_by_month_within_the_period(page: Parsed) -> None:
    closings = page.parts["closings"]
    assert closings.title == "2 deals won and 1 lost since 20 Mar 2025: a win rate of 67 %"
    assert closings.tables["Deals won and lost per month"][1:] == [
        ["Mar 2026", "1", "0", "100 %"],
        ["Feb 2026", "1", "1", "50 %"],
    ]
    assert closings.tables["Amounts won per month"][1:] == [
        ["Mar 2026", "1,000", "–"],
        ["Feb 2026", "–", "500"],
    ]
    assert "Not in it: 1 closed deal without a known day" in closings.text


def test_a_long_tail_of_stages_counts_as_one(tmp_path: Path) -> None:
    made = filled(
        tmp_path,
        "insert into made.deals select 'relm', 't' || i, 'stage ' || i, 'open', 1, 'EUR', null, null"
        " from range(40) as numbers(i)",
    )
    [table] = sections(made)["pipeline"].tables
    assert table.rows[-1][:2] == ["Other stages", "31"]


def test_no_text_of_a_crm_makes_the_page_long(tmp_path: Path) -> None:
    made = filled(
        tmp_path,
        "update made.deals set stage = id || repeat('x', 100000) where status = 'open';"
        "update made.deals set currency = id || repeat('y', 100000);"
        "update made.activities set type = type || repeat('z', 100000);"
        "update roundtrip.push_log set error = key || repeat('<', 100000), key = key || repeat('k', 100000)",
    )
    assert page_of(made, show_keys=True).source.count("") < 400_000


# -- people --------------------------------------------------------------------------------------


def test_activities_are_counted_by_week_and_kind_within_the_period(page: Parsed) -> None:
    [table] = page.parts["activity"].tables.values()
    assert table[0][:2] == ["Week", "Call"]
    assert table[1] == ["Week of 16 Mar 2026", "2", "0", "2"]
    assert page.parts["activity"].title == "3 activities since 20 Mar 2025, 1 a week on average"


def test_scores_are_spread_and_graded(page: Parsed) -> None:
    assert page.parts["scores"].row("D") == ["12 to 12", "1", "50 %"]
    assert page.parts["scores"].title == "Half of 2 leads score 46 or more; the best scores 80"


# -- pushes --------------------------------------------------------------------------------------


def test_keys_of_refused_records_are_masked_also_in_the_reasons(page: Parsed) -> None:
    table = page.parts["rejections"].tables["Records that did not land, by reason"]
    keys = "b***@corp.example, a***@corp.example"
    assert ["leads", "rejected", "email *** is taken", keys, "20 Mar 2026", "1", "2"] in table
    for name in ("anna", "bert", "dora"):
        assert name not in page.source


def test_keys_are_shown_where_that_is_asked_for(project: Project) -> None:
    [table] = sections(project, show_keys=True)["rejections"].tables
    assert any("bert@corp.example, anna.old@corp.example" in row for row in table.rows)
    assert any("email anna.old@corp.example is taken" in row for row in table.rows)


def test_what_the_last_push_held_back_is_named_at_the_head_and_what_has_landed_since_is_not(
    page: Parsed,
) -> None:
    assert page.parts["rejections"].title == "2 records did not land in the last pushes"
    assert "2 records did not land in the last pushes. The reasons stand below." in page.text


def test_a_later_push_without_a_word_leaves_nothing_open(tmp_path: Path) -> None:
    made = filled(tmp_path)
    Warehouse(made.warehouse).note_run(RunRecord("p3", "push leads", NOW, NOW, "ok"))
    assert sections(made)["rejections"].title == "The last pushes held nothing back"


def test_a_push_that_a_guard_stopped_leaves_open_what_was(tmp_path: Path) -> None:
    made = filled(tmp_path)
    Warehouse(made.warehouse).note_run(RunRecord("p3", "push leads", NOW, NOW, "guarded"))
    assert sections(made)["rejections"].title.startswith("2 records")


def test_pushes_are_counted_by_outcome(page: Parsed) -> None:
    [table] = page.parts["pushes"].tables.values()
    assert table[0][3:] == ["Pushes", "Updated", "Conflict", "Rejected"]
    assert table[1][3:] == ["2", "1", "1", "3"]


@pytest.fixture(scope="module")
def masks() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        for statement in duckdb.extract_statements(sql("report.sql")):
            if "macro" in statement.query:
                con.execute(statement)
        yield con


@given(
    st.emails(),
    st.sampled_from(["", "email ", "<", "to='", "(", "a,"]),
    st.sampled_from(["", " x", ">", "'", ")"]),
)
@settings(max_examples=60, deadline=None)
def test_no_address_survives_masking(
    masks: duckdb.DuckDBPyConnection, address: str, before: str, after: str
) -> None:
    key, text = masks.execute(
        "select masked_key($1), masked_text($2 || $1 || $3)", [address, before, after]
    ).fetchall()[0]
    assert key == f"{address[0]}***@{address.partition('@')[2]}"
    assert "@" not in text


# -- upkeep --------------------------------------------------------------------------------------


def test_what_is_late_or_failing_is_named_at_the_head(page: Parsed) -> None:
    assert "2 of 3 resources are late or failing: relm.deals and relm.tasks" in page.text
    assert page.parts["freshness"].row("relm")[:3] == ["contacts", "fresh", "2 h"]


def test_runs_that_no_generation_holds_yet_count(tmp_path: Path) -> None:
    made = filled(tmp_path)
    later = NOW - timedelta(minutes=5)
    Warehouse(made.warehouse).note_run(
        RunRecord("r2", "pull", later, later, "ok", looked=[("relm", "deals")])
    )
    found = sections(made)
    assert readable(found["runs"].title) == "2 runs since 20 Mar 2025, 1 did not end well"
    assert found["freshness"].title == "1 of 3 resources is late or failing: relm.tasks"


def test_a_resource_that_failed_in_a_run_without_changes_is_named(tmp_path: Path) -> None:
    made = filled(tmp_path)
    failed = {"connection": "relm", "resource": "contacts", "status": "failed", "error": "503"}
    Warehouse(made.warehouse).note_run(RunRecord("r2", "pull", NOW, NOW, "failed", {"resources": [failed]}))
    assert sections(made)["freshness"].title.startswith("3 of 3 resources are late or failing")


# -- what is asked for ---------------------------------------------------------------------------


def test_one_connection_alone_and_a_shorter_period_narrow_everything(project: Project) -> None:
    found = sections(project, connections=["rally"], since=NOW - timedelta(days=30))
    assert found["pipeline"].title.startswith("2 open deals")
    assert readable(found["closings"].title) == "No deal has been won or lost since 18 Feb 2026."
    assert readable(found["pushes"].title) == "Nothing has been pushed since 18 Feb 2026."
    assert found["freshness"].tables == ()


def test_where_there_is_nothing_a_sentence_stands_and_no_empty_drawing(project: Project) -> None:
    found = sections(project, connections=["rally"], since=NOW - timedelta(days=1))
    for name in ("closings", "conversion", "activity", "pushes", "rejections"):
        assert (*found[name].charts, *found[name].tables, *found[name].folded) == ()
        assert found[name].title.startswith(("No ", "Nothing "))


def test_an_unknown_connection_and_a_day_to_come_are_refused_and_nothing_is_written(project: Project) -> None:
    out = project.root / "never.html"
    with pytest.raises(ConfigError, match=r"'vivre'.*There are: rally, relm"):
        report(project, connections=["vivre"], out=out)
    with pytest.raises(ConfigError, match="lies in the future"):
        report(project, since=NOW + timedelta(days=1), out=out, now=NOW)
    assert not out.exists()


def test_a_page_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot be written \(No such file or directory\)\. Name another file"
    ):
        report(project_at(tmp_path), out=tmp_path / "none" / "page.html")


@pytest.mark.parametrize("has_file", [False, True])
def test_an_empty_warehouse_gives_a_page_that_says_what_to_do(tmp_path: Path, has_file: bool) -> None:
    made = project_at(tmp_path)
    if has_file:
        duckdb.connect(made.warehouse).close()
    page = page_of(made)
    assert "roundtrip pull" in page.parts["empty"].text
    assert page.parts["empty"].drawings == []


def test_the_command_prints_where_the_page_lies(roundtrip: Roundtrip, project_dir: Path) -> None:
    done = roundtrip("report", "--out", "sub.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{project_dir / 'sub.html'}\n"
    assert (project_dir / "sub.html").exists()
