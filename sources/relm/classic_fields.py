"""The custom field registry of Relm Classic: what a workspace requires and knows, and adding to it.

The vendor validates `metadata` on every write, so a field that an administrator marks as required makes each
write without it fail. What becomes of a key that has no definition is not stated: such keys are not sent.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from sources.core.bodies import encode_json, value_at, with_fields
from sources.core.client import Client
from sources.core.connector import Connection, Kind, Registry
from sources.core.errors import ConfigError, RefusedError
from sources.core.rows import Row
from sources.relm.classic_lists import walk

_PATH = "/v1/schema/fields"
_OBJECT_TYPE = {"contacts": "contact", "companies": "company", "deals": "deal", "activities": "activity"}
# A moment is kept as text, for the vendor does not say whether a `date` holds a time of day.
_TYPE: dict[Kind, str] = {
    "text": "text",
    "bigint": "number",
    "double": "number",
    "decimal": "number",
    "bool": "bool",
    "timestamp": "text",
}


def registry_of(name: str) -> Registry:
    """Give the registry of an object."""
    return Registry(missing=partial(_missing, name), create=partial(_create, name))


def create_fields(client: Client, connection: Connection, name: str, kinds: Mapping[str, Kind]) -> None:
    """Define custom fields of an object, optional ones, and leave alone those that are defined.

    Raises `ConfigError`, before anything is defined, for a kind that no type of the vendor holds.
    """
    bodies = [_definition(connection, name, key, kind) for key, kind in kinds.items()]
    known = set(_definitions(client, name))
    for body in bodies:
        if body["key"] not in known:
            _post(client, body)


def inspect(name: str) -> Callable[[Client, Connection], Callable[[Row], str | None]]:
    """Give the look at a workspace before a push: rows without a required field, or with an unknown one."""
    return partial(_inspect, name)


def _inspect(name: str, client: Client, connection: Connection) -> Callable[[Row], str | None]:
    definitions = _definitions(client, name)
    required = [key for key, each in definitions.items() if each.get("required") is True]

    def check(row: Row) -> str | None:
        unknown = [key for key in _custom_keys(row.fields) if key not in definitions]
        if unknown:
            return f"unknown_field: {_listed(unknown)} (the workspace has no such custom field)"
        whole = with_fields(row.known, row.fields)
        missing = [key for key in required if value_at(whole, f"metadata.{key}") in (None, "")]
        return f"missing_required: {_listed(missing)} (required by the workspace)" if missing else None

    return check


def _missing(name: str, client: Client, connection: Connection, keys: Iterable[str]) -> list[str]:
    definitions = _definitions(client, name)
    return [key for key in keys if key not in definitions]


def _create(name: str, client: Client, connection: Connection, kinds: Mapping[str, Kind]) -> None:
    create_fields(client, connection, name, kinds)


def _definitions(client: Client, name: str) -> dict[str, Mapping[str, Any]]:
    object_type = _OBJECT_TYPE[name]
    rows = walk(client, _PATH, {"object_type": object_type, "limit": "200"}, resource="fields")
    return {
        str(row["key"]): row
        for row in rows
        if row.get("key") and row.get("object_type") in (None, object_type)
    }


def _definition(connection: Connection, name: str, key: str, kind: Kind) -> dict[str, Any]:
    if kind not in _TYPE:
        raise ConfigError(
            f"metadata.{key}: nested values cannot be a custom field",
            connection=connection.name,
            resource=name,
            hint="Map a column of text, numbers, booleans or times.",
        )
    label = key.replace("_", " ").strip().capitalize() or key
    object_type = _OBJECT_TYPE[name]
    return {"object_type": object_type, "key": key, "label": label, "type": _TYPE[kind], "required": False}


def _post(client: Client, body: Mapping[str, Any]) -> None:
    """Define one field; somebody else may have been faster."""
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    try:
        client.send(
            "POST", _PATH, body=encode_json(body), headers=headers, repeatable=True, resource="fields"
        )
    except RefusedError as error:
        if error.status != 409:
            raise


def _custom_keys(fields: Iterable[str]) -> list[str]:
    return [name.partition(".")[2] for name in fields if name.startswith("metadata.")]


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f"metadata.{key}" for key in keys)
