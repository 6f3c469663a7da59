"""`roundtrip push`: carry a sealed plan out, so that a kill at any instant loses nothing and doubles nothing.

What is sent is `plan`'s decision, sending and booking are `sending`'s. This module keeps the order:
settle what an earlier, killed push left open; plan; guard; ask; send and book.
"""

from collections.abc import Callable
from pathlib import Path

import duckdb

from pipelines.plan import LISTED_ROWS, Plan, PlanResult, check_guard, make_plan, plan, show
from pipelines.progress import Progress
from pipelines.pushing import definitions, planfile
from pipelines.pushing.handover import restrict
from pipelines.pushing.results import PushResult, unsent
from pipelines.pushing.sending import Sending, carry_out
from pipelines.pushing.settling import settle_left_over
from pipelines.pushing.unknowns import settle_unknown
from pipelines.settings import Project
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError

__all__ = ["PlanResult", "PushResult", "plan", "push"]


def push(  # noqa: PLR0913 (one per option, all by name)
    project: Project,
    sync: str,
    *,
    dry_run: bool = False,
    limit: int | None = None,
    confirm: Callable[[PlanResult], bool],
    progress: Progress,
    create_fields: bool = False,
    verify: bool = False,
    resend_unknown: bool = False,
    plan_file: Path | None = None,
    in_flight: int = 4,
) -> PushResult:
    """Send what the plan of a sync shows, at most `limit` records of it, after `confirm` agreed.

    With `create_fields`, custom fields that the CRM does not define yet are defined before the first row;
    with `verify`, what was written is read back and compared. Rows whose outcome is unknown are looked for
    first, and with `resend_unknown` sent again where nobody can tell. With `plan_file` the rows of that file
    are sent, exactly as they stand there, or none.
    Raises `ConfigError`, `GuardError` and `LockedError` before the first byte is sent. What stops the push
    later is told in the result, with what was done booked.
    """
    warehouse = Warehouse(project.warehouse, project.publish)
    if plan_file is not None and limit is not None:
        raise ConfigError("--limit and --plan do not go together", hint="The file says what is sent.")
    handed = None if plan_file is None else planfile.read(plan_file, sync)
    if dry_run:
        with warehouse.reading() as con:
            made = _made(con, project, sync, limit=limit, handed=handed)
            if not create_fields:
                definitions.glance(made, progress)
            return unsent(made)
    declared = project.sync(sync)
    with warehouse.lock(f"roundtrip push {sync}"):
        settle_left_over(project, warehouse, progress)
        settle_unknown(project, warehouse, sync, progress, resend=resend_unknown)
        with warehouse.reading() as con:
            made = _made(con, project, sync, limit=limit, handed=handed)
            check_guard(made)
            lacking = definitions.undefined(made)
            if create_fields and lacking:
                progress.say(f"{sync}: these custom fields will be defined: {', '.join(lacking)}")
            else:
                definitions.refuse(made, lacking)
            if made.changes and not confirm(show(made, LISTED_ROWS)):
                raise ConfigError(f"push {declared.name}: not confirmed, nothing was sent")
            definitions.define(made, lacking)
            return carry_out(made, warehouse, progress, Sending(in_flight=in_flight, verify=verify))


def _made(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    sync: str,
    *,
    limit: int | None,
    handed: planfile.PlanFile | None,
) -> Plan:
    """Plan a sync now; of a plan that was handed over, what the file holds and nothing else."""
    made = make_plan(con, project, sync, limit=limit)
    if handed is not None:
        restrict(made, handed)
    return made
