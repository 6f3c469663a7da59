"""A plan in a few figures: the fields that change most with examples, and what is held back by reason.

Reads `plan_rows` and the rows that were listed. How it looks on a terminal is `render`'s.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pipelines.pushing.compare import pointer
from pipelines.pushing.forecast import Shape
from pipelines.pushing.reasons import remedy

if TYPE_CHECKING:
    from pipelines.plan import Plan

_MOST_FIELDS = 10
_MOST_EXAMPLES = 3
_read_json = msgspec.json.decode


def fields_changed(
    made: "Plan", shapes: Sequence[Shape], listed: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Give the fields that change in most records, each with a few examples of old and new values.

    `listed` are entries of the plan, from which examples are taken first.
    """
    updates, creates = _counted(shapes, "update"), _counted(shapes, "create")
    names = sorted({*updates, *creates}, key=lambda name: (-updates[name], -creates[name], name))
    return [
        {
            "field": name,
            "updates": updates[name],
            "creates": creates[name],
            "examples": _examples(made, name, listed) if updates[name] else [],
        }
        for name in names[:_MOST_FIELDS]
    ]


def held_reasons(made: "Plan") -> list[dict[str, Any]]:
    """Give the reasons for which rows are held back or left alone, most frequent first, and what to do."""
    found = made.con.execute(
        """
        select status, split_part(reason, ':', 1) as code, count(*) from plan_rows
        where status not in ('planned', 'adopt') and reason is not null
        group by all order by 3 desc, code
        """
    ).fetchall()
    return [
        {"reason": code, "rows": rows, "status": _STATUSES.get(status, status), "what_to_do": remedy(code)}
        for status, code, rows in found
    ]


_STATUSES = {"unknown": "skipped", "drift": "left"}


def _counted(shapes: Sequence[Shape], action: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for shape in shapes:
        if shape.sample.action == action:
            counted.update(dict.fromkeys(shape.sample.fields, shape.records))
    return counted


def _examples(made: "Plan", name: str, listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in listed:
        if entry["action"] == "update" and name in entry["fields"] and entry["fields"][name] not in found:
            found.append(entry["fields"][name])
        if len(found) == _MOST_EXAMPLES:
            break
    return found or _first_example(made, name)


def _first_example(made: "Plan", name: str) -> list[dict[str, Any]]:
    """Look one up beyond the rows that were listed."""
    row = made.con.execute(
        f"""
        select json_extract(before, {pointer(name)})::varchar, json_extract(fields, {pointer(name)})::varchar
        from plan_rows
        where status = 'planned' and action = 'update' and seq <= ? and json_exists(fields, {pointer(name)})
        limit 1
        """,
        [made.last_seq],
    ).fetchone()
    return [] if row is None else [{"old": _value(row[0]), "new": _value(row[1])}]


def _value(text: str | None) -> Any:
    return None if text is None else _read_json(text)
