"""What the body of a refusal says, whatever shape a vendor gives it: an error code and a reason.

What a status means and what of a reason may be shown is left to `client`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_NAMES = ("error", "message", "msg", "detail", "details", "title")


def read_refusal(body: bytes) -> tuple[str, str]:
    """Read the vendor's error code and reason, both empty where there is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace").strip()
        return "", "" if "<" in text else text
    inner = found.get("error") if isinstance(found, Mapping) else None
    codes = [each["code"] for each in (inner, found) if isinstance(each, Mapping) and each.get("code")]
    return str(codes[0] if codes else ""), "; ".join(dict.fromkeys(_texts(found)))


def _texts(found: Any, depth: int = 4) -> Iterator[str]:
    """Give the texts that stand where vendors put reasons; values sent by us stand elsewhere (`input`)."""
    if isinstance(found, str):
        yield found
    elif depth and isinstance(found, list):
        for each in found[:5]:
            yield from _texts(each, depth - 1)
    elif depth and isinstance(found, Mapping):
        place = ".".join(map(str, found["loc"])) + ": " if isinstance(found.get("loc"), list) else ""
        for name in _NAMES:
            yield from (place + text for text in _texts(found.get(name), depth - 1))
        yield from _field_texts(found.get("errors"), depth - 1)


def _field_texts(errors: Any, depth: int) -> Iterator[str]:
    if isinstance(errors, Mapping):
        for name, each in list(errors.items())[:5]:
            yield from (f"{name}: {text}" for text in _texts(each, depth))
    else:
        yield from _texts(errors, depth)
