"""Fixtures for tests of the whole: a sandbox, a project set up for it, the command line as a process."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sources.sandbox import Sandbox

if TYPE_CHECKING:
    from tests.warm import WarmRuns

REPOSITORY = Path(__file__).parent.parent

Roundtrip = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_unconfigure() -> None:
    """Take back the collector callbacks that hypothesis leaves behind.

    They keep modules alive past the interpreter's end, and DuckDB then reports leaks after pytest's summary.
    """
    gc.callbacks.clear()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Serve the CRMs in this process, 50 contacts each."""
    with Sandbox(records=50) as box:
        yield box


@pytest.fixture
def project_dir(tmp_path: Path, sandbox: Sandbox) -> Path:
    """Make a folder whose settings name the sandbox's CRMs, keys apart."""
    folder = tmp_path / "project" / ".dlt"
    folder.mkdir(parents=True)
    settings = sandbox.settings()
    keys = {name: value for name, value in settings.items() if name.endswith("__API_KEY")}
    (folder / "secrets.toml").write_text(as_toml(keys))
    (folder / "config.toml").write_text(
        as_toml({name: settings[name] for name in settings.keys() - keys.keys()})
    )
    return folder.parent


@pytest.fixture
def roundtrip(project_dir: Path) -> Roundtrip:
    """Run `roundtrip ARGS` as a process of its own in `project_dir`, without a terminal."""

    def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return run_roundtrip(project_dir, *arguments, **environ)

    return run


@pytest.fixture(scope="session")
def warm_runs() -> "Iterator[WarmRuns]":
    """Run the command line in processes that start at once and may be killed."""
    from tests.warm import WarmRuns as Warm

    with Warm() as runs:
        yield runs


def run_roundtrip(folder: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run `roundtrip ARGS` in a folder, with the given variables and none of this machine's settings."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=folder,
        env=clean_environ() | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def clean_environ() -> dict[str, str]:
    """Give this process's environment without anybody's settings, and with this checkout importable."""
    ours = ("SOURCES__", "SYNCS__", "ROUNDTRIP__", "DESTINATION__", "DLT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}


def as_toml(variables: Mapping[str, str]) -> str:
    """Write settings of the environment (`SOURCES__RELM__BASE_URL`) as TOML."""
    sections: dict[str, list[str]] = {}
    for variable, value in sorted(variables.items()):
        section, name = variable.lower().rsplit("__", 1)
        sections.setdefault(section.replace("__", "."), []).append(f"{name} = {json.dumps(value)}")
    return "\n".join("\n".join([f"[{section}]", *lines, ""]) for section, lines in sections.items())
