"""Bodies of writes and the values in them: dotted custom fields, completion, what a CRM may show for a value.

Pure functions over records as mappings. Which fields a body must hold is each CRM module's knowledge.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import msgspec

from sources.core.errors import ProtocolError

_SHORTEST_CUT = 40  # a shorter text that begins like ours is an edit, a longer one was cut by the CRM
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_json(value: Any) -> bytes:
    """Encode a body; the same value always gives the same bytes, decimals go out as exact numbers."""
    return _encoder.encode(value)


def encode_lines(values: Sequence[Any]) -> bytes:
    """Encode values as JSON, one to a line."""
    return _encoder.encode_lines(values)


def decode_json(body: bytes | msgspec.Raw) -> Any:
    """Decode a body whose shape nobody promises, numbers exactly; `ProtocolError` where it is not JSON."""
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError("the answer is not JSON") from error


def with_fields(record: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lay fields over a record; a dot leads into a nested object, whose other keys stay."""
    plain, opened = _places(tuple(fields))
    whole = dict(record)
    if not opened:
        whole.update(fields)
        return whole
    for name in plain:
        whole[name] = fields[name]
    for top, members in opened:
        nested = whole.get(top)
        values = {custom: fields[name] for custom, name in members}
        whole[top] = {**nested, **values} if nested and isinstance(nested, Mapping) else values
    return whole


_Opened = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@lru_cache(maxsize=1_024)  # a push names the same few fields row after row
def _places(names: tuple[str, ...]) -> tuple[tuple[str, ...], _Opened]:
    """Part names into plain ones and, by the object that they lead into, those with a dot."""
    plain: list[str] = []
    opened: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        top, _, custom = name.partition(".")
        if custom:
            opened.setdefault(top, []).append((custom, name))
        else:
            plain.append(name)
    return tuple(plain), tuple((top, tuple(members)) for top, members in opened.items())


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """Read a field of a record; a dot leads into a nested object. None where it is not there."""
    top, _, custom = name.partition(".")
    value = record.get(top)
    if not custom:
        return value
    return value.get(custom) if isinstance(value, Mapping) else None


def is_same(known: Any, shown: Any) -> bool:
    """Tell whether two values that a CRM showed are one: empty, equal as numbers or times, or exactly."""
    if known in (None, "") or shown in (None, ""):
        return known in (None, "") and shown in (None, "")
    if isinstance(known, bool) or isinstance(shown, bool):
        return str(known).lower() == str(shown).lower()
    if isinstance(known, Mapping | list) or isinstance(shown, Mapping | list):
        return bool(known == shown)
    if isinstance(known, str) and isinstance(shown, str):
        moment = moment_of(known)
        return known == shown or (moment is not None and moment == moment_of(shown))
    return _is_one_number(str(known), str(shown))


def _is_one_number(known: str, shown: str) -> bool:
    try:
        return round(Decimal(known), 9) == round(Decimal(shown), 9)
    except InvalidOperation:
        return known == shown


def is_echo(sent: Any, shown: Any) -> bool:
    """Tell whether a CRM that took `sent` may show `shown`: trimmed, re-cased, rounded, cut or reordered."""
    if sent in (None, "") or shown in (None, ""):
        return sent in (None, "") and shown in (None, "")
    if isinstance(sent, bool) or isinstance(shown, bool):
        return str(sent).lower() == str(shown).lower()
    if isinstance(sent, Mapping) and isinstance(shown, Mapping):
        return _members(sent) == _members(shown)
    if isinstance(sent, Mapping | list) or isinstance(shown, Mapping | list):
        return bool(sent == shown)
    sent_text, shown_text = str(sent), str(shown)
    plain_sent, plain_shown = _plain(sent_text), _plain(shown_text)
    if plain_sent == plain_shown:
        return True
    if len(plain_shown) >= _SHORTEST_CUT and plain_sent.startswith(plain_shown):
        return True
    return _is_rounded(sent_text, shown_text) or _is_same_time(sent_text, shown_text)


def _members(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _is_rounded(sent: str, shown: str) -> bool:
    try:
        whole, rounded = Decimal(sent), Decimal(shown)
    except InvalidOperation:
        return False
    if whole == rounded:
        return True
    digits, kept = _decimals(whole), _decimals(rounded)
    return kept < digits and abs(whole - rounded) < Decimal(1).scaleb(-kept)


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _is_same_time(sent: str, shown: str) -> bool:
    ours, theirs = moment_of(sent), moment_of(shown)
    if ours is None or theirs is None:
        return False
    return theirs in (
        ours,
        ours.replace(microsecond=0),
        ours.replace(hour=0, minute=0, second=0, microsecond=0),
    )


def moment_of(text: Any) -> datetime | None:
    """Read a time as ISO 8601, in UTC where it names no zone; None where it is none."""
    if not isinstance(text, str) or len(text) < 10:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
