"""`roundtrip schedule`: a ready file for cron, systemd, GitHub Actions, Airflow or Dagster, for this project.

The files stand beside this module with `@NAME@` where the project's own values go; here the values are found
and put into each file's own way of quoting. No key goes into any of them.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pipelines.render import TextResult
from pipelines.settings import Project
from sources.core.errors import ConfigError

KINDS = ("cron", "systemd", "github", "airflow", "dagster")

_EVERY = re.compile(r"(\d{1,4})([mhd])")
_PLAIN = re.compile(r"[\w./=+-]+", re.ASCII)
_GITHUB_LEAST_MINUTES = 5


@dataclass(frozen=True, slots=True)
class _Plan:
    """What runs where, and when."""

    folder: Path
    warehouse: Path
    program: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    every: str
    cron: str
    calendar: str
    keys: tuple[str, ...]
    syncs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name the job after the folder, in letters that every scheduler takes."""
        return re.sub(r"\W+", "_", self.folder.name, flags=re.ASCII).strip("_").lower() or "project"


def schedule(
    project: Project,
    kind: str,
    *,
    every: str = "15m",
    pushes: Sequence[str] = (),
    folder: Path | None = None,
    program: Sequence[str] = (),
) -> TextResult:
    """Make the file of one of `KINDS` that pulls, enriches and pushes the named syncs.

    `every` is a time that divides an hour or a day (`15m`, `2h`, `1d`). `ConfigError` for one that does not,
    for a sync that is not there, and for a folder that no such file can name.
    """
    for sync in pushes:
        project.sync(sync)
    here = (folder or Path.cwd()).absolute()
    if not str(here).isprintable():
        raise ConfigError("the folder's name holds a line break or the like", hint="Rename it.")
    cron, calendar = _times(every, kind)
    plan = _Plan(
        folder=here,
        warehouse=project.warehouse,
        program=_program(project, here, program),
        steps=(("pull",), ("enrich",), *(("push", sync, "--yes") for sync in pushes)),
        every=every,
        cron=cron,
        calendar=calendar,
        keys=tuple(f"SOURCES__{name.upper()}__API_KEY" for name in project.default_connections),
        syncs=tuple(project.syncs) or ("SYNC",),
    )
    return TextResult(_filled(kind, {**_general(plan, kind), **_VALUES[kind](plan)}))


def _program(project: Project, here: Path, program: Sequence[str]) -> tuple[str, ...]:
    """Spell the absolute command: cron and its kin know no virtual environment."""
    script = Path(sys.executable).with_name("roundtrip")
    words = tuple(program) or ((str(script),) if script.exists() else (sys.executable, "-m", "pipelines"))
    if project.root == here:
        return words
    return (_env(), f"DLT_PROJECT_DIR={project.root}", *words)


def _times(every: str, kind: str) -> tuple[str, str]:
    """Say an interval as cron does and as systemd does."""
    found = _EVERY.fullmatch(every)
    number, unit = (int(found[1]), found[2]) if found else (0, "")
    if unit == "m" and number and 60 % number == 0 and (kind != "github" or number >= _GITHUB_LEAST_MINUTES):
        return ("0 * * * *" if number == 60 else f"*/{number} * * * *"), f"*:0/{number}"
    if unit == "h" and number and 24 % number == 0:
        hours = "*" if number == 1 else f"*/{number}"
        return _DAILY if number == 24 else (f"0 {hours} * * *", f"*-*-* 0/{number}:00")
    if (number, unit) == (1, "d"):
        return _DAILY
    least = f"{_GITHUB_LEAST_MINUTES}m" if kind == "github" else "1m"
    raise ConfigError(
        f"--every {every} is no time that {kind} can keep",
        hint=f"Give one that divides an hour or a day, from {least}: 15m, 1h, 6h, 1d.",
    )


_DAILY = ("0 3 * * *", "*-*-* 03:00")


# -- values, quoted as each file needs them ------------------------------------------------------


def _filled(kind: str, values: Mapping[str, str]) -> str:
    text = resources.files("pipelines").joinpath("schedules", f"{kind}.txt").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1].lower()], text)


def _general(plan: _Plan, kind: str) -> dict[str, str]:
    """Give what stands in comments and names."""
    more = "".join(f" --push {sync}" for sync in plan.syncs)
    return {
        "folder_name": str(plan.folder),
        "name": plan.name,
        "every": plan.every,
        "cron": plan.cron,
        "calendar": plan.calendar,
        "more": f"roundtrip schedule {kind} --every {plan.every}{more}",
    }


def _cron(plan: _Plan) -> dict[str, str]:
    line = " && ".join(shlex.join([*plan.program, *step]) for step in plan.steps)
    escaped = {"folder": shlex.quote(str(plan.folder)), "steps": line}
    return {name: text.replace("%", r"\%") for name, text in escaped.items()}  # cron ends a line at a bare %


def _systemd(plan: _Plan) -> dict[str, str]:
    program = plan.program
    if not _PLAIN.fullmatch(program[0]):  # as a program systemd takes plain paths only, as a word any
        program = (_env(), *program)
    lines = ("ExecStart=" + " ".join(_unit_word(word) for word in (*program, *step)) for step in plan.steps)
    return {"folder": str(plan.folder).replace("%", "%%"), "steps": "\n".join(lines)}


def _env() -> str:
    return shutil.which("env") or "/usr/bin/env"


def _unit_word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _github(plan: _Plan) -> dict[str, str]:
    root = next(
        (each for each in (plan.folder, *plan.folder.parents) if (each / ".git").exists()), plan.folder
    )
    inside = plan.folder.relative_to(root).as_posix()
    own = (root / "requirements.lock").exists() and (root / "pipelines" / "cli.py").exists()
    install = (
        "python -m pip install -c requirements.lock ."
        if own
        else "python -m pip install wheels/roundtrip-*.whl"
    )
    return {
        "working_directory": json.dumps(inside),
        "prefix": "" if inside == "." else f"{inside}/",
        "install": install,
        "keys": "\n".join(
            f"      {key}: ${{{{ secrets.{key} }}}}" for key in plan.keys or ("SOURCES__RELM__API_KEY",)
        ),
        "steps": "\n".join(f"      - run: {shlex.join(['roundtrip', *step])}" for step in plan.steps),
    }


def _python(plan: _Plan) -> dict[str, str]:
    return {
        "folder": repr(str(plan.folder)),
        "program": repr(list(plan.program)),
        "steps": repr([list(step) for step in plan.steps]),
    }


_VALUES: Mapping[str, Callable[[_Plan], dict[str, str]]] = {
    "cron": _cron,
    "systemd": _systemd,
    "github": _github,
    "airflow": _python,
    "dagster": _python,
}
