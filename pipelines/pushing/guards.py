"""What stops a push before its first byte: too many changes, or a pull that is too old or half done.

A plan tells what would stop its push; what a push may send at all is `plan`'s to work out.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb

from pipelines.render import took
from pipelines.warehouse import Warehouse, has_table
from sources.core.connector import Connection, Write
from sources.core.errors import GuardError

if TYPE_CHECKING:
    from pipelines.plan import Plan


def check_guard(made: "Plan", now: datetime | None = None) -> None:
    """Stop with `GuardError` where a sync's guards forbid a plan to be carried out."""
    error = guard_of(made, now or datetime.now(UTC))
    if error is not None:
        raise error


def guard_of(made: "Plan", now: datetime) -> GuardError | None:
    """Tell what stops a plan from being carried out; one that sends nothing is never stopped."""
    if made.changes == 0:
        return None
    return _half_pulled(made) or _stale(made, now) or _too_many(made)


def require_pull(con: duckdb.DuckDBPyConnection, connection: Connection, write: Write) -> None:
    """Raise `GuardError` when the target has never been pulled to its end."""
    state = con.execute(
        "select last_complete_at from roundtrip.resource_state where connection = ? and resource = ?",
        [connection.name, write.resource],
    ).fetchone()
    if state is None or state[0] is None or not has_table(con, connection.name, write.resource):
        raise GuardError(
            "it has never been pulled to its end, so what the CRM holds is not known; nothing was sent",
            connection=connection.name,
            resource=write.resource,
            hint=f"Run `roundtrip pull {connection.name}.{write.resource}` first.",
        )


def last_look(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, connection: Connection, write: Write
) -> tuple[datetime | None, bool]:
    """Tell when the target was last looked at to its end, and whether a pull has stopped half way since.

    A look that found nothing new may not be in the warehouse yet, but in the records of runs beside it.
    """
    state = con.execute(
        "select last_complete_at, page_token is not null from roundtrip.resource_state"
        " where connection = ? and resource = ?",
        [connection.name, write.resource],
    ).fetchone()
    looked_at, is_half = state or (None, False)
    found = [looked_at, warehouse.looked().get((connection.name, write.resource))]
    return max((each for each in found if each is not None), default=None), bool(is_half)


def _half_pulled(made: "Plan") -> GuardError | None:
    if not made.is_half_pulled:
        return None
    return GuardError(
        "its last pull stopped half way, so what the CRM holds is only half known; nothing was sent",
        connection=made.connection.name,
        resource=made.write.resource,
        hint=f"Run `roundtrip pull {made.connection.name}.{made.write.resource}` to its end.",
    )


def _stale(made: "Plan", now: datetime) -> GuardError | None:
    if made.looked_at is None or now - made.looked_at <= made.sync.max_age:
        return None
    age, most = took((now - made.looked_at).total_seconds()), took(made.sync.max_age.total_seconds())
    return GuardError(
        f"it was last pulled {age} ago, and max_age is {most}; nothing was sent",
        connection=made.connection.name,
        resource=made.write.resource,
        hint=f"Run `roundtrip pull {made.connection.name}.{made.write.resource}`,"
        f" or raise syncs.{made.sync.name}.max_age.",
    )


def _too_many(made: "Plan") -> GuardError | None:
    most = made.sync.max_changes
    is_number = most is not None and most > 1
    # A share of nothing, or of what nobody can count, counts as too much.
    if most is None or made.changes <= (most if is_number else most * made.live):
        return None
    name, share = made.sync.name, _share(made)
    return GuardError(
        f"{made.changes} records would change ({share}), over max_changes = {most:g}; nothing was sent",
        connection=made.connection.name,
        resource=made.write.object,
        hint=f"Look at `roundtrip plan {name}`, then raise syncs.{name}.max_changes or use --limit.",
    )


def _share(made: "Plan") -> str:
    if made.live:
        return f"{made.changes / made.live:.0%} of its {made.live} records"
    if made.has_mirror:
        return "the CRM shows no records"
    return "a share of what the CRM cannot show is not known: give a number"
