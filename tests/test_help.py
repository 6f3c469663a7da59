"""Help that teaches, and completion: examples that are true, names of this project, no slow start."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import COMMANDS
from pipelines.commands.examples import EXAMPLES
from tests.conftest import clean_environ, run_roundtrip
from tests.taking import take

NAMES = [command.__name__ for command in COMMANDS]
LINES = [pytest.param(name, line, id=line) for name in NAMES for line in EXAMPLES[name]]


@pytest.mark.parametrize(("name", "line"), LINES)
def test_an_example_is_one_that_its_command_takes(name: str, line: str) -> None:
    assert take(line.partition(" | ")[0]) == name


def test_the_help_of_a_command_ends_with_its_examples_line_by_line(tmp_path: Path) -> None:
    shown = run_roundtrip(tmp_path, "pull", "--help").stdout
    assert shown.endswith("Examples:\n" + "".join(f"    {line}\n" for line in EXAMPLES["pull"]))


# -- completion ----------------------------------------------------------------------------------


def completed(folder: Path, line: str) -> list[str]:
    """Ask for the words that bash would offer at the end of a line."""
    environ = clean_environ() | {
        "_ROUNDTRIP_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    code = "from pipelines.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_the_projects_own_names_are_completed(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        '[syncs.leads_to_relm]\nconnection = "relm"\n[syncs.other]\nconnection = "relm"\n'
    )
    (tmp_path / ".dlt" / "secrets.toml").write_text('[sources.relm]\napi_key = "sk_1"\n')
    assert completed(tmp_path, "roundtrip pu") == ["pull", "push"]
    assert completed(tmp_path, "roundtrip push lea") == ["leads_to_relm"]
    assert completed(tmp_path, "roundtrip pull ") == ["relm"]


def test_settings_that_cannot_be_read_offer_nothing_and_say_nothing(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text("[broken")
    assert completed(tmp_path, "roundtrip push ") == []


def test_completion_can_be_shown_for_the_shell_that_asks(tmp_path: Path) -> None:
    launcher = tmp_path / "bash"  # the shell is told by the process that asks
    launcher.symlink_to("/bin/bash")
    command = f"{shlex.quote(sys.executable)} -m pipelines --show-completion"
    done = subprocess.run(
        [launcher, "-c", f"{command}; true"],
        env=clean_environ() | {"HOME": str(tmp_path), "SHELL": "/bin/bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "complete -o default -F _roundtrip_completion roundtrip" in done.stdout
    assert list(tmp_path.iterdir()) == [launcher]
