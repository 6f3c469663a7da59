"""The long run of the law of pulling: `python -m tests.benchmarks.chaos_pull --kills 1000 --cases 10000`.

A case takes random steps (edits, drift, faults, pulls, real SIGKILLs, interrupts) over one way of reading and
ends with a comparison of warehouse, history and CRM. Cases share a CRM and a warehouse, ten after each other;
such a world is repeated by its number: `--world NUMBER`. `--minutes` ends the run earlier, `--workers` leads
several worlds at once, and `--write` puts the summary into RESULTS.md beside this file.
"""

import argparse
import functools
import random
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count

from tests.benchmarks.results import write_section
from tests.chaos import STEPS, WAYS, World, world
from tests.warm import WarmRuns

_TITLE = "Pull under chaos"
_MOST_SHOWN = 5
_CASES = 10  # in one world
# A kill takes a process of its own, so there are fewer of them than of the rest.
_WEIGHTS = [1 if step in ("kill", "kill late", "interrupt") else 3 for step in STEPS]


@dataclass
class Tally:
    """What one world, or all of them, came to."""

    cases: int = 0
    kills: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another's in."""
        self.cases += other.cases
        self.kills += other.kills
        self.steps.update(other.steps)
        self.ways.update(other.ways)
        self.failures += other.failures

    def lines(self, wanted: argparse.Namespace, minutes: float) -> list[str]:
        """Tell the run in a few lines."""
        counted = ", ".join(f"{name} {number}" for name, number in sorted(self.steps.items()))
        read = ", ".join(f"{name} {number}" for name, number in sorted(self.ways.items()))
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
    began = time.monotonic()
    tally = _lead(wanted.world) if wanted.world is not None else _lead_many(wanted, began)
    lines = tally.lines(wanted, (time.monotonic() - began) / 60)
    _say("\n".join(lines))
    if wanted.write:
        write_section(_TITLE, "tests.benchmarks.chaos_pull", lines)
    return 1 if tally.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos_pull", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first world")
    parser.add_argument("--world", type=int, help="repeat one world by its number")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def _lead_many(wanted: argparse.Namespace, began: float) -> Tally:
    tally, numbers = Tally(), count(wanted.first)
    running: set[Future[Tally]] = set()
    with ProcessPoolExecutor(wanted.workers) as pool:
        while running or _goes_on(wanted, tally, began):
            while len(running) < wanted.workers and _goes_on(wanted, tally, began):
                running.add(pool.submit(_lead, next(numbers)))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                tally.add(each.result())
            _say(f"{tally.cases} cases, {tally.kills} kills, {len(tally.failures)} failed")
    return tally


def _goes_on(wanted: argparse.Namespace, tally: Tally, began: float) -> bool:
    is_late = wanted.minutes and time.monotonic() - began > wanted.minutes * 60
    return not is_late and (tally.cases < wanted.cases or tally.kills < wanted.kills)


def _lead(number: int) -> Tally:
    """Lead one world through its cases; the first that fails ends it."""
    rng = random.Random(number)
    way = list(WAYS)[number % len(WAYS)]
    tally = Tally()
    with world(way, _warm_runs(), number) as made:
        made.do("pull")
        for case in range(_CASES):
            steps = rng.choices(STEPS, weights=_WEIGHTS, k=rng.randint(2, 5))
            tally.cases += 1
            tally.ways[way] += 1
            tally.steps.update(steps)
            if not _holds(made, steps, is_last=case == _CASES - 1):
                tally.failures.append(f"world {number} ({way}), case {case}: {', '.join(steps)}")
                break
        tally.kills = made.kills
    return tally


@functools.cache
def _warm_runs() -> WarmRuns:
    """Start the process that forks runs, once a worker; it ends with the worker, whose orders it reads."""
    return WarmRuns().__enter__()


def _holds(made: World, steps: list[str], *, is_last: bool) -> bool:
    try:
        for step in steps:
            made.do(step)
        made.settle(is_thorough=is_last)
    except Exception:  # noqa: BLE001  (whatever a case ends with is its failure)
        traceback.print_exc()
        return False
    return True


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
