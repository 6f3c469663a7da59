"""`roundtrip drift`: what was changed in a CRM since we wrote it, and writing it again where that is wanted.

A plan finds the drift (`pushing.outbox`); this module lists it, with the time of the change as the pulls saw
it. A repair is a push of the drifted fields alone, through the same engine. Reads the published generation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from pipelines.plan import Held, Plan, PlanResult, check_guard, count_rows, entry, make_plan, seal_of, show
from pipelines.progress import Progress
from pipelines.pushing.identity import place_in_mirror
from pipelines.pushing.mapping import writable_of
from pipelines.pushing.matching import Target
from pipelines.pushing.outbox import known_record
from pipelines.pushing.results import PushResult
from pipelines.pushing.sending import Sending, carry_out
from pipelines.pushing.settling import settle_left_over
from pipelines.settings import Project
from pipelines.warehouse import Warehouse, columns_in
from sources.core.errors import ConfigError


@dataclass(slots=True)
class DriftResult:
    """What a CRM shows otherwise than we wrote it, as the last pull saw it (`as_of`)."""

    sync: str
    connection: str
    object: str
    as_of: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip drift`."""
        return {
            "sync": self.sync,
            "connection": self.connection,
            "object": self.object,
            "as_of": self.as_of,
            "counts": {"drift": len(self.rows), "fields": sum(len(row["fields"]) for row in self.rows)},
            "rows": self.rows,
        }


def drift(project: Project, sync: str) -> DriftResult:
    """List the fields that somebody changed in the CRM since a sync wrote them.

    In `fields` of a row, `old` is what we wrote and `new` what the CRM shows. Only records that the model
    still has are compared. Raises what a plan raises.
    """
    with Warehouse(project.warehouse).reading() as con:
        made = make_plan(con, project, sync)
        return DriftResult(
            sync,
            made.connection.name,
            made.write.object,
            as_of=made.looked_at.isoformat() if made.looked_at else None,
            rows=_rows(made),
        )


def repair(
    project: Project,
    sync: str,
    *,
    confirm: Callable[[PlanResult], bool],
    progress: Progress,
    in_flight: int = 4,
) -> PushResult:
    """Write again what was changed in the CRM since a sync wrote it, nothing else, after `confirm` agreed.

    Fields that the sync writes only now and then (`if_empty`, `on_create`) are left to the CRM. Raises what
    `push` raises.
    """
    warehouse = Warehouse(project.warehouse, project.publish)
    with warehouse.lock(f"roundtrip drift {sync}"):
        settle_left_over(project, warehouse, progress)
        with warehouse.reading() as con:
            made = make_plan(con, project, sync)
            _plan_back(con, made)
            check_guard(made)
            if made.changes and not confirm(show(made, None)):
                raise ConfigError(f"drift {sync}: not confirmed, nothing was sent")
            return carry_out(
                made, warehouse, progress, Sending(in_flight=in_flight, command=f"drift {sync} --repair")
            )


def _plan_back(con: duckdb.DuckDBPyConnection, made: Plan) -> None:
    """Make a plan of its drift alone: to be sent where the sync always writes the field."""
    always = [
        rule.field
        for rule in made.sync.fields
        if rule.write == "always" and writable_of(made.write, rule.field).updatable
    ]
    columns = columns_in(con, made.connection.name, made.write.resource)
    target = Target(made.connection, made.write, columns, made.has_mirror)
    con.execute(
        "create or replace temp table drifted as"
        " select *, crm_id as record_id from plan_rows where status = 'drift'"
    )
    con.execute(
        f"""
        create or replace temp table plan_rows as
        select row_number() over (order by key, address) as seq, *
        from (
            select key, address, crm_id, 'update' as action, match, 'planned' as status,
                null::varchar as reason, {_those("fields")} as fields, {_those("before")} as before,
                {known_record(target, of="drifted")} as known, sent, echo, is_looked
            from drifted
        )
        where fields <> '{{}}'
        """,
        {"always": always},
    )
    con.execute("create or replace temp table plan_size as select count(*) as candidates from plan_rows")
    count_rows(made, target)
    made.seal = seal_of(made)


def _those(members: str) -> str:
    """Write the members of a JSON object whose names are in `$always`."""
    return (
        f"to_json(map_from_entries(list_filter(map_entries({members}::json::map(varchar, json)),"
        " lambda each: list_contains($always, each.key))))::varchar"
    )


# -- listing -------------------------------------------------------------------------------------


def _rows(made: Plan) -> list[dict[str, Any]]:
    changed = _changes(made)
    columns = columns_in(made.con, made.connection.name, made.write.resource)
    places = {rule.field: place_in_mirror(made.write, rule.field, columns) for rule in made.sync.fields}
    held_back = list(made.held_back("drift"))
    return [
        _row(held, [changed.get((held.crm_id, place[0])) for name in held.fields if (place := places[name])])
        for held in held_back
    ]


def _row(held: Held, changed_at: list[datetime | None]) -> dict[str, Any]:
    planned = entry(held, action="drift", reason=held.reason)
    fields = {name: {"old": each["new"], "new": each["old"]} for name, each in planned["fields"].items()}
    last = max(filter(None, changed_at), default=None)
    return {**planned, "fields": fields, "changed_at": last.isoformat() if last else None}


def _changes(made: Plan) -> dict[tuple[str | None, str], datetime]:
    """Tell when fields of the drifted records were last changed by others: (id, column) -> time."""
    rows = made.con.execute(
        """
        select id, field, max(changed_at) from roundtrip.changes
        where connection = ? and resource = ? and origin = 'crm' and kind = 'updated'
            and id in (select crm_id from plan_rows where status = 'drift')
        group by all
        """,
        [made.connection.name, made.write.resource],
    ).fetchall()
    return {(crm_id, name): at for crm_id, name, at in rows}
