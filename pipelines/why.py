"""`roundtrip why`: how the values of one record came to be: what we sent, what it replaced, what others did.

Reads the published generation alone: the log of pushes, the history of changes and the mirror. What a record
shows now is what the last pull saw (`as_of`).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb

from pipelines import render
from pipelines.pushing.compare import domain_key, email_key
from pipelines.pushing.identity import key_in_mirror, place_in_mirror, shown_key_sql
from pipelines.settings import Project
from pipelines.warehouse import Warehouse, columns_in, quoted
from sources import load
from sources.core.bodies import decode_json, is_echo
from sources.core.connector import Connection, Contract, Write, snake_case
from sources.core.errors import ConfigError, ProtocolError

_DONE = ("created", "updated")
_OURS = ("sent", "sent_at", "replaced", "run_id", "sync", "key", "batch_id", "answer")
_WIDEST = 60  # of a value on a terminal


@dataclass(slots=True)
class WhyResult:
    """What is known of one record; `fields` tell of the values now, `history` of how they came to be."""

    connection: str
    object: str
    key: str
    crm_id: str | None = None
    state: str | None = None
    as_of: str | None = None
    fields: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip why`."""
        return {
            "connection": self.connection,
            "object": self.object,
            "key": self.key,
            "crm_id": self.crm_id,
            "state": self.state,
            "as_of": self.as_of,
            "fields": self.fields,
            "history": self.history,
        }

    @property
    def text(self) -> str:
        """Give the result as a person reads it: the values now, then how they came to be."""
        of = f", as the pull of {_minute(self.as_of)} saw it" if self.as_of else ""
        lines = [
            f"{self.key} in {self.connection} {self.object} ({self.crm_id or 'no id'}, {self.state}){of}"
        ]
        lines += [_line(each) for each in self.history if each["field"] is None]
        for standing in self.fields:
            lines += ["", _headline(standing)]
            lines += [_line(each) for each in self.history if each["field"] == standing["field"]]
        return "\n".join(map(render.clean, lines)) + "\n"


def _headline(standing: Mapping[str, Any]) -> str:
    since = f" since {_minute(standing['since'])}" if standing["since"] else ""
    told = {
        "push": f"as {standing['sync']} wrote it{since}",
        "unseen": f"written by {standing['sync']}{since}; no pull has looked since",
        "crm": f"the CRM's own{since}"
        if standing["run_id"] is None
        else f"changed in the CRM{since}; {standing['sync']} had written {_short(standing['sent'])}",
    }
    return f"{standing['field']}: {_short(standing['now'])} ({told[standing['origin']]})"


def _line(entry: Mapping[str, Any]) -> str:
    edit = f" {_short(entry['replaced'])} → {_short(entry['value'])}," if entry["field"] else ""
    if entry["by"] == "crm":
        return f"  {_minute(entry['at'])}  CRM:{edit} {entry['answer']}, seen by run {entry['run_id']}"
    reason = "".join(f" ({entry[name]})" for name in ("error", "verified") if entry[name])
    batch = f", batch {entry['batch_id']}" if entry["batch_id"] else ""
    by = f"run {entry['run_id']}, row {entry['key']}{batch}"
    return f"  {_minute(entry['at'])}  {entry['command']}:{edit} {entry['answer']}{reason}, {by}"


def _minute(moment: str) -> str:
    return moment[:19].replace("T", " ")


def _short(value: Any) -> str:
    if value in (None, ""):
        return "(empty)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


@dataclass(slots=True)
class _Record:
    """One record: what tells it apart, what the mirror shows of it, and how its fields are called there."""

    connection: str
    object: str
    key: str
    crm_id: str | None
    state: str
    looked_at: datetime | None
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    stamp: str
    write: Write | None


def why(
    project: Project, connection: str, key: str, name: str | None = None, *, object_name: str = "contacts"
) -> WhyResult:
    """Tell of a record (by its key or its id in the CRM) where its values come from; of one field, if named.

    Raises `ConfigError` for a connection, an object or a record that the warehouse knows nothing of.
    """
    asked = project.connection(connection)
    contract: Contract = load(asked.crm).contract(asked)
    warehouse = Warehouse(project.warehouse)
    with warehouse.reading() as con:
        looked_at = _looked_at(con, warehouse, connection, object_name)
        record = replace(_find(con, asked, contract, object_name, key), looked_at=looked_at)
        past = sorted([*_pushed(con, record), *_changed(con, record)], key=lambda each: str(each["at"]))
    stamp = {record.stamp} if name is None else set()
    past = [each for each in past if each["field"] not in stamp]
    wanted = None if name is None else snake_case(name)
    past = [each for each in past if wanted in (None, snake_case(each["field"] or ""))]
    names = list(dict.fromkeys(each["field"] for each in past if each["field"]))
    if name is not None and not names:
        names = [next((source for column, source in record.sources.items() if column == wanted), name)]
    return WhyResult(
        connection,
        object_name,
        record.key,
        record.crm_id,
        record.state,
        _iso(record.looked_at),
        [_standing(record, each, past) for each in names],
        past,
    )


# -- the record ----------------------------------------------------------------------------------


def _find(
    con: duckdb.DuckDBPyConnection, asked: Connection, contract: Contract, name: str, key: str
) -> _Record:
    resource = next((each for each in contract.resources if each.name == name), None)
    write = contract.writes.get(name)
    if resource is None and write is None:
        known = ", ".join(dict.fromkeys([*(each.name for each in contract.resources), *contract.writes]))
        raise ConfigError(f"{asked.name} has no {name}", hint=f"It has: {known}.")
    columns = columns_in(con, asked.name, name)
    found = (
        _in_mirror(con, f"{quoted(asked.name)}.{quoted(name)}", _key(write, columns), key) if columns else []
    )
    if len(found) > 1:
        ids = ", ".join(str(each["id"]) for each in found)
        raise ConfigError(
            f"{len(found)} live records of {asked.name} {name} have this key",
            hint=f"Give one of the ids {ids}.",
        )
    values = found[0] if found else {}
    logged = con.execute(
        f"""
        select any_value(key), any_value(crm_id) from roundtrip.push_log
        where connection = $connection and object = $object
            and (crm_id = $id or list_contains({_SPELLINGS}, key)) having count(*) > 0
        """,
        {"connection": asked.name, "object": name, "id": values.get("id", key), "key": key},
    ).fetchone()
    if not (values or logged):
        raise ConfigError(
            f"nothing is known of this record of {asked.name} {name}",
            hint=f"See that the key is spelt right, and run `roundtrip pull {asked.name}.{name}`.",
        )
    ours, crm_id = logged or (None, None)
    state = "not seen" if not values else "there" if values["_deleted_at"] is None else "deleted"
    return _Record(
        asked.name,
        name,
        values.get("record_key") or ours or key,
        values.get("id") or crm_id,
        state,
        None,
        values,
        {} if resource is None else {column.name: column.source for column in resource.columns},
        (resource and resource.updated) or "",
        write,
    )


# The ways in which a key may be given: as it is, as an address or as a domain is compared.
_SPELLINGS = f"[$key, lower(trim($key)), {domain_key('$key')}]"


def _key(write: Write | None, columns: Mapping[str, str]) -> str:
    if write is not None and write.key_form != "none":
        return shown_key_sql(key_in_mirror(write, columns))
    return email_key("mirror.email") if "email" in columns else "null::varchar"


def _in_mirror(
    con: duckdb.DuckDBPyConnection, table: str, natural_key: str, key: str
) -> list[dict[str, Any]]:
    """Find the live records with a key or an id, the one deleted last where none lives."""
    cursor = con.execute(
        f"""
        select {natural_key} as record_key, mirror.* from {table} as mirror
        where mirror.id = $key or list_contains({_SPELLINGS}, {natural_key})
        order by mirror.id = $key desc, _deleted_at desc nulls first
        """,
        {"key": key},
    )
    names = [each[0] for each in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if rows and rows[0]["id"] == key:
        return rows[:1]
    return [row for row in rows if row["_deleted_at"] is None] or rows[:1]


def _looked_at(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, connection: str, name: str
) -> datetime | None:
    """Tell when the last pull looked, also one that found nothing new and stands in the records beside."""
    row = con.execute(
        "select max(last_complete_at) from roundtrip.resource_state where connection = ? and resource = ?",
        [connection, name],
    ).fetchone()
    found = [*(row or ()), warehouse.looked().get((connection, name))]
    return max((each for each in found if each is not None), default=None)


# -- what happened -------------------------------------------------------------------------------


def _pushed(con: duckdb.DuckDBPyConnection, record: _Record) -> Iterator[dict[str, Any]]:
    """List what was sent, and what was to be sent and was not, field by field."""
    rows = con.execute(
        f"""
        select pushed_at, run_id, command, sync, key, batch_id, action, push_log.status, sent, replaced,
            push_log.error, verified
        from roundtrip.push_log as push_log left join roundtrip.runs using (run_id)
        where connection = $connection and object = $object
            and (crm_id = $id or list_contains({_SPELLINGS}, key))
        """,
        {
            "connection": record.connection,
            "object": record.object,
            "id": record.crm_id,
            "key": record.key,
        },
    ).fetchall()
    for at, run_id, command, sync, key, batch_id, action, status, sent, replaced, error, verified in rows:
        entry = {"by": "push", "run_id": run_id, "command": command, "sync": sync, "key": key}
        entry |= {"batch_id": batch_id, "answer": status, "error": error, "verified": verified}
        before = decode_json((replaced or "{}").encode())
        for name, value in decode_json((sent or "{}").encode()).items():
            yield _entry(at, name, value, before.get(name), **entry)
        if action == "delete":
            yield _entry(at, None, None, None, **entry)


def _changed(con: duckdb.DuckDBPyConnection, record: _Record) -> Iterator[dict[str, Any]]:
    """List what others changed, as pulls saw it; objects of custom fields are taken apart."""
    rows = con.execute(
        "select changed_at, run_id, field, old_value, new_value, kind from roundtrip.changes"
        " where connection = ? and resource = ? and id = ? and origin = 'crm'",
        [record.connection, record.object, record.crm_id],
    ).fetchall()
    for at, run_id, column, old, new, kind in rows:
        told = {"by": "crm", "run_id": run_id, "answer": kind}
        name = None if column is None else record.sources.get(column, column)
        for each, value, before in _taken_apart(name, _nested(new), _nested(old)):
            yield _entry(at, each, value, before, **told)


def _taken_apart(name: str | None, new: Any, old: Any) -> Iterator[tuple[str | None, Any, Any]]:
    if not (isinstance(new, dict) or isinstance(old, dict)):
        yield name, new, old
        return
    after, before = (each if isinstance(each, dict) else {} for each in (new, old))
    for key in dict.fromkeys([*before, *after]):
        if after.get(key) != before.get(key):
            yield f"{name}.{key}", after.get(key), before.get(key)


def _entry(at: datetime, name: str | None, value: Any, replaced: Any, **more: Any) -> dict[str, Any]:
    blank = dict.fromkeys(
        ("by", "run_id", "command", "sync", "key", "batch_id", "answer", "error", "verified")
    )
    entry = {"at": _iso(at), "field": name, "value": _plain(value), "replaced": _plain(replaced)}
    return {**entry, **blank, **more}


def _nested(value: Any) -> Any:
    """Decode what is an object or a list in JSON; any other value is itself."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return decode_json(value.encode())
    except ProtocolError:
        return value


# -- how it stands -------------------------------------------------------------------------------


def _standing(record: _Record, name: str, past: list[dict[str, Any]]) -> dict[str, Any]:
    """Say what a field shows now, who wrote it last, and since when it shows something else than we sent."""
    mine = [each for each in past if each["field"] == name]
    ours = next((each for each in reversed(mine) if each["by"] == "push" and each["answer"] in _DONE), None)
    theirs = next((each for each in reversed(mine) if each["by"] == "crm"), None)
    shown, is_shown = _shown(record, name)
    standing = {"field": name, "now": _plain(shown)}
    if ours is None:
        return {**standing, "origin": "crm", "since": theirs and theirs["at"], **dict.fromkeys(_OURS)}
    is_seen = is_shown and record.looked_at is not None and _iso(record.looked_at) > ours["at"]
    is_edited = is_seen and not is_echo(ours["value"], shown)
    since = ours["at"] if not is_edited else theirs["at"] if theirs and theirs["at"] > ours["at"] else None
    origin = "crm" if is_edited else "push" if is_seen else "unseen"
    told = {"sent": ours["value"], "sent_at": ours["at"], **{each: ours[each] for each in _OURS[2:]}}
    return {**standing, "origin": origin, "since": since, **told}


def _shown(record: _Record, name: str) -> tuple[Any, bool]:
    """Give what the mirror shows for a field, and whether it can show it."""
    if record.write is not None:
        place = place_in_mirror(record.write, name, record.values)
    else:
        column = snake_case(name)
        place = (column, "") if column in record.values else None
    if place is None:
        return None, False
    value = _nested(record.values[place[0]])
    if not place[1]:
        return value, True
    return (value.get(place[1]) if isinstance(value, dict) else None), True


def _plain(value: Any) -> Any:
    """Make a value ready for JSON."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _iso(value) if isinstance(value, datetime) else value


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
