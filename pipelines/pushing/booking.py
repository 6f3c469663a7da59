"""Fold a push into the warehouse: its log, and what the CRM accepted, in one generation.

May be repeated: a run that is booked again replaces its own entries. The journal it comes from is
deleted by the caller, once the generation is published.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from pipelines.pushing.identity import exact_key_sql, shown_key_sql
from pipelines.warehouse import has_table, literal, quoted
from sources.core.bodies import encode_lines
from sources.core.journal import Booked, Header, Story

_WRITTEN_AT_ONCE = 10_000
_COLUMNS = (
    "{key: 'varchar', crm_id: 'varchar', action: 'varchar', status: 'varchar', sent: 'json',"
    " replaced: 'json', error: 'varchar', batch_id: 'varchar', pushed_at: 'timestamptz',"
    " sent_at: 'timestamptz', verified: 'varchar', shown: 'json'}"
)


def is_booked(con: duckdb.DuckDBPyConnection, run_id: str) -> bool:
    """Tell whether a run is in the warehouse already."""
    return con.execute("select 1 from roundtrip.runs where run_id = ?", [run_id]).fetchone() is not None


def book(con: duckdb.DuckDBPyConnection, story: Story, folder: Path) -> None:
    """Write a push's rows to `roundtrip.push_log` and what was accepted to the ledger."""
    header = story.header
    _load(con, story.booked, folder / f"{header.run_id}.rows", "booked")
    con.execute("delete from roundtrip.push_log where run_id = ?", [header.run_id])
    con.execute(
        f"""
        insert into roundtrip.push_log (run_id, sync, connection, object, key, crm_id, action, status, sent,
            replaced, error, batch_id, pushed_at, verified, shown, exact_key)
        select $run_id, $sync, $connection, $object, {shown_key_sql("key")}, crm_id, action, status, sent,
            replaced, error, batch_id, pushed_at, verified, shown, {exact_key_sql("key")}
        from booked
        """,
        {**_names(header), "run_id": header.run_id, "sync": header.sync},
    )
    _remember(con, header)
    _forget_deleted(con, header)
    if story.adopted:
        _load(con, story.adopted, folder / f"{header.run_id}.rows", "booked")
        _adopt(con, header)
    con.execute("drop table booked")


def _load(con: duckdb.DuckDBPyConnection, rows: Sequence[Booked], file: Path, table: str) -> None:
    with file.open("wb") as target:
        for start in range(0, len(rows), _WRITTEN_AT_ONCE):
            target.write(encode_lines(rows[start : start + _WRITTEN_AT_ONCE]))
    con.execute(
        f"create or replace temp table {table} as select * from read_json({literal(str(file))},"
        f" format = 'newline_delimited', columns = {_COLUMNS}, maximum_object_size = 268435456)"
    )
    file.unlink()


def _remember(con: duckdb.DuckDBPyConnection, header: Header) -> None:
    """Merge what was accepted into the ledger; a value sent anew has no echo yet."""
    con.execute(
        """
        create or replace temp table remembered as
        with accepted as (
            select key, any_value(crm_id) as crm_id, any_value(action) as action, max(pushed_at) as pushed_at,
                coalesce(min(sent_at), max(pushed_at)) as sent_at, any_value(sent) as sent
            from booked where status in ('created', 'updated') group by key
        )
        select accepted.key, coalesce(accepted.crm_id, ledger.crm_id) as crm_id,
            case when ledger.key is null then accepted.sent else to_json(map_concat(
                coalesce(ledger.sent::map(varchar, json), map()), accepted.sent::map(varchar, json)
            )) end as sent,
            case when ledger.echo is not null then to_json(map_from_entries(list_filter(
                map_entries(ledger.echo::map(varchar, json)),
                lambda shown: not list_contains(json_keys(accepted.sent), shown.key)
            ))) end as echo,
            accepted.pushed_at, accepted.sent_at, ledger.echo_at
        from accepted
        left join roundtrip.ledger as ledger
            on ledger.connection = $connection and ledger.object = $object and ledger.key = accepted.key
            and accepted.action = 'update'
            and (ledger.crm_id is null or accepted.crm_id is null or ledger.crm_id = accepted.crm_id)
        """,
        _names(header),
    )
    con.execute(
        "delete from roundtrip.ledger where connection = $connection and object = $object"
        " and key in (select key from remembered)",
        _names(header),
    )
    con.execute(
        """
        insert into roundtrip.ledger
            (connection, object, key, crm_id, sent, echo, run_id, pushed_at, sent_at, echo_at)
        select $connection, $object, key, crm_id, sent, echo, $run_id, pushed_at, sent_at, echo_at
        from remembered
        """,
        {**_names(header), "run_id": header.run_id},
    )
    con.execute("drop table remembered")


def _forget_deleted(con: duckdb.DuckDBPyConnection, header: Header) -> None:
    """Take what we deleted out of the ledger and mark it in the mirror, so that no plan counts on it."""
    con.execute(
        "delete from roundtrip.ledger where connection = $connection and object = $object"
        " and key in (select key from booked where status = 'deleted')",
        _names(header),
    )
    if not has_table(con, header.connection, header.object):
        return
    mirror = f"{quoted(header.connection)}.{quoted(header.object)}"
    gone = con.execute(
        f"""
        update {mirror} as mirror set _deleted_at = booked.pushed_at from booked
        where booked.status = 'deleted' and booked.crm_id = mirror.id and mirror._deleted_at is null
        returning mirror.id, mirror._deleted_at
        """
    ).fetchall()
    if gone:
        con.executemany(
            "insert into roundtrip.changes values (?, ?, ?, ?, null, null, null, ?, 'deleted', 'push')",
            [[header.run_id, header.connection, header.object, *each] for each in gone],
        )


def _adopt(con: duckdb.DuckDBPyConnection, header: Header) -> None:
    """Take values that model and CRM share as sent and shown, so that the next edit of either is clear."""
    con.execute(
        """
        update roundtrip.ledger as ledger set
            sent = to_json(map_concat(ledger.sent::map(varchar, json), booked.sent::map(varchar, json))),
            echo = to_json(map_concat(
                coalesce(ledger.echo::map(varchar, json), map()), booked.replaced::map(varchar, json)
            ))
        from booked
        where ledger.key = booked.key and ledger.connection = $connection and ledger.object = $object
        """,
        _names(header),
    )


def _names(header: Header) -> dict[str, str]:
    return {"connection": header.connection, "object": header.object}
