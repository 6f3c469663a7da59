"""What of a connection's records is never kept, or kept as a keyed digest only: decided before the spool.

`exclude` and `hash` of a connection name values as `contacts.phone`, `contacts.custom_fields.birthday` or,
for a field that the table does not know, `contacts._extra.nickname`. What is already in a warehouse when
these settings change is left to `pipelines.privacy`.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import msgspec

from sources.core.connector import Column, Connection, Contract, Resource, snake_case
from sources.core.errors import ConfigError
from sources.core.objects import declared, taken_apart

EXTRA = "_extra"

_NULL = msgspec.Raw(b"null")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])

Digest = Callable[[str], str]


def keyed_digest(key: str) -> Digest:
    """Make the digest under a key: HMAC-SHA256, in hex, of a text trimmed and lower-cased.

    The same text gives the same digest in every connection, so that tables still join.
    """

    def digest(text: str) -> str:
        return hmac.new(key.encode(), text.strip().lower().encode(), hashlib.sha256).hexdigest()

    return digest


@dataclass(frozen=True, slots=True)
class Target:
    """One value that a setting names: its resource, its column and, for a value in an object, its key."""

    resource: str
    column: str
    inner: str = ""

    def covers(self, column: str, inner: str = "") -> bool:
        """Tell whether this takes a value, or a part of it, out of sight."""
        return column == self.column and (not self.inner or not inner or inner == self.inner)


def excluded(connection: Connection, contract: Contract) -> list[Target]:
    """List what a connection excludes; `ConfigError` names the first entry that is nothing or is needed."""
    return [_Entry(connection, "exclude", text).target(contract) for text in connection.exclude]


def hashed(connection: Connection, contract: Contract) -> list[Target]:
    """List what a connection keeps as digests; `ConfigError` as for `excluded`, and without a key."""
    if connection.hashed and not connection.hash_key:
        raise ConfigError(
            f"sources.{connection.name}.hash is set, and there is no key to hash with",
            hint="Set roundtrip.hash_key in .dlt/secrets.toml or ROUNDTRIP__HASH_KEY to a long random text.",
        )
    return [_Entry(connection, "hash", text).target(contract) for text in connection.hashed]


def shown_in(resource: Resource, target: Target) -> set[str]:
    """List the columns that show a value, or a part of it, or an object that holds it."""
    if target.column == EXTRA:
        return {EXTRA}
    own = next((column.steps for column in resource.columns if column.name == target.column), None)
    if own is None:
        return {target.column}
    return {
        column.name
        for column in resource.columns
        if (path := column.steps)[: len(own)] == own or own[: len(path)] == path
    } | {EXTRA}


def check_privacy(connection: Connection, contract: Contract) -> None:
    """Raise `ConfigError` for the first entry of either list that cannot be carried out."""
    excluded(connection, contract)
    hashed(connection, contract)


# -- settings ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of `exclude` or `hash`, as it was written."""

    connection: Connection
    setting: str
    text: str

    def target(self, contract: Contract) -> Target:
        """Find what the entry names; `ConfigError` otherwise."""
        name, _, rest = self.text.partition(".")
        top, _, inner = rest.partition(".")
        resource = next((each for each in contract.resources if each.name == name), None)
        if resource is None:
            raise self._unknown(name, [each.name for each in contract.resources])
        if top == EXTRA:
            if self.setting == "hash" and not inner:
                raise self._refused("names no single value")
            return Target(name, EXTRA, inner)
        column = next((each for each in resource.columns if each.name == snake_case(top)), None)
        if column is None:
            raise self._unknown(top, [each.name for each in resource.columns])
        self._check_use(contract, resource, column, inner)
        return Target(name, column.name, inner)

    def _check_use(self, contract: Contract, resource: Resource, column: Column, inner: str) -> None:
        asked = {
            each.column
            for other in contract.resources
            for each in other.fan_out
            if each.resource == resource.name and each.applies(self.connection)
        }
        if column.name in asked:
            raise self._refused("is what other lists are asked by and is needed")
        if column.source in {resource.key, resource.updated, resource.gone_flag}:
            raise self._refused("tells records and their versions apart and is needed")
        if inner and column.kind != "json":
            raise self._refused(f"looks into {column.name}, which is no object")
        if self.setting == "hash" and not inner and column.kind != "text":
            raise self._refused(f"is of kind {column.kind}, and only texts can be hashed")

    def _unknown(self, name: str, known: Sequence[str]) -> ConfigError:
        near = get_close_matches(name, known, n=1)
        listed = f"Is {near[0]} meant?" if near else f"There are: {', '.join(known)}."
        return ConfigError(
            f"sources.{self.connection.name}.{self.setting} names {self.text!r},"
            f" and {self.connection.crm} has no {name!r} there",
            hint=f"{listed} A field that no column shows is named as contacts._extra.NAME.",
        )

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(
            f"sources.{self.connection.name}.{self.setting} names {self.text!r}, which {why}",
            hint="Take it off the list.",
        )


# -- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one value of a record: dropped, or replaced by its digest.

    `path` are the keys that lead to it; lists on the way are taken element by element. Below the first
    `cut` of them nothing is kept but what leads to the value, for a vendor may show it twice there.
    """

    path: tuple[str, ...]
    cut: int
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Shield:
    """What a row passes before it is written: rules on its values, and records that are not kept at all.

    `known` are the only keys to keep where undeclared ones are excluded, by the envelope they stand in.
    `parts` are objects of which only these parts are kept, for the others may show a dropped one's value.
    `forgotten` maps paths to values: a row that holds one of them there is not kept.
    """

    rules: tuple[Rule, ...] = ()
    known: Mapping[str, frozenset[str]] = field(default_factory=dict)
    forgotten: Mapping[tuple[str, ...], frozenset[str]] = field(default_factory=dict)
    parts: Mapping[tuple[str, ...], frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rules or self.known or self.forgotten)

    def keep(self, rows: Iterable[msgspec.Raw]) -> list[msgspec.Raw]:
        """Give what may be written of some rows; a value of an unforeseen shape is dropped, not trusted."""
        return [self._treated(row) for row in rows if not self._is_forgotten(row)]

    def _treated(self, row: msgspec.Raw) -> msgspec.Raw:
        for rule in self.rules:
            row = _apply(row, rule, 0)
        for envelope, known in self.known.items():
            row = _only(row, known, envelope)
        for path, names in self.parts.items():
            row = _only_parts(row, path, names)
        return row

    def _is_forgotten(self, row: msgspec.Raw) -> bool:
        return any(_text_at(row, path) in values for path, values in self.forgotten.items())


def shield_of(
    connection: Connection,
    contract: Contract,
    resource: Resource,
    *,
    forgotten: Mapping[str, frozenset[str]] | None = None,
) -> Shield:
    """Make the shield of one resource; `forgotten` maps columns to the values whose rows are not kept."""
    dropped = [each for each in excluded(connection, contract) if each.resource == resource.name]
    digested = [each for each in hashed(connection, contract) if each.resource == resource.name]
    gone = {each.column for each in dropped if not each.inner}
    kept = [column.steps for column in resource.columns if column.name not in gone]
    digest = keyed_digest(connection.hash_key)
    rules = [rule for each in dropped for rule in _rules(resource, each, kept, None)]
    rules += [rule for each in digested for rule in _rules(resource, each, kept, digest)]
    is_closed = any(each == Target(resource.name, EXTRA) for each in dropped)
    return Shield(
        tuple(rules),
        declared(resource) if is_closed else {},
        {_named(resource, name).steps: values for name, values in (forgotten or {}).items()},
        _parts(resource, {each.column for each in (*dropped, *digested)}, is_closed=is_closed),
    )


def _named(resource: Resource, name: str) -> Column:
    return next(column for column in resource.columns if column.name == name)


def _rules(
    resource: Resource, target: Target, kept: Sequence[tuple[str, ...]], digest: Digest | None
) -> list[Rule]:
    if target.column == EXTRA:
        roots = [(), *([(resource.envelope,)] if resource.envelope else [])]
        places = [(*root, target.inner) for root in roots] if target.inner else []
        return [Rule(path, len(path), digest) for path in places]
    whole = _named(resource, target.column).steps
    if target.inner:
        path = (*whole, target.inner)
        return [Rule(path, len(path), digest)]
    own = [path for path in kept if path != whole]
    return [Rule(whole, _cut(whole, own, at_least=2 if whole[0] == resource.envelope else 1), digest)]


def _cut(path: tuple[str, ...], others: Sequence[tuple[str, ...]], *, at_least: int) -> int:
    """Count the keys of a path down to the first place that no other column is taken from."""
    for length in range(min(at_least, len(path)), len(path)):
        if not any(other[:length] == path[:length] for other in others):
            return length
    return len(path)


def _parts(resource: Resource, named: set[str], *, is_closed: bool) -> dict[tuple[str, ...], frozenset[str]]:
    return {
        path: frozenset(column.steps[-1] for column in held)
        for path, held in taken_apart(resource).items()
        if is_closed or any(column.name in named for column in held)
    }


# -- JSON ----------------------------------------------------------------------------------------


def _opened(value: msgspec.Raw) -> dict[str, msgspec.Raw] | list[msgspec.Raw] | None:
    """Open an object or a list by one level, its values as they are; None for anything else."""
    start = bytes(value).lstrip()[:1]
    if start == b"{":
        return _fields.decode(value)
    return _items.decode(value) if start == b"[" else None


def _closed(value: dict[str, msgspec.Raw] | list[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _apply(value: msgspec.Raw, rule: Rule, depth: int) -> msgspec.Raw:
    """Carry a rule out below `depth` keys of its path."""
    if depth == len(rule.path):
        return _digested(value, rule.digest)
    opened = _opened(value)
    if opened is None:
        return _NULL
    if isinstance(opened, list):
        return _closed([_apply(each, rule, depth) for each in opened])
    name = rule.path[depth]
    if depth >= rule.cut:  # only what leads to the value
        opened = {name: opened[name]} if name in opened else {}
    if name in opened:
        if rule.digest is None and depth == rule.cut - 1:
            del opened[name]
        else:
            opened[name] = _apply(opened[name], rule, depth + 1)
    return _closed(opened)


def _digested(value: msgspec.Raw, digest: Digest | None) -> msgspec.Raw:
    found = msgspec.json.decode(value)
    text = found if isinstance(found, str) else bytes(value).decode()
    if digest is None or found is None or not text.strip():
        return _NULL
    return msgspec.Raw(msgspec.json.encode(digest(text)))


def _only(row: msgspec.Raw, known: frozenset[str], envelope: str) -> msgspec.Raw:
    opened = _opened(row)
    if not isinstance(opened, dict):
        return _NULL
    if not envelope:
        return _closed({name: value for name, value in opened.items() if name in known})
    if envelope in opened:
        opened[envelope] = _only(opened[envelope], known, "")
    return _closed(opened)


def _only_parts(value: msgspec.Raw, path: Sequence[str], names: frozenset[str]) -> msgspec.Raw:
    opened = _opened(value)
    if not isinstance(opened, dict):
        return value
    if not path:
        return _closed({name: part for name, part in opened.items() if name in names})
    if path[0] in opened:
        opened[path[0]] = _only_parts(opened[path[0]], path[1:], names)
    return _closed(opened)


def _text_at(row: msgspec.Raw, path: Sequence[str]) -> str | None:
    value = row
    for name in path:
        opened = _opened(value)
        if not isinstance(opened, dict) or name not in opened:
            return None
        value = opened[name]
    found = msgspec.json.decode(value)
    return None if found is None else str(found)
