"""The long run of the law of pulling: `python -m tests.benchmarks.chaos_pull --kills 1000 --cases 10000`.

Each case takes random steps (edits, drift, faults, pulls, real SIGKILLs, interrupts) over one way of reading
and ends with a comparison of warehouse and CRM. A case is repeated by its number: `--only NUMBER`.
`--minutes` ends the run earlier; `--write` puts the summary into RESULTS.md beside this file.
"""

import argparse
import os
import platform
import random
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos import STEPS, STRATEGIES, case
from tests.warm import WarmRuns

RESULTS = Path(__file__).parent / "RESULTS.md"
_TITLE = "## Pull under chaos"
_MOST_SHOWN = 5


@dataclass
class Summary:
    """What a run of many cases came to."""

    began: float = field(default_factory=time.monotonic)
    cases: int = 0
    kills: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    strategies: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def lines(self, wanted: argparse.Namespace) -> list[str]:
        """Tell the run in a few lines."""
        minutes = (time.monotonic() - self.began) / 60
        counted = ", ".join(f"{name} {number}" for name, number in sorted(self.steps.items()))
        read = ", ".join(f"{name} {number}" for name, number in sorted(self.strategies.items()))
        return [
            f"- asked for: {wanted.cases} cases and {wanted.kills} kills"
            + (f", at most {wanted.minutes:g} minutes" if wanted.minutes else ""),
            f"- done: {self.cases} cases with {self.kills} kills in {minutes:.1f} min",
            f"- by way of reading: {read}",
            f"- steps: {counted}",
            f"- cases that did not end with warehouse = CRM: {len(self.failures)}",
            *(f"  - {each}" for each in self.failures[:_MOST_SHOWN]),
        ]


def main() -> int:
    """Run cases until enough of them, and enough kills, are done; give 1 if one of them failed."""
    wanted = _arguments()
    summary = Summary()
    with WarmRuns() as runs:
        if wanted.only is not None:
            _run(wanted.only, runs, summary)
        while wanted.only is None and _goes_on(wanted, summary):
            _run(wanted.first + summary.cases, runs, summary)
            if summary.cases % 10 == 0:
                _say(f"{summary.cases} cases, {summary.kills} kills, {len(summary.failures)} failed")
    lines = summary.lines(wanted)
    _say("\n".join(lines))
    if wanted.write:
        _write(lines)
    return 1 if summary.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos_pull", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="repeat one case by its number")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def _goes_on(wanted: argparse.Namespace, summary: Summary) -> bool:
    is_late = wanted.minutes and time.monotonic() - summary.began > wanted.minutes * 60
    return not is_late and (summary.cases < wanted.cases or summary.kills < wanted.kills)


def _run(number: int, runs: WarmRuns, summary: Summary) -> None:
    rng = random.Random(number)
    strategy = rng.choice(list(STRATEGIES))
    steps = ["pull", *rng.choices(STEPS, k=rng.randint(3, 12))]
    summary.cases += 1
    summary.strategies[strategy] += 1
    summary.steps.update(steps)
    with case(strategy, runs, number) as world:
        try:
            for step in steps:
                world.do(step)
            world.settle()
        except Exception as error:  # noqa: BLE001  (whatever a case ends with is its failure)
            summary.failures.append(f"case {number} ({strategy}: {', '.join(steps)}): {error!r}"[:600])
            traceback.print_exc()
        summary.kills += world.kills


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _write(lines: list[str]) -> None:
    """Replace this run's section of RESULTS.md, or add it."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results of the long runs\n"
    head, _, rest = old.partition(_TITLE)
    _, mark, tail = rest.partition("\n## ")
    command = "python -m tests.benchmarks.chaos_pull " + " ".join(sys.argv[1:])
    made = [
        _TITLE,
        "",
        f"`{command}`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores",
        "",
        *lines,
        "",
    ]
    RESULTS.write_text(head.rstrip("\n") + "\n\n" + "\n".join(made) + (mark + tail), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
