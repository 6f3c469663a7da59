"""Run one command as a process and take its measures: seconds from start to exit, processor, peak memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.conftest import clean_environ


@dataclass(frozen=True, slots=True)
class Measure:
    """What one process took; `peak_mb` is the most memory it held at once."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    out: str = ""

    def json(self) -> dict[str, Any]:
        """Read what the process printed as JSON."""
        told: dict[str, Any] = json.loads(self.out)
        return told


@dataclass(frozen=True, slots=True)
class Settings:
    """What the measurements are asked for; `huge` of 0 leaves the third size out."""

    folder: Path
    records: int
    large: int
    repeat: int
    is_quick: bool = False
    huge: int = 0
    others: Mapping[str, str] = field(default_factory=dict)  # peers with a Python of their own, by name

    @property
    def sizes(self) -> tuple[int, ...]:
        """Give the numbers of rows to measure at."""
        return (self.records,) if self.is_quick else (self.records, self.large)


TABLE_HEAD = ("| what | figure to reach | measured |", "| --- | --- | --- |")


def line(what: str, figure: str, measured: str) -> str:
    """Write one line of a table."""
    return f"| {what} | {figure} | {measured} |"


def run(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str] = {}, *, python: str = sys.executable
) -> Measure:
    """Run `python ARGUMENTS` in a folder; what it tells on standard error is shown only if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    out, err = folder / "measured.out", folder / "measured.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            [python, *arguments],
            cwd=folder,
            env=clean_environ() | {"RUNTIME__DLTHUB_TELEMETRY": "false", **environ},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{err.read_text()[-3000:]}")
    return Measure(wall_s, usage.ru_utime + usage.ru_stime, _peak_mb(usage.ru_maxrss), out.read_text())


def _peak_mb(maxrss: int) -> float:
    return maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def roundtrip(
    arguments: Sequence[str], folder: Path, *, url: str = "", crm: str = "relm", **environ: str
) -> Measure:
    """Run `roundtrip ARGUMENTS` against a server, with no pace of our own towards it."""
    name = crm.upper()
    key = {"relm": "sk_test_0123456789abcdef"}.get(crm, "rk_test_0123456789abcdef")
    settings = {f"SOURCES__{name}__API_KEY": key, f"SOURCES__{name}__BASE_URL": url} if url else {}
    return run(["-m", "pipelines", *arguments], folder, settings | environ)


def middle(measures: Sequence[Measure]) -> Measure:
    """Give the medians."""
    return Measure(
        median(each.wall_s for each in measures),
        median(each.cpu_s for each in measures),
        median(each.peak_mb for each in measures),
        measures[-1].out,
    )
