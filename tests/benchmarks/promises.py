"""Promises at length that the suite keeps small: `python -m tests.benchmarks.promises [--only NAME]`.

- `readers`: eight processes query without pause while pulls publish one generation after the other.
- `listings`: lists broken or cut short at random; none may make a live record look gone.
- `limits`: eight threads at 95 % of a stated limit that others of the tenant use as well.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sources.core.pacing import Budget
from sources.sandbox import Sandbox
from tests.benchmarks.results import write_section
from tests.pulling import project_for, pulled
from tests.test_deletions import BROKEN, gone
from tests.test_generations import read_during_pulls
from tests.test_pacing import FastClock, LimitingServer, ask


def readers(queries: int = 10_000) -> tuple[bool, str]:
    """Publish generations until eight readers have asked so many queries."""
    with Sandbox(records=12) as box, tempfile.TemporaryDirectory() as folder:
        runs, told = read_during_pulls(box, Path(folder), each=queries // 8, pause_s=0)
    asked = [line.split() for line in told if re.fullmatch(r"\d+ \d+\s*", line)]
    errors = len(told) - len(asked)
    total, seen = sum(int(each[0]) for each in asked), max((int(each[1]) for each in asked), default=0)
    return not errors, (
        f"readers: {total:,} queries by 8 processes during {runs} runs, {errors} errors;"
        f" each query saw one generation, one reader up to {seen} of them"
    )


def listings(number: int = 200) -> tuple[bool, str]:
    """Pull over so many broken lists, with the guard lifted."""
    rng = random.Random(11)
    kinds: Counter[str] = Counter()
    with Sandbox(records=600) as box, tempfile.TemporaryDirectory() as folder:
        project = project_for(box, Path(folder), "vivre")
        pulled(project, "vivre.contacts")
        for _ in range(number):
            broken = rng.choice(BROKEN)
            kinds[type(broken).__name__] += 1
            box.faults.clear()
            box.faults.add(broken, path=r"/contacts\?", nth=rng.randint(1, 2), times=rng.randint(1, 6))
            pulled(project, "vivre.contacts", accept_deletes=True)
        lost = len(gone(project, "vivre"))
    told = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
    return lost == 0, f"listings: {number} broken ones ({told}), {lost} false deletions"


def limits(requests: int = 5_000) -> tuple[bool, str]:
    """Ask with eight threads where others leave 5 % of the budget's share."""
    server = LimitingServer(FastClock(200), limit=100, window_s=10, others=15)
    budget = Budget(clock=server.clock, share=0.95)
    with ThreadPoolExecutor(8) as threads:
        statuses = Counter(threads.map(lambda _: ask(budget, server, 0.05), range(requests)))
    return statuses[429] == 0, (
        f"limits: {requests:,} requests by 8 threads up to 95 % of a limit that others use too,"
        f" {statuses[429]} times 429, at most {max(server.windows)} of {server.limit} in a window"
    )


PROMISES: dict[str, Callable[[], tuple[bool, str]]] = {
    "readers": readers,
    "listings": listings,
    "limits": limits,
}


def main() -> int:
    """Check the promises asked for; give 1 if one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.promises", description=__doc__)
    parser.add_argument("--only", choices=PROMISES, action="append")
    parser.add_argument("--write", action="store_true")
    wanted = parser.parse_args()
    lines, is_kept = [], True
    for name in wanted.only or PROMISES:
        began = time.monotonic()
        kept, line = PROMISES[name]()
        is_kept = is_kept and kept
        lines.append(f"- {line} ({time.monotonic() - began:.0f} s)")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    if wanted.write:
        write_section("Promises at length", "tests.benchmarks.promises", lines)
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
