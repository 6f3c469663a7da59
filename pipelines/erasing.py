"""Finds one person in an open generation and takes them out of it, table by table.

Which person, whether at all, and what lies beyond reach is `forget`'s.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from pipelines.privacy import pointers
from pipelines.warehouse import has_table, literal, quoted
from sources import load
from sources.core.connector import Contract, Resource

FORGOTTEN = "[forgotten]"

_POINTER = re.compile(r"(.*_)?contact_id")
_SHORTEST_TEXT = 6  # a shorter name or number would be found in texts that mean something else


@dataclass(frozen=True, slots=True)
class Person:
    """The contacts of one connection that have the address: their ids, and what texts may call them by.

    `keys` are the address as that connection may keep it: itself, or its digest. `mark` is what is kept
    of it, so that no push makes the person anew.
    """

    connection: str
    contract: Contract
    resource: Resource
    keys: frozenset[str]
    ids: tuple[str, ...]
    texts: frozenset[str]
    mark: str | None = None


def find_people(con: duckdb.DuckDBPyConnection, key: str, digest: Callable[[str], str]) -> list[Person]:
    """Find the contacts with an address, trimmed and lower-cased, in every connection ever pulled.

    `digest` gives the address as a connection keeps it that keeps digests.
    """
    known = con.execute(
        "select connection, crm, contract, privacy->'hash' from roundtrip.connections order by connection"
    ).fetchall()
    found: list[Person] = []
    for connection, crm, contract, hashed in known:
        keys = {key} if hashed in (None, "[]") else {key, digest(connection)}
        found += _find(con, connection, load(crm).contracts[contract], keys)
    return found


def _find(
    con: duckdb.DuckDBPyConnection, connection: str, contract: Contract, keys: Collection[str]
) -> Iterable[Person]:
    for mapping in contract.views.get("contacts", ()):
        email = mapping.columns.get("email")
        if email is None or not has_table(con, connection, mapping.resource):
            continue
        names = [mapping.columns.get(each, "null") for each in ("full_name", "phone")]
        if names[0] == "null" and {"first_name", "last_name"} <= mapping.columns.keys():
            names[0] = f"{mapping.columns['first_name']} || ' ' || {mapping.columns['last_name']}"
        rows = con.execute(
            f"select id, {', '.join(names)} from {_named(connection, mapping.resource)} as record"
            f" where lower(trim({email})) in ({_listed(keys)})"
        ).fetchall()
        if rows:
            texts = {str(text).strip() for _, *found in rows for text in found if text}
            long = frozenset(text for text in texts if len(text) >= _SHORTEST_TEXT)
            resource = contract.resource(mapping.resource)
            yield Person(connection, contract, resource, frozenset(keys), tuple(row[0] for row in rows), long)


class Eraser:
    """Takes people out of a generation and counts, per table and what was done, the rows it touched."""

    def __init__(self, con: duckdb.DuckDBPyConnection, people: list[Person], keys: set[str]) -> None:
        self._con = con
        self._people = people
        self._keys = sorted(keys)
        self._pulled = {"crm", "roundtrip"} | {
            name for (name,) in con.execute("select connection from roundtrip.connections").fetchall()
        }
        self._counts: dict[tuple[str, str], int] = {}

    def erase(self) -> None:
        """Delete what is about the people, unlink what points to them, and scrub the texts of all tables."""
        for person in self._people:
            self._erase_records(person)
            self._erase_pushes(person)
            self._con.executemany(
                "insert into roundtrip.forgotten (connection, resource, id, forgotten_at, key_digest)"
                " values (?, ?, ?, ?, ?)",
                [
                    [person.connection, person.resource.name, each, datetime.now(UTC), person.mark]
                    for each in person.ids
                ],
            )
        self._delete_pushes_by_key()
        for schema, table in self._tables():
            if schema not in self._pulled:
                self._delete_rows_of_address(schema, table)
            self.scrub(schema, table, self._keys)

    def told(self) -> list[dict[str, Any]]:
        """List what was done: table, action and number of rows."""
        return [
            {"table": table, "action": action, "rows": rows}
            for (table, action), rows in self._counts.items()
            if rows
        ]

    # -- records ---------------------------------------------------------------------------------

    def _erase_records(self, person: Person) -> None:
        self._delete_records(person, person.resource, "id")
        for resource, column in pointers(person.contract, "activities"):
            self._delete_records(person, resource, column)
        for resource in person.contract.resources:
            names = {column.name for column in resource.columns}
            for side in ("from", "to"):
                if {f"{side}_type", f"{side}_id"} <= names:
                    self._delete_records(person, resource, f"{side}_id", f"{side}_type ilike 'contact%'")
            for name in sorted(names):
                if _POINTER.fullmatch(name):
                    self._unlink(person, resource, name)

    def _delete_records(self, person: Person, resource: Resource, column: str, where: str = "true") -> None:
        if not has_table(self._con, person.connection, resource.name):
            return
        table = _named(person.connection, resource.name)
        chosen = f"{quoted(column)} in ({_listed(person.ids)}) and {where}"
        history = f"connection = {literal(person.connection)} and resource = {literal(resource.name)}"
        self._run(
            "delete from roundtrip.changes"
            f" where {history} and id in (select id from {table} where {chosen})",
            "roundtrip.changes",
            "deleted",
        )
        self._run(f"delete from {table} where {chosen}", f"{person.connection}.{resource.name}", "deleted")

    def _unlink(self, person: Person, resource: Resource, column: str) -> None:
        """Take a pointer out of records that stay, and what their texts and history call the person by."""
        if not has_table(self._con, person.connection, resource.name):
            return
        table, ids = _named(person.connection, resource.name), _listed(person.ids)
        linked = self._con.execute(f"select id from {table} where {quoted(column)} in ({ids})").fetchall()
        among = f"id in ({_listed([row[0] for row in linked])})"
        history = f"connection = {literal(person.connection)} and resource = {literal(resource.name)}"
        if linked:
            self.scrub(person.connection, resource.name, person.texts, among)
            self.scrub("roundtrip", "changes", person.texts, f"{history} and {among}")
            self._run(
                f"update {table} set {quoted(column)} = null where {quoted(column)} in ({ids})",
                f"{person.connection}.{resource.name}",
                "unlinked",
            )
        for value in ("old_value", "new_value"):
            self._run(
                f"update roundtrip.changes set {value} = null"
                f" where {history} and field = {literal(column)} and {value} in ({ids})",
                "roundtrip.changes",
                "unlinked",
            )

    # -- pushes ----------------------------------------------------------------------------------

    def _erase_pushes(self, person: Person) -> None:
        objects = [w.object for w in person.contract.writes.values() if w.resource == person.resource.name]
        where = (
            f"connection = {literal(person.connection)} and object in ({_listed(objects)})"
            f" and crm_id in ({_listed(person.ids)})"
        )
        self._delete_pushes(where)

    def _delete_pushes_by_key(self) -> None:
        where = f"lower(trim(key)) in ({_listed(self._keys)})"
        self._run(f"delete from roundtrip.dismissed where {where}", "roundtrip.dismissed", "deleted")
        self._delete_pushes(where)

    def _delete_pushes(self, where: str) -> None:
        """Forget what was sent; that something was, when and with what outcome stays."""
        self._run(f"delete from roundtrip.ledger where {where}", "roundtrip.ledger", "deleted")
        self._run(
            "update roundtrip.push_log"
            " set key = null, exact_key = null, crm_id = null, sent = null, replaced = null, shown = null,"
            f" error = null where {where}",
            "roundtrip.push_log",
            "emptied",
        )

    # -- every table -----------------------------------------------------------------------------

    def _tables(self) -> list[tuple[str, str]]:
        return self._con.execute(
            "select schema_name, table_name from duckdb_tables()"
            " where database_name = current_catalog() and not internal and not temporary order by all"
        ).fetchall()

    def _delete_rows_of_address(self, schema: str, table: str) -> None:
        """Delete the rows of a model, or of a table of the user's own, that are about the address."""
        for column, kind in self._columns(schema, table):
            if "email" in column.lower() and kind == "VARCHAR":
                self._run(
                    f"delete from {_named(schema, table)}"
                    f" where lower(trim({quoted(column)})) in ({_listed(self._keys)})",
                    f"{schema}.{table}",
                    "deleted",
                )

    def scrub(self, schema: str, table: str, texts: Collection[str], where: str = "true") -> None:
        """Replace texts wherever a table's columns hold them; case makes no difference."""
        if not texts:
            return
        pattern = literal(_whole(texts))
        for column, kind in self._columns(schema, table):
            text = new = f"{quoted(column)}::varchar"
            for _ in range(2):  # of two neighbours the first takes the character between them
                new = f"regexp_replace({new}, {pattern}, '\\1{FORGOTTEN}\\2', 'gi')"
            self._run(
                f"update {_named(schema, table)}"
                f" set {quoted(column)} = try_cast({new} as {kind})"  # or null, where it cannot stand there
                f" where {where} and regexp_matches({text}, {pattern}, 'i')",
                f"{schema}.{table}",
                "scrubbed",
            )

    def _columns(self, schema: str, table: str) -> list[tuple[str, str]]:
        """List the columns that can hold a text, with their types."""
        return self._con.execute(
            "select column_name, data_type from duckdb_columns()"
            " where database_name = current_catalog() and schema_name = ? and table_name = ?"
            " and regexp_matches(data_type, 'VARCHAR|JSON|STRUCT|MAP|UNION')",
            [schema, table],
        ).fetchall()

    def _run(self, statement: str, table: str, action: str) -> None:
        [(rows,)] = self._con.execute(statement).fetchall()
        self._counts[table, action] = self._counts.get((table, action), 0) + int(rows)


def _whole(texts: Iterable[str]) -> str:
    """Write a pattern that finds texts, spelt as they are or as JSON spells them.

    Only such as stand alone: what is a part of a longer address or name is about somebody else.
    """
    spelt = {form for text in texts for form in (text, *_as_json(text))}
    choice = "|".join(re.escape(each) for each in sorted(spelt, key=len, reverse=True))
    return rf"(^|[^\w.+-])(?:{choice})($|[^\w.-]|\.(?:$|\W))"


def _as_json(text: str) -> tuple[str, str]:
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]


def _named(schema: str, table: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}"


def _listed(texts: Iterable[str]) -> str:
    """Write texts for a list in SQL; an empty list holds nothing."""
    return ", ".join(map(literal, texts)) or "null"
