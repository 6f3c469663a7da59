"""The data dictionary: what every table and column of the warehouse holds, as comments and as a page.

Raw tables speak through their CRM's tables and the shared vocabulary; what Roundtrip itself adds is told
here. `python -m pipelines.dictionary` writes the page, `pipelines/DICTIONARY.md`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TextIO

import duckdb

import sources
from pipelines.pulling.views import CRM_VIEWS
from pipelines.warehouse import literal, quoted, sql
from sources.core.connector import Contract, Resource
from sources.core.spool import sql_type
from sources.core.vocabulary import BOOKKEEPING, COLUMNS, about_column, about_table

VIEWS: Mapping[str, str] = {
    "contacts": "People of all connections, one row per live record",
    "companies": "Companies of all connections, one row per live record",
    "deals": "Deals of all connections, one row per live record",
    "tasks": "Things to do of all connections, one row per live record",
    "activities": "What was done, in all connections, one row per live record",
}

VIEW_COLUMNS: Mapping[str, str] = {
    "connection": "The connection the record comes from; its raw tables stand in the schema of that name",
    "crm": "The product behind the connection",
    "email": "E-mail address, as the CRM holds it",
    "email_key": "The address trimmed and lower-cased, to join by; a digest where the connection hashes it",
    "full_name": "Whole name",
    "title": "Title: of a person the job, of a deal or task its name",
    "company": "Name of the company, as text",
    "domain": "Internet domain of the company",
    "score": "The CRM's own score of the lead",
    "tags": "Tags",
    "stage": "Stage: of a person the lifecycle, of a deal its place in the pipeline",
    "status": "Of a deal open, won or lost; of a task as the CRM has it",
    "amount": "Value in major units of `currency`",
    "currency": "Currency, ISO 4217; null where the CRM does not tell",
    "probability": "Chance of winning, 0 to 1",
    "owner": "The user who owns it, as the CRM names users",
    "expected_close_at": "When the deal is expected to close",
    "closed_at": "When the deal was won or lost; where the CRM does not tell, when it was first seen so",
    "occurred_at": "When it happened",
    "contact_id": "The person, by the id in `crm.contacts`",
    "company_id": "The company, by the id in `crm.companies`",
    "deal_id": "The deal, by the id in `crm.deals`",
}

OWN_TABLES: Mapping[str, str] = {
    "runs": "One row per run of a command that changed the warehouse or a CRM",
    "changes": "One row per field of a record that changed; history begins after a table's first load",
    "deal_stays": "One row per stay of a deal in a stage; `deal_stages` adds the days",
    "deal_stages": "One row per stay of a deal in a stage, with its length",
    "push_log": "One row per record of a push, with what was sent and what it replaced",
    "ledger": "What a CRM accepted from us per record and field, and what it showed for it afterwards",
    "resource_state": "How far each resource has been read",
    "connections": "By which CRM, contract and settings each connection's tables were read",
    "dismissed": "Rows of syncs that somebody dismissed: not planned again until the model changes them",
    "forgotten": "Records of people who were forgotten; pulls do not store them again",
}

OWN_COLUMNS: Mapping[str, str] = {
    "run_id": "The run, by an id that sorts by time",
    "command": "The command that ran",
    "started_at": "When it began",
    "finished_at": "When it ended",
    "counts": "What it counted, as JSON",
    "error": "What went wrong, in one line; null where nothing",
    "connection": "The connection",
    "resource": "The resource, which is a table of the connection's schema",
    "id": "The record's id in the CRM",
    "field": "The column that changed; null where the record was created or deleted",
    "old_value": "Its value before, as text",
    "new_value": "Its value after, as text",
    "changed_at": "When it changed by the CRM's stamp, else when that was seen",
    "kind": "created, updated or deleted",
    "origin": "push where the new value is one that we sent, else crm",
    "stage": "The stage, as in `crm.deals`",
    "entered_at": "When the deal came into the stage",
    "left_at": "When the deal left the stage; null while it is there",
    "days": "Length of the stay in days, up to now where it goes on",
    "sync": "The sync, as the settings name it",
    "object": "The kind of record in the CRM that was written",
    "key": "What the record is identified by: address, domain or key of the model",
    "crm_id": "The record's id in the CRM, once it is known",
    "action": "create, update or delete",
    "sent": "What was sent: field -> value",
    "replaced": "What it replaced: field -> value",
    "batch_id": "The request that carried it",
    "pushed_at": "When the outcome was known",
    "key_digest": "A keyed digest of the person's address: no push makes the record again",
    "exact_key": "The key with its parts apart, where `key` shows several in one text; null otherwise",
    "verified": "What reading it back told: verified, differs or not_seen; null where it was not asked for",
    "shown": "What the CRM showed when it was read back: field -> value",
    "sent_at": "When the row was sent",
    "echo": "What the CRM showed for it afterwards: field -> value",
    "echo_at": "When that was compared last",
    "strategy": "How the resource is read: full or since",
    "watermark": "Everything changed before it has been read",
    "feed_watermark": "Where to go on in the change feed",
    "page_token": "Where to go on in a pass that was cut",
    "pass_started_at": "When the pass that was cut began",
    "pass_since": "Where the window of the pass that was cut begins; null for a whole pass",
    "history_from": "When it had been read whole for the first time; `changes` begins there",
    "fanned_at": "Until when the records have landed that the list is asked for one by one",
    "fanned_by": "The resources whose records the list was asked for; null where it is no such list",
    "last_complete_at": "Everything changed before it has been looked at",
    "last_full_at": "When the resource was last read whole",
    "last_error": "Why the last pull of it failed; null where it did not",
    "crm": "The product behind the connection",
    "contract": "The version of the CRM's interface that was spoken",
    "options": "Its settings, without keys",
    "privacy": "What its tables must not hold (`exclude`, `hash`); null where nothing",
    "row_hash": "A digest of the values that the row would have written",
    "dismissed_at": "When the row was dismissed",
    "forgotten_at": "When the person was forgotten",
}

_OWN_SPECIAL: Mapping[tuple[str, str], str] = {
    ("runs", "status"): "How it ended: ok, failed, refused, guarded or interrupted",
    ("push_log", "status"): "created, updated, deleted, rejected, skipped, conflict or unknown",
    ("push_log", "error"): "Why it was not done; null where it was",
    ("ledger", "run_id"): "The run that last sent something to the record",
    ("resource_state", "counts"): "What was counted when it was last read, as JSON",
}

_DLT_TABLES: Mapping[str, str] = {
    "_dlt_loads": "dlt's list of loads into this schema",
    "_dlt_version": "dlt's versions of this schema",
    "_dlt_pipeline_state": "dlt's own state",
}

_DLT_COLUMNS: Mapping[str, str] = {
    "load_id": "The load, by its id",
    "schema_name": "Name of dlt's schema",
    "status": "0 once the load is complete",
    "inserted_at": "When the row was written",
    "schema_version_hash": "Digest of dlt's schema",
    "version": "Number of the version",
    "engine_version": "Version of dlt's format",
    "schema": "dlt's schema, as JSON",
    "version_hash": "Digest of this version",
    "pipeline_name": "Name of dlt's pipeline",
    "state": "dlt's state, compressed",
    "created_at": "When it was made",
}


_Texts = tuple[str, Mapping[str, str]]  # what a table holds, and its columns


def write_comments(con: duckdb.DuckDBPyConnection) -> int:
    """Comment every table and column of the schemas that Roundtrip makes; count the comments written.

    What says the right thing already is left alone, so that a generation without a new table costs one look.
    """
    wanted: dict[tuple[str, str], _Texts] = {
        ("crm", view): (about, _view_texts(view)) for view, about in VIEWS.items()
    }
    wanted |= {("roundtrip", table): (about, own_texts(table)) for table, about in OWN_TABLES.items()}
    rows = con.execute("select connection, crm, contract, privacy from roundtrip.connections").fetchall()
    for connection, crm, contract, privacy in rows:
        resources = sources.load(crm).contracts[contract].resources
        hidden = json.loads(privacy or "{}")
        wanted |= {(connection, each.name): _raw_texts(each, hidden) for each in resources}
        wanted |= {(connection, table): (about, _DLT_COLUMNS) for table, about in _DLT_TABLES.items()}
    statements = [*_table_comments(con, wanted), *_column_comments(con, wanted)]
    if statements:
        con.execute(";\n".join(["begin", *statements, "commit"]))
    return len(statements)


def _table_comments(
    con: duckdb.DuckDBPyConnection, wanted: Mapping[tuple[str, str], _Texts]
) -> Iterator[str]:
    present = con.execute(
        "select 'table', schema_name, table_name, comment from duckdb_tables()"
        " where database_name = current_catalog() and not internal and not temporary"
        " union all select 'view', schema_name, view_name, comment from duckdb_views()"
        " where database_name = current_catalog() and not internal and not temporary"
    ).fetchall()
    for kind, schema, table, comment in present:
        text = wanted.get((schema, table), (None, {}))[0]
        if text is not None and text != comment:
            yield f"comment on {kind} {quoted(schema)}.{quoted(table)} is {literal(text)}"


def _column_comments(
    con: duckdb.DuckDBPyConnection, wanted: Mapping[tuple[str, str], _Texts]
) -> Iterator[str]:
    present = con.execute(
        "select schema_name, table_name, column_name, comment from duckdb_columns()"
        " where database_name = current_catalog() and not internal and list_contains(?, schema_name)",
        [sorted({schema for schema, _ in wanted})],
    ).fetchall()
    for schema, table, column, comment in present:
        if (schema, table) not in wanted:
            continue
        text = wanted[schema, table][1].get(column) or _any_text(column)
        if text != comment:
            place = f"{quoted(schema)}.{quoted(table)}.{quoted(column)}"
            yield f"comment on column {place} is {literal(text)}"


def _any_text(column: str) -> str:
    """Describe a column that its table no longer declares: an older contract's, or one somebody added."""
    return BOOKKEEPING.get(column) or COLUMNS.get(column, f"`{column}`, which this version does not read")


# -- texts ---------------------------------------------------------------------------------------


def _view_texts(view: str) -> dict[str, str]:
    names = ("connection", "crm", "id", *CRM_VIEWS[view])
    return {name: VIEW_COLUMNS.get(name) or COLUMNS[name] for name in names}


def own_texts(table: str) -> dict[str, str]:
    """Give the texts of the columns of one of our own tables."""
    special = {name: text for (of, name), text in _OWN_SPECIAL.items() if of == table}
    return {**OWN_COLUMNS, **special}


def _raw_texts(resource: Resource, hidden: Mapping[str, list[str]]) -> _Texts:
    texts = {column.name: about_column(resource, column) for column in resource.columns} | dict(BOOKKEEPING)
    for setting, said in (("exclude", "kept out by `exclude`"), ("hash", "kept as a digest by `hash`")):
        named = [each.partition(".") for each in hidden.get(setting) or ()]
        for column in resource.columns:
            if any(of == resource.name and name in (column.name, column.source) for of, _, name in named):
                texts[column.name] += f"; {said}"
    return about_table(resource), texts


# -- the page ------------------------------------------------------------------------------------


def write_page(out: TextIO) -> None:
    """Write the dictionary as Markdown: the unified views first, then our own tables, then each CRM's."""
    out.write(_HEAD)
    for view, about in VIEWS.items():
        kinds = dict.fromkeys(("connection", "crm", "id"), "VARCHAR") | CRM_VIEWS[view]
        _write_table(out, f"crm.{view}", about, kinds, _view_texts(view))
    out.write("\n## Schema `roundtrip`\n\nWhat Roundtrip keeps about its own work.\n")
    for table, about in OWN_TABLES.items():
        _write_table(out, f"roundtrip.{table}", about, _own_kinds(table), own_texts(table))
    out.write(_RAW)
    _write_rows(out, dict.fromkeys(BOOKKEEPING, ""), BOOKKEEPING)
    for crm in sources.names():
        connector = sources.load(crm)
        for name, contract in connector.contracts.items():
            version = f", contract {name}" if len(connector.contracts) > 1 else ""
            out.write(f"\n## {connector.title}{version}\n")
            _write_contract(out, contract)


_HEAD = """# Data dictionary

What every table and column of the warehouse holds. The same texts stand in the warehouse as comments:
`roundtrip query "select column_name, comment from duckdb_columns() where table_name = 'contacts'"`.
This page is written by `python -m pipelines.dictionary > pipelines/DICTIONARY.md`.

## Schema `crm`

One model over all connections. A column that a CRM does not have is null.
"""

_RAW = """
## Raw tables

One schema per connection, named after it, with the tables of its CRM below. Ids are texts, times are in UTC,
money is as the vendor sends it. Every raw table also has:

"""


def _write_contract(out: TextIO, contract: Contract) -> None:
    for resource in contract.resources:
        kinds = {column.name: sql_type(column.kind) for column in resource.columns}
        about, texts = _raw_texts(resource, {})
        _write_table(out, resource.name, about, kinds, texts)


def _write_table(
    out: TextIO, name: str, about: str, kinds: Mapping[str, str], texts: Mapping[str, str]
) -> None:
    out.write(f"\n### `{name}`\n\n{about}.\n\n")
    _write_rows(out, kinds, texts)


def _write_rows(out: TextIO, kinds: Mapping[str, str], texts: Mapping[str, str]) -> None:
    out.write("| column | type | holds |\n| --- | --- | --- |\n")
    out.writelines(
        f"| `{name}` | {kind} | {texts.get(name) or _any_text(name)} |\n" for name, kind in kinds.items()
    )


def _own_kinds(table: str) -> dict[str, str]:
    with duckdb.connect() as con:
        con.execute(sql("schema.sql"))
        return {row[0]: row[1] for row in con.execute(f"describe roundtrip.{quoted(table)}").fetchall()}


if __name__ == "__main__":
    write_page(sys.stdout)
