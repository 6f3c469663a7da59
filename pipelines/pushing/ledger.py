"""The ledger: what a CRM accepted from us per field (`sent`), and what it showed for it later (`echo`).

`push` books what was accepted, `pull` settles the echoes once it has looked. What to do about a
difference is decided by `plan`.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import duckdb

from pipelines.pushing.compare import is_echo, pointer
from pipelines.pushing.identity import key_in_mirror, place_in_mirror
from pipelines.warehouse import columns_in, has_table, literal, quoted
from sources.core.connector import Write, snake_case

# A record's ledger row stays open until the CRM has been looked at after the push.
_OPEN = "(ledger.echo_at is null or ledger.echo_at < ledger.pushed_at)"


def has_unsettled(con: duckdb.DuckDBPyConnection, connections: Collection[str]) -> bool:
    """Tell whether a look at these connections would settle something: an echo, or an unknown outcome."""
    if not has_table(con, "roundtrip", "ledger"):
        return False
    wanted = list(connections)
    # What no pull reads, no look settles.
    by_look = (
        "join roundtrip.resource_state as state"
        " on state.connection = {0}.connection and state.resource = {0}.object"
        " and state.last_complete_at is not null"
    )
    found = con.execute(
        f"""
        select 1 from roundtrip.ledger as ledger {by_look.format("ledger")}
        where {_OPEN} and list_contains($wanted, ledger.connection)
        union all
        select 1 from ({latest_unknown()}) as unknown
        {by_look.format("unknown")}
        where list_contains($wanted, unknown.connection)
            and state.last_complete_at <= unknown.pushed_at
        limit 1
        """,
        {"wanted": wanted},
    ).fetchone()
    return found is not None


def latest_unknown() -> str:
    """Write the query for records whose last sent row had an unknown outcome."""
    return """
        select connection, object, key, pushed_at from (
            select connection, object, key, arg_max(status, pushed_at) as status, max(pushed_at) as pushed_at
            from roundtrip.push_log
            where status in ('created', 'updated', 'deleted', 'unknown')
                and key in (select key from roundtrip.push_log where status = 'unknown')
            group by all
        ) where status = 'unknown'
    """


def settle_echoes(
    con: duckdb.DuckDBPyConnection,
    now: datetime | None = None,
    *,
    writes: Mapping[str, Mapping[str, Write]] | None = None,
) -> int:
    """Take what the CRM shows now as the echo of what was sent, where it was looked at since; count the rows.

    A value that is no echo of ours was edited by somebody: the echo is then what was sent, so that the
    difference shows. Record ids that no answer told are filled in by the natural key, for the connections
    whose `writes` (connection -> object -> what can be written) are given.
    """
    known = writes or {}
    mirrors = con.execute(
        f"""
        select distinct ledger.connection, ledger.object from roundtrip.ledger as ledger
        join roundtrip.resource_state as state
            on state.connection = ledger.connection and state.resource = ledger.object
        where {_OPEN} and state.last_complete_at > ledger.pushed_at
        """
    ).fetchall()
    return sum(
        _settle(
            con, connection, object_name, known.get(connection, {}).get(object_name), now or datetime.now(UTC)
        )
        for connection, object_name in mirrors
        if has_table(con, connection, object_name)
    )


def _settle(
    con: duckdb.DuckDBPyConnection, connection: str, object_name: str, write: Write | None, now: datetime
) -> int:
    columns = columns_in(con, connection, object_name)
    names = {"connection": connection, "object": object_name}
    mirror = f"{quoted(connection)}.{quoted(object_name)}"
    pointers = _pointers(con, names, write, columns)
    key = "null::varchar" if write is None else key_in_mirror(write, columns)
    con.execute(_compare_with(mirror, pointers, key), names)
    # A row that somebody edited stays due for a comparison: its record is older than its echo.
    settled = con.execute(
        """
        update roundtrip.ledger as ledger set
            crm_id = settling.crm_id,
            echo = to_json(map_concat(
                coalesce(ledger.echo::map(varchar, json), map()), coalesce(settling.fresh, map())
            )),
            echo_at = case when settling.is_clean then $now else ledger.pushed_at end
        from settling
        where ledger.key = settling.key and ledger.connection = $connection and ledger.object = $object
        """,
        {**names, "now": now},
    ).fetchall()
    con.execute("drop table settling")
    return int(settled[0][0])


def _compare_with(mirror: str, pointers: str, key: str) -> str:
    """Write the table `settling`: each row that is due, its record's id, and what the mirror shows for it."""
    by_key = f"""
    select {key} as key, min(id) as id
    from {mirror} as mirror where _deleted_at is null group by 1 having count(*) = 1
    """
    is_known = "json_exists(pairs.echo, '/' || replace(replace(pair.key, '~', '~0'), '/', '~1'))"
    return f"""
    create or replace temp table settling as
    with due as (
        select ledger.key, ledger.sent, ledger.echo, coalesce(ledger.crm_id, by_key.id) as crm_id
        from roundtrip.ledger as ledger
        join roundtrip.resource_state as state
            on state.connection = ledger.connection and state.resource = ledger.object
        left join ({by_key}) as by_key on by_key.key = ledger.key
        where {_OPEN} and state.last_complete_at > ledger.pushed_at
            and ledger.connection = $connection and ledger.object = $object
    ),
    pairs as (
        select due.key, due.echo, to_json(mirror) as record,
            unnest(map_entries(due.sent::map(varchar, json))) as pair
        from due join {mirror} as mirror on mirror.id = due.crm_id
    ),
    shown as (
        select pairs.key, pair.key as field,
            pair.value as sent, pair.value ->> '$' as sent_text,
            json_extract(record, field.pointer) as shown,
            json_extract_string(record, field.pointer) as shown_text
        from pairs join ({pointers}) as field on field.name = pair.key
        where not coalesce({is_known}, false)
    ),
    judged as (select *, {is_echo("sent_text", "shown_text")} as is_echo from shown),
    settled as (
        select key, bool_and(is_echo) as is_clean,
            map_from_entries(list({{'k': field, 'v': case when is_echo then shown else sent end}})) as fresh
        from judged group by key
    )
    select due.key, due.crm_id, settled.fresh, coalesce(settled.is_clean, true) as is_clean
    from due left join settled on settled.key = due.key
    """


def _pointers(
    con: duckdb.DuckDBPyConnection, names: Mapping[str, str], write: Write | None, columns: Mapping[str, str]
) -> str:
    """Write the table of sent fields and where the mirror's record shows them, unreadable ones left out."""
    fields = con.execute(
        f"""
        select distinct unnest(json_keys(ledger.sent)) from roundtrip.ledger as ledger
        where {_OPEN} and ledger.connection = $connection and ledger.object = $object
        """,
        dict(names),
    ).fetchall()
    places = {name: _place(write, name, columns) for (name,) in fields}
    rows = [f"({literal(name)}, {pointer(*filter(None, place))})" for name, place in places.items() if place]
    return (
        f"select * from (values {', '.join(rows)}) as field(name, pointer)"
        if rows
        else "select '' as name, '' as pointer where false"
    )


def _place(write: Write | None, field: str, columns: Mapping[str, str]) -> tuple[str, str] | None:
    if write is not None:
        return place_in_mirror(write, field, columns) if write.resource else None
    top, _, custom = field.partition(".")
    column = snake_case(top)
    return (column, custom) if column in columns else None
