"""How results reach people and programs: short tables, one JSON object, one-line errors.

Nothing here decides anything. Every text from a CRM passes `clean` before it reaches a terminal.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, Protocol, TextIO

from sources.core.errors import (
    AuthError,
    ConfigError,
    ConnectorError,
    GuardError,
    InternalError,
    LockedError,
    QuotaError,
)

MAX_ROWS = 1000  # rows of a plan in one JSON object; all with --diff
_SHOWN_ROWS = 20  # rows of a push on a terminal; all with --diff
_FEW_ROWS = 10  # the same of a plan, which shows more than rows
_WIDEST = 80

# Control characters, surrogates, line separators, and the marks that turn the reading direction around.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")

_THREE_DAYS_S = 259_200.0
_SPLIT_SECOND = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+")

_COUNTS = ("create", "update", "unchanged", "rejected", "skipped", "conflict")
_DONE_COUNTS = (*_COUNTS, "created", "updated", "unknown")
_SYNC_KEYS = {"sync": None, "connection": None, "object": None, "rows": ()}

# What the JSON object of a command holds where the command did not get so far.
EMPTY: Mapping[str, Mapping[str, Any]] = {
    "check": {"connections": ()},
    "pull": {"resources": ()},
    "enrich": {"models": ()},
    "forget": {"done": None, "tables": (), "beyond_reach": ()},
    "plan": {
        **_SYNC_KEYS,
        "counts": dict.fromkeys(_COUNTS, 0),
        "fields_changed": (),
        "held": (),
        "forecast": None,
        "guard": None,
    },
    "push": {**_SYNC_KEYS, "counts": dict.fromkeys(_DONE_COUNTS, 0)},
    "undo": {**_SYNC_KEYS, "counts": dict.fromkeys((*_DONE_COUNTS, "delete", "deleted"), 0)},
    "dismiss": {"sync": None, "dismissed": False, "keys": ()},
    "drift": {**_SYNC_KEYS, "as_of": None, "counts": dict.fromkeys(("drift", "fields"), 0)},
    "why": {
        **dict.fromkeys(("connection", "object", "key", "crm_id", "state", "as_of")),
        "fields": (),
        "history": (),
    },
    "runs": {"runs": ()},
    "status": {"connections": (), "syncs": (), "last_run": None},
}


class Result(Protocol):
    """What every command gives back."""

    @property
    def run_id(self) -> str | None: ...
    @property
    def status(self) -> str: ...
    @property
    def exit_code(self) -> int: ...
    @property
    def error(self) -> str | None: ...
    def payload(self) -> dict[str, Any]:
        """Give the command's own keys of the JSON object."""


@dataclass(frozen=True, slots=True)
class TextResult:
    """The result of a command whose text is all there is to it."""

    text: str = ""
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give no keys: the text is the result."""
        return {}


class Failure:
    """The result of a command that ended with an exception."""

    run_id: str | None = None

    def __init__(self, command: str, exit_code: int, error: str) -> None:
        self.exit_code = exit_code
        self.error = error
        self.status = _STATUSES.get(exit_code, "failed")
        self._command = command

    def payload(self) -> dict[str, Any]:
        """Give the command's keys, empty."""
        return dict(EMPTY.get(self._command, {}))


_STATUSES = {0: "ok", 2: "refused", 3: "refused", 4: "locked", 5: "guarded", 130: "interrupted"}


def exit_code_of(error: BaseException) -> int:
    """Sort an exception into the exit codes of the command line."""
    match error:
        case KeyboardInterrupt():
            return 130
        case AuthError():
            return 3
        case QuotaError():
            return 1
        case ConfigError():
            return 2
        case LockedError():
            return 4
        case GuardError():
            return 5
    return 1


def error_line(error: BaseException) -> str:
    """Put an exception into one line; an unforeseen one may quote a record, so only its kind and place."""
    if isinstance(error, ConnectorError):
        return clean(str(error))
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was committed stays, and the next run goes on from there"
    return str(InternalError(error))


def error_lines(result: Result) -> list[str]:
    """List a result's errors, each once: its own and those of the things it lists."""
    entries = [
        each for value in result.payload().values() if isinstance(value, list | tuple) for each in value
    ]
    errors = [each.get("error") for each in entries if isinstance(each, Mapping)]
    return list(dict.fromkeys(clean(str(error)) for error in (result.error, *errors) if error))


# -- texts ---------------------------------------------------------------------------------------


def clean(text: str) -> str:
    r"""Make a text harmless on a terminal: control characters are shown as `\x1b`, never sent."""
    return _UNSAFE.sub(lambda match: _escaped(match.group()), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case dict() | list() | tuple():
            text = json.dumps(value, ensure_ascii=False, default=str)
        case _:
            text = _SPLIT_SECOND.sub(r"\1", str(value))
    text = clean(text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _width(text: str) -> int:
    """Count the cells a text takes on a terminal, near enough to align columns."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


# -- JSON ----------------------------------------------------------------------------------------


def json_object(command: str, result: Result, *, all_rows: bool = False) -> str:
    """Give the one JSON object of a command; pure ASCII, so that it is harmless on a terminal too."""
    payload = result.payload()
    if "rows" in payload:
        payload["rows"] = list(payload["rows"] if all_rows else payload["rows"][:MAX_ROWS])
    common = {
        "command": command,
        "run_id": result.run_id,
        "status": result.status,
        "exit_code": result.exit_code,
        "error": result.error,
    }
    return json.dumps(_jsonable({**common, **payload}), default=str)


def _jsonable(value: Any) -> Any:
    """Replace what JSON has no word for: not-a-number and infinity, which a model may hold."""
    match value:
        case float():
            return value if isfinite(value) else None
        case Mapping():
            return {str(name): _jsonable(each) for name, each in value.items()}
        case list() | tuple():
            return [_jsonable(each) for each in value]
    return value


# -- tables --------------------------------------------------------------------------------------


def show(result: Result, stream: TextIO, *, all_rows: bool = False) -> None:
    """Write a command's result for a person; a result that has a `text` of its own is given as that."""
    text = getattr(result, "text", None)
    if text is not None:
        stream.write(text)
        return
    payload = result.payload()
    if "counts" in payload and "sync" in payload:
        _show_sync(payload, stream, all_rows=all_rows)
        return
    for name, value in payload.items():
        if isinstance(value, list | tuple) and value:
            _show_list(name, value, stream)
        elif isinstance(value, Mapping):
            _show_table([value], stream)
        elif value is not None and not isinstance(value, list | tuple):
            print(f"{name.replace('_', ' ')}: {_cell(value)}", file=stream)


def _show_list(name: str, entries: Sequence[Any], stream: TextIO) -> None:
    if all(isinstance(entry, Mapping) and "lines" in entry for entry in entries):
        for entry in entries:
            lines = [_cell(entry["step"]), *(f"  {clean(line)}" for line in entry["lines"]), ""]
            print("\n".join(lines), file=stream)
        return
    if not all(isinstance(entry, Mapping) for entry in entries):
        for entry in entries:
            print(f"{name}: {_cell(entry)}", file=stream)
        return
    _show_table([row for entry in entries for row in _flat(entry)], stream)
    for inner in _inner_names(entries)[1:]:
        print(file=stream)
        _show_table([row for entry in entries for row in _named_rows(entry, inner)], stream)


def _inner_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys under which entries hold lists of things; the first goes with the entry itself."""
    return list(
        dict.fromkeys(
            name
            for entry in entries
            for name, value in entry.items()
            if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value)
        )
    )


def _named_rows(entry: Mapping[str, Any], inner: str) -> list[dict[str, Any]]:
    """Give the things in one list of an entry, each with the entry's name before it."""
    name = next(iter(entry))
    return [{name: entry[name], **row} for row in entry.get(inner) or []]


def _flat(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give an entry as rows: one for each thing in the list it holds, if it holds one."""
    own = {name: value for name, value in entry.items() if not isinstance(value, list | Mapping)}
    inner = [value for value in entry.values() if isinstance(value, list) and value]
    rows = inner[0] if inner and all(isinstance(each, Mapping) for each in inner[0]) else [{}]
    return [{**own, **row} for row in rows]


def _show_table(rows: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    used = [name for name in names if any(_has_cell(row.get(name)) for row in rows)]
    for line in table_lines(used, [[row.get(name) for name in used] for row in rows]):
        print(line, file=stream)


def _has_cell(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping | list)


def table_lines(names: Sequence[str], rows: Iterable[Sequence[Any]], *, is_exact: bool = False) -> list[str]:
    """Lay out a table: numbers to the right, the rest to the left, two spaces between.

    Names and numbers are made readable (`started at`, `1,200`) unless `is_exact`.
    """
    values = [list(row) for row in rows]
    heads = list(names) if is_exact else [name.replace("_", " ") for name in names]
    cells = [heads, *([_number(value) if is_exact else _cell(value) for value in row] for row in values)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(names))]
    to_right = [all(_is_number(row[column]) for row in values) for column in range(len(names))]
    return [
        "  ".join(
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(row, widths, to_right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _number(value: Any) -> str:
    return str(value) if _is_number(value) and value is not None else _cell(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


# -- plans ---------------------------------------------------------------------------------------


def plan_line(payload: Mapping[str, Any]) -> str:
    """Put a plan's or a push's counts into one line."""
    counts = {name: count for name, count in payload["counts"].items() if count}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "nothing to do"
    return clean(f"{payload['sync']} to {payload['connection']} {payload['object']}: {told}")


def _show_sync(payload: Mapping[str, Any], stream: TextIO, *, all_rows: bool) -> None:
    if payload["sync"] is None:
        return
    print(plan_line(payload), file=stream)
    is_plan = bool(payload.get("forecast"))
    if is_plan:
        _show_parts(payload, stream)
    rows = payload["rows"] if all_rows else payload["rows"][: _FEW_ROWS if is_plan else _SHOWN_ROWS]
    _show_table([line for row in rows for line in (_by_field(row) if all_rows else [_in_short(row)])], stream)
    listed = sum(payload["counts"].get(name, 0) for name in _COUNTS if name != "unchanged")
    more = max(listed, len(payload["rows"])) - len(rows)
    if more > 0:
        print(f"… and {more:,} more; --diff lists all", file=stream)
    if is_plan:
        for line in _forecast_lines(payload):
            print(line, file=stream)


def _show_parts(payload: Mapping[str, Any], stream: TextIO) -> None:
    """Show what a plan comes to: the fields that change most, and why rows are held back."""
    fields = [
        {
            "field": each["field"],
            "updates": each["updates"] or None,
            "creates": each["creates"] or None,
            "for_example": ", ".join(map(_edit, each["examples"])) or None,
        }
        for each in payload["fields_changed"]
    ]
    held = [
        {"held_back": each["reason"], "rows": each["rows"], "what_to_do": each["what_to_do"]}
        for each in payload["held"]
    ]
    for table in (fields, held):
        if table:
            print(file=stream)
            _show_table(table, stream)
    if payload["rows"]:
        print(file=stream)


def _in_short(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("action", "status", "key", "reason")
    return {name: row.get(name) for name in shown} | {"fields": _edits(row.get("fields"))}


def _by_field(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give a line to each field of a row, the values side by side."""
    head = {name: row.get(name) for name in ("action", "status", "key", "reason")}
    edits = (row.get("fields") or {}).items()
    return [
        {**head, "field": name, "old": _value(edit.get("old")), "new": _value(edit.get("new"))}
        for name, edit in edits
    ] or [head]


def _forecast_lines(payload: Mapping[str, Any]) -> list[str]:
    """Say how many calls a push takes and for how long, and what would stop it."""
    ahead, lines = payload["forecast"], []
    if ahead["calls"]:
        lanes = ", ".join(
            f"{each['lane']} {each['rows']:,} at {each['rows_a_call']} a call" for each in ahead["lanes"]
        )
        limit, quota = ahead["calls_per_minute"], ahead["quota"]
        pace = "no limit is stated" if limit is None else f"at most {limit:,} calls a minute"
        used = "" if quota is None else f"; {quota:,} of the monthly quota"
        calls = "1 call" if ahead["calls"] == 1 else f"{ahead['calls']:,} calls"
        lines += ["", clean(f"{calls}, about {took(ahead['seconds'])}: {lanes}; {pace}{used}")]
    if payload["guard"]:
        lines += ["", clean(f"push would stop: {payload['guard']}")]
    return lines


def took(duration_s: float) -> str:
    """Say a duration as people do: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d`."""
    if duration_s < 10:
        return f"{duration_s:.1f} s"
    if duration_s >= _THREE_DAYS_S:
        return f"{duration_s // 86_400:.0f} d"
    whole = round(duration_s)
    if whole < 60:
        return f"{whole} s"
    unit_s, unit, part_s, part = (3600, "h", 60, "min") if whole >= 3600 else (60, "min", 1, "s")
    rest = whole % unit_s // part_s
    return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")


def _edits(fields: Mapping[str, Any] | None) -> str | None:
    """Say what would change, field by field."""
    return "; ".join(f"{name}: {_edit(edit)}" for name, edit in (fields or {}).items()) or None


def _edit(edit: Mapping[str, Any]) -> str:
    return f"{_value(edit.get('old'))} → {_value(edit.get('new'))}"


def _value(value: Any) -> str:
    return "(empty)" if value in (None, "") else str(value)
