"""What changed since the last generation: `roundtrip.changes` and the stays of deals in stages.

Called inside a generation, around the load: field changes are compared before the new rows are merged,
stage moves after it.
"""

from collections.abc import Mapping
from datetime import datetime

import duckdb

from pipelines.pulling.deltas import Delta, stamp_column, table_of
from pipelines.pulling.fetching import Reading
from pipelines.warehouse import has_table, literal, quoted
from sources.core.connector import Resource

# A new value is ours when it is what we sent for the field, or when all that we sent below it stands in it.
_IS_OURS = """
(
    json_exists(ledger.sent, '/' || pair.source)
    and json_extract_string(ledger.sent, '/' || pair.source) is not distinct from pair.new
)
or list_bool_and(
    list_transform(
        list_filter(json_keys(ledger.sent), lambda name: starts_with(name, pair.source || '.')),
        lambda name:
            json_extract_string(try_cast(pair.new as json), '/' || substr(name, len(pair.source) + 2))
            is not distinct from json_extract_string(ledger.sent, '/' || name)
    )
)
"""


# What we sent to a record, brought together where rows of several keys have led to it.
_LEDGER = """
select crm_id,
    case when count(*) = 1 then any_value(sent) else to_json(list_reduce(
        list_transform(list(sent order by pushed_at), lambda one: one::map(varchar, json)),
        lambda earlier, later: map_concat(earlier, later)
    )) end as sent
from roundtrip.ledger
where connection = $connection and object = $resource and crm_id is not null
group by crm_id
"""


def note_changes(
    con: duckdb.DuckDBPyConnection,
    connection: str,
    delta: Delta,
    *,
    is_first: bool,
    run_id: str,
    now: datetime,
) -> None:
    """Compare a delta with the table it is about to be merged into.

    A changed field is one row; a new record is one row without a field. The first load of a table is no
    change, in however many parts it comes (`is_first`): history begins after it. `origin` is `push` where
    the new value is one that we sent.
    """
    resource = delta.resource
    if not has_table(con, connection, resource.name):
        return
    table = f"{quoted(connection)}.{quoted(resource.name)}"
    stamp = f"new.{quoted(stamp_column(resource))}" if resource.updated else "null"
    changed_at = f"least(coalesce({stamp}, $now), $now)"
    pairs = _pairs(resource, _columns(con, connection, resource))
    names = {"run": run_id, "connection": connection, "resource": resource.name, "now": now}
    con.execute(
        f"""
        insert into roundtrip.changes
        with ledger as ({_LEDGER}),
        pairs as (
            select new.id, {changed_at} as changed_at, unnest([{pairs}]) as pair
            from {delta.source} as new
            join {table} as old on old.id = new.id
            where old._deleted_at is null and old._row_hash is not null  -- without: emptied by `privacy`
        )
        select $run, $connection, $resource, pairs.id, pair.field, pair.old, pair.new, changed_at, 'updated',
            case when {_IS_OURS} then 'push' else 'crm' end
        from pairs
        left join ledger on ledger.crm_id = pairs.id
        where pair.old is distinct from pair.new
        union all
        select $run, $connection, $resource, new.id, null, null, null, {changed_at}, 'created',
            case when ledger.crm_id is null then 'crm' else 'push' end
        from {delta.source} as new
        left join {table} as old on old.id = new.id
        left join ledger on ledger.crm_id = new.id
        where new._deleted_at is null
            and (old._deleted_at is not null or (old.id is null and not $is_first))
        union all
        select $run, $connection, $resource, new.id, null, null, null, {changed_at}, 'deleted', 'crm'
        from {delta.source} as new
        join {table} as old on old.id = new.id
        where new._deleted_at is not null and old._deleted_at is null
        """,
        {**names, "is_first": is_first},
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


def note_stage_moves(con: duckdb.DuckDBPyConnection, clocks: Mapping[str, datetime]) -> None:
    """Close and open stays so that each live deal's open stay is in its present stage.

    An open deal's first stay begins when the deal was created; a deal was closed when the CRM says so; any
    other move happened when the deal was last updated; where the CRM gives no stamp that fits, when we saw
    it by the CRM's clock (`clocks`, by connection). A deleted deal leaves its stage.
    """
    con.execute("create or replace temp table clocks (connection varchar, now timestamptz)")
    con.executemany("insert into clocks values (?, ?)", [list(entry) for entry in clocks.items()])
    con.execute(_MOVES)
    con.execute(
        """
        update roundtrip.deal_stays as stay
        set left_at = greatest(coalesce(moves.moved_at, clocks.now), stay.entered_at)
        from roundtrip.deal_stays as open
        join clocks on clocks.connection = open.connection
        left join moves on moves.connection = open.connection and moves.id = open.id and moves.had_stay
        left join crm.deals as deal on deal.connection = open.connection and deal.id = open.id
        where stay.left_at is null and open.left_at is null
            and stay.connection = open.connection and stay.id = open.id
            and (moves.id is not null or deal.id is null)
        """
    )
    con.execute(
        """
        insert into roundtrip.deal_stays
        select connection, id, stage, greatest(moved_at, since), null from moves where stage is not null
        """
    )
    con.execute("drop table moves")
    con.execute("drop table clocks")


# `since` is when the last stay began or ended. Where a view takes `closed_at` from the stays, it is that
# moment: only a later one tells of this move.
_MOVES = """
create or replace temp table moves as
with known as (
    select connection, id, max(coalesce(left_at, entered_at)) as since
    from roundtrip.deal_stays group by connection, id
)
select deal.connection, deal.id, deal.stage, known.since, stay.id is not null as had_stay,
    least(
        case
            when deal.status <> 'open' and deal.closed_at > coalesce(known.since, '-infinity'::timestamptz)
                then deal.closed_at
            when known.since is null and deal.status = 'open'
                then coalesce(deal.created_at, deal.updated_at, clocks.now)
            when deal.updated_at >= coalesce(known.since, '-infinity'::timestamptz) then deal.updated_at
            else clocks.now
        end,
        clocks.now
    ) as moved_at
from crm.deals as deal
join clocks on clocks.connection = deal.connection
left join known on known.connection = deal.connection and known.id = deal.id
left join roundtrip.deal_stays as stay
    on stay.connection = deal.connection and stay.id = deal.id and stay.left_at is null
where deal.stage is distinct from stay.stage
"""


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
