"""One sync's mapping, checked against the model and the CRM: which column fills which field, in what form.

Knows names and types only. The comparison itself is `compare`'s, its order of steps `plan`'s.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from pipelines.pushing.compare import (
    Form,
    Policy,
    as_text,
    canonical,
    form_of_type,
    kind_of_type,
    pointer,
)
from pipelines.pushing.identity import (
    Identity,
    identity_of,
    key_form_of,
    key_of,
    mirror_text,
    place_in_mirror,
)
from pipelines.settings import FieldRule, Sync
from pipelines.warehouse import quoted
from sources.core.connector import Contract, Kind, Writable, Write
from sources.core.errors import ConfigError

_WHOLE_TYPES = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})


@dataclass(frozen=True, slots=True)
class MappedField:
    """One mapped field: SQL for its canonical value in the model and in the mirror, and its rules.

    `model` is SQL over the model's columns, `crm` over the mirror's row named `mirror`; `crm` is null for
    a field that cannot be read back. `pointer` is where the ledger's JSON holds it. `is_key` marks the field
    that identifies a record, which goes out as the model spells it. `quick_model` and `quick_crm` are of one
    type, and cheap: where they are equal, so are the canonical values.
    """

    number: int
    name: str
    kind: Kind
    form: Form
    policy: Policy
    model: str
    crm: str
    pointer: str
    quick_model: str
    quick_crm: str
    readable: bool
    is_key: bool
    is_creatable: bool = True


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """A sync's fields with the SQL of its model, of the key that identifies a row, and of its spelling.

    `custom` is the mirror's further column from which custom fields are read, empty where none are mapped.
    `custom_kinds` tells the kind of the model's column for each mapped custom field, by its key.
    """

    query: str
    identity: Identity
    address: str
    key: str
    fields: tuple[MappedField, ...]
    custom: str
    custom_kinds: Mapping[str, Kind]


def model_query(sync: Sync) -> str:
    """Write the query whose rows are to be synced."""
    if sync.model_sql is not None:
        return sync.model_sql.strip().rstrip(";")
    return "select * from " + ".".join(quoted(part) for part in str(sync.model).split("."))


def is_base_table(con: duckdb.DuckDBPyConnection, model: str) -> bool:
    """Tell whether a model is a table of the warehouse, which gives the same rows each time it is read."""
    schema, _, table = model.rpartition(".")
    found = con.execute(
        "select 1 from duckdb_tables() where database_name = current_database()"
        " and lower(schema_name) = lower(?) and lower(table_name) = lower(?)",
        [schema or "main", table],
    ).fetchone()
    return found is not None


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
    reader = _Reader(sync, contract, model, mirror)
    identity = identity_of(sync.key, reader.write)
    column = sync.key_column if identity.by == "key" else sync.key
    _require_column(sync, model, column, "key")
    fields = tuple(reader.field(number, rule) for number, rule in enumerate(sync.fields))
    address = reader.text(column)
    others = (reader.text(_column_of(sync, field)) for field in identity.fields[1:])
    return FieldMapping(
        query=query,
        identity=identity,
        address=address,
        key=key_of(identity, reader.write, (address, *others)),
        fields=fields,
        custom=reader.custom_values(),
        custom_kinds=reader.custom_kinds,
    )


def is_custom(write: Write, field: str) -> bool:
    """Tell whether a field lies below the prefix for custom fields, and is none that the CRM declares."""
    top, dot, custom = field.partition(".")
    return bool(dot and custom) and top == write.custom and field not in write.fields


def writable_of(write: Write, field: str) -> Writable:
    """Tell what can be done with a field; of custom ones the CRM declares no more than the clearing."""
    return write.fields.get(field) or Writable(clearable=write.custom_clearable)


class _Reader:
    """Turn the rules of one sync into fields; values of one object are taken out of it in one go."""

    def __init__(
        self, sync: Sync, contract: Contract, model: Mapping[str, str], mirror: Mapping[str, str]
    ) -> None:
        self.sync = sync
        self.contract = contract
        self.write = contract.writes[sync.object]
        self.identity = identity_of(sync.key, self.write)
        self.model = model
        self.mirror = mirror
        self.custom_kinds: dict[str, Kind] = {}
        self._nested: dict[str, list[str]] = {}

    def text(self, column: str) -> str:
        """Write the text of a column of the model."""
        return as_text(_column(column), self.model[column.lower()])

    def field(self, number: int, rule: FieldRule) -> MappedField:
        """Check one rule and write its SQL."""
        _require_column(self.sync, self.model, rule.column, f"fields.{rule.field}")
        _require_field(self.sync, self.contract, self.write, rule.field)
        type_name = self.model[rule.column.lower()]
        writable, form = writable_of(self.write, rule.field), form_of_type(type_name)
        if is_custom(self.write, rule.field):
            self.custom_kinds[rule.field.partition(".")[2]] = kind_of_type(type_name)
        else:
            form = key_form_of(self.identity, rule.field, self.write)
        shown = self._shown(rule.field)
        quick_model, quick_crm = self._quick(rule, form, shown)
        return MappedField(
            number=number,
            name=rule.field,
            kind=writable.kind,
            form=form,
            policy=Policy(
                # What cannot be seen may be full: an `if_empty` then holds for new records only.
                rule.write
                if writable.updatable and (shown is not None or rule.write == "always")
                else "on_create",
                clears=rule.nulls == "clear",
                model_wins=self.sync.conflicts == "model_wins",
            ),
            model=canonical(form, self.text(rule.column)),
            crm="null::varchar" if shown is None else canonical(form, shown),
            pointer=pointer(rule.field),
            quick_model=quick_model,
            quick_crm=quick_crm,
            readable=shown is not None,
            is_key=self.identity.by == "key" and rule.field == self.write.key,
            is_creatable=writable.creatable,
        )

    def custom_values(self) -> str:
        """Write further columns of the mirror: the mapped values in each of its objects, as texts."""
        return "".join(
            f", json_extract_string(mirror.{quoted(column)}, [{', '.join(pointers)}])"
            f" as {quoted(_values_in(column))}"
            for column, pointers in self._nested.items()
        )

    def _quick(self, rule: FieldRule, form: Form, shown: str | None) -> tuple[str, str]:
        """Write what is compared first: the bare columns where they are of one type, texts otherwise."""
        wish, text = _column(rule.column), self.text(rule.column)
        if shown is None:
            return wish, "null"
        column, key = place_in_mirror(self.write, rule.field, self.mirror) or ("", "")
        types = self.model[rule.column.lower()], self.mirror.get(column, "")
        if not key and column in self.mirror:
            bare = f"mirror.{quoted(column)}"
            if types[0] == types[1]:
                return wish, bare
            if all(each in _WHOLE_TYPES for each in types):
                return f"({wish})::bigint", f"({bare})::bigint"
        is_plain = form in ("text", "json")
        return (text, shown) if is_plain else (canonical(form, text), canonical(form, shown))

    def _shown(self, field: str) -> str | None:
        place = place_in_mirror(self.write, field, self.mirror)
        if place is None:
            return None
        column, key = place
        if not key:
            return mirror_text(column, self.mirror)
        pointers = self._nested.setdefault(column, [])
        pointers.append(pointer(key))
        return f"mirror.{quoted(_values_in(column))}[{len(pointers)}]"


def _values_in(column: str) -> str:
    return f"plan_in_{column}"


def _column_of(sync: Sync, field: str) -> str:
    return next(rule.column for rule in sync.fields if rule.field == field)


def _column(name: str) -> str:
    return f"model.{quoted(name)}"


def _require_column(sync: Sync, model: Mapping[str, str], column: str, setting: str) -> None:
    if column.lower() not in model:
        raise ConfigError(
            f"syncs.{sync.name}.{setting}: the model has no column '{column}'{_nearest(column, model)}",
            hint=f"It has: {', '.join(sorted(model))}.",
        )


def _require_field(sync: Sync, contract: Contract, write: Write, field: str) -> None:
    if field in write.fields or is_custom(write, field):
        return
    setting = f"syncs.{sync.name}.fields.{field}"
    resources = [each for each in contract.resources if each.name == write.resource]
    readable = {column.source for each in resources for column in each.columns}
    if field in readable and field != write.custom:
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
