"""The law of pushing, in small: whenever a push is killed, nothing is lost, doubled or called what it is not.

Relm and Rally stand in `test_push_kill`; over all ways of writing, and for long, by
`python -m tests.benchmarks.chaos_push`.
"""

from collections.abc import Callable

import pytest

from tests.chaos_push import WAYS, Found, case
from tests.warm import WarmRuns

SMALL = ("reevo asserts", "vivre deals, which nothing shows")


@pytest.mark.parametrize("name", SMALL)
def test_pushes_killed_at_any_instant_end_with_every_row_in_its_place(warm_runs: WarmRuns, name: str) -> None:
    """What a CRM cannot show is listed as unknown, a batch for each request in flight at most."""
    with case(name, warm_runs, 1, records=2) as world:
        world.go_on()
        found = world.settle()
    assert found.is_well, found
    assert found.rows == 2 * WAYS[name].new


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: setattr(found, "lost", 1),
        lambda found: setattr(found, "doubled", 1),
        lambda found: setattr(found, "untrue", 1),
        lambda found: setattr(found, "most_unknown_batches", 5),
        lambda found: setattr(found, "is_quiet", False),
    ],
)
def test_the_judge_lets_none_of_it_pass(spoil: Callable[[Found], None]) -> None:
    found = Found(rows=1)
    assert found.is_well
    spoil(found)
    assert not found.is_well
