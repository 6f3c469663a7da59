"""`roundtrip push`: carry a sealed plan out, so that a kill at any instant loses nothing and doubles nothing.

What is sent is `plan`'s decision, sending and booking are `sending`'s. This module keeps the order:
settle what an earlier, killed push left open; plan; guard; ask; send and book.
"""

from collections.abc import Callable

from pipelines.plan import PlanResult, check_guard, make_plan, plan, show
from pipelines.progress import Progress
from pipelines.pushing import definitions
from pipelines.pushing.results import PushResult, unsent
from pipelines.pushing.sending import Sending, carry_out
from pipelines.pushing.settling import settle_left_over
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
    in_flight: int = 4,
) -> PushResult:
    """Send what the plan of a sync shows, at most `limit` records of it, after `confirm` agreed.

    With `create_fields`, custom fields that the CRM does not define yet are defined before the first row.
    Raises `ConfigError`, `GuardError` and `LockedError` before the first byte is sent. What stops the push
    later is told in the result, with what was done booked.
    """
    warehouse = Warehouse(project.warehouse)
    if dry_run:
        with warehouse.reading() as con:
            made = make_plan(con, project, sync, limit=limit)
            if not create_fields:
                definitions.glance(made, progress)
            return unsent(made)
    declared = project.sync(sync)
    with warehouse.lock(f"roundtrip push {sync}"):
        settle_left_over(project, warehouse, progress)
        with warehouse.reading() as con:
            made = make_plan(con, project, sync, limit=limit)
            check_guard(made)
            lacking = definitions.undefined(made)
            if create_fields and lacking:
                progress.say(f"{sync}: these custom fields will be defined: {', '.join(lacking)}")
            else:
                definitions.refuse(made, lacking)
            if made.changes and not confirm(show(made, None)):
                raise ConfigError(f"push {declared.name}: not confirmed, nothing was sent")
            definitions.define(made, lacking)
            return carry_out(made, warehouse, progress, Sending(in_flight=in_flight))
