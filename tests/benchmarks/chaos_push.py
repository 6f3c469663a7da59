"""The long run of the law of pushing: `python -m tests.benchmarks.chaos_push --kills 1000`.

Pushes of the real command line are killed (SIGKILL) before, within and after their requests and at any other
time, under faults, with journals cut and pulls in between; then pull and push until nothing is sent. The
sandbox's own ledger says what was lost and what was doubled. A case is repeated by its number: `--only
NUMBER`. `--peer dlt` kills a `@dlt.destination` over the same sandbox instead. `--minutes` ends the run
earlier; `--write` puts the table into RESULTS.md beside this file.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field

from tests.benchmarks.results import write_section
from tests.chaos_push import WAYS, Found, case
from tests.warm import WarmRuns

_KILLS_A_CASE = 12
_MOST_SHOWN = 5
_TITLES = {"": "Push under kills", "dlt": "dlt's own destination under the same kills"}
_COLUMNS = "rows lost doubled repeated unknown untrue conflicts".split()
_NAMES = (
    "way of writing | kills | rows | lost | records doubled | values applied again | unknown, listed"
    " | called written, never applied | conflicts after a cut journal"
)


@dataclass
class Summary:
    """What a run of many cases came to, by way of writing."""

    began: float = field(default_factory=time.monotonic)
    cases: int = 0
    cuts: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    found: dict[str, Counter[str]] = field(default_factory=dict)  # by way of writing
    failures: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Count the pushes that a kill ended."""
        return self.moments.total()

    def add(self, name: str, kills: int, found: Found) -> None:
        """Count one case."""
        mine = self.found.setdefault(name, Counter())
        mine.update({column: getattr(found, column) for column in _COLUMNS}, kills=kills)

    def lines(self, wanted: argparse.Namespace) -> list[str]:
        """Tell the run as a list and a table."""
        minutes = (time.monotonic() - self.began) / 60
        moments = ", ".join(f"{name} {number}" for name, number in sorted(self.moments.items()))
        whole: Counter[str] = Counter()
        for each in self.found.values():
            whole.update(each)
        return [
            f"- asked for: {wanted.kills} kills; done: {self.kills}, {self.cases} cases, {minutes:.1f} min",
            f"- moments of the kills: {moments}; {self.cuts} journals cut while no push was alive",
            f"- cases that did not end well: {len(self.failures)}",
            *(f"  - {each}" for each in self.failures[:_MOST_SHOWN]),
            "",
            f"| {_NAMES} |",
            "| --- " + "| ---: " * 8 + "|",
            *(_line(name, self.found[name]) for name in WAYS if name in self.found),
            _line("**all**", whole),
        ]


def _line(name: str, counts: Counter[str]) -> str:
    return f"| {name} | " + " | ".join(str(counts[column]) for column in ("kills", *_COLUMNS)) + " |"


def main() -> int:
    """Run cases until there are enough kills; give 1 if one of them did not end well."""
    wanted = _arguments()
    summary = Summary()
    with WarmRuns() as runs:
        if wanted.only is not None:
            _run(wanted.only, runs, summary, wanted.peer)
        while wanted.only is None and _goes_on(wanted, summary):
            _run(wanted.first + summary.cases, runs, summary, wanted.peer)
            _say(f"{summary.cases} cases, {summary.kills} kills, {len(summary.failures)} not well")
    lines = summary.lines(wanted)
    _say("\n".join(lines))
    if wanted.write:
        write_section(_TITLES[wanted.peer], "tests.benchmarks.chaos_push", lines)
    return 1 if summary.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos_push", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="repeat one case by its number")
    parser.add_argument("--peer", choices=("dlt",), default="")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def _goes_on(wanted: argparse.Namespace, summary: Summary) -> bool:
    is_late = wanted.minutes and time.monotonic() - summary.began > wanted.minutes * 60
    return not is_late and summary.kills < wanted.kills


def _run(number: int, runs: WarmRuns, summary: Summary, peer: str) -> None:
    name = list(WAYS)[number % len(WAYS)]
    summary.cases += 1
    try:
        with case(name, runs, number, peer=peer) as world:
            for _ in range(_KILLS_A_CASE):
                world.go_on()
            found = world.settle()
        summary.moments.update(world.kills)
        summary.cuts += world.cuts
        summary.add(name, world.kills.total(), found)
        if not (found.is_well or peer):
            summary.failures.append(f"case {number} ({name}): {found}")
    except Exception as error:  # noqa: BLE001  (whatever a case ends with is its failure)
        summary.failures.append(f"case {number} ({name}): {error!r}"[:600])
        traceback.print_exc()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
