"""Which objects of a record a table takes apart: their parts stand in columns, what is left in `_extra`."""

from collections.abc import Mapping

from sources.core.connector import Column, Resource


def wrapped(resource: Resource) -> dict[str, Column]:
    """Map attributes of the envelope to the column that takes their `value` as it is."""
    return {
        path[1]: column
        for column in resource.columns
        if len(path := column.steps) == 3 and path[0] == resource.envelope and path[2] == "value"
    }


def taken_apart(resource: Resource) -> Mapping[tuple[str, ...], list[Column]]:
    """Map the path of each object, which no column holds whole, to the columns that hold a part of it."""
    paths = {column.steps for column in resource.columns}
    found: dict[tuple[str, ...], list[Column]] = {}
    for column in resource.columns:
        path = column.steps
        is_held = any(path[:length] in paths for length in range(1, len(path)))
        if len(path) == 4 and path[0] == resource.envelope and path[2] == "value" and not is_held:
            found.setdefault(path[:3], []).append(column)
    return found


def declared(resource: Resource) -> dict[str, frozenset[str]]:
    """List the keys that columns are taken from, or repeat: at the root, and in the envelope by its name."""
    names = frozenset(column.source for column in resource.columns)
    if not resource.envelope:
        return {"": names}
    paths = [column.steps for column in resource.columns]
    inside = frozenset(path[1] if path[0] == resource.envelope else path[0] for path in paths)
    return {"": names | {resource.envelope}, resource.envelope: inside}
