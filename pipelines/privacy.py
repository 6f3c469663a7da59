"""What a warehouse already holds of values and people that it is to hold no longer.

`sources.core.privacy` keeps such values from being written. Here what was written earlier is taken out when
the settings change, and the records that `roundtrip forget` removed are named to the pulls that follow.
"""

import hmac
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from pipelines.progress import Progress
from pipelines.pulling.deltas import forget_places
from pipelines.syncs import places_of
from pipelines.warehouse import Warehouse, has_table, literal, quoted
from sources import load
from sources.core.connector import Connection, Contract, Resource, Write
from sources.core.privacy import Shield, Target, excluded, hashed, shield_of, shown_in

Forgotten = Mapping[str, Mapping[str, frozenset[str]]]


def describe(connection: Connection) -> str | None:
    """Give what a connection keeps out of sight, as `roundtrip.connections` holds it.

    Of the key it holds a digest only, by which a change of it is noticed.
    """
    if not connection.exclude and not connection.hashed:
        return None
    key = hmac.new(connection.hash_key.encode(), b"which key", "sha256").hexdigest()[:16]
    return json.dumps(
        {
            "exclude": sorted(connection.exclude),
            "hash": sorted(connection.hashed),
            "key": key if connection.hashed else None,
        }
    )


def shields(con: duckdb.DuckDBPyConnection, connection: Connection, contract: Contract) -> dict[str, Shield]:
    """Make the shield of each resource of a connection, forgotten people included."""
    gone = forgotten(con, connection.name, contract)
    return {
        resource.name: shield_of(connection, contract, resource, forgotten=gone.get(resource.name))
        for resource in contract.resources
    }


def forgotten(con: duckdb.DuckDBPyConnection, connection: str, contract: Contract) -> Forgotten:
    """List the records that are not to come back: by resource, a column and its values."""
    rows = con.execute(
        "select resource, id from roundtrip.forgotten where connection = ?", [connection]
    ).fetchall()
    if not rows:
        return {}
    found: dict[str, dict[str, frozenset[str]]] = {}
    for name in {resource for resource, _ in rows}:
        found[name] = {"id": frozenset(each for resource, each in rows if resource == name)}
    people = frozenset(each for _, each in rows)
    for resource, column in pointers(contract, "activities"):
        found.setdefault(resource.name, {})[column] = people
    return found


def pointers(contract: Contract, *views: str) -> list[tuple[Resource, str]]:
    """List the columns by which records of these views point to a contact."""
    mappings = [mapping for view in views for mapping in contract.views.get(view, ())]
    found = {(mapping.resource, mapping.columns.get("contact_id", "")): None for mapping in mappings}
    named = [(contract.resource(resource), column) for resource, column in found]
    return [(each, column) for each, column in named if column in {other.name for other in each.columns}]


# -- settings that changed -----------------------------------------------------------------------


@dataclass(slots=True)
class Change:
    """What became different for one connection: values to take out, and resources to read again."""

    connection: Connection
    contract: Contract
    targets: list[Target] = field(default_factory=list)

    @property
    def resources(self) -> list[str]:
        return list(dict.fromkeys(target.resource for target in self.targets))


def find_changes(con: duckdb.DuckDBPyConnection, connections: Iterable[Connection]) -> list[Change]:
    """Find the connections whose settings no longer allow what the warehouse holds, or allow more."""
    return [change for each in connections if (change := _change(con, each)).targets]


def settle(warehouse: Warehouse, changes: Sequence[Change], progress: Progress) -> None:
    """Take out what the settings no longer allow, in a generation of its own that holds no trace of it.

    What is now kept as digests, or whole again, is emptied too: the pull that follows reads its resource from
    the first page. The lock must be held.
    """
    with warehouse.generation(is_rewritten=True) as con:
        for change in changes:
            _sweep(con, change)
    for change in changes:
        progress.say(
            f"{change.connection.name}: exclude or hash changed, so {', '.join(change.resources)} are read"
            " again; tables made from them are as they were until `roundtrip enrich`"
        )


def _change(con: duckdb.DuckDBPyConnection, connection: Connection) -> Change:
    contract = load(connection.crm).contract(connection)
    change = Change(connection, contract)
    row = con.execute(
        "select privacy from roundtrip.connections where connection = ?", [connection.name]
    ).fetchone()
    if row is None or row[0] == describe(connection):
        return change
    before = json.loads(row[0] or "{}")
    now = json.loads(describe(connection) or "{}")
    names = set(before.get("exclude", ())) ^ set(now.get("exclude", ()))
    names |= set(before.get("hash", ())) ^ set(now.get("hash", ()))
    if before.get("key") != now.get("key"):
        names |= {*before.get("hash", ()), *now.get("hash", ())}
    change.targets = [target for name in sorted(names) for target in _known(connection, contract, name)]
    return change


def _known(connection: Connection, contract: Contract, name: str) -> list[Target]:
    """Find an entry among today's; one that was taken off the list may name what is no longer there."""
    for listed, targets in (
        (connection.exclude, excluded(connection, contract)),
        (connection.hashed, hashed(connection, contract)),
    ):
        if name in listed:
            return [targets[listed.index(name)]]
    resource, _, rest = name.partition(".")
    column, _, inner = rest.partition(".")
    return [Target(resource, column, inner)] if resource in {each.name for each in contract.resources} else []


def _sweep(con: duckdb.DuckDBPyConnection, change: Change) -> None:
    name = change.connection.name
    for resource in change.resources:
        targets = [target for target in change.targets if target.resource == resource]
        columns = {
            column for target in targets for column in shown_in(change.contract.resource(resource), target)
        }
        if has_table(con, name, resource):
            _empty(con, name, resource, columns)
        con.execute(
            "delete from roundtrip.changes where connection = ? and resource = ? and list_contains(?, field)",
            [name, resource, sorted(columns)],
        )
        forget_places(con, name, resource)
        for write in change.contract.writes.values():
            if write.resource == resource:
                _sweep_pushes(con, name, write, targets)
        if columns & _stages(change.contract, resource):
            con.execute("delete from roundtrip.deal_stays where connection = ?", [name])
    con.execute(
        "update roundtrip.connections set privacy = ? where connection = ?",
        [describe(change.connection), name],
    )


def _empty(con: duckdb.DuckDBPyConnection, connection: str, resource: str, columns: Collection[str]) -> None:
    """Empty columns of a raw table; without its hash a row is taken as new when it is read again."""
    table = f"{quoted(connection)}.{quoted(resource)}"
    present = {row[0] for row in con.execute(f"describe {table}").fetchall()}
    emptied = ", ".join(f"{quoted(each)} = null" for each in ("_row_hash", *sorted(present & set(columns))))
    con.execute(f"update {table} set {emptied}")


def _sweep_pushes(
    con: duckdb.DuckDBPyConnection, connection: str, write: Write, targets: Sequence[Target]
) -> None:
    """Take values out of what was pushed and what it replaced; without its key a record has no ledger."""
    place = [connection, write.object]
    where = f"connection = {literal(connection)} and object = {literal(write.object)}"
    if any(_covers(target, write, name) for target in targets for name in (write.key, *write.also_key)):
        con.execute("delete from roundtrip.ledger where connection = ? and object = ?", place)
        con.execute(
            "delete from roundtrip.dismissed"
            f" where sync in (select sync from roundtrip.push_log where {where})"
        )
        con.execute(f"update roundtrip.push_log set key = null, exact_key = null, error = null where {where}")
    for table, column in (
        ("ledger", "sent"),
        ("ledger", "echo"),
        ("push_log", "sent"),
        ("push_log", "replaced"),
        ("push_log", "shown"),
    ):
        names = con.execute(
            f"select distinct unnest(json_keys({column})) from roundtrip.{table} where {where}"
        ).fetchall()
        hidden = [name for (name,) in names if any(_covers(target, write, name) for target in targets)]
        if hidden:
            patch = json.dumps(dict.fromkeys(hidden))  # a null in a merge patch removes the key
            con.execute(
                f"update roundtrip.{table} set {column} = json_merge_patch({column}, ?::json)"
                f" where {where} and {column} is not null",
                [patch],
            )


def _covers(target: Target, write: Write, name: str) -> bool:
    return any(target.covers(*place) for place in places_of(write, name))


def _stages(contract: Contract, resource: str) -> set[str]:
    """Name the columns that the stages of deals are taken from."""
    texts = [
        view.columns.get("stage", "") for view in contract.views.get("deals", ()) if view.resource == resource
    ]
    return {column.name for column in contract.resource(resource).columns if column.name in " ".join(texts)}
