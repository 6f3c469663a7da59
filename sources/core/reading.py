"""Each CRM as an ordinary dlt source, for anybody's pipeline and any dlt destination.

The rows are those that `roundtrip pull` loads: same columns, `_extra`, `_row_hash` and `_synced_at`.
Watermarks live in dlt's own state here. Records that were deleted are reported by id in the resource
`deletions` where the CRM has a change feed; runs, history, guards and publishing belong to `roundtrip pull`.
dlt is imported when a source is first used, not when its module is.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sources.core.changes import read_feed, watermark
from sources.core.connector import Column, Connection, Connector, Resource, Scope, Since
from sources.core.errors import ConfigError, RefusedError
from sources.core.paging import Page
from sources.core.passes import Pass, honours_since
from sources.core.privacy import shield_of
from sources.core.sessions import Session, open_session
from sources.core.spool import Spool, type_rows

if TYPE_CHECKING:
    import pyarrow

LOOKBACK = timedelta(minutes=15)
# The only merge of dlt's that a repeated load does not double.
MERGE: Any = {"disposition": "merge", "strategy": "delete-insert"}
_ROWS_PER_TABLE = 50_000


def column_hints(resource: Resource) -> Any:
    """Give dlt's column hints of a resource's raw table; every column is nullable."""
    hints: dict[str, dict[str, Any]] = {}
    bookkeeping = (Column("_extra", "json"), Column("_row_hash"), Column("_synced_at", "timestamp"))
    for column in (*resource.columns, *bookkeeping):
        hints[column.name] = {"name": column.name, "data_type": column.kind, "nullable": True}
        if column.kind == "decimal":
            hints[column.name] |= {"precision": 38, "scale": 9}
    hints["_synced_at"]["dedup_sort"] = "desc"  # of two tables of one load, the later reading wins
    return hints


class LazySource:
    """A dlt source factory that is made when it is first called or looked into."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._factory(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    @cached_property
    def _factory(self) -> Any:
        return _source_factory(self._connector)


def lazy_source(connector: Connector) -> LazySource:
    """Make `from sources.<crm> import <crm>` work without importing dlt for those who only pull."""
    return LazySource(connector)


def _source_factory(connector: Connector) -> Any:
    import dlt

    @dlt.source(name=connector.crm, section=connector.crm)
    def source(api_key: str = dlt.secrets.value, base_url: str | None = None, **options: Any) -> Any:
        connection = connection_of(connector, api_key, base_url, options)
        contract = connector.contract(connection)
        for resource in contract.resources:
            yield _dlt_resource(connector, connection, resource)
        if contract.feed is not None:
            yield _deletions(connector, connection)

    source.__doc__ = (
        f"Read {connector.title}: one resource per endpoint, incremental where the API allows it."
    )
    return source


def connection_of(
    connector: Connector, api_key: str, base_url: str | None, options: dict[str, Any]
) -> Connection:
    """Make a connection of what was given, else of dlt's settings under `sources.<crm>`, else of defaults.

    `ConfigError` where the CRM has no address of its own and none is set.
    """
    import dlt

    def setting(name: str) -> Any:
        return dlt.config.get(f"sources.{connector.crm}.{name}")

    def listed(name: str) -> list[str]:
        return dlt.config.get(f"sources.{connector.crm}.{name}", list) or []

    address = base_url or setting("base_url") or connector.base_url
    if not address:
        raise ConfigError(
            "the address of the tenant is missing",
            connection=connector.crm,
            hint=f"Set sources.{connector.crm}.base_url or SOURCES__{connector.crm.upper()}__BASE_URL.",
        )
    values = {option.name: options.get(option.name, setting(option.name)) for option in connector.options}
    filled = {
        option.name: option.default if values[option.name] is None else values[option.name]
        for option in connector.options
    }
    return Connection(
        connector.crm,
        connector.crm,
        address,
        api_key,
        filled,
        exclude=tuple(listed("exclude")),
        hashed=tuple(listed("hash")),
        hash_key=dlt.secrets.get("roundtrip.hash_key", str) or "",
    )


def _dlt_resource(connector: Connector, connection: Connection, resource: Resource) -> Any:
    import dlt

    def rows() -> Iterator["pyarrow.Table"]:
        with open_session(connector, connection) as session:
            yield from _tables(session, resource, dlt.current.resource_state())

    return dlt.resource(
        rows,
        name=resource.name,
        primary_key=resource.key,
        columns=column_hints(resource),
        write_disposition=MERGE,
    )


def _tables(session: Session, resource: Resource, state: dict[str, Any]) -> Iterator["pyarrow.Table"]:
    started: datetime | None = None
    newest = datetime.fromisoformat(state["newest"]) if "newest" in state else None
    with tempfile.TemporaryDirectory(prefix="roundtrip-") as folder:
        steps = Pass(
            session,
            resource,
            since=_window(session, resource, state),
            scopes=_scopes(session, resource, Path(folder)),
        )
        for spool in _spools(steps, Path(folder)):
            now = session.client.server_time() or datetime.now(UTC)
            started = started or now
            table, stamp = _table(spool, resource, now)
            newest = max((moment for moment in (newest, stamp) if moment), default=None)
            yield table
    was_all_shown = steps.complete and not steps.refused
    if was_all_shown and started and isinstance(resource.strategy, Since) and state.get("since"):
        state["watermark"] = watermark(started, newest, started, LOOKBACK).isoformat()
        if newest:
            state["newest"] = newest.isoformat()


def _window(session: Session, resource: Resource, state: dict[str, Any]) -> datetime | None:
    if not isinstance(resource.strategy, Since):
        return None
    if "since" not in state:
        state["since"] = not resource.strategy.probed or honours_since(session, resource)
    return datetime.fromisoformat(state["watermark"]) if "watermark" in state else None


def _scopes(session: Session, resource: Resource, folder: Path) -> list[Scope]:
    """Read the other resources whose values this one is asked for, one by one."""
    found = []
    for fan_out in resource.fan_out:
        if fan_out.applies(session.connection):
            values = _column_values(
                session, session.contract.resource(fan_out.resource), fan_out.column, folder
            )
            found += [Scope(fan_out, value) for value in values]
    return found


def _column_values(session: Session, resource: Resource, column: str, folder: Path) -> list[str]:
    values: set[str] = set()
    for spool in _spools(Pass(session, resource), folder / resource.name):
        table, _ = _table(spool, resource, datetime.now(UTC))
        values |= {str(value) for value in table[column].to_pylist() if value is not None}
    return sorted(values)


def _pages(steps: Pass) -> Iterator[Page]:
    """Give a pass's pages; a list that the vendor does not document and that is not there has none."""
    try:
        yield from steps
    except RefusedError as error:
        if not steps.resource.optional or steps.pages or error.status not in (404, 405, 410):
            raise


def _spools(steps: Pass, folder: Path) -> Iterator[Spool]:
    """Cut a pass into spools of a bounded number of rows; the last one may be shorter, none is empty."""
    session = steps.session
    spool: Spool | None = None
    shield = shield_of(session.connection, session.contract, steps.resource)
    for page in _pages(steps):
        spool = spool or Spool(folder / f"{steps.pages}.ndjson", shield)
        spool.append(page.rows)
        if spool.rows >= _ROWS_PER_TABLE:
            spool.close()
            yield spool
            spool = None
    if spool is not None:
        spool.close()
        if spool.rows:
            yield spool


def _table(spool: Spool, resource: Resource, now: datetime) -> tuple["pyarrow.Table", datetime | None]:
    """Give a spool as an Arrow table, the latest version of each id only, and its newest change stamp."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    typed = type_rows([spool.path], resource, spool.path.with_suffix(".parquet"), now=now)
    table = _plain(pyarrow.parquet.read_table(typed.path).drop_columns(["_synced_at", "_deleted_at"]))
    table = table.append_column("_seq", pyarrow.array(range(len(table)))).sort_by([("_seq", "descending")])
    last = table.group_by(resource.key, use_threads=False).aggregate([("_seq", "max")])["_seq_max"]
    table = table.filter(pyarrow.compute.is_in(table["_seq"], value_set=last.combine_chunks())).drop_columns(
        "_seq"
    )
    stamp = pyarrow.array([now] * len(table), pyarrow.timestamp("us", "UTC"))
    return table.append_column("_synced_at", stamp), typed.newest


def _plain(table: "pyarrow.Table") -> "pyarrow.Table":
    """Give JSON columns as text: dlt takes their type from the hints and knows no Arrow extension types."""
    import pyarrow

    names = {column.name for column in table.schema if isinstance(column.type, pyarrow.BaseExtensionType)}
    kinds = [
        pyarrow.field(column.name, pyarrow.string()) if column.name in names else column
        for column in table.schema
    ]
    return table.cast(pyarrow.schema(kinds))


def _deletions(connector: Connector, connection: Connection) -> Any:
    import dlt

    feed = connector.contract(connection).feed
    assert feed is not None

    def rows() -> Iterator[list[dict[str, Any]]]:
        state = dlt.current.resource_state()
        since = (
            datetime.fromisoformat(state["since"]) if "since" in state else datetime(1970, 1, 1, tzinfo=UTC)
        )
        with open_session(connector, connection) as session:
            reading = read_feed(session, feed, since)
        yield [
            {"resource": resource, "id": entry.id, "deleted_at": entry.at}
            for resource, entity in feed.entities.items()
            for entry in reading.last.values()
            if entry.entity == entity and entry.action == "deleted"
        ]
        if reading.newest is not None:
            state["since"] = (reading.newest - LOOKBACK).isoformat()

    return dlt.resource(
        rows,
        name="deletions",
        primary_key=("resource", "id"),
        write_disposition=MERGE,
    )
