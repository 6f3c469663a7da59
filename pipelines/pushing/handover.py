"""Carry out a plan that was handed over as a file: exactly its rows, as long as they would be planned now.

What the file is, and whether it is whole, is `planfile`'s.
"""

from typing import TYPE_CHECKING

import duckdb

from pipelines.pushing.planfile import PlanFile, definition_of, target_of
from sources.core.errors import ConfigError, GuardError

if TYPE_CHECKING:
    from pipelines.plan import Plan

_CHUNK = 20_000

# The file's rows that are to be sent, with the row that would be planned for each of them now. Every value is
# compared as the text it was planned as.
_PAIRED = """
create or replace temp table plan_handed as
select wanted.*, planned.key is not null as is_same,
    planned.key is null and present.key is null and coalesce(
        ledger.pushed_at >= $made_at and json_contains(ledger.sent, wanted.fields), false
    ) as is_done
from plan_file as wanted
left join (from plan_rows where status = 'planned') as planned
    on planned.key = wanted.key and planned.action = wanted.action and planned.match = wanted.match
    and planned.crm_id is not distinct from wanted.crm_id
    and planned.fields = wanted.fields and planned.before = wanted.before
left join (select distinct key from plan_rows where status not in ('adopt', 'drift')) as present
    on present.key = wanted.key
left join roundtrip.ledger as ledger
    on ledger.connection = $connection and ledger.object = $object and ledger.key = wanted.key
where wanted.status = 'planned'
"""


def restrict(made: "Plan", file: PlanFile) -> None:
    """Leave of a plan what a file holds; rows of the file that were pushed since are done and left out.

    Raises `GuardError` where a row of the file would not be planned as it stands there, `ConfigError` where
    the file was made for another workspace.
    """
    _check_target(made, file)
    if file.header.definition != definition_of(made):
        raise _moved(made, "the settings of the sync have changed since the plan was made")
    _load(made.con, file)
    names = {"connection": made.connection.name, "object": made.write.object}
    made.con.execute(_PAIRED, {**names, "made_at": file.header.made_at})
    wanted, moved, done = made.con.execute(
        "select count(*), count(*) filter (not (is_same or is_done)), count(*) filter (is_done)"
        " from plan_handed"
    ).fetchall()[0]
    if moved:
        raise _moved(
            made, f"{moved:,} of the {wanted:,} rows of {file.path.name} would be planned otherwise now"
        )
    made.con.execute(
        """
        delete from plan_rows where not (
            (status = 'planned' and key in (select key from plan_handed where is_same))
            or (status, key, reason) in (select (status, key, reason) from plan_file)
        )
        """
    )
    made.count_again(unchanged=file.header.counts.get("unchanged", 0) + done)


def _check_target(made: "Plan", file: PlanFile) -> None:
    planned, present = file.header.target, target_of(made)
    if planned != present:
        name = next(name for name in present if planned.get(name) != present[name])
        raise ConfigError(
            f"{file.path.name} was made for {name} {planned.get(name)}, and here it is {present[name]};"
            " nothing was sent",
            hint="Push it where its connection leads to the same workspace.",
        )


def _moved(made: "Plan", why: str) -> GuardError:
    return GuardError(
        f"{why}; nothing was sent",
        connection=made.connection.name,
        resource=made.write.object,
        hint=f"Make it anew: `roundtrip plan {made.sync.name} --out FILE`.",
    )


def _load(con: duckdb.DuckDBPyConnection, file: PlanFile) -> None:
    con.execute(
        "create or replace temp table plan_file (key varchar, crm_id varchar, action varchar, match varchar,"
        " status varchar, reason varchar, fields varchar, before varchar)"
    )
    for start in range(0, len(file.lines), _CHUNK):
        part = file.lines[start : start + _CHUNK]
        columns = [
            [line.key for line in part],
            [line.crm_id for line in part],
            [line.action for line in part],
            [line.match for line in part],
            [line.status for line in part],
            [line.reason for line in part],
            [bytes(line.fields).decode() for line in part],
            [bytes(line.before).decode() for line in part],
        ]
        con.execute(f"insert into plan_file select {', '.join(['unnest(?::varchar[])'] * 8)}", columns)
