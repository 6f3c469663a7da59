"""What a look at a CRM tells of a row: whether it was applied, whether it may still be written.

Pure functions over sights. When to look, and by which requests, is left to `writing` and the CRM modules.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sources.core.bodies import is_echo, is_same, value_at
from sources.core.connector import Write
from sources.core.lanes import met
from sources.core.rows import Outcome, Row, Sight, Verdict

GONE = "gone"
EDITED = "edited_since_plan"
THERE = "already_in_crm"
HIDDEN = "not_shown"
_EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {})  # what stands in a field that nobody has filled in


def judge(write: Write, row: Row, sight: Sight | None) -> Outcome:
    """Tell from a look at the CRM whether a row was applied: by values, exact ones first."""
    if sight is None:
        return Outcome(row.seq, "unknown", reason="the answer was lost and the CRM cannot be asked")
    if row.action == "delete":
        return Outcome(row.seq, "deleted" if sight.record is None else "absent", row.crm_id)
    if sight.record is None:
        return Outcome(row.seq, "absent")
    names = [name for name in row.fields if is_readable(write, name)]
    shown = {name: value_at(sight.record, name) for name in names}
    landed: Verdict = "created" if row.action == "create" else "updated"
    if names and all(shown[name] == row.fields[name] for name in names):
        return met(row, landed, sight.crm_id)
    if names and row.action == "update" and all(shown[name] == row.before.get(name) for name in names):
        return Outcome(row.seq, "absent", sight.crm_id)
    if names and all(is_echo(row.fields[name], shown[name]) for name in names):
        return met(row, landed, sight.crm_id)
    return Outcome(row.seq, "unknown", sight.crm_id, reason="the CRM shows other values than were sent")


def still_planned(write: Write, row: Row, sight: Sight | None) -> Row | Outcome:
    """Give the row to send, completed by what the CRM shows now, or the conflict that holds it back.

    Where a look tells nothing, the row stays as it is. A record to be deleted is compared with `before`.
    """
    if sight is None or (sight.record is None and sight.crm_id):
        return row
    if row.action == "delete":
        return _still_ours(write, row, sight.record or {})
    if sight.record is None:
        return Outcome(row.seq, "conflict", row.crm_id, GONE)
    edited = [name for name in row.fields if not _is_as_planned(write, row, name, sight.record)]
    if row.match == "key" and not _has_its_key(write, row, sight.record):
        edited.append(write.key)
    if edited:
        return Outcome(row.seq, "conflict", row.crm_id, f"{EDITED}: {', '.join(edited)}")
    return replace(row, known=_known_now(write, row, sight.record))


def unedited(write: Write, row: Row, sight: Sight | None) -> Row | None:
    """Cut a row in conflict down to the fields that nobody edited; None where nothing is left to write."""
    record = {} if sight is None or sight.record is None else sight.record
    is_other = row.match == "key" and not _has_its_key(write, row, record)
    if row.action != "update" or not record or is_other:
        return None
    fields = {name: each for name, each in row.fields.items() if _is_as_planned(write, row, name, record)}
    return replace(row, fields=fields, known=_known_now(write, row, record)) if fields else None


def row_without(row: Row, rest: Row | None) -> Row:
    """Give what is left of a row when the rest of it is written."""
    written = {} if rest is None else rest.fields
    return replace(row, fields={name: each for name, each in row.fields.items() if name not in written})


def _still_ours(write: Write, row: Row, record: Mapping[str, Any]) -> Row | Outcome:
    shown = {name: value for name, value in row.before.items() if record and is_readable(write, name)}
    edited = [name for name, value in shown.items() if not is_echo(value, value_at(record, name))]
    edited += _added(write, row, record)
    return Outcome(row.seq, "conflict", row.crm_id, f"{EDITED}: {', '.join(edited)}") if edited else row


def _added(write: Write, row: Row, record: Mapping[str, Any]) -> list[str]:
    """Name the fields that have a value which neither we sent nor the CRM gives: somebody works with it."""
    given = {name: writable.given for name, writable in write.fields.items()}
    names = [name for name in given if given[name] != "*" and "." not in name and is_readable(write, name)]
    nested = record.get(write.custom) if write.custom and not write.custom_column else None
    if isinstance(nested, Mapping):
        names += [f"{write.custom}.{custom}" for custom in nested]
    return [
        name
        for name in names
        if name not in row.before and value_at(record, name) not in (*_EMPTY, given.get(name))
    ]


def _is_as_planned(write: Write, row: Row, name: str, record: Mapping[str, Any]) -> bool:
    if not is_readable(write, name):
        return True
    before, shown = row.before.get(name), value_at(record, name)
    if is_same(row.fields[name], shown):  # somebody came to the same value
        return True
    is_loose = name in row.unseen or name in (write.key, *write.also_key)
    return is_same(before, shown) or (is_loose and is_echo(before, shown))


def _has_its_key(write: Write, row: Row, record: Mapping[str, Any]) -> bool:
    """Tell whether a record still has the key by which a write would find it: else it would make another."""
    is_known = write.key in row.known and write.key in record and write.key not in row.fields
    return not is_known or is_echo(row.known[write.key], record[write.key])


def is_readable(write: Write, name: str) -> bool:
    """Tell whether the CRM shows a field."""
    writable = write.fields.get(name)
    return writable is None or writable.readable


def _known_now(write: Write, row: Row, record: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what the CRM shows over what was known, so that a body completed by it undoes nobody's edit."""
    names = {name for name in write.fields if is_readable(write, name) and "." not in name}
    names |= {*write.also_known, *([write.custom] if write.custom else [])}
    return {**row.known, **{name: record[name] for name in names if name in record}}
