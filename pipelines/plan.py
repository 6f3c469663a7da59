"""`roundtrip plan`: what a push would do, sealed, so that a push does exactly that.

Reads the published generation and changes nothing, anywhere. The comparison runs in SQL (`outbox`);
sending is `push`'s.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from pipelines.progress import Progress
from pipelines.pushing import planfile
from pipelines.pushing.definitions import glance
from pipelines.pushing.dismissals import set_aside
from pipelines.pushing.forecast import forecast, shapes_of
from pipelines.pushing.forgotten import hold_forgotten
from pipelines.pushing.guards import check_guard, guard_of, last_look, require_pull
from pipelines.pushing.identity import shown_key
from pipelines.pushing.mapping import read_mapping
from pipelines.pushing.matching import Target
from pipelines.pushing.outbox import compose
from pipelines.pushing.summary import fields_changed, held_reasons
from pipelines.settings import Project, Sync
from pipelines.warehouse import Warehouse, columns_in, has_table
from sources import load
from sources.core.bodies import with_fields
from sources.core.connector import Connection, Contract, Kind, Resource, Write
from sources.core.journal import left_over
from sources.core.rows import Row

__all__ = ["Held", "Plan", "PlanResult", "check_guard", "make_plan", "plan", "show"]

LISTED_ROWS = 1_000

# Decimals, not floats: a number leaves as it was planned.
_read_json = msgspec.json.Decoder(float_hook=Decimal).decode
# Many rows are decoded at once: one text each is cheaper to fetch and to read than its parts.
_read_rows = msgspec.json.Decoder(list[Row], float_hook=Decimal).decode
_DECODED_AT_ONCE = 500
_ROW = """
'{"seq":' || seq || ',"key":' || to_json(key) || ',"crm_id":' || coalesce(to_json(crm_id)::varchar, 'null')
    || ',"action":"' || action || '","match":"' || match || '","fields":' || fields || ',"before":' || before
    || ',"known":' || coalesce(known, '{}') || '}'
"""
_HELD_COUNTS = {"rejected": "rejected", "skipped": "skipped", "conflict": "conflict", "unknown": "skipped"}


@dataclass(frozen=True, slots=True)
class Held:
    """A row that is not sent, and why; `status` is rejected, skipped, conflict, unknown, adopt or drift."""

    key: str | None
    crm_id: str | None
    action: str | None
    status: str
    reason: str | None
    fields: Mapping[str, Any]
    before: Mapping[str, Any]


@dataclass(slots=True)
class Plan:
    """One push, worked out: what is sent, in which order, what is held back, and the seal over it.

    `unchanged` counts the model's records of which nothing is sent or held back, `live` the CRM's records.
    `custom_kinds` tells, by their keys, which custom fields are mapped and of what kind their columns are.
    `looked_at` is when the CRM's records were last read to their end, None where it cannot show them.
    """

    con: duckdb.DuckDBPyConnection = field(repr=False)
    sync: Sync
    connection: Connection
    write: Write
    limit: int | None = None
    live: int = 0
    unchanged: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    seal: str = ""
    has_mirror: bool = True
    custom_kinds: Mapping[str, Kind] = field(default_factory=dict)
    looked_at: datetime | None = None
    is_half_pulled: bool = False

    @property
    def changes(self) -> int:
        """Count the records that the push would create or change."""
        return sum(self.sent.values())

    def counts(self) -> dict[str, int]:
        """Give the counts of the interface; rows whose outcome is still unknown are among the skipped."""
        counts = {
            "create": self.sent.get("create", 0),
            "update": self.sent.get("update", 0),
            "unchanged": self.unchanged,
        }
        counts |= {"rejected": 0, "skipped": 0, "conflict": 0}
        for status, name in _HELD_COUNTS.items():
            counts[name] += self.held.get(status, 0)
        return counts

    def outbox(self) -> Iterator[Row]:
        """Give the rows to send, in the plan's order."""
        unreadable = {name for name, writable in self.write.fields.items() if not writable.readable}
        query = (
            f"select {_ROW}, sent, echo, is_looked from plan_rows"
            " where status = 'planned' and seq <= ? order by seq"
        )
        self.con.execute(query, [self.last_seq])
        while part := self.con.fetchmany(_DECODED_AT_ONCE):
            rows = _read_rows("[" + ",".join(text for text, *_ in part) + "]")
            for row, (_, sent, echo, is_looked) in zip(rows, part, strict=True):
                yield _completed(row, sent, echo, is_looked, unreadable=unreadable) if sent else row

    def held_back(self, *statuses: str) -> Iterator[Held]:
        """Give the rows that are not sent, those of the given statuses only where any are given."""
        wanted = list(statuses or _HELD_COUNTS)
        for key, crm_id, action, status, reason, fields, before in _rows(
            self.con,
            "select key, crm_id, action, status, reason, fields, before from plan_rows"
            " where list_contains(?, status) order by status, seq",
            [wanted],
        ):
            yield Held(key, crm_id, action, status, reason, _read_json(fields), _read_json(before))

    def listing(self) -> Iterator[dict[str, Any]]:
        """Give the rows that are not unchanged, as the interface lists them."""
        for row in self.outbox():
            yield entry(row, action=row.action)
        for held in self.held_back():
            action = "skipped" if held.status == "unknown" else held.status
            yield entry(held, action=action, reason=held.reason)

    def count_again(self, *, unchanged: int) -> None:
        """Count anew, and seal anew, after rows were taken out of the plan."""
        self.sent, self.held = _counted(self)
        self.unchanged = unchanged
        self.seal = seal_of(self)

    @property
    def last_seq(self) -> int:
        """Give the place of the last row that may be sent."""
        return 2**62 if self.limit is None else self.limit


@dataclass(slots=True)
class PlanResult:
    """What a plan found, for the command line; `guard` is what would stop its push."""

    sync: str
    connection: str
    object: str
    counts: dict[str, int]
    rows: list[dict[str, Any]]
    edited_in_crm: int = 0
    fields_changed: list[dict[str, Any]] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] = field(default_factory=dict)
    guard: str | None = None
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip plan`."""
        return {
            "sync": self.sync,
            "connection": self.connection,
            "object": self.object,
            "counts": self.counts,
            "fields_changed": self.fields_changed,
            "held": self.held,
            "forecast": self.forecast,
            "guard": self.guard,
            "rows": self.rows,
        }


def plan(
    project: Project, sync: str, *, diff: bool = True, out: Path | None = None, progress: Progress
) -> PlanResult:
    """Work out what a push would do and list it: all rows with `diff`, else the first 1,000.

    With `out` the sealed plan is written to that file, for `push` to carry out.
    """
    warehouse = Warehouse(project.warehouse)
    if left_over(warehouse.home / "journal"):
        progress.say(
            f"{sync}: an earlier push was stopped half way; the next push settles it before it plans"
        )
    with warehouse.reading() as con:
        made = make_plan(con, project, sync)
        glance(made, progress)
        result = show(made, None if diff else LISTED_ROWS)
        if out is not None:
            rows = planfile.write(made, out)
            progress.say(f"{out}: {rows:,} rows, sealed; it holds personal data as the plan does")
    if result.edited_in_crm:
        edited = f"{result.edited_in_crm} records were edited in the CRM after our push"
        progress.say(f"{sync}: {edited} and stay as they are")
    return result


def make_plan(
    con: duckdb.DuckDBPyConnection, project: Project, name: str, *, limit: int | None = None
) -> Plan:
    """Work out a sync over an open warehouse; the plan lives as long as the connection.

    Raises `ConfigError` for a mapping that fits neither model nor CRM, `GuardError` when the target has
    never been pulled to its end.
    """
    sync = project.sync(name)
    connection = project.connection(sync.connection)
    contract: Contract = load(connection.crm).contract(connection)
    write = contract.writes[sync.object]
    has_mirror = bool(write.resource) and not _is_unlisted(con, connection, contract.resource(write.resource))
    if has_mirror:
        require_pull(con, connection, write)
    target = Target(connection, write, columns_in(con, connection.name, write.resource), has_mirror)
    mapping = read_mapping(con, sync, contract, target.mirror)
    compose(con, sync, target, mapping)
    hold_forgotten(con, target)
    set_aside(con, sync.name)
    made = Plan(con, sync, connection, write, limit, has_mirror=has_mirror, custom_kinds=mapping.custom_kinds)
    if has_mirror:
        made.looked_at, made.is_half_pulled = last_look(con, Warehouse(project.warehouse), connection, write)
    count_rows(made, target)
    made.seal = seal_of(made)
    return made


def show(made: Plan, most_rows: int | None) -> PlanResult:
    """Make the listing of a plan, with at most that many rows."""
    rows: list[dict[str, Any]] = []
    for each in made.listing():
        if most_rows is not None and len(rows) >= most_rows:
            break
        rows.append(each)
    shapes, guard = shapes_of(made), guard_of(made, datetime.now(UTC))
    return PlanResult(
        sync=made.sync.name,
        connection=made.connection.name,
        object=made.write.object,
        counts=made.counts(),
        rows=rows,
        edited_in_crm=made.held.get("drift", 0),
        fields_changed=fields_changed(made, shapes, rows),
        held=held_reasons(made),
        forecast=forecast(made, shapes).payload(),
        guard=None if guard is None else str(guard),
    )


def entry(row: Row | Held, *, action: str | None, reason: str | None = None) -> dict[str, Any]:
    """Make one entry of the interface's `rows`."""
    values = {
        name: {"old": _plain(row.before.get(name)), "new": _plain(value)}
        for name, value in row.fields.items()
    }
    key = None if row.key is None else shown_key(row.key)
    return {"key": key, "crm_id": row.crm_id, "action": action, "reason": reason, "fields": values}


def _completed(row: Row, sent: str, echo: str | None, is_looked: bool, *, unreadable: set[str]) -> Row:
    """Lay over what the mirror shows what we sent since, and what no mirror can show."""
    shown = set() if echo is None else set(_read_json(echo))
    trusted = {
        name: value
        for name, value in _read_json(sent).items()
        if name in unreadable or (name not in shown and not is_looked)
    }
    unseen = tuple(name for name in row.before if name in trusted)
    return replace(row, known=with_fields(row.known, trusted), unseen=unseen)


def _plain(value: Any) -> Any:
    """Make a value of a plan ready for JSON."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _rows(con: duckdb.DuckDBPyConnection, query: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
    # Temporary tables belong to one connection, so its next query ends this walk.
    con.execute(query, values)
    while chunk := con.fetchmany(2_000):
        yield from chunk


def _is_unlisted(con: duckdb.DuckDBPyConnection, connection: Connection, resource: Resource) -> bool:
    """Tell whether a pull has found that the CRM does not serve a list which its vendor does not document."""
    if not resource.optional or has_table(con, connection.name, resource.name):
        return False
    state = con.execute(
        "select last_complete_at, last_error from roundtrip.resource_state"
        " where connection = ? and resource = ?",
        [connection.name, resource.name],
    ).fetchone()
    return state == (None, None)


def count_rows(made: Plan, target: Target) -> None:
    """Count what the rows of a plan come to: to be sent, held back, at rest; and the CRM's records."""
    con = made.con
    if target.has_mirror:
        made.live = _number(con, f"select count(*) from {target.table} where _deleted_at is null")
    made.sent, made.held = _counted(made)
    made.unchanged = _number(
        con,
        "select (select candidates from plan_size) - count(distinct key) from plan_rows"
        " where status not in ('drift', 'adopt')"
        " and coalesce(reason, '') not in ('invalid_key', 'duplicate_key')",
    )


def _counted(made: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Count the rows to send by action, those held back by status."""
    sent = "select action, count(*) from plan_rows where status = 'planned' and seq <= ? group by 1"
    held = "select status, count(*) from plan_rows where status <> 'planned' group by 1"
    return (
        dict(made.con.execute(sent, [made.last_seq]).fetchall()),
        dict(made.con.execute(held).fetchall()),
    )


def _number(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    return int(row[0]) if row else 0


def seal_of(made: Plan) -> str:
    """Hash the rows to send in their order, the mapping, and the state they were worked out from."""
    rows = made.con.execute(
        """
        select string_agg(
            md5(to_json([seq::varchar, key, crm_id, action, match, fields, before, known])::varchar),
            '' order by seq
        )
        from plan_rows where status = 'planned' and seq <= ?
        """,
        [made.last_seq],
    ).fetchone()
    state = made.con.execute(
        """
        select last_complete_at::varchar, page_token,
            (select max(pushed_at)::varchar from roundtrip.ledger where connection = $connection)
        from roundtrip.resource_state where connection = $connection and resource = $resource
        """,
        {"connection": made.connection.name, "resource": made.write.resource},
    ).fetchone()
    return hashlib.sha256(json.dumps([rows, repr(made.sync), state], default=str).encode()).hexdigest()
