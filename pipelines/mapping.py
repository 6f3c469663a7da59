"""One sync's mapping, checked against the model and the CRM: which column fills which field, in what form.

Knows names and types only. The comparison itself is `compare`'s, its order of steps `plan`'s.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from pipelines.compare import Form, Policy, as_text, canonical, email_key, form_of, form_of_type, pointer
from pipelines.settings import FieldRule, Sync
from pipelines.warehouse import quoted
from sources.core.connector import Contract, Kind, Write, snake_case
from sources.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MappedField:
    """One mapped field: SQL for its canonical value in the model and in the mirror, and its rules.

    `model` is SQL over the model's columns, `crm` over the mirror's row named `mirror`; `crm` is null for
    a field that cannot be read back. `pointer` is where the ledger's JSON holds it.
    """

    number: int
    name: str
    kind: Kind
    form: Form
    policy: Policy
    model: str
    crm: str
    pointer: str
    readable: bool
    is_key: bool


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """A sync's fields with the SQL of its model and of the address that identifies a row.

    `custom` is the mirror's further column from which custom fields are read, empty where none are mapped.
    """

    query: str
    address: str
    fields: tuple[MappedField, ...]
    custom: str


def model_query(sync: Sync) -> str:
    """Write the query whose rows are to be synced."""
    if sync.model_sql is not None:
        return sync.model_sql.strip().rstrip(";")
    return "select * from " + ".".join(quoted(part) for part in str(sync.model).split("."))


def columns_of(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    """List the columns of a query with their types, names folded as DuckDB folds them."""
    rows = con.execute(f"describe ({query})").fetchall()
    return {str(name).lower(): str(kind) for name, kind, *_ in rows}


def read_mapping(
    con: duckdb.DuckDBPyConnection, sync: Sync, contract: Contract, mirror: Mapping[str, str]
) -> FieldMapping:
    """Check a sync's mapping; `ConfigError` names the first setting that the model or the CRM does not know.

    `mirror` is the mirror's columns with their types.
    """
    query = model_query(sync)
    setting = "model" if sync.model is not None else "model_sql"
    try:
        model = columns_of(con, query)
    except duckdb.Error as error:
        raise ConfigError(
            f"syncs.{sync.name}.{setting}: {str(error).splitlines()[0][:200]}",
            hint="Run `roundtrip enrich` first, or name a table or view of the warehouse.",
        ) from error
    _require_column(sync, model, sync.key_column, "key")
    reader = _Reader(sync, contract, model, mirror)
    fields = tuple(reader.field(number, rule) for number, rule in enumerate(sync.fields))
    address = as_text(_column(sync.key_column), model[sync.key_column.lower()])
    return FieldMapping(query, address, fields, reader.custom_values())


class _Reader:
    """Turn the rules of one sync into fields; custom values are taken out of their object in one go."""

    def __init__(
        self, sync: Sync, contract: Contract, model: Mapping[str, str], mirror: Mapping[str, str]
    ) -> None:
        self.sync = sync
        self.contract = contract
        self.write = contract.writes[sync.object]
        self.model = model
        self.mirror = mirror
        self._customs: list[str] = []

    def field(self, number: int, rule: FieldRule) -> MappedField:
        """Check one rule and write its SQL."""
        _require_column(self.sync, self.model, rule.column, f"fields.{rule.field}")
        _require_field(self.sync, self.contract, self.write, rule.field)
        type_name = self.model[rule.column.lower()]
        top, _, custom = rule.field.partition(".")
        kind: Kind = "text" if custom else self.write.fields[top].kind
        form: Form = form_of_type(type_name) if custom else form_of(kind)
        is_key = rule.field == self.write.key
        form = "key" if is_key else form
        shown = self._shown(top, custom)
        return MappedField(
            number=number,
            name=rule.field,
            kind=kind,
            form=form,
            policy=Policy(
                rule.write, clears=rule.nulls == "clear", model_wins=self.sync.conflicts == "model_wins"
            ),
            model=canonical(form, as_text(_column(rule.column), type_name)),
            crm="null::varchar" if shown is None else canonical(form, shown),
            pointer=pointer(rule.field),
            readable=shown is not None,
            is_key=is_key,
        )

    def custom_values(self) -> str:
        """Write the mirror's column `plan_custom`: the mapped custom values of a record, as texts."""
        if not self._customs:
            return ""
        column = quoted(snake_case(self.write.custom or ""))
        return f", json_extract_string(mirror.{column}, [{', '.join(self._customs)}]) as plan_custom"

    def _shown(self, top: str, custom: str) -> str | None:
        if not custom:
            return mirror_text(top, self.mirror) if self.write.fields[top].readable else None
        if snake_case(top) not in self.mirror:
            return None
        self._customs.append(pointer(custom))
        return f"mirror.plan_custom[{len(self._customs)}]"


def mirror_text(field: str, mirror: Mapping[str, str]) -> str | None:
    """Write the text of a top-level field in the mirror; None where the mirror cannot hold it."""
    column = snake_case(field)
    if column in mirror:
        return as_text(f"mirror.{quoted(column)}", mirror[column])
    return f"json_extract_string(mirror._extra, {pointer(field)})" if "_extra" in mirror else None


def _column(name: str) -> str:
    return f"model.{quoted(name)}"


def _require_column(sync: Sync, model: Mapping[str, str], column: str, setting: str) -> None:
    if column.lower() not in model:
        raise ConfigError(
            f"syncs.{sync.name}.{setting}: the model has no column '{column}'{_nearest(column, model)}",
            hint=f"It has: {', '.join(sorted(model))}.",
        )


def _require_field(sync: Sync, contract: Contract, write: Write, field: str) -> None:
    top, dot, custom = field.partition(".")
    if (not dot and top in write.fields) or (dot and custom and top == write.custom):
        return
    setting = f"syncs.{sync.name}.fields.{field}"
    readable = {column.source for column in contract.resource(write.resource).columns}
    if not dot and field in readable and field != write.custom:
        raise ConfigError(
            f"{setting}: {sync.object} of {sync.connection} show '{field}', but it cannot be written"
        )
    custom_hint = f", and {write.custom}.KEY for custom fields" if write.custom else ""
    near = _nearest(field, write.fields)
    raise ConfigError(
        f"{setting}: {sync.object} of {sync.connection} have no field '{field}'{near}",
        hint=f"There are: {', '.join(write.fields)}{custom_hint}.",
    )


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (nearest: '{near[0]}')" if near else ""


def key_of_mirror(write: Write, mirror: Mapping[str, str]) -> str:
    """Write the key of the mirror's row named `mirror`."""
    return email_key(mirror_text(write.key, mirror) or "null::varchar")
