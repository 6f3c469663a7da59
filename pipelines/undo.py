"""`roundtrip undo`: write back the values that a push replaced, wherever nobody has edited them since.

An undo is a push: what goes back is composed from the log (`pushing.restoring`), and it is sent, journalled
and booked by the same engine, under a run id of its own, so that it can be undone itself. The ledger then
holds the restored values; a model that still says otherwise is sent again by the next push.
"""

from collections.abc import Callable
from datetime import timedelta

import duckdb

from pipelines.plan import Plan, PlanResult, count_rows, seal_of, show
from pipelines.progress import Progress
from pipelines.pushing.guards import last_look
from pipelines.pushing.matching import Target
from pipelines.pushing.restoring import compose_undo
from pipelines.pushing.results import PushResult, unsent
from pipelines.pushing.sending import Sending, carry_out
from pipelines.pushing.settling import journal_folder, settle_left_over
from pipelines.settings import Project
from pipelines.syncs import FieldRule, Sync, check_sight
from pipelines.warehouse import Warehouse, columns_in, has_table
from sources import load
from sources.core import journal as journals
from sources.core.connector import Contract
from sources.core.errors import ConfigError


def undo(
    project: Project,
    run_id: str,
    *,
    dry_run: bool = False,
    delete_created: bool = False,
    confirm: Callable[[PlanResult], bool],
    progress: Progress,
    in_flight: int = 4,
) -> PushResult:
    """Take back what a run wrote to a CRM, field by field, after `confirm` agreed.

    With `delete_created`, records that the run made are deleted where the API documents it. What was edited
    since, by people or by a later run, stays and is listed. Raises `ConfigError` for a run that wrote
    nothing to a CRM, and what `push` raises.
    """
    warehouse = Warehouse(project.warehouse, project.publish)
    if dry_run:
        with warehouse.reading() as con:
            made = _make_undo(con, project, warehouse, run_id, delete_created=delete_created)
            if made.looked_at and made.changes:
                progress.say(f"undo: as the pull of {made.looked_at:%Y-%m-%d %H:%M:%S} UTC saw the CRM")
            return _counted(unsent(made))
    with warehouse.lock(f"roundtrip undo {run_id}"):
        settle_left_over(project, warehouse, progress)
        with warehouse.reading() as con:
            made = _make_undo(con, project, warehouse, run_id, delete_created=delete_created)
            if made.changes and not confirm(_shown(made)):
                raise ConfigError(f"undo {run_id}: not confirmed, nothing was sent")
            how = Sending(in_flight=in_flight, command=f"undo {run_id}", keeps_rest=True)
            result = _counted(carry_out(made, warehouse, progress, how))
    _tell(result, progress)
    return result


def _make_undo(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    warehouse: Warehouse,
    run_id: str,
    *,
    delete_created: bool,
) -> Plan:
    sync, connection_name, object_name = _written_by(con, warehouse, run_id)
    connection = project.connection(connection_name)
    contract: Contract = load(connection.crm).contract(connection)
    if object_name not in contract.writes:
        raise ConfigError(
            f"run {run_id} wrote {object_name}, which {connection.crm} as it is set up now does not take",
            connection=connection.name,
            hint="Set the connection up as it was then.",
        )
    write = contract.writes[object_name]
    rules = tuple(FieldRule(name, "") for name in _sent(con, run_id))
    # Looked at again whatever their age: what was edited since the last pull is to stay as well.
    as_sync = Sync(sync, connection.name, object_name, write.key, rules, recheck_after=timedelta(0))
    check_sight(as_sync, connection, contract, write)
    columns = columns_in(con, connection.name, write.resource)
    has_mirror = bool(write.resource) and has_table(con, connection.name, write.resource)
    target = Target(connection, write, columns, has_mirror)
    compose_undo(con, run_id, target, delete_created=delete_created)
    made = Plan(con, as_sync, connection, write, has_mirror=has_mirror)
    if has_mirror:
        made.looked_at, made.is_half_pulled = last_look(con, warehouse, connection, write)
    count_rows(made, target)
    made.seal = seal_of(made)
    return made


def _written_by(con: duckdb.DuckDBPyConnection, warehouse: Warehouse, run_id: str) -> tuple[str, str, str]:
    """Tell which sync, connection and object a run wrote to; `ConfigError` where it wrote nowhere."""
    found = con.execute(
        "select any_value(sync), any_value(connection), any_value(object) from roundtrip.push_log"
        " where run_id = ? and status in ('created', 'updated', 'deleted', 'unknown') having count(*) > 0",
        [run_id],
    ).fetchone()
    if found:
        return str(found[0]), str(found[1]), str(found[2])
    if any(path.stem == run_id for path in journals.left_over(journal_folder(warehouse))):
        raise ConfigError(
            f"run {run_id} was stopped half way and is not settled yet",
            hint="Undo it without --dry-run, which settles it first.",
        )
    command = _command_of(con, warehouse, run_id)
    if command is None:
        raise ConfigError(
            f"there is no run {run_id}",
            hint="`select run_id, command from roundtrip.runs` on the warehouse lists them.",
        )
    raise ConfigError(f"run {run_id} (`{command}`) wrote nothing to a CRM, so there is nothing to undo")


def _sent(con: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    query = "select distinct unnest(json_keys(sent)) from roundtrip.push_log where run_id = ? order by 1"
    return [name for (name,) in con.execute(query, [run_id]).fetchall()]


def _command_of(con: duckdb.DuckDBPyConnection, warehouse: Warehouse, run_id: str) -> str | None:
    found = con.execute("select command from roundtrip.runs where run_id = ?", [run_id]).fetchone()
    if found:
        return str(found[0])
    return next((run.command for run in warehouse.pending_runs() if run.run_id == run_id), None)


# -- results -------------------------------------------------------------------------------------


def _counted(result: PushResult) -> PushResult:
    """Give the counts of deletions also where there are none."""
    result.counts = {**result.counts, **{name: result.counts.get(name, 0) for name in ("delete", "deleted")}}
    return result


def _shown(made: Plan) -> PlanResult:
    """Make the listing to agree to, deletions counted."""
    listing = show(made, None)
    listing.counts |= {"delete": made.sent.get("delete", 0)}
    return listing


def _tell(result: PushResult, progress: Progress) -> None:
    if any(result.counts[name] for name in ("created", "updated", "deleted")):
        progress.say(
            f"{result.sync}: the next push sends what was taken back again, unless its model changes first"
        )
