"""`roundtrip schedule`: files that their schedulers take, of commands that exist, without a key.

Airflow and Dagster are too large to install for one test each: name a Python that has them in AIRFLOW_PYTHON
and DAGSTER_PYTHON.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cli import COMMANDS
from pipelines.schedules import KINDS, schedule
from pipelines.settings import Project, load_project
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from tests.conftest import REPOSITORY

KEY = "sk_live_never_to_be_shown"
SYNC = {"connection": "relm", "object": "contacts", "model": "crm.contacts", "key": "email"}
LAUNCHER = f"""#!/bin/sh
PYTHONPATH={shlex.quote(str(REPOSITORY))} exec {shlex.quote(sys.executable)} -m pipelines "$@"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a name that is hard to quote."""
    made = tmp_path / 'Ann\'s 100% "CRM" $HOME ü'
    made.mkdir()
    return made


@pytest.fixture
def program(folder: Path) -> list[str]:
    """Make a `roundtrip` that starts with any environment, as an installed one does."""
    path = folder / "roundtrip"
    path.write_text(LAUNCHER)
    path.chmod(0o755)
    return [str(path)]


def project_in(folder: Path) -> Project:
    environ = {f"SYNCS__LEADS__{name.upper()}": value for name, value in SYNC.items()}
    fields = {"SYNCS__LEADS__FIELDS": '{"first_name": "first_name"}', "SOURCES__RELM__API_KEY": KEY}
    return load_project(folder, environ=environ | fields)


def file_for(folder: Path, kind: str, **options: object) -> str:
    return schedule(project_in(folder), kind, folder=folder, **options).text  # type: ignore[arg-type]


# -- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_of_a_file_exists_and_no_key_stands_in_it(folder: Path, kind: str) -> None:
    text = file_for(folder, kind, pushes=["leads"], program=["/opt/venv/bin/roundtrip"])
    assert KEY not in text
    lines = "\n".join(line for line in text.splitlines() if not line.startswith(("#", "To push")))
    names = set(
        re.findall(r"(?:roundtrip |\[')(pull|enrich|push|status|\w+)(?= |'|$|;)", lines, re.MULTILINE)
    )
    assert names >= {"pull", "enrich", "push"}
    assert names <= {command.__name__ for command in COMMANDS}


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_a_crm_is_in_a_file_only_where_it_was_asked_for(folder: Path, kind: str) -> None:
    told = f"roundtrip schedule {kind} --every 1h --push leads"
    plain = file_for(folder, kind, every="1h")
    assert told in plain
    assert "push" not in plain.replace(told, "").replace("To push as well", "")


@pytest.mark.parametrize(
    ("every", "kind"),
    [("7m", "cron"), ("0m", "cron"), ("5h", "systemd"), ("2d", "cron"), ("soon", "cron"), ("1m", "github")],
)
def test_a_time_that_a_scheduler_cannot_keep_is_refused(folder: Path, every: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"--every {every} is no time that {kind} can keep"):
        file_for(folder, kind, every=every)


def test_a_sync_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no sync 'other'"):
        file_for(folder, "cron", pushes=["other"])


# -- cron ----------------------------------------------------------------------------------------


def test_the_line_for_cron_works_in_its_bare_environment(folder: Path, program: list[str]) -> None:
    with Sandbox(records=3) as box:
        environ = {name: value for name, value in box.settings().items() if "RELM" in name}
        settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in environ.items())
        (folder / "roundtrip.env").write_text(settings)
        text = schedule(load_project(folder, environ=environ), "cron", folder=folder, program=program).text
        [line] = [line for line in text.splitlines() if not line.startswith("#")]
        times, command = line[: len("*/15 * * * *")], line[len("*/15 * * * *") :]
        assert "%" not in command.replace(r"\%", "")
        done = subprocess.run(
            ["/bin/sh", "-c", command.replace(r"\%", "%")],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (times, done.returncode, done.stdout, done.stderr) == ("*/15 * * * *", 0, "", "")
    assert (folder / "warehouse.duckdb").exists()
    assert "relm contacts: 3" in (folder / "roundtrip.log").read_text()


# -- systemd -------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("every", ["15m", "2h", "1d"])
def test_systemd_finds_nothing_wrong_with_the_units(folder: Path, program: list[str], every: str) -> None:
    script = file_for(folder, "systemd", every=every, pushes=["leads"], program=program)
    environ = os.environ | {"XDG_CONFIG_HOME": str(folder / "units")}
    subprocess.run(["/bin/sh"], input=script, env=environ, check=True, text=True, stdout=subprocess.DEVNULL)
    units = sorted((folder / "units" / "systemd" / "user").iterdir())
    assert [unit.suffix for unit in units] == [".service", ".timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- GitHub --------------------------------------------------------------------------------------


def test_the_workflow_is_yaml_with_secrets_by_name_one_run_at_a_time_and_not_in_public(folder: Path) -> None:
    (folder / ".git").mkdir()
    inside = folder / "crm"
    inside.mkdir()
    found = yaml.safe_load(file_for(inside, "github", pushes=["leads"]))
    job = found["jobs"]["roundtrip"]
    assert found[True]["schedule"] == [{"cron": "*/15 * * * *"}]  # YAML 1.1 reads `on` as true
    assert found["concurrency"] == {"group": "roundtrip", "cancel-in-progress": False}
    assert job["if"] == "github.event.repository.visibility != 'public'"
    assert job["env"]["SOURCES__RELM__API_KEY"] == "${{ secrets.SOURCES__RELM__API_KEY }}"
    assert job["defaults"]["run"]["working-directory"] == "crm"
    runs = [step["run"] for step in job["steps"] if step.get("run", "").startswith("roundtrip")]
    assert runs == ["roundtrip pull", "roundtrip enrich", "roundtrip push leads --yes"]
    kept = [step["with"]["path"].split() for step in job["steps"] if "cache" in step.get("uses", "")]
    assert kept == [["crm/warehouse.duckdb", "crm/.roundtrip"]] * 2


# -- Airflow and Dagster -------------------------------------------------------------------------


def python_with(package: str) -> str:
    """Find a Python that has a package: this one, or the one that the environment names."""
    named = os.environ.get(f"{package.upper()}_PYTHON")
    if named is None and importlib.util.find_spec(package) is None:
        pytest.skip(
            f"{package} is not installed here and {package.upper()}_PYTHON names no Python that has it"
        )
    return named or sys.executable


def run_file(python: str, folder: Path, text: str, code: str) -> str:
    """Import a file in another Python, run a few lines on it, and give what they print."""
    (folder / "scheduled.py").write_text(text)
    home = str(folder.parent)  # Airflow expands $HOME in it again and again
    environ = {"PATH": os.environ["PATH"], "HOME": home, "AIRFLOW_HOME": f"{home}/airflow"}
    done = subprocess.run(
        [python, "-c", f"import scheduled\n{code}"],
        cwd=folder,
        env=environ | {"PYTHONPATH": str(folder), "DAGSTER_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recording(folder: Path, exit_code: int = 0) -> list[str]:
    """Make a `roundtrip` that notes its words and ends as told."""
    path = folder / "noting"
    path.write_text(f'#!/bin/sh\necho "$PWD $*" >> "$0.log"\nexit {exit_code}\n')
    path.chmod(0o755)
    return [str(path)]


DAGSTER = """
job = scheduled.defs.get_job_def(scheduled.roundtrip.name)
print(job.execute_in_process(raise_on_error=False).success)
"""
AIRFLOW = """
import json
tasks = scheduled.dag.tasks
print(json.dumps([[t.task_id, *sorted(t.upstream_task_ids), t.cwd, t.bash_command] for t in tasks]))
"""


@pytest.mark.parametrize(("exit_code", "runs"), [(0, 3), (4, 3), (1, 1)])
def test_dagster_runs_the_steps_one_after_another_and_stops_at_a_failure(
    folder: Path, exit_code: int, runs: int
) -> None:
    python = python_with("dagster")
    text = file_for(folder, "dagster", pushes=["leads"], program=recording(folder, exit_code))
    assert run_file(python, folder, text, DAGSTER).strip() == str(exit_code != 1)
    noted = (folder / "noting.log").read_text().splitlines()
    assert noted == [f"{folder} {words}" for words in ("pull", "enrich", "push leads --yes")][:runs]


def test_airflow_takes_the_steps_one_after_another(folder: Path) -> None:
    python = python_with("airflow")
    text = file_for(folder, "airflow", pushes=["leads"], program=recording(folder))
    [*_, printed] = run_file(python, folder, text, AIRFLOW).splitlines()
    tasks = json.loads(printed)
    assert [task[:-2] for task in tasks] == [["pull"], ["enrich", "pull"], ["push_leads", "enrich"]]
    for *_, cwd, command in tasks:  # as its operator runs them
        subprocess.run(["bash", "-c", command], cwd=cwd, check=True)
    noted = (folder / "noting.log").read_text().splitlines()
    assert noted == [f"{folder} {words}" for words in ("pull", "enrich", "push leads --yes")]
