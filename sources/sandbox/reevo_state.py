"""Reevo's workspace: records found by address, domain or edge, and fields that follow from others."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

from sources.sandbox.reevo_rules import blanks, opportunity_state, primary
from sources.sandbox.reevo_switches import ReevoSwitches
from sources.sandbox.store import Clock, Origin, Tenant
from sources.sandbox.table import Fields, Record, Table

KeysOf: TypeAlias = Callable[[Fields], list[str]]

_LISTS = {
    "contact_emails": ("primary_email", "email"),
    "contact_phone_numbers": ("primary_phone_number", "phone_number"),
}
_SUB_RESOURCES = frozenset({*_LISTS, "domains"})


class Indexed(Table):
    """Keep records under several keys each."""

    def __init__(self, keys_of: KeysOf) -> None:
        super().__init__()
        self._keys_of = keys_of
        self._ids: dict[str, dict[str, None]] = {}

    def holding(self, key: str) -> list[Record]:
        """Return the records that have a key, in the order in which they came by it."""
        return [self.records[id] for id in self._ids.get(key, ())]

    def _index_key(self, record: Record) -> None:
        for key in self._keys_of(record.fields):
            self._ids.setdefault(key, {})[record.id] = None

    def _forget_key(self, record: Record) -> None:
        for key in self._keys_of(record.fields):
            self._ids[key].pop(record.id, None)


class Workspace(Tenant):
    """Hold one organisation; lists and what is derived from them agree, whoever writes."""

    def __init__(self, name: str, now: Clock, switches: ReevoSwitches) -> None:
        super().__init__(
            name,
            make_id=self._make_id,
            blanks=blanks(),
            now=now,
            step=timedelta(microseconds=10 ** (6 - switches.fraction_digits)),
            lag=timedelta(seconds=switches.list_lag_s),
            silent=frozenset() if switches.sub_resources_touch else _SUB_RESOURCES,
        )
        self.digits = switches.fraction_digits
        self.made = 0
        self.contacts, self.accounts = Indexed(_emails), Indexed(_domains)
        self.edges = Indexed(_ends)
        self.tables |= {"contacts": self.contacts, "accounts": self.accounts, "edges": self.edges}

    def insert(
        self,
        resource: str,
        fields: Mapping[str, Any],
        origin: Origin,
        *,
        also: Mapping[str, Any] | None = None,
    ) -> Record:
        follows = self.derived(resource, {}, {**self.blanks[resource], **fields})
        return super().insert(resource, fields, origin, also={**follows, **(also or {})})

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
        follows = self.derived(resource, record.fields, fields)
        return super().update(
            resource, record, fields, origin, is_replacing=is_replacing, also={**follows, **(also or {})}
        )

    def derived(self, resource: str, before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that follow from those written."""
        if resource == "contacts":
            return self._contact_lists(before, fields)
        if resource == "opportunities" and "stage" in fields and fields["stage"] != before.get("stage"):
            state, at = opportunity_state(fields["stage"]), self.stamp(self.clock())
            return {
                **state,
                "stage_last_shifted_at": at,
                "closed_at": None if state["outcome"] == "OPEN" else at,
            }
        return {}

    def edges_of(self, kind: str, id: str) -> list[tuple[Record, str]]:
        """Return the edges of a kind at a record, each with the id at its other end."""
        found = (edge for edge in self.edges.holding(id) if edge.fields["kind"] == kind)
        return [(edge, edge.fields["to_id" if edge.fields["from_id"] == id else "from_id"]) for edge in found]

    def cut_edges(self, id: str) -> None:
        """Take the edges of a record away with it; the ledger names the record only."""
        for edge in self.edges.holding(id):
            self.edges.remove(edge)

    def touch(self, resource: str, id: str) -> None:
        """Stamp a record as changed, though none of its own fields is."""
        record = self.tables[resource].records[id]
        self.tables[resource].change(record, record.fields, self.clock())

    def stamp(self, moment: datetime) -> str:
        """Return a moment as the API writes it."""
        text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        return text[: 20 + self.digits if self.digits else 19] + "Z"

    def item(self, name: str, value: str, *, is_primary: bool, labels: list[str] | None = None) -> Fields:
        """Return an item of a contact's list of addresses or numbers."""
        return {"id": self.make_id(name), name: value, "is_primary": is_primary, "labels": labels or []}

    def _make_id(self, resource: str) -> str:
        self.made += 1
        return str(uuid5(NAMESPACE_URL, f"{self.name} {resource} {self.made}"))

    def _contact_lists(self, before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for list_name, (single, name) in _LISTS.items():
            if fields.get(list_name) or (list_name in fields and single not in fields):
                made[single] = primary(fields[list_name], name)
            elif single in fields:
                others = [row for row in before.get(list_name) or [] if not row["is_primary"]]
                first = [self.item(name, fields[single], is_primary=True)] if fields[single] else []
                made[list_name] = first + others
        return made


def folded(address: Any) -> str | None:
    """Return an address as matching sees it, or None for none."""
    return address.strip().casefold() or None if isinstance(address, str) else None


def _emails(fields: Fields) -> list[str]:
    keys = (folded(row.get("email")) for row in fields.get("contact_emails") or [])
    return [key for key in dict.fromkeys(keys) if key]


def _domains(fields: Fields) -> list[str]:
    keys = (folded(row.get("domain_name")) for row in fields.get("domains") or [])
    return [key for key in dict.fromkeys(keys) if key]


def _ends(fields: Fields) -> list[str]:
    return [fields["from_id"], fields["to_id"]]
