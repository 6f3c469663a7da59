"""One workspace's state: its records, the ledger of writes and the change feed.

What the fields mean, which are allowed and how they are shown is left to the simulators.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any, Literal, TypeAlias

from sources.sandbox.table import Fields, KeyOf, Record, Table

Operation: TypeAlias = Literal["create", "update", "delete", "upsert"]
Clock: TypeAlias = Callable[[], datetime]

HAND = "someone@example.com"


def utc_now() -> datetime:
    """Return the real time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Origin:
    """Say by whom and by which request a write is made; `sent` where that differs from what is kept."""

    by: str = HAND
    request_id: str = ""
    idempotency_key: str = ""
    op: Operation | None = None
    sent: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Record one write as it was applied: `op` was asked for, `effect` is what it did, `fields` were sent."""

    seq: int
    at: datetime
    op: Operation
    effect: Operation
    resource: str
    id: str
    fields: Fields
    by: str
    idempotency_key: str
    request_id: str

    def as_dict(self) -> dict[str, Any]:
        """Return the entry for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Change:
    """Record one entry of the change feed."""

    id: int
    at: datetime
    resource: str
    record_id: str
    action: Literal["inserted", "updated", "deleted"]
    by: str | None


@dataclass
class Tenant:
    """Hold one workspace; every method takes its lock, so a test may edit while requests run.

    `blanks` gives each resource with the fields a new record starts from, `keys` the natural keys.
    `step` is the resolution of the CRM's time stamps. Lists lag behind writes by `lag`.
    A change of nothing but `silent` fields leaves a record's stamp as it is.
    """

    name: str
    make_id: Callable[[str], str]
    blanks: Mapping[str, Mapping[str, Any]]
    keys: Mapping[str, KeyOf] = field(default_factory=dict)
    now: Clock = utc_now
    step: timedelta = timedelta(seconds=1)
    lag: timedelta = timedelta(0)
    silent: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.lock = RLock()
        self.tables = {resource: Table(self.keys.get(resource)) for resource in self.blanks}
        self.ledger: list[Write] = []
        self.feed: list[Change] = []

    # By hand: what a person does in the CRM's own screens.

    def create(self, resource: str, *, by: str = HAND, **fields: Any) -> dict[str, Any]:
        """Add a record by hand and return it; fields left out start blank."""
        with self.lock:
            return self.insert(resource, fields, Origin(by)).as_dict()

    def edit(self, resource: str, id: str, *, by: str = HAND, **fields: Any) -> dict[str, Any]:
        """Change fields of a record by hand and return it; raises KeyError when there is none."""
        with self.lock:
            return self.update(resource, self.tables[resource].records[id], fields, Origin(by)).as_dict()

    def delete(self, resource: str, id: str, *, by: str = HAND) -> None:
        """Remove a record by hand; raises KeyError when there is none."""
        with self.lock:
            self.remove(resource, self.tables[resource].records[id], Origin(by))

    def records(self, resource: str, **match: Any) -> list[dict[str, Any]]:
        """Return copies of the records whose fields equal those given, oldest first."""
        with self.lock:
            return [deepcopy(row) for row in self._rows(resource) if _fits(row, match)]

    def find(self, resource: str, **match: Any) -> dict[str, Any]:
        """Return the oldest record that fits; raises LookupError when there is none."""
        with self.lock:
            for row in self._rows(resource):
                if _fits(row, match):
                    return deepcopy(row)
        raise LookupError(f"{self.name} has no {resource} with {match}")

    # For the simulators, which hold the lock while they answer.

    def clock(self) -> datetime:
        """Return the time now, cut to the resolution of the CRM's stamps."""
        now = self.now().astimezone(UTC)
        return now - (now - datetime.min.replace(tzinfo=UTC)) % self.step

    def insert(
        self,
        resource: str,
        fields: Mapping[str, Any],
        origin: Origin,
        *,
        also: Mapping[str, Any] | None = None,
    ) -> Record:
        """Add a record, booked in ledger and feed; `also` as in `update`."""
        with self.lock:
            at = self.clock()
            new = self._filled(resource, fields) | dict(also or {})
            record = Record(self.make_id(resource), new, at, at)
            self._delay(record, None)
            self.tables[resource].add(record)
            self._book("create", resource, record.id, fields, origin)
            self._announce(resource, record.id, "inserted", origin, at)
            return record

    def update(
        self,
        resource: str,
        record: Record,
        fields: Mapping[str, Any],
        origin: Origin,
        *,
        is_replacing: bool = False,
        also: Mapping[str, Any] | None = None,
    ) -> Record:
        """Change a record, field by field or whole, booked in ledger and feed.

        `also` are fields the CRM sets by itself with this write; the ledger does not name them.
        """
        with self.lock:
            new = self._filled(resource, fields) if is_replacing else {**record.fields, **fields}
            new.update(also or {})
            self._delay(record, record.fields)
            is_silent = not is_replacing and bool(fields) and self.silent.issuperset(fields)
            self.tables[resource].change(record, new, record.updated_at if is_silent else self.clock())
            self._book("update", resource, record.id, fields, origin)
            self._announce(resource, record.id, "updated", origin, record.updated_at)
            return record

    def remove(self, resource: str, record: Record, origin: Origin) -> None:
        """Take a record away, booked in ledger and feed."""
        with self.lock:
            self.tables[resource].remove(record)
            self._book("delete", resource, record.id, {}, origin)
            self._announce(resource, record.id, "deleted", origin, self.clock())

    def load(self, resource: str, records: Iterable[Record]) -> None:
        """Put in records that were always there: neither ledger nor feed hears of them."""
        with self.lock:
            self.tables[resource].load(records)

    def write_history(self, resources: Iterable[str]) -> None:
        """Fill the feed with what making the loaded records would have left in it."""
        with self.lock:
            past = sorted(entry for resource in resources for entry in self._past(resource))
            self.feed = [
                Change(number, at, resource, id, "updated" if kind else "inserted", None)
                for number, (at, kind, resource, id) in enumerate(past, start=1)
            ]

    def listed(self, record: Record, now: datetime) -> Record | None:
        """Return a record as lists show it now, which may be an older state or None."""
        if record.lists_show_from is None or now >= record.lists_show_from:
            return record
        if record.listed_fields is None:
            return None
        seen = record.listed_updated_at or record.updated_at
        return Record(record.id, record.listed_fields, record.created_at, seen)

    def _rows(self, resource: str) -> Iterable[dict[str, Any]]:
        return (record.as_dict() for record in self.tables[resource])

    def _filled(self, resource: str, fields: Mapping[str, Any]) -> Fields:
        return {**deepcopy(dict(self.blanks[resource])), **fields}

    def _past(self, resource: str) -> Iterable[tuple[datetime, int, str, str]]:
        for record in self.tables[resource]:
            yield record.created_at, 0, resource, record.id
            if record.updated_at != record.created_at:
                yield record.updated_at, 1, resource, record.id

    def _delay(self, record: Record, before: Fields | None) -> None:
        if not self.lag:
            return
        now = self.now().astimezone(UTC)
        if before is not None and (shown := self.listed(record, now)):
            record.listed_fields, record.listed_updated_at = shown.fields, shown.updated_at
        record.lists_show_from = now + self.lag

    def _book(
        self, effect: Operation, resource: str, id: str, fields: Mapping[str, Any], origin: Origin
    ) -> None:
        sent = dict(fields if origin.sent is None else origin.sent)
        self.ledger.append(
            Write(
                seq=len(self.ledger) + 1,
                at=self.now().astimezone(UTC),
                op=origin.op or effect,
                effect=effect,
                resource=resource,
                id=id,
                fields=sent,
                by=origin.by,
                idempotency_key=origin.idempotency_key,
                request_id=origin.request_id,
            )
        )

    def _announce(
        self,
        resource: str,
        id: str,
        action: Literal["inserted", "updated", "deleted"],
        origin: Origin,
        at: datetime,
    ) -> None:
        number = self.feed[-1].id + 1 if self.feed else 1
        self.feed.append(Change(number, at, resource, id, action, origin.by))


def _fits(row: Mapping[str, Any], match: Mapping[str, Any]) -> bool:
    return all(name in row and row[name] == value for name, value in match.items())
