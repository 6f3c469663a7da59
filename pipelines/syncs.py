"""What a sync is: the declared flow of a model's rows into one object of one connection.

Read from `[syncs.*]`. Whether the model, its columns and the CRM's fields exist is left to `plan`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from pipelines.layers import Section, spelt
from sources.core.errors import ConfigError

if TYPE_CHECKING:  # a sync is read without them: `status` starts 0.04 s sooner
    from sources.core.connector import Connection, Contract, Write
    from sources.core.privacy import Target

WritePolicy = Literal["always", "if_empty", "on_create"]
NullPolicy = Literal["skip", "clear"]
Mode = Literal["upsert", "update", "create"]
ConflictPolicy = Literal["crm_wins", "model_wins"]

_SETTINGS = (
    "connection",
    "object",
    "key",
    "fields",
    "model",
    "model_sql",
    "mode",
    "max_changes",
    "conflicts",
    "recheck_after",
    "max_age",
)
_FIELD_SETTINGS = ("column", "write", "nulls")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How one field of the CRM is filled: from which column of the model, and when."""

    field: str
    column: str
    write: WritePolicy = "always"
    nulls: NullPolicy = "skip"


@dataclass(frozen=True, slots=True)
class Sync:
    """One declared sync; `max_changes` is a share of the CRM's records up to 1, a number above.

    Records that were last looked at longer ago than `recheck_after` are looked at again before a change.
    Without a whole pull of the target within `max_age` nothing is sent.
    """

    name: str
    connection: str
    object: str
    key: str
    fields: tuple[FieldRule, ...]
    model: str | None = None
    model_sql: str | None = None
    mode: Mode = "upsert"
    max_changes: float | None = None
    conflicts: ConflictPolicy = "crm_wins"
    recheck_after: timedelta = timedelta(minutes=15)
    max_age: timedelta = timedelta(hours=24)

    @property
    def key_column(self) -> str:
        """Give the model's column that holds the key: the one mapped to it, else the one of its name."""
        return next((rule.column for rule in self.fields if rule.field == self.key), self.key)


def read_sync(section: Section) -> Sync:
    """Read one `[syncs.NAME]` table; `ConfigError` names the first setting that is wrong."""
    if not _NAME.fullmatch(section.path[-1]):
        raise ConfigError(
            f"{spelt(*section.path)} is not a name for a sync",
            hint="Use a-z, 0-9, _ and - only, as in leads_to_relm.",
        )
    section.refuse_unknown(_SETTINGS)
    model, model_sql = section.text("model"), section.text("model_sql")
    if (model is None) == (model_sql is None):
        raise section.error("model", "or model_sql must be set, one of the two")
    has_guard = section.values.get("max_changes") is not None
    return Sync(
        name=section.path[-1],
        connection=_required(section, "connection"),
        object=_required(section, "object"),
        key=_required(section, "key"),
        fields=_read_fields(section),
        model=model,
        model_sql=model_sql,
        mode=cast(Mode, section.choice("mode", ("upsert", "update", "create"), "upsert")),
        max_changes=section.number("max_changes", 0) if has_guard else None,
        conflicts=cast(ConflictPolicy, section.choice("conflicts", ("crm_wins", "model_wins"), "crm_wins")),
        recheck_after=section.span("recheck_after", "15m"),
        max_age=section.span("max_age", "24h"),
    )


def check_target(sync: Sync, connection: Connection, contract: Contract) -> None:
    """Refuse a sync that its target can never carry out: no such object, key, mode, or use of a field."""
    place, crm = Section(("syncs", sync.name)), connection.crm
    if not contract.writes:
        raise ConfigError(
            f"syncs.{sync.name}.connection is {connection.name}, and {crm} cannot be written to",
            hint="Its API only reads: name another connection.",
        )
    write = contract.writes.get(sync.object)
    if write is None:
        raise place.error("object", f"is {sync.object!r}, but {crm} takes only {_listed(contract.writes)}")
    _check_key(sync, place, crm, write)
    if sync.mode not in write.modes:
        takes = _listed(write.modes) if len(write.modes) > 1 else f"only mode = {min(write.modes)!r}"
        raise place.error("mode", f"is {sync.mode!r}, but {crm} {sync.object} take {takes}")
    for rule in sync.fields:
        _check_rule(sync, place.section("fields"), crm, write, rule)
        _check_if_empty(sync, place.section("fields"), crm, write, rule)
    check_sight(sync, connection, contract, write)


def check_sight(sync: Sync, connection: Connection, contract: Contract, write: Write) -> None:
    """Refuse a sync that needs a value which the connection keeps out of sight."""
    from sources.core.privacy import excluded, hashed

    hidden = [("exclude", target) for target in excluded(connection, contract)]
    hidden += [("hash", target) for target in hashed(connection, contract)]
    for setting, target in hidden:
        if target.resource == write.resource and _needs(sync, connection, write, target, setting):
            raise _unseen(sync, connection, target, setting)


def _needs(sync: Sync, connection: Connection, write: Write, target: Target, setting: str) -> bool:
    """Tell whether a sync would have to compare, keep or send back a value that is kept out of sight."""
    from sources.core.connector import snake_case

    has_key = sync.key != "id" and write.key_form != "none"
    used = {rule.field for rule in sync.fields} | ({write.key, *write.also_key} if has_key else set())
    if any(target.covers(*place) for name in used for place in places_of(write, name)):
        return True
    if write.custom and not write.custom_column and target.column == snake_case(write.custom):
        return any(name.startswith(f"{write.custom}.") for name in used)  # the whole object goes out
    is_writable = target.column in {snake_case(name) for name in (*write.fields, write.custom or "")}
    return is_writable and sync.mode != "create" and (setting == "hash" or write.replaces(connection))


def places_of(write: Write, name: str) -> list[tuple[str, str]]:
    """List where a mirror may show a field: its column and, for a value in an object, its key."""
    from sources.core.connector import snake_case

    top, _, inner = name.partition(".")
    if not inner:
        return [(snake_case(top), "")]
    return [(write.custom_column or snake_case(top), inner), (snake_case(inner), "")]


def _unseen(sync: Sync, connection: Connection, target: Target, setting: str) -> ConfigError:
    named = ".".join(filter(None, (target.resource, target.column, target.inner)))
    return ConfigError(
        f"syncs.{sync.name} cannot write {connection.name} {sync.object}: {named} is kept out of sight by"
        f" sources.{connection.name}.{setting}, so a push could not tell what it would replace",
        hint=f"Take {named} off that list, or the sync out; or, if it is not part of the sync, see in"
        " sources/README.md how to say that the CRM merges changes.",
    )


def _check_key(sync: Sync, place: Section, crm: str, write: Write) -> None:
    if sync.key == "id":
        _check_id(sync, place, crm, write)
    elif write.key_form != "none" and sync.key != write.key:
        ids = (
            " or, to update by the CRM's ids, 'id'"
            if write.takes_ids and write.modes & {"update", "upsert"}
            else ""
        )
        raise place.error(
            "key", f"is {sync.key!r}, but {crm} {sync.object} are matched by {write.key!r}{ids}"
        )
    elif write.also_key:
        _check_parts(sync, place, crm, write)


def _check_id(sync: Sync, place: Section, crm: str, write: Write) -> None:
    if not write.modes & {"update", "upsert"}:
        raise place.error("key", f"is 'id', but {crm} {sync.object} cannot be updated")
    if not write.takes_ids:
        raise place.error(
            "key", f"is 'id', but {crm} {sync.object} cannot be changed by id, only by {write.key!r}"
        )
    if sync.mode != "update":
        raise place.error(
            "mode", f"is {sync.mode!r}, but key = 'id' names records that are there: it takes only 'update'"
        )


def _check_parts(sync: Sync, place: Section, crm: str, write: Write) -> None:
    mapped = {rule.field for rule in sync.fields}
    for part in (write.key, *write.also_key):
        if part not in mapped:
            together = " and ".join((write.key, *write.also_key))
            raise place.error(
                "fields", f"does not map {part!r}: {crm} {sync.object} are matched by {together}"
            )


def _check_rule(sync: Sync, fields: Section, crm: str, write: Write, rule: FieldRule) -> None:
    """Refuse what the API cannot do with a field; whether there is such a field is told by the plan."""
    writable = write.fields.get(rule.field)
    # A field that every new record must have is none that the API lets one empty.
    clearable = write.custom_clearable if writable is None else writable.clearable and not writable.required
    if rule.nulls == "clear" and not clearable:
        raise fields.error(rule.field, f'has nulls = "clear", but {crm} {sync.object} cannot clear it')
    if rule.write == "on_create" and writable is not None and not writable.creatable:
        raise fields.error(
            rule.field, f'has write = "on_create", but {crm} {sync.object} take it only once they are there'
        )


def _check_if_empty(sync: Sync, fields: Section, crm: str, write: Write, rule: FieldRule) -> None:
    """Refuse `if_empty` where an update could write over a value that nobody can see."""
    writable = write.fields.get(rule.field)
    is_hidden = writable is not None and writable.updatable and not writable.readable
    if rule.write == "if_empty" and is_hidden and sync.mode != "create":
        raise fields.error(
            rule.field,
            f'has write = "if_empty", but {crm} {sync.object} do not show it, so whether it is empty is not'
            " known: use on_create or always",
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _required(section: Section, name: str) -> str:
    value = section.text(name)
    if value is None:
        raise section.error(name, "is not set")
    return value


def _read_fields(section: Section) -> tuple[FieldRule, ...]:
    fields = section.section("fields")
    if not fields.values:
        raise section.error("fields", "is empty: nothing would be sent")
    return tuple(_read_field(fields, name, value) for name, value in fields.values.items())


def _read_field(fields: Section, name: str, value: Any) -> FieldRule:
    if isinstance(value, str):
        value = {"column": value}
    if not isinstance(value, Mapping):
        raise fields.error(name, 'is neither a column\'s name nor a table, as in { column = "name" }')
    rule = Section((*fields.path, name), value)
    rule.refuse_unknown(_FIELD_SETTINGS)
    return FieldRule(
        field=name,
        column=_required(rule, "column"),
        write=cast(WritePolicy, rule.choice("write", ("always", "if_empty", "on_create"), "always")),
        nulls=cast(NullPolicy, rule.choice("nulls", ("skip", "clear"), "skip")),
    )
