"""The law of pulling: whatever happens on the way, in the end the warehouse is the CRM.

The long form is `python -m tests.benchmarks.chaos_pull --kills 1000 --cases 10000`.
"""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request
from tests.chaos import STEPS, WAYS, world
from tests.pulling import part, project_for, pulled, rows
from tests.warm import WarmRuns


@pytest.mark.parametrize("way", WAYS)
@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=5), seed=st.integers(0, 2**32))
def test_after_edits_faults_kills_and_pulls_the_warehouse_is_the_crm(
    way: str, warm_runs: WarmRuns, steps: list[str], seed: int
) -> None:
    with world(way, warm_runs, seed) as made:
        for step in ("pull", *steps):
            made.do(step)
        made.settle()


@pytest.mark.parametrize("way", ["feed", "full cursor", "full offset"])
def test_with_a_mutation_before_every_page_nothing_is_missed_and_nothing_doubled(
    way: str, tmp_path: Path
) -> None:
    crm, switches = WAYS[way].crm, WAYS[way].switches
    rng = random.Random(5)
    with Sandbox(records=200, **switches) as box:
        tenant = box.tenant(crm)
        staying = [row["id"] for row in tenant.records("contacts")][::2]
        passing = [row["id"] for row in tenant.records("contacts")][1::2]

        def mutate(_: Request) -> None:
            if passing and rng.random() < 0.6:
                tenant.delete("contacts", passing.pop(rng.randrange(len(passing))))
            else:
                tenant.create("contacts", email=f"{rng.random()}@example.com", company="New")

        box.before_list = mutate
        project = project_for(box, tmp_path, crm)
        result = part(pulled(project, f"{crm}.contacts"), f"{crm}.contacts")
        assert result["status"] == "ok"
        stored = [row[0] for row in rows(project, f"select id from {crm}.contacts")]
        assert set(staying) <= set(stored)
        assert len(stored) == len(set(stored))
        box.before_list = None
        pulled(project, f"{crm}.contacts", accept_deletes=True)
        live = {row[0] for row in rows(project, f"select id from {crm}.contacts where _deleted_at is null")}
        assert live == {row["id"] for row in tenant.records("contacts")}
