"""What a look at a CRM tells of rows that no key names: which records are theirs, and when absence counts.

How records are asked for is left to the CRM modules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from unicodedata import normalize

from sources.core.bodies import is_echo, moment_of, value_at
from sources.core.client import Client
from sources.core.rows import Row, Sight

# From the time a look reaches back to, which lies two minutes before the sending: one minute after it.
_QUIET = timedelta(minutes=3)
_MARK_LENGTH = 30  # of a text that a CRM may have trimmed, re-cased or cut


def claim(
    rows: Sequence[Row],
    records: Iterable[Mapping[str, Any]],
    *,
    mark: str,
    hidden: frozenset[str] = frozenset(),
) -> list[Mapping[str, Any] | None]:
    """Find for each row the record that holds what was sent, exact ones first, each record once.

    `mark` names a text field by which most records differ, `hidden` the fields that no record shows.
    """
    waiting: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        waiting.setdefault(_marked(record.get(mark)), []).append(record)
    claimed: dict[int, Mapping[str, Any]] = {}
    for is_same in (_is_equal, is_echo):
        for place, row in enumerate(rows):
            mine = waiting.get(_marked(row.fields.get(mark)), [])
            found = None if place in claimed else _first(row, mine, is_same, hidden)
            if found is not None:
                claimed[place] = mine.pop(found)
    return [claimed.get(place) for place in range(len(rows))]


def may_be_new(record: Mapping[str, Any], stamp: str, since: datetime) -> bool:
    """Tell whether a record can have been made since; one that does not show when it was made can."""
    created_at = moment_of(record.get(stamp))
    return created_at is None or created_at >= since


def is_certain(client: Client, since: datetime) -> bool:
    """Tell whether what was sent would show by now: lists lag, and a request that was cut may still work."""
    now = client.server_time()
    return now is not None and now - since >= _QUIET


def sight_of(record: Mapping[str, Any] | None, *, is_absent: bool) -> Sight | None:
    """Say what was seen of a row; without a record that it is absent, or nothing at all."""
    if record is None:
        return Sight() if is_absent else None
    crm_id = record.get("id")
    return Sight(crm_id, record) if isinstance(crm_id, str) and crm_id else None


def _first(
    row: Row,
    records: Sequence[Mapping[str, Any]],
    is_same: Callable[[Any, Any], bool],
    hidden: frozenset[str],
) -> int | None:
    sent = [(name, value) for name, value in row.fields.items() if name not in hidden]
    for place, record in enumerate(records):
        if all(is_same(value, value_at(record, name)) for name, value in sent):
            return place
    return None


def _is_equal(sent: Any, shown: Any) -> bool:
    return bool(sent == shown)


def _marked(text: Any) -> str:
    return " ".join(str(text or "").split()).lower()[:_MARK_LENGTH]


def address_key(address: str) -> str:
    """Give the key of an address as a plan has it: letters with accents count however they are composed."""
    key = address.strip().lower()
    return key if key.isascii() else normalize("NFC", key)
