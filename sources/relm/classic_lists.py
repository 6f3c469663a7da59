"""Short lists of Relm Classic, as writing needs them; passes are the reader's."""

from collections.abc import Iterator, Mapping
from typing import Any

from sources.core.client import Client


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
