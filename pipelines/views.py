"""The `crm.*` views: one model over all connections, composed from each CRM's own mapping."""

import duckdb

from pipelines.warehouse import has_table, literal, quoted
from sources import load
from sources.core.connector import View

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
    known = con.execute("select connection, crm, contract from roundtrip.connections order by connection").fetchall()
    for view in CRM_VIEWS:
        parts = [
            _select(view, connection, crm, mapping)
            for connection, crm, contract in known
            for mapping in load(crm).contracts[contract].views.get(view, ())
            if has_table(con, connection, mapping.resource)
        ]
        body = "\nunion all\n".join(parts) or _empty(view)
        con.execute(f"create or replace view crm.{view} as\n{body}")


def _select(view: str, connection: str, crm: str, mapping: View) -> str:
    columns = dict(mapping.columns)
    if view == "contacts" and "email" in columns:
        columns["email_key"] = f"lower(trim({columns['email']}))"
    selected = ",\n    ".join(
        f"try_cast({columns.get(name, 'null')} as {kind}) as {name}" for name, kind in CRM_VIEWS[view].items()
    )
    table = f"{quoted(connection)}.{quoted(mapping.resource)}"
    return (
        f"select {literal(connection)} as connection, {literal(crm)} as crm, id,\n    {selected}\n"
        f"from {table} where _deleted_at is null and ({mapping.where})"
    )


def _empty(view: str) -> str:
    selected = ", ".join(f"null::{kind} as {name}" for name, kind in CRM_VIEWS[view].items())
    return f"select null::varchar as connection, null::varchar as crm, null::varchar as id, {selected} where false"
