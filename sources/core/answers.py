"""Split the answer of a list into rows as sent, their ids and what surrounds them; no row is built.

Which answer belongs where in a list is `paging`'s.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec

from sources.core.connector import CursorPages, OffsetPages, OneObject, Paging
from sources.core.errors import ProtocolError


class Decodable(Protocol):
    """What a walk needs of an answer: its JSON body in a given type, `ProtocolError` if it has another."""

    def json(self, type: Any = ...) -> Any: ...  # noqa: A002


class Part(NamedTuple):
    """What one answer holds."""

    rows: list[msgspec.Raw]
    ids: list[str]
    next: str | None = None
    has_more: bool | None = None
    total: int | None = None
    is_end_documented: bool = True


def split(answer: Decodable, paging: Paging, id_field: str) -> Part:
    """Split an answer into rows and what surrounds them, without building the rows."""
    envelope_type, ids_type = _shapes(paging, id_field)
    envelope, identified = answer.json(type=envelope_type), answer.json(type=ids_type)
    if isinstance(paging, OneObject):
        if paging.several is not None:
            return _few(envelope, identified)
        if paging.data is None:
            return Part([envelope], _ids([identified]))
        return Part([envelope.data], _ids([identified.data]))
    if isinstance(paging, OffsetPages):
        if paging.data is None:
            return Part(envelope, _ids(identified))
        return Part(envelope.data, _ids(identified.data), total=envelope.total)
    found = _cursor(envelope, paging.next)
    is_documented = envelope.has_more is False or (found is None and envelope.has_more is None)
    return Part(
        envelope.data,
        _ids(identified.data),
        next=None if found in (None, msgspec.UNSET) else str(found),
        has_more=envelope.has_more,
        is_end_documented=is_documented and (paging.has_more is None or envelope.has_more is False),
    )


def _few(envelope: Any, identified: Any) -> Part:
    """Give the records of an answer that may hold none, one or several."""
    keys = [each for each in (identified.data, identified.several) if each is not msgspec.UNSET]
    if not keys:
        raise ProtocolError("the answer lacks the field for its records")
    rows = [row for place in (envelope.data, envelope.several) for row in _listed(place)]
    return Part(rows, _ids([key for place in keys for key in _each(place)]))


def _listed(raw: msgspec.Raw) -> list[msgspec.Raw]:
    text = bytes(raw).strip()
    if text.startswith(b"["):
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    return [] if text == b"null" else [raw]


def _each(place: Any) -> Sequence[Any]:
    if place is None:
        return ()
    return place if isinstance(place, list) else (place,)


def _ids(keys: Sequence[Any]) -> list[str]:
    ids = [str(key.id) for key in keys]
    if "" in ids:
        raise ProtocolError("a row has an empty id")
    return ids


def _cursor(envelope: Any, name: str) -> Any:
    """Find the cursor at the top level or under `meta` (Reevo's pages leave open which)."""
    if envelope.next is not msgspec.UNSET or envelope.meta is msgspec.UNSET:
        return envelope.next
    try:
        return msgspec.json.decode(envelope.meta, type=dict[str, Any]).get(name, msgspec.UNSET)
    except msgspec.ValidationError:
        return msgspec.UNSET


@lru_cache(maxsize=256)
def _shapes(paging: Paging, id_field: str) -> tuple[Any, Any]:
    """Make the types of an answer: its envelope with raw rows, and its rows' ids alone."""
    key = msgspec.defstruct("Row", [("id", str | int)], rename={"id": id_field})
    if isinstance(paging, OneObject) and paging.several is not None:
        return _few_shapes(paging, key)
    is_one = isinstance(paging, OneObject)
    raw, keys = (msgspec.Raw, key) if is_one else (list[msgspec.Raw], list[key])  # type: ignore[valid-type]
    if paging.data is None:
        return raw, keys
    names = {"data": paging.data}
    fields: list[Any] = [("data", raw)]
    if isinstance(paging, OffsetPages):
        names["total"] = paging.total or ""
        fields.append(("total", int | None, None))
    if isinstance(paging, CursorPages):
        names |= {"next": paging.next, "has_more": paging.has_more or ""}
        fields.append(("next", str | int | None | msgspec.UnsetType, msgspec.UNSET))
        fields.append(("has_more", bool | None, None))
        fields.append(("meta", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET))
    envelope = msgspec.defstruct("Answer", fields, rename=names)
    return envelope, msgspec.defstruct("Answer", [("data", keys)], rename={"data": paging.data})


def _few_shapes(paging: OneObject, key: Any) -> tuple[Any, Any]:
    names = {"data": paging.data or "", "several": paging.several or ""}
    none = msgspec.Raw(b"null")
    found = key | list[key] | None | msgspec.UnsetType
    return (
        msgspec.defstruct("Answer", [(name, msgspec.Raw, none) for name in names], rename=names),
        msgspec.defstruct("Answer", [(name, found, msgspec.UNSET) for name in names], rename=names),
    )
