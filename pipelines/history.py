"""What changed since the last generation: `roundtrip.changes` and the stays of deals in stages.

Called inside a generation, around the load: field changes are compared before the new rows are merged,
stage moves after it.
"""

from datetime import datetime

import duckdb

from pipelines.deltas import Delta, stamp_column, table_of
from pipelines.fetching import Reading
from pipelines.warehouse import has_table, literal, quoted
from sources.core.connector import Resource

# A new value is ours when it is what we sent for the field, or when all that we sent below it stands in it.
_IS_OURS = """
json_extract_string(ledger.sent, '/' || pair.source) = pair.new
or list_bool_and(
    list_transform(
        list_filter(json_keys(ledger.sent), lambda name: starts_with(name, pair.source || '.')),
        lambda name:
            json_extract_string(try_cast(pair.new as json), '/' || substr(name, len(pair.source) + 2))
            is not distinct from json_extract_string(ledger.sent, '/' || name)
    )
)
"""


def note_changes(
    con: duckdb.DuckDBPyConnection, connection: str, delta: Delta, *, run_id: str, now: datetime
) -> None:
    """Compare a delta with the table it is about to be merged into.

    A changed field is one row; a new record is one row without a field. The first load of a table is no
    change: history begins after it. `origin` is `push` where the new value is one that we sent.
    """
    resource = delta.resource
    if not has_table(con, connection, resource.name):
        return
    table = f"{quoted(connection)}.{quoted(resource.name)}"
    changed_at = f"coalesce(new.{quoted(stamp_column(resource))}, $now)" if resource.updated else "$now"
    pairs = _pairs(resource, _columns(con, connection, resource))
    names = {"run": run_id, "connection": connection, "resource": resource.name, "now": now}
    con.execute(
        f"""
        insert into roundtrip.changes
        with pairs as (
            select new.id, {changed_at} as changed_at, unnest([{pairs}]) as pair
            from read_parquet({literal(str(delta.path))}) as new
            join {table} as old on old.id = new.id
            where old._deleted_at is null
        )
        select $run, $connection, $resource, pairs.id, pair.field, pair.old, pair.new, changed_at, 'updated',
            case when {_IS_OURS} then 'push' else 'crm' end
        from pairs
        left join roundtrip.ledger as ledger
            on ledger.connection = $connection and ledger.object = $resource and ledger.crm_id = pairs.id
        where pair.old is distinct from pair.new
        union all
        select $run, $connection, $resource, new.id, null, null, null, {changed_at}, 'created',
            case when ledger.crm_id is null then 'crm' else 'push' end
        from read_parquet({literal(str(delta.path))}) as new
        left join {table} as old on old.id = new.id
        left join roundtrip.ledger as ledger
            on ledger.connection = $connection and ledger.object = $resource and ledger.crm_id = new.id
        where new._deleted_at is null and (old.id is null or old._deleted_at is not null)
        union all
        select $run, $connection, $resource, new.id, null, null, null, {changed_at}, 'deleted', 'crm'
        from read_parquet({literal(str(delta.path))}) as new
        join {table} as old on old.id = new.id
        where new._deleted_at is not null and old._deleted_at is null
        """,
        names,
    )


def mark_deleted(
    con: duckdb.DuckDBPyConnection, reading: Reading, ids: set[str], *, run_id: str, now: datetime
) -> None:
    """Mark live records as found gone, and note each as a change; their last values stay."""
    table = table_of(reading)
    con.execute(
        f"""
        insert into roundtrip.changes
        select $run, $connection, $resource, id, null, null, null, $now, 'deleted', 'crm'
        from {table} where _deleted_at is null and list_contains($ids, id)
        """,
        {
            "run": run_id,
            "connection": reading.connection,
            "resource": reading.resource.name,
            "now": now,
            "ids": sorted(ids),
        },
    )
    con.execute(
        f"update {table} set _deleted_at = $now where _deleted_at is null and list_contains($ids, id)",
        {"now": now, "ids": sorted(ids)},
    )


def note_stage_moves(con: duckdb.DuckDBPyConnection, *, now: datetime) -> None:
    """Close and open stays so that each live deal's open stay is in its present stage.

    An open deal's first stay begins when the deal was created; a deal was closed when the CRM says so; any
    other move happened when the deal was last updated; where the CRM gives no stamp, when we saw it. A
    deleted deal leaves its stage.
    """
    con.execute(
        """
        create or replace temp table moves as
        select deal.connection, deal.id, deal.stage,
            least(
                coalesce(
                    deal.closed_at,
                    case when stay.id is null and deal.status = 'open' then deal.created_at end,
                    deal.updated_at,
                    $now
                ),
                $now
            ) as at,
            stay.id is not null as had_stay
        from crm.deals as deal
        left join roundtrip.deal_stays as stay
            on stay.connection = deal.connection and stay.id = deal.id and stay.left_at is null
        where deal.stage is not null and deal.stage is distinct from stay.stage
        """,
        {"now": now},
    )
    con.execute(
        """
        update roundtrip.deal_stays as stay
        set left_at = greatest(coalesce(moves.at, $now), stay.entered_at)
        from roundtrip.deal_stays as open
        left join moves on moves.connection = open.connection and moves.id = open.id and moves.had_stay
        left join crm.deals as deal on deal.connection = open.connection and deal.id = open.id
        where stay.left_at is null and open.left_at is null
            and stay.connection = open.connection and stay.id = open.id
            and (moves.id is not null or deal.id is null)
        """,
        {"now": now},
    )
    con.execute(
        """
        insert into roundtrip.deal_stays
        select moves.connection, moves.id, moves.stage, greatest(moves.at, ended.at), null
        from moves
        left join (
            select connection, id, max(left_at) as at from roundtrip.deal_stays group by connection, id
        ) as ended on ended.connection = moves.connection and ended.id = moves.id
        """
    )
    con.execute("drop table moves")


def _columns(con: duckdb.DuckDBPyConnection, connection: str, resource: Resource) -> set[str]:
    described = con.execute(f"describe {quoted(connection)}.{quoted(resource.name)}").fetchall()
    return {row[0] for row in described}


def _pairs(resource: Resource, present: set[str]) -> str:
    """Compose old and new value per column; a column that the table does not have yet was null."""
    pairs = [
        f"{{'field': {literal(column.name)}, 'source': {literal(column.source)},"
        f" 'old': {f'old.{quoted(column.name)}' if column.name in present else 'null'}::varchar,"
        f" 'new': new.{quoted(column.name)}::varchar}}"
        for column in resource.columns
    ]
    pairs.append(
        "{'field': '_extra', 'source': '_extra', 'old': old._extra::varchar, 'new': new._extra::varchar}"
    )
    return ", ".join(pairs)
