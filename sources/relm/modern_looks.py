"""Looks at Relm Modern: what its lists and records show of rows whose answer was lost.

Lists filter exactly and by documented fields only; a row is looked for among the records that share its
address, its domain, its links or, as a search, its title.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sources.core.bodies import moment_of
from sources.core.client import Client
from sources.core.connector import Connection
from sources.core.lanes import look_by_id
from sources.core.looking import address_key, claim, is_certain, sight_of
from sources.core.rows import Row, Sight

_PAGE = 100
_MOST_LOOKED_AT = 1_000  # records that share a link; more tell nothing


@dataclass(frozen=True, slots=True)
class Look:
    """How records of one object are found again; `filters` lead from a row's field to a list's parameter.

    `key` names the field that tells records apart, `mark` is as in `claim` for objects without one.
    """

    name: str
    filters: Mapping[str, str]
    key: str = ""
    mark: str = ""

    def __call__(
        self, client: Client, connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        """Look for rows: by id those that have one, the others by what their records share with them."""
        sights: dict[int, Sight | None] = {}
        by_id = look_by_id(f"/{self.name}")
        for row in rows:
            if row.crm_id:
                (sights[row.seq],) = by_id(client, connection, [row], since)
        new = [row for row in rows if not row.crm_id]
        found = self._keyed(client, new, since) if self.key else self._claimed(client, new, since)
        return [(sights | found)[row.seq] for row in rows]

    def _keyed(self, client: Client, rows: Sequence[Row], since: datetime) -> dict[int, Sight | None]:
        return {row.seq: self._at_key(client, row, since) for row in rows}

    def _at_key(self, client: Client, row: Row, since: datetime) -> Sight | None:
        """Find the one record with a row's key, in the model's spelling or in small letters."""
        spellings = dict.fromkeys((str(row.fields.get(self.key) or row.key).strip(), row.key))
        found = {
            str(record.get("id")): record
            for spelling in spellings
            for record in self._listed(client, self.filters[self.key], spelling) or []
            if address_key(str(record.get(self.key) or "")) == row.key
        }
        if len(found) > 1:
            return None
        return sight_of(next(iter(found.values()), None), is_absent=is_certain(client, since))

    def _claimed(self, client: Client, rows: Sequence[Row], since: datetime) -> dict[int, Sight | None]:
        shared: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            name = next((name for name in self.filters if row.fields.get(name)), "")
            shared.setdefault((name, str(row.fields.get(name))), []).append(row)
        sights: dict[int, Sight | None] = {}
        for (name, value), group in shared.items():
            records = self._listed(client, self.filters[name], value) if name else None
            if records is None:
                sights |= dict.fromkeys((row.seq for row in group), None)
                continue
            fresh = [each for each in records if _is_new(each, since)]
            is_absent = is_certain(client, since) and self.filters[name] != "q"
            for row, record in zip(group, claim(group, fresh, mark=self.mark), strict=True):
                sights[row.seq] = sight_of(record, is_absent=is_absent)
        return sights

    def _listed(self, client: Client, param: str, value: str) -> list[Mapping[str, Any]] | None:
        """List the records that a filter finds; None where there are too many to tell anything."""
        records = list(islice(_walk(client, f"/{self.name}", {param: value}), _MOST_LOOKED_AT + 1))
        return records if len(records) <= _MOST_LOOKED_AT else None


def _walk(client: Client, path: str, params: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    cursors: list[str] = []
    while True:
        query = {**params, "limit": str(_PAGE)} | ({"cursor": cursors[-1]} if cursors else {})
        body = client.get(path, query, resource="look").json()
        rows = body.get("data") if isinstance(body, Mapping) else None
        yield from (each for each in rows or [] if isinstance(each, Mapping))
        cursor = body.get("next_cursor") if isinstance(body, Mapping) else None
        if not cursor or cursor in cursors:
            return
        cursors.append(str(cursor))


def _is_new(record: Mapping[str, Any], since: datetime) -> bool:
    created_at = moment_of(record.get("created_at"))
    return created_at is None or created_at >= since
