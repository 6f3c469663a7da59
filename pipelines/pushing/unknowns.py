"""Look again for what was sent and never answered, so that it is booked as written, or free to be sent.

A look long after tells more than the one right after: lists have caught up by then. What the CRM cannot
show stays unknown until the operator says that it shall be sent again, or a pull tells by a natural key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from pipelines.progress import Progress
from pipelines.pushing.booking import book
from pipelines.pushing.identity import logged_key_sql
from pipelines.pushing.ledger import latest_unknown
from pipelines.pushing.results import tally
from pipelines.pushing.settling import journal_folder
from pipelines.settings import Project, Sync
from pipelines.warehouse import RunRecord, Warehouse, new_run_id, record_run
from sources import load
from sources.core.bodies import decode_json
from sources.core.connector import Connection, Write
from sources.core.errors import RefusedError
from sources.core.journal import Booked, Header, NoJournal, Story
from sources.core.lanes import DELETE
from sources.core.rows import Outcome, Row
from sources.core.sessions import open_session
from sources.core.writing import Courier

_SETTLED = timedelta(minutes=10)  # a list that does not show a record by then has none, or none it can show


_WRITTEN = ("created", "updated", "deleted")


@dataclass(frozen=True, slots=True)
class _Open:
    """A row whose outcome is not known, the run that sent it, when that began and when it gave up."""

    row: Row
    shown_key: str
    run_id: str
    begun_at: datetime
    left_at: datetime


def settle_unknown(
    project: Project, warehouse: Warehouse, sync_name: str, progress: Progress, *, resend: bool
) -> None:
    """Look for the unknown rows of a sync and book what is found; with `resend` free what cannot be told.

    Raises what keeps the CRM from being asked, with nothing booked.
    """
    sync = project.sync(sync_name)
    connection = project.connection(sync.connection)
    with warehouse.reading() as con:
        rows = list(_unknown(con, sync, load(connection.crm).contract(connection).writes[sync.object]))
    if not rows:
        return
    now = datetime.now(UTC)
    outcomes = _look(connection, sync, rows)
    judged = list(zip(rows, outcomes, strict=True))
    found = [(each, outcome) for each, outcome in judged if outcome.verdict in _WRITTEN]
    free = [each for each, outcome in judged if _is_free(each, outcome, now, resend=resend)]
    if not found and not free:
        return
    _book(warehouse, sync, found, free, now)
    told = f"{len(found)} were found written, {len(free)} are free to be sent"
    progress.say(f"{sync.name}: of {len(rows)} unknown rows {told}")


def _unknown(con: duckdb.DuckDBPyConnection, sync: Sync, write: Write) -> Iterator[_Open]:
    found = con.execute(
        f"""
        select log.key, {logged_key_sql("log", write)}, log.crm_id, log.action, log.sent, log.replaced,
            log.run_id, coalesce(runs.started_at, log.pushed_at), log.pushed_at
        from roundtrip.push_log as log
        join ({latest_unknown()}) as latest using (connection, object, key, pushed_at)
        left join roundtrip.runs as runs on runs.run_id = log.run_id
        where log.status = 'unknown' and sync = $sync and connection = $connection and object = $object
        order by log.pushed_at, log.key
        """,
        {"sync": sync.name, "connection": sync.connection, "object": sync.object},
    ).fetchall()
    for seq, (shown_key, key, crm_id, action, sent, replaced, *when) in enumerate(found, 1):
        fields, before = (decode_json((each or "{}").encode()) for each in (sent, replaced))
        row = Row(seq, key, crm_id, action, fields, before, match="id" if crm_id else "new")
        yield _Open(row, shown_key, *when)


def _look(connection: Connection, sync: Sync, rows: Sequence[_Open]) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    with open_session(load(connection.crm), connection) as session:
        write = session.contract.writes[sync.object]
        courier = Courier(session, write, NoJournal(), run_id="look")
        parts: dict[str, list[_Open]] = {}
        for each in rows:
            name = DELETE if each.row.action == "delete" else write.lane(each.row, connection)
            parts.setdefault(name, []).append(each)
        for name, part in parts.items():
            since = min(each.begun_at for each in part)
            try:
                seen = courier.look(write.lanes[name], [each.row for each in part], since)
            except RefusedError:  # what the API does not serve tells nothing
                continue
            outcomes |= {each.seq: each for each in seen}
    return [outcomes.get(each.row.seq, Outcome(each.row.seq, "unknown")) for each in rows]


def _is_free(each: _Open, outcome: Outcome, now: datetime, *, resend: bool) -> bool:
    """Tell whether a row may be sent again: it took no effect, or nobody can tell and the operator says so.

    A new record that is there with other values is not made again: the next pull shows it.
    """
    if outcome.verdict == "absent":
        return resend or now - each.left_at > _SETTLED
    is_there = each.row.action == "create" and outcome.crm_id is not None
    return resend and outcome.verdict == "unknown" and not is_there and now - each.left_at > _SETTLED


def _book(
    warehouse: Warehouse,
    sync: Sync,
    found: Sequence[tuple[_Open, Outcome]],
    free: Sequence[_Open],
    now: datetime,
) -> None:
    run_id, command = new_run_id(now), f"push {sync.name}"
    header = Header(run_id, sync.name, sync.connection, sync.object, "", now, command)
    story = Story(header, [_booked(each, outcome, now) for each, outcome in found])
    folder = journal_folder(warehouse)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with warehouse.generation() as con:
        book(con, story, folder)
        con.executemany(
            "update roundtrip.push_log set status = 'skipped', error = 'took_no_effect'"
            " where run_id = ? and status = 'unknown' and key = ?",
            [[each.run_id, each.shown_key] for each in free] or [["", ""]],
        )
        record_run(con, RunRecord(run_id, command, now, datetime.now(UTC), "ok", tally(story.booked)))


def _booked(each: _Open, outcome: Outcome, now: datetime) -> Booked:
    row = each.row
    return Booked(
        key=row.key,
        crm_id=outcome.crm_id or row.crm_id,
        action=row.action,
        status=outcome.verdict,
        sent=row.fields,
        replaced=row.before,
        error=None,
        batch_id="look",
        pushed_at=now.isoformat(),
        sent_at=each.begun_at.isoformat(),
    )
