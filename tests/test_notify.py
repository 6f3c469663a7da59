"""`[roundtrip.notify]`: who is told what, when, and that telling never changes how a run ends."""

import json
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.alarms import EVENTS, Alarms
from pipelines.notify import message, notify
from pipelines.settings import Project, load_project
from pipelines.warehouse import RunRecord, Warehouse
from sources.core.errors import ConfigError
from tests.conftest import run_roundtrip
from tests.scripted_server import ScriptedServer, reply

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PULLED = [
    {
        "connection": "relm",
        "resource": "deals",
        "status": "failed",
        "rows": 4,
        "error": "cut for ann@x.example",
    },
    {"connection": "relm", "resource": "contacts", "status": "ok", "rows": 3, "new": 2, "error": None},
]


@dataclass
class Ended:
    """How a command ended."""

    exit_code: int = 1
    status: str = "failed"
    error: str | None = "relm: refused for ann@x.example\x1b[31m"
    run_id: str | None = "20260301T120000Z-3f9a"
    told: dict[str, Any] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        return self.told


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "acme"
    folder.mkdir()
    return load_project(folder, environ={})


def telling(project: Project, **alarms: Any) -> Project:
    return replace(project, alarms=Alarms(**alarms))


def keeping(file: Path) -> tuple[str, ...]:
    """Give a program that keeps what it is told."""
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    return (sys.executable, "-S", "-c", code, str(file))


# -- what is told --------------------------------------------------------------------------------


def test_a_message_holds_names_and_counts_and_nothing_about_a_person(project: Project) -> None:
    models = [{"name": "leads", "status": "failed", "rows": None, "error": "no number: 'ann@x.example'"}]
    told = message(project, "pull", Ended(told={"resources": PULLED, "models": models}), events=["failure"])
    assert "ann" not in json.dumps(told)
    assert "\x1b" not in told["text"]
    assert told["counts"] == {"rows": 7, "new": 2, "changed": 0, "deleted": 0}
    assert told["failed"] == [
        {"connection": "relm", "resource": "deals", "status": "failed", "error": "cut for …"},
        {"model": "leads", "status": "failed", "error": None},
    ]


def test_the_rows_of_a_push_are_counted_and_never_told(project: Project) -> None:
    rows = [{"key": "ann@x.example", "reason": "Ann Lee is blocked"}]
    pushed = {
        "sync": "leads",
        "connection": "relm",
        "object": "contacts",
        "counts": {"rejected": 1},
        "rows": rows,
    }
    told = message(project, "push", Ended(error=None, told=pushed), events=["failure"])
    assert "nn" not in json.dumps(told).replace("connection", "")
    assert (told["sync"], told["counts"]) == ("leads", {"rejected": 1})
    assert told["text"] == "roundtrip push leads in acme: failed (exit 1)"


def test_the_keys_of_a_message_are_always_the_documented_ones(project: Project) -> None:
    keys = "text version project command events run_id status exit_code error sync connection object counts"
    for ended in (Ended(), Ended(told={"resources": PULLED}), Ended(told={"sync": None, "counts": {}})):
        assert list(message(project, "pull", ended, events=[])) == [*keys.split(), "failed", "stale"]


# -- when it is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_code", "event"),
    [
        (0, "success"),
        (1, "failure"),
        (2, "failure"),
        (3, "failure"),
        (4, "locked"),
        (5, "guard"),
        (130, "interrupted"),
    ],
)
def test_each_end_is_told_to_those_who_ask_for_it_and_to_no_others(
    project: Project, tmp_path: Path, exit_code: int, event: str
) -> None:
    told = tmp_path / "told.json"
    others = frozenset(EVENTS) - {event}
    assert notify(telling(project, command=keeping(told), on=others), "enrich", Ended(exit_code)) == []
    assert not told.exists()
    assert (
        notify(telling(project, command=keeping(told), on=frozenset({event})), "enrich", Ended(exit_code))
        == []
    )
    assert json.loads(told.read_text())["events"] == [event]


def test_what_is_older_than_allowed_is_told_after_a_pull_that_went_well_too(
    project: Project, tmp_path: Path
) -> None:
    warehouse, told = Warehouse(project.warehouse), tmp_path / "told.json"
    with warehouse.generation() as con:
        for resource, hours in (("contacts", 1), ("deals", 7), ("tasks", 9), ("absent", None)):
            at = NOW - timedelta(hours=hours) if hours else None
            con.execute(
                "insert into roundtrip.resource_state (connection, resource, last_complete_at)"
                " values ('relm', $1, $2), ('other', $1, $2)",
                [resource, at],
            )
    # A later run that found the tasks unchanged is no reason to write the warehouse, but they are fresh.
    warehouse.note_run(RunRecord("run", "pull", NOW, NOW, "ok", looked=[("relm", "tasks")]))
    alarms = Alarms(command=keeping(told), stale_after=timedelta(hours=6))
    own = replace(project, alarms=alarms, default_connections=("relm",))
    for command in ("pull", "status"):
        assert notify(own, command, Ended(0, "ok", None), now=NOW) == []
        found = json.loads(told.read_text())
        assert (found["events"], [each["resource"] for each in found["stale"]]) == (["stale"], ["deals"])
        assert "stale: relm.deals" in found["text"]
        told.unlink()


# -- how it is told ------------------------------------------------------------------------------


def test_a_webhook_gets_one_post_of_json(project: Project) -> None:
    with ScriptedServer(reply(204, b"")) as server:
        assert notify(telling(project, url=f"{server.url}/hook/?token=t"), "push", Ended()) == []
    [seen] = server.requests
    assert (seen.method, seen.target, seen.headers["content-type"]) == (
        "POST",
        "/hook/?token=t",
        "application/json",
    )
    assert json.loads(seen.body)["events"] == ["failure"]


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ([reply(500)], "it answered 500"),
        ([reply(302, headers={"Location": "http://127.0.0.1:9/elsewhere"})], "it answered 302"),
        ([b"garbage\r\n\r\n", None], "BadStatusLine"),
        ([None], "Connection reset by peer"),
        ([5.0], "no answer within 0.3 s"),
    ],
)
def test_a_webhook_that_fails_is_one_line_that_does_not_show_its_address(
    project: Project, step: Any, line: str
) -> None:
    with ScriptedServer(step) as server:
        lines = notify(telling(project, url=f"{server.url}/secret-path"), "pull", Ended(), timeout_s=0.3)
    assert lines == [f"notify: the webhook at 127.0.0.1 was not told ({line})."]
    assert len(server.requests) == 1


def test_a_program_gets_its_arguments_without_a_shell_and_no_keys(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__RELM__API_KEY", "sk_live_1")
    code = "import os, sys; print(sys.argv[2], *os.environ, file=open(sys.argv[1], 'w'))"
    program = (sys.executable, "-S", "-c", code, str(tmp_path / "seen"), "$HOME; ls")
    assert notify(telling(project, command=program), "pull", Ended()) == []
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("$HOME; ls ")
    assert "SOURCES__" not in seen


@pytest.mark.parametrize(
    ("code", "line"),
    [("raise SystemExit(3)", "ended with 3."), ("import time; time.sleep(5)", "did not end within 0.5 s.")],
)
def test_a_program_that_fails_is_one_line(project: Project, code: str, line: str) -> None:
    program = (sys.executable, "-S", "-c", code)
    assert notify(telling(project, command=program), "pull", Ended(), timeout_s=0.5) == [
        f"notify: {sys.executable} {line}"
    ]


def test_a_program_that_is_not_there_is_one_line(project: Project) -> None:
    [line] = notify(telling(project, command=("./none",)), "pull", Ended())
    assert line == "notify: ./none cannot be run (No such file or directory)."


def test_telling_never_changes_how_a_run_ends(tmp_path: Path) -> None:
    told = {"ROUNDTRIP__NOTIFY__COMMAND": "./none --page", "SOURCES__RELM__API_KEY": "sk_1"}
    done = run_roundtrip(tmp_path, "pull", "nowhere", "--json", **told)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (2, 2)
    assert done.stderr.splitlines()[-1] == "notify: ./none cannot be run (No such file or directory)."


# -- settings ------------------------------------------------------------------------------------


def test_the_settings_stand_in_a_table_of_their_own_or_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        '[roundtrip.notify]\ncommand = ["page", "the team"]\non = ["guard"]\nstale_after = "6h"\n'
    )
    environ = {"ROUNDTRIP__NOTIFY__URL": "https://hooks.example/T1/secret"}
    alarms = load_project(tmp_path, environ=environ).alarms
    assert alarms == Alarms(
        url="https://hooks.example/T1/secret",
        command=("page", "the team"),
        on=frozenset({"guard"}),
        stale_after=timedelta(hours=6),
    )
    assert "secret" not in repr(alarms)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("URL", "http://hooks.example/secret", "plain http"),
        ("URL", "ftp://hooks.example/secret", "not an https address"),
        ("URL", "https://", "not an https address"),
        ("ON", '["failures"]', "'failures', which is not one of failure, guard"),
        ("STALE_AFTER", "soon", "not a length of time"),
        ("COMMAND", "page 'the team", "a quote that does not end"),
        ("WEBHOOK", "https://hooks.example", "is not a setting"),
    ],
)
def test_a_wrong_setting_is_named_and_an_address_not_shown(
    tmp_path: Path, name: str, value: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        load_project(tmp_path, environ={f"ROUNDTRIP__NOTIFY__{name}": value})
    assert "secret" not in str(caught.value)
    assert "roundtrip.notify" in str(caught.value)
