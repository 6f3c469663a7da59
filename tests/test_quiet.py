"""Push, pull and plan over and over: after the first push nothing is sent but what the model changed.

The CRMs trim, re-case, round, cut and reorder what they are given; none of that is an edit, nor is a write of
ours that comes back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import plan
from pipelines.progress import SilentProgress
from sources.sandbox import Sandbox
from sources.sandbox.echo import Echo
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.reevo_switches import ReevoSwitches
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.vivre_rules import VivreSwitches
from tests.delivering import Desk

EDITED_IN = {1, 6}  # cycles before which the model changes
_MODEL = """
    select format(' Lead{}@Quiet.example', i) as email, format('  First{} ', i + edit) as first,
        format('A very long text that goes on and on until a CRM cuts it, {}', i) as long,
        i + 0.123 as score, i as whole,
        {'city': 'Pier ' || i, 'country': 'Italy'} as place
    from (select i, case when i = 1 then EDIT else 0 end as edit from range(6) as t(i))
"""


@dataclass(frozen=True)
class Quiet:
    """A CRM that bends values, and the sync into its contacts; `edits` says whether it changes records."""

    switches: Callable[..., Any]
    sync: str
    bent: Echo
    edits: bool = True
    also: dict[str, str] = field(default_factory=dict)


_KEY = 'object = "contacts"\nmodel = "marts.leads"\nkey = "{}"\n[syncs.leads.fields]\n'
CRMS = {
    "relm": Quiet(
        RelmSwitches,
        _KEY.format("email") + 'first_name = "first"\nlast_name = "long"\n"metadata.lead_score" = "score"\n',
        Echo(
            trims=True,
            lower=("email", "first_name"),
            upper=("last_name",),
            digits=1,
            cuts_text_at=48,
            reorders=True,
        ),
    ),
    "relm_modern": Quiet(
        RelmModernSwitches,
        _KEY.format("email") + 'first_name = "first"\nlast_name = "long"\n',
        Echo(trims=True, lower=("email", "first_name"), upper=("last_name",), cuts_text_at=48, reorders=True),
        also={"relm_modern": "relm_modern"},
    ),
    "rally": Quiet(
        RallySwitches,
        _KEY.format("email")
        + 'firstName = "first"\nlastName = "long"\nleadScore = "whole"\nnotes = "long"\n',
        Echo(trims=True, lower=("email", "firstName"), upper=("lastName",), cuts_text_at=48, reorders=True),
    ),
    "reevo": Quiet(
        ReevoSwitches,
        _KEY.format("primary_email")
        + 'primary_email = "email"\nfirst_name = "first"\nlast_name = "long"\naddress = "place"\n',
        Echo(trims=True, lower=("first_name",), upper=("last_name",), cuts_text_at=48, reorders=True),
    ),
    "vivre": Quiet(
        VivreSwitches,
        'mode = "create"\n' + _KEY.format("email") + 'email = "email"\nname = "first"\ncompany = "long"\n',
        Echo(trims=True, lower=("email", "name"), upper=("company",), cuts_text_at=48),
        edits=False,
    ),
}


def sent_by_cycles(name: str, folder: Path, cycles: int) -> list[int]:
    """Push and pull so many times and count what the CRM applied in each; the plan in the end is empty."""
    crm = CRMS[name]
    limit = {"rate_limit": None} if hasattr(crm.switches(), "rate_limit") else {}
    with Sandbox(records=4, also=crm.also, **{name: crm.switches(echo=crm.bent, **limit)}) as box:
        desk, ledger = Desk(folder, box, name, crm.sync), box.tenant(name).ledger
        desk.pull(f"{name}.contacts")
        sent = []
        for cycle in range(cycles):
            if cycle in EDITED_IN | {0}:
                desk.model(_MODEL.replace("EDIT", str(1_000 * cycle)))
            before = len(ledger)
            result = desk.push()
            assert result.exit_code == 0, [(row["key"], row["reason"]) for row in result.rows]
            sent.append(len(ledger) - before)
            desk.pull(f"{name}.contacts")
        made = plan(desk.project, "leads", progress=SilentProgress())
        assert (made.rows, made.edited_in_crm) == ([], 0)
    return sent


def expected(name: str, cycles: int) -> list[int]:
    """Count what each cycle has to send: all six rows first, then the one that was edited."""
    edited = EDITED_IN if CRMS[name].edits else set()
    return [6, *(int(cycle in edited) for cycle in range(1, cycles))]


@pytest.mark.parametrize(("name", "cycles"), [("relm", 4), ("rally", 2), ("reevo", 2), ("vivre", 2)])
def test_after_the_first_cycle_only_what_the_model_changed_is_sent(
    tmp_path: Path, name: str, cycles: int
) -> None:
    """Ten cycles of each stand in `python -m tests.benchmarks.quiet_push`."""
    assert sent_by_cycles(name, tmp_path, cycles) == expected(name, cycles)
