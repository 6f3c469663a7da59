"""The records of one resource, with the orders and the natural key a CRM would have an index for."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

Fields: TypeAlias = dict[str, Any]
KeyOf: TypeAlias = Callable[[Fields], str | None]
Stamp: TypeAlias = tuple[datetime, str]
Order: TypeAlias = Literal["created", "updated"]


@dataclass(slots=True)
class Record:
    """Hold one record; `body` is its rendered form, dropped on every change.

    While `lists_show_from` lies ahead, lists still show `listed_fields` (None: not there yet).
    """

    id: str
    fields: Fields
    created_at: datetime
    updated_at: datetime
    body: bytes | None = None
    lists_show_from: datetime | None = None
    listed_fields: Fields | None = None
    listed_updated_at: datetime | None = None

    def as_dict(self) -> Fields:
        """Return a copy for a person or a test to look at."""
        return {
            "id": self.id,
            **self.fields,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


class Table:
    """Keep records by id, in creation order, in update order and by natural key; not locked by itself."""

    def __init__(self, key_of: KeyOf | None = None) -> None:
        self.records: dict[str, Record] = {}
        self.version = 0
        self._key_of = key_of
        self._by_created: list[Stamp] = []
        self._by_updated: list[Stamp] = []
        self._by_key: dict[str, list[str]] = {}
        self._since: tuple[tuple[int, datetime, bool, Order], list[str]] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        """Yield records by (created_at, id)."""
        return (self.records[stamp[1]] for stamp in list(self._by_created))

    def add(self, record: Record) -> None:
        self.records[record.id] = record
        insort(self._by_created, (record.created_at, record.id))
        insort(self._by_updated, (record.updated_at, record.id))
        self._index_key(record)
        self.version += 1

    def load(self, records: Iterable[Record]) -> None:
        """Add many records at once, in any order."""
        for record in records:
            self.records[record.id] = record
            self._by_created.append((record.created_at, record.id))
            self._by_updated.append((record.updated_at, record.id))
            self._index_key(record)
        self._by_created.sort()
        self._by_updated.sort()
        self.version += 1

    def change(self, record: Record, fields: Fields, at: datetime) -> None:
        """Put new fields in place of a record's and stamp it."""
        self._forget_key(record)
        _take(self._by_updated, (record.updated_at, record.id))
        record.fields = fields
        record.updated_at = at
        record.body = None
        insort(self._by_updated, (at, record.id))
        self._index_key(record)
        self.version += 1

    def remove(self, record: Record) -> None:
        del self.records[record.id]
        _take(self._by_created, (record.created_at, record.id))
        _take(self._by_updated, (record.updated_at, record.id))
        self._forget_key(record)
        self.version += 1

    def with_key(self, fields: Fields) -> list[Record]:
        """Return the records that share the natural key of these fields, oldest first."""
        key = self._key_of(fields) if self._key_of else None
        return [self.records[id] for id in self._by_key.get(key, ())] if key is not None else []

    def after(
        self, stamp: Stamp | None, *, is_descending: bool = False, order: Order = "created"
    ) -> Iterator[Record]:
        """Yield records beyond a (created_at, id) or (updated_at, id) position, that way or against it."""
        stamps = self._by_created if order == "created" else self._by_updated
        if is_descending:
            end = len(stamps) if stamp is None else bisect_left(stamps, stamp)
            return (self.records[stamps[place][1]] for place in range(end - 1, -1, -1))
        start = 0 if stamp is None else bisect_right(stamps, stamp)
        return (self.records[stamps[place][1]] for place in range(start, len(stamps)))

    def slice(self, start: int, stop: int, *, order: Order = "created") -> list[Record]:
        """Return records by their position in (created_at, id) or (updated_at, id) order."""
        stamps = self._by_created if order == "created" else self._by_updated
        return [self.records[id] for _, id in stamps[start:stop]]

    def updated_since(self, moment: datetime, *, is_inclusive: bool, order: Order = "created") -> list[str]:
        """Return ids of records updated since a moment; kept until the next write, for page after page."""
        asked = (self.version, moment, is_inclusive, order)
        if self._since is None or self._since[0] != asked:
            self._since = (asked, self._updated_since(moment, is_inclusive=is_inclusive, order=order))
        return self._since[1]

    def _updated_since(self, moment: datetime, *, is_inclusive: bool, order: Order) -> list[str]:
        bisect = bisect_left if is_inclusive else bisect_right
        place = bisect(self._by_updated, moment, key=lambda stamp: stamp[0])
        ids = [id for _, id in self._by_updated[place:]]
        if order == "created":
            ids.sort(key=lambda id: (self.records[id].created_at, id))
        return ids

    def _index_key(self, record: Record) -> None:
        if self._key_of and (key := self._key_of(record.fields)) is not None:
            self._by_key.setdefault(key, []).append(record.id)

    def _forget_key(self, record: Record) -> None:
        if self._key_of and (key := self._key_of(record.fields)) is not None:
            self._by_key[key].remove(record.id)


def _take(order: list[Stamp], stamp: Stamp) -> None:
    del order[bisect_left(order, stamp)]
