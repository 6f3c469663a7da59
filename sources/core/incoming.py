"""Rows from elsewhere on their way into a CRM: named as its fields, found there, compared, or held back.

For those who keep no mirror and no ledger: what a CRM holds is asked of it just before. How rows travel is
`writing`'s, where they come from `destination`'s.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Literal

from sources.core.bodies import is_same, value_at
from sources.core.connector import Write, snake_case
from sources.core.errors import ConfigError
from sources.core.rows import Row, Sight
from sources.core.sessions import Session
from sources.core.sights import is_readable

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_ADDRESS = 254
_NEVER_IN_ADDRESSES = set(' \t\r\n,;:<>()"[]\\')

Status = Literal["rejected", "skipped", "unchanged"]


@dataclass(frozen=True, slots=True)
class Held:
    """A row that is not sent, and why."""

    seq: int
    key: str | None
    status: Status
    reason: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Incoming:
    """What becomes of rows before they are sent into one object; what a row gives no value is left alone."""

    session: Session
    write: Write

    def names(self, columns: Iterable[str]) -> dict[str, str]:
        """Find the CRM's field of each column, spelt as the CRM does or in snake case.

        `ConfigError` for a column that is no field, and where the field that identifies is missing: nothing
        is left out in silence.
        """
        spelt = {snake_case(name): name for name in self.write.fields}
        found = {column: self._field(column, spelt) for column in columns}
        if self.write.key not in found.values():
            raise self._misfit(f"no column gives {self.write.key}, which tells whose record a row is")
        return found

    def prepared(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[Row | Held]:
        """Find each row's record and give what is to be sent of it, or why nothing is."""
        named = [self._named(seq, fields) for seq, fields in rows]
        yield from (each for each in named if isinstance(each, Held))
        valid = [each for each in named if isinstance(each, Row)]
        check = self._check()
        for row, sight in zip(valid, self._sights(valid), strict=True):
            made = self._compared(row, sight)
            reason = check(made) if isinstance(made, Row) else None
            yield made if reason is None else _held(row, "rejected", reason)

    # -- naming ----------------------------------------------------------------------------------

    def _field(self, column: str, spelt: Mapping[str, str]) -> str:
        if column in self.write.fields:
            return column
        custom = self.write.custom
        if custom and column.partition(".")[0] == custom:
            return column
        if column in spelt:
            return spelt[column]
        known = ", ".join(self.write.fields) + (f", {custom}.NAME" if custom else "")
        raise self._misfit(f"there is no field '{column}'", hint=f"There are {known}.")

    def _misfit(self, what: str, hint: str = "") -> ConfigError:
        name = self.session.connection.name
        return ConfigError(what, connection=name, resource=self.write.object, hint=hint)

    def _named(self, seq: int, given: Mapping[str, Any]) -> Row | Held:
        fields = {name: plain(value) for name, value in self._flat(given) if value not in (None, "")}
        address = fields.get(self.write.key)
        key = key_of(address)
        if key is None:
            return Held(seq, address if isinstance(address, str) else None, "rejected", "invalid_key", fields)
        return Row(seq, key, None, "create", fields, match="new")

    def _flat(self, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Give each field alone: custom ones may come as one object."""
        for name, value in given.items():
            if name == self.write.custom and isinstance(value, Mapping):
                yield from ((f"{name}.{key}", each) for key, each in value.items())
            else:
                yield name, value

    # -- finding and comparing -------------------------------------------------------------------

    def _check(self) -> Callable[[Row], str | None]:
        inspect = self.write.inspect
        return inspect(self.session.client, self.session.connection) if inspect else lambda row: None

    def _sights(self, rows: Sequence[Row]) -> list[Sight | None]:
        connection, write = self.session.connection, self.write
        if not rows:
            return []
        look = write.find or write.lanes[write.lane(rows[0], connection)].look
        if look is None:
            raise self._misfit("what the CRM holds cannot be looked up by key")
        return look(self.session.client, connection, rows, _LONG_AGO)

    def _compared(self, row: Row, sight: Sight | None) -> Row | Held:
        """Make a creation, or an update of what differs."""
        if sight is None:
            return _held(row, "rejected", "ambiguous: the CRM does not show one record for its key")
        if sight.record is None:
            return self._creation(row)
        return self._update(row, sight.crm_id, sight.record)

    def _creation(self, row: Row) -> Row | Held:
        defaults = self.write.defaults(self.session.connection)
        fields = {**{name: each for name, each in defaults.items() if each is not None}, **row.fields}
        lacking = [name for name, each in self.write.fields.items() if each.required and name not in fields]
        if lacking:
            return _held(row, "rejected", f"missing_required: {', '.join(lacking)}")
        return replace(row, fields=fields)

    def _update(self, row: Row, crm_id: str | None, record: Mapping[str, Any]) -> Row | Held:
        shown = {name: value_at(record, name) for name in row.fields if name != self.write.key}
        changes = {
            name: row.fields[name]
            for name, value in shown.items()
            if not is_readable(self.write, name) or not is_same(row.fields[name], value)
        }
        if not changes:
            return _held(row, "unchanged", "the CRM holds these values")
        if not self.write.modes & {"update", "upsert"}:
            return _held(row, "skipped", "already_in_crm: the API cannot change it")
        before = {name: shown[name] for name in changes}
        known = {name: value for name, value in record.items() if name in self._known_names()}
        return Row(row.seq, row.key, crm_id, "update", changes, before, known)

    def _known_names(self) -> set[str]:
        return {*self.write.fields, *self.write.also_known, self.write.custom or ""}


def key_of(value: Any) -> str | None:
    """Give the key of an address as records are matched by it; None where it cannot be an address."""
    key = str(value or "").strip().lower()
    name, _, host = key.rpartition("@")
    is_address = bool(name) and "." in host.strip(".") and not _NEVER_IN_ADDRESSES & set(key)
    return key if is_address and len(key) <= _LONGEST_ADDRESS else None


def plain(value: Any) -> Any:
    """Make a value fit for JSON: times in ISO 8601 and UTC, what JSON has no type for as text."""
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | bool | int | float | Decimal | None) else str(value)


def _held(row: Row, status: Status, reason: str) -> Held:
    return Held(row.seq, row.key, status, reason, row.fields)
