"""Looks at single records and short lists of Relm Classic, as writing needs them; passes are the reader's."""

from collections.abc import Iterator, Mapping
from typing import Any

from sources.core.client import Client
from sources.core.connector import Sight
from sources.core.errors import GoneError


def walk(
    client: Client, path: str, params: Mapping[str, str], *, resource: str
) -> Iterator[Mapping[str, Any]]:
    """Give the records of a list, page after page, until a cursor is missing or comes again."""
    cursors: list[str] = []
    while True:
        query = {**params, "cursor": cursors[-1]} if cursors else params
        body = client.get(path, query, resource=resource).json()
        rows = body.get("data") if isinstance(body, Mapping) else body
        yield from (row for row in rows or [] if isinstance(row, Mapping))
        cursor = body.get("next_cursor") if isinstance(body, Mapping) else None
        if not cursor or cursor in cursors:
            return
        cursors.append(str(cursor))


def single(body: Any) -> Mapping[str, Any]:
    """Give the record of a single answer, which may be wrapped in `data`; empty where there is none."""
    record = body.get("data", body) if isinstance(body, Mapping) else None
    return record if isinstance(record, Mapping) else {}


def read_by_id(client: Client, path: str, crm_id: str | None, *, resource: str) -> Sight | None:
    """Read one record; None where the answer is about another one."""
    try:
        record = single(client.get(path, resource=resource).json())
    except GoneError:
        return Sight()
    return Sight(crm_id, record) if record.get("id") == crm_id else None
