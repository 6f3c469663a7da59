"""A project against the sandbox, in this process, for the tests of pull, enrich and their kin."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import sources
from pipelines.progress import Progress, SilentProgress
from pipelines.pull import PullResult, pull
from pipelines.settings import Project, load_project
from pipelines.warehouse import Warehouse
from sources.core.pacing import Clock
from sources.sandbox import Sandbox


def project_for(box: Sandbox, root: Path, *names: str, **settings: Any) -> Project:
    """Make a project whose connections are those of the sandbox (all, or the ones named)."""
    environ = {
        key: value
        for key, value in environ_of(box).items()
        if not names or key.split("__")[1].lower() in names
    }
    project = load_project(root, environ=environ)
    return replace(project, default_connections=names or tuple(project.connections), **settings)


def quick(project: Project) -> Project:
    """Lift the pace that is kept towards APIs without stated limits."""
    connections = {
        name: replace(each, options={**each.options, "max_per_minute": None})
        for name, each in project.connections.items()
    }
    return replace(project, connections=connections)


def environ_of(box: Sandbox) -> dict[str, str]:
    """Give the settings of the sandbox's connections, without the pace kept towards APIs that state none."""
    paced = [name for name, crm in box.crms.items() if _has_pace(crm)]
    return box.settings() | {f"SOURCES__{name.upper()}__MAX_PER_MINUTE": "60000" for name in paced}


def _has_pace(crm: str) -> bool:
    return crm in sources.names() and any(
        option.name == "max_per_minute" for option in sources.load(crm).options
    )


class SkippingClock:
    """The real time, but who sleeps is there at once."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def time(self) -> float:
        return time.time() + self.slept_s

    def monotonic(self) -> float:
        return time.monotonic() + self.slept_s

    def sleep(self, seconds: float, /) -> None:
        self.slept_s += seconds


def pulled(
    project: Project,
    *targets: str,
    clock: Clock | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PullResult:
    """Pull without a word, and without waiting between attempts."""
    return pull(
        project, targets, progress=progress or SilentProgress(), clock=clock or SkippingClock(), **options
    )


def part(result: PullResult, resource: str) -> dict[str, Any]:
    """Give one resource's entry (`relm.contacts`) of a pull's result."""
    connection, _, name = resource.partition(".")
    entries: list[dict[str, Any]] = result.payload()["resources"]
    return next(each for each in entries if (each["connection"], each["resource"]) == (connection, name))


def rows(project: Project, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Ask the published warehouse."""
    with Warehouse(project.warehouse).reading() as con:
        return con.execute(query, list(parameters)).fetchall()
