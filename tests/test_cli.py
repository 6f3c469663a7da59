"""The command line, as a process of its own: what it prints where, how it ends, what it never shows."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import pytest

import pipelines
from pipelines import render
from pipelines.cli import COMMANDS
from pipelines.warehouse import Warehouse
from sources.sandbox import Sandbox
from sources.sandbox.faults import Hang
from tests.conftest import REPOSITORY, Roundtrip, clean_environ, run_roundtrip
from tests.taking import options_of

NAMES = [command.__name__ for command in COMMANDS]
COMMON_KEYS = {"command", "run_id", "status", "exit_code", "error"}
FURTHER_KEYS = {
    "pull": {"resources"},
    "enrich": {"models"},
    "plan": {"sync", "connection", "object", "counts", "rows", "fields_changed", "held", "forecast", "guard"},
    "push": {"sync", "connection", "object", "counts", "rows"},
    "status": {"connections", "syncs", "last_run"},
}


def one_object(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """Read standard output as exactly one JSON object."""
    assert done.stdout.count("\n") == 1
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    assert value["exit_code"] == done.returncode
    return value


# -- help and usage ------------------------------------------------------------------------------


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = run_roundtrip(tmp_path, "--help")
    assert done.returncode == 0
    assert [name for name in NAMES if f"\n  {name} " not in done.stdout] == []


def test_a_command_has_a_json_object_where_its_keys_are_known_also_for_failures() -> None:
    assert [name for name in NAMES if "--json" in options_of(name)] == [
        name for name in NAMES if name in render.EMPTY
    ]


def test_no_command_shows_the_help_and_is_a_usage_error(tmp_path: Path) -> None:
    done = run_roundtrip(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = run_roundtrip(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"roundtrip {pipelines.__version__}\n")


@pytest.mark.parametrize("words", [["pul"], ["pull", "--fulll"], ["plan"], ["push", "x", "--limit", "0"]])
def test_a_usage_error_is_one_line_and_exit_2(tmp_path: Path, words: list[str]) -> None:
    done = run_roundtrip(tmp_path, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--help" in done.stderr


# -- one JSON object -----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["pull", "--fulll"], ["plan"], ["push"], ["status", "more"]])
def test_a_usage_error_is_one_json_object_too(tmp_path: Path, words: list[str]) -> None:
    told = one_object(run_roundtrip(tmp_path, *words, "--json"))
    assert (told["command"], told["status"], told["exit_code"]) == (words[0], "refused", 2)
    assert set(told) == COMMON_KEYS | FURTHER_KEYS[words[0]]


@pytest.mark.parametrize("words", [["pull", "nowhere"], ["plan", "nothing"], ["push", "nothing", "--yes"]])
def test_a_configuration_error_is_one_json_object_with_the_line_a_person_reads(
    tmp_path: Path, words: list[str]
) -> None:
    told = one_object(run_roundtrip(tmp_path, *words, "--json"))
    plain = run_roundtrip(tmp_path, *words)
    assert set(told) == COMMON_KEYS | FURTHER_KEYS[words[0]]
    assert (told["status"], told["exit_code"], plain.returncode) == ("refused", 2, 2)
    assert plain.stderr == told["error"] + "\n"
    assert plain.stdout == ""


def test_unreadable_settings_end_every_command_with_exit_2(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text("[roundtrip")
    for command in ("pull", "enrich", "status", "init"):
        done = run_roundtrip(tmp_path, command)
        assert (done.returncode, done.stdout) == (2, "")
        assert ".dlt/config.toml is not valid TOML" in done.stderr


@pytest.mark.parametrize("command", ["pull", "check"])
def test_a_project_without_any_key_is_told_how_to_begin(tmp_path: Path, command: str) -> None:
    told = one_object(run_roundtrip(tmp_path, command, "--json"))
    assert (told["status"], told["exit_code"]) == ("refused", 2)
    assert "roundtrip init" in told["error"]
    assert "SOURCES__RELM__API_KEY" in told["error"]


def test_status_of_nothing_is_ok(tmp_path: Path) -> None:
    told = one_object(run_roundtrip(tmp_path, "status", "--json"))
    assert (told["status"], told["connections"], told["syncs"], told["last_run"]) == ("ok", [], [], None)


def test_an_error_hides_its_traceback_until_debug_is_given(tmp_path: Path) -> None:
    assert "Traceback" not in run_roundtrip(tmp_path, "plan", "nothing").stderr
    for words in (["--debug", "plan", "nothing"], ["plan", "nothing", "--debug"]):
        assert "Traceback" in run_roundtrip(tmp_path, *words).stderr


def test_a_date_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    done = run_roundtrip(tmp_path, "pull", "--since", "yesterday")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--since" in done.stderr


# -- commands ------------------------------------------------------------------------------------


def test_init_lays_out_a_project_that_can_be_read(tmp_path: Path) -> None:
    done = run_roundtrip(tmp_path, "init")
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / ".dlt").iterdir()) == [
        "config.toml",
        "example.secrets.toml",
    ]
    assert list((tmp_path / "pipelines" / "models").glob("*.sql"))
    told = one_object(run_roundtrip(tmp_path, "status", "--json"))
    assert [sync["sync"] for sync in told["syncs"]] == ["leads_to_relm"]


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text("# mine")
    assert run_roundtrip(tmp_path, "init").returncode == 0
    assert (tmp_path / ".dlt" / "config.toml").read_text() == "# mine"
    assert (tmp_path / ".dlt" / "example.secrets.toml").exists()


@pytest.mark.parametrize("name", ["config.toml", "example.secrets.toml"])
def test_init_writes_the_settings_that_this_checkout_has(name: str) -> None:
    written = (REPOSITORY / "pipelines" / "templates" / name).read_text()
    assert written == (REPOSITORY / ".dlt" / name).read_text()


def test_pull_prints_a_table_on_stdout_and_its_progress_on_stderr(roundtrip: Roundtrip) -> None:
    done = roundtrip("pull", "relm.contacts")
    assert done.returncode == 0
    assert "relm" in done.stdout
    assert "relm contacts: 50" in done.stderr


def test_pull_enrich_and_status_each_print_one_json_object(roundtrip: Roundtrip) -> None:
    for command in ("pull", "enrich", "status"):
        told = one_object(roundtrip(command, "--json"))
        assert (told["command"], told["status"], told["error"]) == (command, "ok", None)
        assert set(told) == COMMON_KEYS | FURTHER_KEYS[command]


def test_push_without_a_terminal_and_without_yes_sends_nothing(
    roundtrip: Roundtrip, sandbox: Sandbox
) -> None:
    done = roundtrip("push", "leads", SYNCS__LEADS__CONNECTION="relm")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert len(sandbox.requests) == 0


def test_a_refused_key_ends_the_run_with_exit_3_and_is_not_shown(roundtrip: Roundtrip) -> None:
    done = roundtrip("pull", "relm", "--json", SOURCES__RELM__API_KEY="sk_live_wrong_one")
    assert one_object(done)["status"] == "refused"
    assert done.returncode == 3
    assert "sk_live" not in done.stdout + done.stderr


def test_a_held_lock_ends_the_run_with_exit_4_and_names_the_holder(
    project_dir: Path, roundtrip: Roundtrip
) -> None:
    with Warehouse(project_dir / "warehouse.duckdb").lock("roundtrip pull"):
        told = one_object(roundtrip("pull", "--json"))
    assert (told["status"], told["exit_code"]) == ("locked", 4)
    assert str(os.getpid()) in told["error"]


def written_to(out: TextIO, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command whose standard output is this file."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        cwd=folder,
        env=clean_environ(),
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = written_to(gone, tmp_path, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
@pytest.mark.parametrize("words", [["init"], ["status", "--json"], ["--version"], ["--help"]])
def test_a_result_that_finds_no_room_is_a_failure_without_a_traceback(
    tmp_path: Path, words: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = written_to(full, tmp_path, *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pull_ends_with_exit_130_and_one_json_object(
    project_dir: Path, sandbox: Sandbox, number: signal.Signals
) -> None:
    sandbox.faults.add(Hang(1.0), crm="relm", path="/v1/contacts", times=None)
    command = [sys.executable, "-m", "pipelines", "pull", "relm.contacts", "--json"]
    with subprocess.Popen(
        command, cwd=project_dir, env=clean_environ(), stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: len(sandbox.requests) > 0)
        process.send_signal(number)
        told = json.loads(process.communicate(timeout=60)[0])
    assert (process.returncode, told["status"], told["exit_code"]) == (130, "interrupted", 130)


def test_the_sandbox_prints_its_settings_and_ends_when_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "sandbox", "--port", "0", "--records", "3"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environ(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("export SOURCES__")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def wait_for(is_so: Any, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        os.sched_yield()


# -- on a terminal -------------------------------------------------------------------------------


def on_terminal(folder: Path, *words: str, answer: str = "", **environ: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; give the exit code and all it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, "-m", "pipelines", *words], clean_environ() | environ)
    os.write(terminal, answer.encode())
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # what Linux says when the other end has closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


def test_a_terminal_without_colours_gets_none(project_dir: Path) -> None:
    code, shown = on_terminal(project_dir, "pull", "relm.contacts", TERM="xterm", NO_COLOR="1")
    assert code == 0
    assert "\x1b[3" not in shown


def test_a_dumb_terminal_gets_plain_lines(project_dir: Path) -> None:
    code, shown = on_terminal(project_dir, "pull", "relm.contacts", TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown


LEADS = {
    "SYNCS__LEADS__CONNECTION": "relm",
    "SYNCS__LEADS__OBJECT": "contacts",
    "SYNCS__LEADS__KEY": "email",
    "SYNCS__LEADS__MODEL_SQL": "select email, 'Renamed' as name from crm.contacts order by email_key limit 3",
    "SYNCS__LEADS__FIELDS": '{"first_name": "name"}',
}


def renamed(sandbox: Sandbox) -> int:
    return sum(record.get("first_name") == "Renamed" for record in sandbox.tenant("relm").records("contacts"))


@pytest.mark.parametrize(("answer", "sent"), [("n\n", 0), ("\n", 0), ("\x04", 0), ("yes\n", 3)])
def test_push_asks_on_a_terminal_and_anything_but_yes_sends_nothing(
    project_dir: Path, sandbox: Sandbox, answer: str, sent: int
) -> None:
    run_roundtrip(project_dir, "pull", "relm.contacts")
    shown = on_terminal(project_dir, "push", "leads", answer=answer, TERM="xterm", **LEADS)[1]
    assert "leads to relm contacts: 3 update" in shown
    assert "[y/N]" in shown
    assert renamed(sandbox) == sent


def test_push_with_yes_sends_without_asking(project_dir: Path, sandbox: Sandbox) -> None:
    run_roundtrip(project_dir, "pull", "relm.contacts")
    told = one_object(run_roundtrip(project_dir, "push", "leads", "--yes", "--json", **LEADS))
    assert (told["status"], told["counts"]["updated"], renamed(sandbox)) == ("ok", 3, 3)


def test_plan_and_dry_run_send_nothing(project_dir: Path, sandbox: Sandbox) -> None:
    run_roundtrip(project_dir, "pull", "relm.contacts")
    asked = len(sandbox.requests)
    for words in (["plan", "leads"], ["push", "leads", "--dry-run"]):
        told = one_object(run_roundtrip(project_dir, *words, "--json", **LEADS))
        assert (told["status"], told["counts"]["update"], len(told["rows"])) == ("ok", 3, 3)
    assert (len(sandbox.requests), renamed(sandbox)) == (asked, 0)
