"""Answers to the questions a vendor's pages leave open, found by reading only.

A CRM module lists its `Probe`s with the numbers of its fact sheet; here stand the looks that several share.
Each gives its answer as one sentence; nothing is ever written.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sources.core.client import Answer, Client
from sources.core.connector import Connection
from sources.core.errors import GoneError, RefusedError

Look = Callable[[Client, Connection], str]


def rows_of(answer: Answer) -> list[dict[str, Any]]:
    """Give the records of a list answer, bare or under `data`."""
    body = answer.json()
    found = body.get("data", []) if isinstance(body, dict) else body
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def honoured_limit(path: str, asked: int, *, param: str = "limit") -> Look:
    """Look what a list makes of a page size beyond the documented one."""

    def look(client: Client, connection: Connection) -> str:
        try:
            found = len(rows_of(client.get(path, {param: str(asked)}, resource="check")))
        except RefusedError as error:
            return f"a limit of {asked} is refused ({error.status})"
        return f"a limit of {asked} gave {found} rows" + ("" if found < asked else ", it is honoured")

    return look


def order(path: str, stamps: Sequence[str], *, limit: int = 50) -> Look:
    """Look by which field, and which way, the first page of a list is sorted."""

    def look(client: Client, connection: Connection) -> str:
        rows = rows_of(client.get(path, {"limit": str(limit)}, resource="check"))
        if len(rows) < 2:
            return "too few rows to tell"
        for name in (*stamps, "id"):
            values = [str(row[name]) for row in rows if row.get(name) is not None]
            if len(values) == len(rows) and len(set(values)) > 1:
                if values == sorted(values):
                    return f"the first page runs by {name}, oldest first"
                if values == sorted(values, reverse=True):
                    return f"the first page runs by {name}, newest first"
        return "the first page shows no order"

    return look


def fields_seen(path: str, wanted: Sequence[str]) -> Look:
    """Look which of some fields the records of a list carry."""

    def look(client: Client, connection: Connection) -> str:
        rows = rows_of(client.get(path, {"limit": "20"}, resource="check"))
        if not rows:
            return "no record to look at"
        seen = [name for name in wanted if any(name in row for row in rows)]
        missing = [name for name in wanted if name not in seen]
        told = [
            f"there: {', '.join(seen)}" if seen else "",
            f"not there: {', '.join(missing)}" if missing else "",
        ]
        return "; ".join(part for part in told if part)

    return look


def undocumented_fields(path: str, documented: Sequence[str]) -> Look:
    """Look for fields of a list's records that no page documents; they are kept in `_extra`."""

    def look(client: Client, connection: Connection) -> str:
        rows = rows_of(client.get(path, {"limit": "50"}, resource="check"))
        strange = sorted({name for row in rows for name in row} - set(documented))
        return f"undocumented fields: {', '.join(strange)}" if strange else "no undocumented field"

    return look


def values_seen(path: str, field: str, *, limit: int = 100) -> Look:
    """Look which values a field has on the first page, ten at most."""

    def look(client: Client, connection: Connection) -> str:
        rows = rows_of(client.get(path, {"limit": str(limit)}, resource="check"))
        found = sorted({str(row[field]) for row in rows if row.get(field) is not None})
        more = " and more" if len(found) > 10 else ""
        return f"{field}: {', '.join(found[:10])}{more}" if found else f"no value of {field} seen"

    return look


def is_there(path: str, *, method: str = "GET", body: bytes | None = None) -> Look:
    """Look whether an endpoint that is not documented answers; only for requests that read."""

    def look(client: Client, connection: Connection) -> str:
        try:
            client.send(method, path, body=body, repeatable=True, resource="check")
        except GoneError:
            return f"{method} {path} is not there (404)"
        except RefusedError as error:
            return f"{method} {path} is not served ({error.status})"
        return f"{method} {path} answers"

    return look


def nulls(path: str, fields: Sequence[str]) -> Look:
    """Look whether fields without a value are sent as null or left out."""

    def look(client: Client, connection: Connection) -> str:
        rows = rows_of(client.get(path, {"limit": "100"}, resource="check"))
        is_null = any(row.get(name, 0) is None for row in rows for name in fields)
        is_missing = any(name not in row for row in rows for name in fields)
        if is_null and is_missing:
            return "empty fields are partly null, partly left out; both are read alike"
        return (
            "empty fields are null"
            if is_null
            else "empty fields are left out"
            if is_missing
            else "no empty field seen"
        )

    return look


def limits_told(path: str) -> Look:
    """Look whether answers carry figures of a rate limit."""

    def look(client: Client, connection: Connection) -> str:
        answer = client.get(path, {"limit": "1"}, resource="check")
        told = sorted(name for name in answer.headers if "ratelimit" in name or "quota" in name)
        return f"told in {', '.join(told)}" if told else "answers tell no limit; our own pace is kept"

    return look
