"""The `crm.*` views: one model over all connections, composed from each CRM's own mapping."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from pipelines.warehouse import literal, quoted
from sources import load
from sources.core.connector import View
from sources.core.errors import ConnectorError
from sources.core.spool import sql_type

# Columns of each view after `connection`, `crm`, `id`, in the order the interface fixes, with their types.
CRM_VIEWS: dict[str, dict[str, str]] = {
    "contacts": {
        "email": "VARCHAR",
        "email_key": "VARCHAR",
        "full_name": "VARCHAR",
        "first_name": "VARCHAR",
        "last_name": "VARCHAR",
        "phone": "VARCHAR",
        "title": "VARCHAR",
        "company_id": "VARCHAR",
        "company": "VARCHAR",
        "stage": "VARCHAR",
        "score": "DOUBLE",
        "tags": "VARCHAR[]",
        "owner": "VARCHAR",
        "created_at": "TIMESTAMPTZ",
        "updated_at": "TIMESTAMPTZ",
    },
    "companies": {
        "name": "VARCHAR",
        "domain": "VARCHAR",
        "industry": "VARCHAR",
        "website": "VARCHAR",
        "owner": "VARCHAR",
        "created_at": "TIMESTAMPTZ",
        "updated_at": "TIMESTAMPTZ",
    },
    "deals": {
        "title": "VARCHAR",
        "stage": "VARCHAR",
        "status": "VARCHAR",
        "amount": "DECIMAL(18,2)",
        "currency": "VARCHAR",
        "probability": "DOUBLE",
        "contact_id": "VARCHAR",
        "company_id": "VARCHAR",
        "owner": "VARCHAR",
        "expected_close_at": "TIMESTAMPTZ",
        "closed_at": "TIMESTAMPTZ",
        "created_at": "TIMESTAMPTZ",
        "updated_at": "TIMESTAMPTZ",
    },
    "tasks": {
        "title": "VARCHAR",
        "description": "VARCHAR",
        "status": "VARCHAR",
        "priority": "VARCHAR",
        "due_at": "TIMESTAMPTZ",
        "contact_id": "VARCHAR",
        "deal_id": "VARCHAR",
        "company_id": "VARCHAR",
        "owner": "VARCHAR",
        "created_at": "TIMESTAMPTZ",
        "updated_at": "TIMESTAMPTZ",
    },
    "activities": {
        "type": "VARCHAR",
        "subject": "VARCHAR",
        "body": "VARCHAR",
        "contact_id": "VARCHAR",
        "deal_id": "VARCHAR",
        "company_id": "VARCHAR",
        "owner": "VARCHAR",
        "occurred_at": "TIMESTAMPTZ",
        "created_at": "TIMESTAMPTZ",
    },
}


def write_views(con: duckdb.DuckDBPyConnection) -> None:
    """Replace all `crm.*` views by ones over every connection the warehouse knows."""
    known = con.execute(
        "select connection, crm, contract, options from roundtrip.connections order by connection"
    ).fetchall()
    present = set(
        con.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_catalog = current_catalog()"
        ).fetchall()
    )
    for view in CRM_VIEWS:
        parts = [
            _Part(view, connection, crm, contract, mapping, json.loads(options))
            for connection, crm, contract, options in known
            for mapping in load(crm).contracts[contract].views.get(view, ())
            if (connection, mapping.resource) in present
        ]
        try:
            _replace(con, view, _union(view, [_select(part, part.table) for part in parts]))
        except duckdb.BinderException:
            _replace(con, view, _union(view, [_fitted(con, part) for part in parts]))


@dataclass(frozen=True, slots=True)
class _Part:
    """What one table adds to a view."""

    view: str
    connection: str
    crm: str
    contract: str
    mapping: View
    options: dict[str, Any]

    @property
    def table(self) -> str:
        return f"{quoted(self.connection)}.{quoted(self.mapping.resource)}"


def _fitted(con: duckdb.DuckDBPyConnection, part: _Part) -> str:
    """Select from a table that another contract or version has made: columns that it lacks are null there."""
    present = {row[0] for row in con.execute(f"describe {part.table}").fetchall()}
    resource = load(part.crm).contracts[part.contract].resource(part.mapping.resource)
    lacking = "".join(
        f", null::{sql_type(column.kind)} as {quoted(column.name)}"
        for column in resource.columns
        if column.name not in present
    )
    select = _select(part, f"(select *{lacking} from {part.table})")
    try:
        con.execute(f"explain {select}")
    except duckdb.BinderException as error:
        raise ConnectorError(
            f"the table {part.connection}.{part.mapping.resource} has columns of other types than pulls make",
            hint="Undo what was altered by hand, or drop the table and pull with --full.",
        ) from error
    return select


def _union(view: str, selects: Sequence[str]) -> str:
    return "\nunion all\n".join(selects) or _empty(view)


def _replace(con: duckdb.DuckDBPyConnection, view: str, body: str) -> None:
    """Replace a view whose text is another; one that is the same keeps its comments."""
    con.execute(f"create or replace temp view wanted as\n{body}")
    texts = con.execute(
        "select substr(sql, position(' AS ' in sql)) from duckdb_views()"
        " where (schema_name = 'crm' and view_name = ? and database_name = current_catalog())"
        " or (temporary and view_name = 'wanted')",
        [view],
    ).fetchall()
    con.execute("drop view temp.wanted")
    if len(texts) != 2 or texts[0] != texts[1]:
        con.execute(f"create or replace view crm.{view} as\n{body}")


def _select(part: _Part, table: str) -> str:
    view, mapping, options = part.view, part.mapping, part.options
    columns = dict(mapping.columns)
    if view == "contacts" and "email" in columns:
        columns["email_key"] = f"lower(trim({columns['email']}))"
    if view == "deals":
        columns |= _closing(part.connection, columns, options)
    values = {name: _sql_value(value) for name, value in options.items()}
    selected = ",\n    ".join(
        f"try_cast({_filled(columns.get(name, 'null'), values)} as {kind}) as {name}"
        for name, kind in CRM_VIEWS[view].items()
    )
    return (
        f"select {literal(part.connection)} as connection, {literal(part.crm)} as crm, id,\n    {selected}\n"
        f"from {table} as record where _deleted_at is null and ({mapping.where})"
    )


def _closing(connection: str, columns: dict[str, str], options: dict[str, Any]) -> dict[str, str]:
    """Map custom stages to won and lost, and give a closing date where the CRM has none.

    Without one it is the moment at which the deal was first seen in its closed stage, which later edits
    do not move.
    """
    cases = "".join(
        f" when lower({columns['stage']}) in ({', '.join(map(literal, stages))}) then '{status}'"
        for status in ("won", "lost")
        if (stages := _stages(options.get(f"{status}_stages")))
    )
    status = f"case{cases} else {columns['status']} end" if cases else columns["status"]
    if "closed_at" in columns:
        return {"status": status}
    entered = (
        "select max(stay.entered_at) from roundtrip.deal_stays as stay"
        f" where stay.connection = {literal(connection)} and stay.id = record.id and stay.left_at is null"
    )
    return {"status": status, "closed_at": f"case when ({status}) <> 'open' then ({entered}) end"}


def _stages(setting: str | None) -> list[str]:
    return [stage.strip().lower() for stage in (setting or "").split(",") if stage.strip()]


def _filled(expression: str, values: dict[str, str]) -> str:
    """Put a connection's options into a mapping's expression."""
    for name, value in values.items():
        expression = expression.replace("{" + name + "}", value)
    return expression


def _sql_value(value: Any) -> str:
    if value is None:
        return "null"
    return literal(value) if isinstance(value, str) else str(value).lower()


def _empty(view: str) -> str:
    selected = ", ".join(f"null::{kind} as {name}" for name, kind in CRM_VIEWS[view].items())
    names = "null::varchar as connection, null::varchar as crm, null::varchar as id"
    return f"select {names}, {selected} where false"
