"""How Rally's records are written and found again, the same for every resource: bulk, upsert, PUT.

Three things the vendor leaves open shape this module. A bulk is documented as create only, so it carries
records known to be new. Its answer has counts but no rows, so anything but a clean count is looked up.
Whether PUT replaces the record is not stated, so bodies are completed; with what, each resource tells.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sources.core.bodies import encode_json
from sources.core.client import Answer, Client
from sources.core.connector import Arrivals, Call, Connection
from sources.core.errors import GoneError
from sources.core.lanes import landed, left_open, met, path_of
from sources.core.looking import claim, is_certain, may_be_new, sight_of
from sources.core.rows import Outcome, Row, Sight, Verdict

BULK_SIZE = 100

_PAGE = 200
_OVERLAP = 5  # rows that move while we read
_MOST_CHANGED = 50_000  # records in a list of changes, ours of this push among them; more tell nothing
_READ_ALONE = 2  # records that are read by their ids rather than out of the list of changes


def completed(row: Row, connection: Connection, kept: Sequence[str]) -> dict[str, Any]:
    """Lay a row's fields over what the CRM holds; of that only `kept` goes out to a tenant that merges."""
    known = {name: value for name, value in row.known.items() if value is not None}
    if row.action == "update" and not replaces(connection):
        known = {name: value for name, value in known.items() if name in kept}
    return {**known, **row.fields}


def replaces(connection: Connection) -> bool:
    """Tell whether a change of a record carries all that is known of it."""
    return connection.options.get("put_semantics") != "merge"


def with_key(body: dict[str, Any], name: str, row: Row) -> dict[str, Any]:
    """Complete a body with the field that identifies its record, unless the row knows it by the id alone."""
    text = body.get(name) or (None if row.key == row.crm_id else row.key)
    return body if text is None else {**body, name: str(text).strip()}


@dataclass(frozen=True, slots=True)
class Records:
    """The endpoints of one resource.

    `body` makes a record's body. `key_of` reads the natural key of a record or a body; without one a record
    is recognised by what was sent, first by the text of its field `mark`.
    """

    name: str
    body: Callable[[Row, Connection], dict[str, Any]]
    key_of: Callable[[Mapping[str, Any]], Hashable | None] | None = None
    mark: str = ""

    # -- saying it ---------------------------------------------------------------------------

    def encode_bulk(self, rows: Sequence[Row], connection: Connection) -> Call:
        bodies = [self.body(row, connection) for row in rows]
        is_object = connection.options.get("bulk_body") == "object"
        return Call("POST", f"/{self.name}/bulk", encode_json({self.name: bodies} if is_object else bodies))

    def encode_upsert(self, rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        return Call("PUT", f"/{self.name}/upsert", encode_json(self.body(row, connection)))

    def encode_put(self, rows: Sequence[Row], connection: Connection) -> Call:
        (row,) = rows
        return Call("PUT", path_of(f"/{self.name}", row), encode_json(self.body(row, connection)))

    # -- looking -----------------------------------------------------------------------------

    def look(
        self, client: Client, connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        """List what changed since the rows were sent; a row whose record is not in it had no effect."""
        records = self._changed(client, rows, since)
        if records is None:
            return [None] * len(rows)
        if self.key_of is None:
            return self._recognise(client, rows, records, since)
        by_key: dict[Hashable | None, list[Mapping[str, Any]]] = {}
        for record in records.values():
            by_key.setdefault(self.key_of(record), []).append(record)
        sights: list[Sight | None] = []
        for row in rows:
            pinned = records.get(row.crm_id or "")
            found = [pinned] if pinned else by_key.get(self.key_of(self.body(row, connection)), [])
            sights.append(sight_of(found[0] if found else None, is_absent=True) if len(found) < 2 else None)
        return sights

    def find(
        self, client: Client, connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        """Find rows by their keys in the whole list, for no list can be asked for a key."""
        wanted = [self.key_of(self.body(row, connection)) if self.key_of else None for row in rows]
        found: dict[Hashable | None, dict[str, Mapping[str, Any]]] = {key: {} for key in wanted}
        for page in self._pages(client, {}):
            if page is None:
                return [None] * len(rows)
            for record in page:
                if self.key_of and (key := self.key_of(record)) in found:
                    found[key][str(record.get("id"))] = record
        held = [list(found[key].values()) for key in wanted]
        return [
            sight_of(each[0] if each else None, is_absent=True) if len(each) < 2 else None for each in held
        ]

    def look_by_id(
        self, client: Client, connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        """Read each row's record; rows without an id are looked for in the list."""
        return [
            self._read(client, row) if row.crm_id else self.look(client, connection, [row], since)[0]
            for row in rows
        ]

    def reread(
        self, client: Client, connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        """Read what changed since: a record that is not in it is as it was; a few are read one by one."""
        records = self._changed(client, rows, since) if len(rows) > _READ_ALONE else None
        if records is None:
            return self.look_by_id(client, connection, rows, since)
        nameless = [row for row in rows if not row.crm_id]
        found = (
            dict(
                zip(
                    (row.seq for row in nameless), self.look(client, connection, nameless, since), strict=True
                )
            )
            if nameless
            else {}
        )
        return [
            sight_of(records.get(row.crm_id), is_absent=False) or Sight(row.crm_id)
            if row.crm_id
            else found[row.seq]
            for row in rows
        ]

    def arrivals(self) -> Arrivals:
        """Tell new records by the list of changes."""

        def keys(client: Client, connection: Connection, since: datetime) -> set[Hashable] | None:
            records = self._changed(client, [], since)
            if records is None or self.key_of is None:
                return None
            return {self.key_of(record) for record in records.values()}

        def key(row: Row, connection: Connection) -> Hashable:
            return self.key_of(self.body(row, connection)) if self.key_of else None

        return Arrivals(keys, key)

    def _read(self, client: Client, row: Row) -> Sight | None:
        try:
            record = client.get(path_of(f"/{self.name}", row), resource=self.name).json()
        except GoneError:
            return Sight()
        return sight_of(record, is_absent=False) if isinstance(record, Mapping) else None

    def _recognise(
        self, client: Client, rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]], since: datetime
    ) -> list[Sight | None]:
        """Find what was sent among the new records; none of it there proves nothing yet: lists may lag."""
        young = [each for each in records.values() if may_be_new(each, "createdAt", since)]
        claimed = claim(rows, young, mark=self.mark)
        return [sight_of(record, is_absent=is_certain(client, since)) for record in claimed]

    def _changed(
        self, client: Client, rows: Sequence[Row], since: datetime
    ) -> dict[str, Mapping[str, Any]] | None:
        """Read the records changed since by id; None where the list goes on for longer than it can be."""
        records: dict[str, Mapping[str, Any]] = {}
        params = {"updatedSince": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        for page in self._pages(client, params):
            if page is None or len(records) > _MOST_CHANGED:
                return None
            records |= {str(record.get("id")): record for record in page}
        return records

    def _pages(self, client: Client, params: Mapping[str, str]) -> Iterator[list[Mapping[str, Any]] | None]:
        """Give a list's pages until an empty one; None for an answer that is no page, or the same again."""
        offset, before = 0, None
        while True:
            asked = {**params, "limit": str(_PAGE), "offset": str(offset)}
            page = client.get(f"/{self.name}", asked, resource=self.name).json()
            if not isinstance(page, list) or (page and page == before):
                yield None
                return
            if not page:
                return
            before = page
            yield [record for record in page if isinstance(record, Mapping)]
            offset += len(page) if len(page) <= _OVERLAP else len(page) - _OVERLAP


# -- reading the answer --------------------------------------------------------------------------


def decode_bulk(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Take a clean count as proof for every row, and so a count of failures alone; else all stay open."""
    body = answer.json()
    counts, new = _counts(body), sum(row.action == "create" for row in rows)
    if counts == (0, 0, len(rows)):
        return [Outcome(row.seq, "absent", reason=_errors(body)) for row in rows]
    if counts != (new, len(rows) - new, 0) or body.get("errors"):
        return [left_open(row) for row in rows]
    ids = body.get("createdIds")
    crm_id = str(ids[0]) if len(rows) == 1 and isinstance(ids, list) and len(ids) == 1 else None
    return [Outcome(row.seq, landed(row), row.crm_id or crm_id) for row in rows]


def decode_bulk_of_one(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Read a bulk of a single row, whose counts and errors can only be about that row."""
    (outcome,) = decode_bulk(rows, answer)
    if outcome.verdict == "absent":
        return [Outcome(outcome.seq, "rejected", reason=outcome.reason or "refused without a reason")]
    return [outcome]


def decode_upsert(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Read either documented reply: `{action, id}` or the whole record."""
    (row,) = rows
    body = answer.json()
    crm_id = body.get("id") if isinstance(body, Mapping) else None
    if not isinstance(crm_id, str):
        return [left_open(row)]
    told: dict[Any, Verdict] = {"created": "created", "updated": "updated"}
    return [met(row, told.get(body.get("action"), landed(row)), crm_id)]


def _counts(body: Any) -> tuple[Any, Any, Any] | None:
    if not isinstance(body, Mapping):
        return None
    return body.get("created", 0), body.get("updated", 0), body.get("failed", 0)


def _errors(body: Mapping[str, Any]) -> str | None:
    """Join a bulk's errors, whose shape is not documented: texts, or objects with a message."""
    errors = body.get("errors")
    if not isinstance(errors, list):
        return None
    texts = (each.get("message") if isinstance(each, Mapping) else each for each in errors)
    return "; ".join(str(text) for text in texts if text)[:300] or None
