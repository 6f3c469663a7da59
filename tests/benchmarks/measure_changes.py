"""Later pulls: nothing changed, and the same changes in tables of different sizes."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.crm_server import Server
from tests.benchmarks.measure_full import PATH, check
from tests.benchmarks.measuring import TABLE_HEAD, Measure, Settings, line, middle, roundtrip

_MODES = ("generation", "in_place")


@dataclass
class _Copy:
    """One warehouse of one size, pulled once, and what later pulls of it took."""

    server: Server
    folder: Path
    mode: str
    quiet: list[Measure] = field(default_factory=list)
    one: list[Measure] = field(default_factory=list)
    many: list[Measure] = field(default_factory=list)

    def pull(self, changed: int) -> Measure:
        """Pull, and see that exactly so many rows were changed and the sum is right."""
        measure = roundtrip(
            ["pull", "relm.contacts", "--json"],
            self.folder,
            url=self.server.url,
            ROUNDTRIP__PUBLISH=self.mode,
        )
        (entry,) = measure.json()["resources"]
        if entry["changed"] != changed:
            raise SystemExit(f"{entry['changed']} rows changed, not {changed}")
        check(self.folder / "warehouse.duckdb", self.server.control(path=PATH)["facts"])
        return measure


def measure(settings: Settings) -> list[str]:
    """Pull every size once, then change the same number of rows in each, in turns."""
    sizes = (*settings.sizes, settings.huge) if settings.huge else settings.sizes
    changed = settings.large // 100 if not settings.is_quick else settings.records // 100
    with ExitStack() as stack:
        copies: list[_Copy] = []
        for records in sizes:
            server = stack.enter_context(Server(records))
            server.control(path=PATH)  # makes the rows
            copies += [_Copy(server, settings.folder / f"{mode}-{records}", mode) for mode in _MODES]
        for copy in copies:
            copy.pull(0)
        for _ in range(settings.repeat):
            for copy in copies:
                copy.quiet.append(_quiet(copy))
        for number, kept in ((1, "one"), (changed, "many")):
            for _ in range(settings.repeat):
                _touch(copies, number)
                for copy in copies:
                    getattr(copy, kept).append(copy.pull(number))
        return [*TABLE_HEAD, *_lines(copies, changed)]


def _touch(copies: list[_Copy], number: int) -> None:
    for server in {id(copy.server): copy.server for copy in copies}.values():
        server.control(path=PATH, touch=number)


def _quiet(copy: _Copy) -> Measure:
    file = copy.folder / "warehouse.duckdb"
    before = file.stat().st_mtime_ns
    measure = copy.pull(0)
    if file.stat().st_mtime_ns != before:
        raise SystemExit("a pull that found nothing wrote to the warehouse")
    return measure


def _lines(copies: list[_Copy], changed: int) -> list[str]:
    lines = []
    first = {copy.mode: middle(copy.many) for copy in reversed(copies)}
    for copy in copies:
        quiet, one, many = middle(copy.quiet), middle(copy.one), middle(copy.many)
        name = f"{copy.server.records:,} rows, {copy.mode}"
        if copy.mode == _MODES[0]:
            lines.append(
                line(
                    f"{name}: nothing changed",
                    "≤ 0.5 s",
                    f"{quiet.wall_s:.2f} s (processor {quiet.cpu_s:.2f} s)",
                )
            )
        told = (
            f"{many.wall_s:.2f} s, {many.wall_s / one.wall_s:.2f} times one changed row ({one.wall_s:.2f} s)"
        )
        lines.append(line(f"{name}: {changed:,} changed", "≤ 1.8 times", told))
        growth = many.wall_s / first[copy.mode].wall_s
        lines.append(line(f"{name}: against the smallest", "≤ 1.15 times", f"{growth:.2f} times"))
    return lines
