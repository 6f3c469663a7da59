"""`roundtrip push`: carry a sealed plan out, so that a kill at any instant loses nothing and doubles nothing.

What is sent is `plan`'s decision, how it travels `sources.core.writing`'s. This module keeps the order:
settle what an earlier, killed push left open; plan; guard; ask; send with the journal on; book.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.plan import Held, Plan, PlanResult, check_guard, entry, make_plan, plan, show
from pipelines.progress import Progress
from pipelines.pushing import definitions
from pipelines.pushing import journal as journals
from pipelines.pushing.booking import book, is_booked
from pipelines.pushing.journal import Booked, Header, Journal, Story
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, new_run_id, record_run
from sources import load
from sources.core.connector import Outcome, Row
from sources.core.errors import AuthError, ConfigError, ConnectorError, GoneError
from sources.core.sessions import Session, open_session
from sources.core.writing import Courier, Delivery, deliver

__all__ = ["PlanResult", "PushResult", "plan", "push"]

_LOGGED = ("rejected", "skipped", "conflict")


@dataclass(slots=True)
class PushResult:
    """What a push did, for the command line."""

    sync: str
    connection: str
    object: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip push`."""
        return {
            "sync": self.sync,
            "connection": self.connection,
            "object": self.object,
            "counts": self.counts,
            "rows": self.rows,
        }


def push(  # noqa: PLR0913 (one per option, all by name)
    project: Project,
    sync: str,
    *,
    dry_run: bool = False,
    limit: int | None = None,
    confirm: Callable[[PlanResult], bool],
    progress: Progress,
    create_fields: bool = False,
    in_flight: int = 4,
) -> PushResult:
    """Send what the plan of a sync shows, at most `limit` records of it, after `confirm` agreed.

    With `create_fields`, custom fields that the CRM does not define yet are defined before the first row.
    Raises `ConfigError`, `GuardError` and `LockedError` before the first byte is sent. What stops the push
    later is told in the result, with what was done booked.
    """
    warehouse = Warehouse(project.warehouse)
    if dry_run:
        with warehouse.reading() as con:
            made = make_plan(con, project, sync, limit=limit)
            if not create_fields:
                definitions.glance(made, progress)
            return _unsent(made)
    declared = project.sync(sync)
    with warehouse.lock(f"roundtrip push {sync}"):
        settle_left_over(project, warehouse, progress)
        run = _PushRun(project, warehouse, progress, in_flight=in_flight)
        with warehouse.reading() as con:
            made = make_plan(con, project, sync, limit=limit)
            check_guard(made)
            lacking = definitions.undefined(made)
            if create_fields and lacking:
                progress.say(f"{sync}: these custom fields will be defined: {', '.join(lacking)}")
            else:
                definitions.refuse(made, lacking)
            if made.changes and not confirm(show(made, None)):
                raise ConfigError(f"push {declared.name}: not confirmed, nothing was sent")
            definitions.define(made, lacking)
            return run.carry_out(made)


def settle_left_over(project: Project, warehouse: Warehouse, progress: Progress) -> None:
    """Find out and book what killed pushes left open; only what has no second effect is sent again.

    Raises what keeps the CRM from being asked; the journal then waits for the next push.
    """
    folder = warehouse.home / "journal"
    for path in journals.left_over(folder):
        story = journals.read(path)
        with warehouse.reading() as con:
            is_done = story is None or is_booked(con, story.header.run_id)
        if story is None or is_done:
            journals.remove(path)
            continue
        if story.open:
            _resolve(project, story, path)
            story = journals.read(path) or story
        now = datetime.now(UTC)
        counts = _tally(story.booked)
        progress.say(
            f"{story.header.sync}: an earlier push was stopped half way; it had sent"
            f" {counts['created'] + counts['updated']} records, and {counts['unknown']} are unknown"
        )
        record = RunRecord(
            story.header.run_id,
            f"push {story.header.sync}",
            story.header.started_at,
            now,
            "interrupted",
            counts,
        )
        _publish(warehouse, story, record, path)


def _resolve(project: Project, story: Story, path: Path) -> None:
    header = story.header
    journal = Journal.resume(path)
    try:
        connection = project.connection(header.connection)
    except ConfigError:
        for batch in story.open:
            reason = "the push was stopped and its connection is gone"
            lost = [Outcome(row.seq, "unknown", reason=reason) for row in batch.rows]
            journal.outcome(batch.id, lost, at=datetime.now(UTC))
        journal.close()
        return
    try:
        with open_session(load(connection.crm), connection) as session:
            courier = _courier(session, header.object, journal, header.run_id, prefix="r")
            for batch in story.open:
                courier.settle(batch)
    finally:
        journal.close()


class _PushRun:
    """One push under the warehouse's lock."""

    def __init__(self, project: Project, warehouse: Warehouse, progress: Progress, *, in_flight: int) -> None:
        self.project = project
        self.warehouse = warehouse
        self.progress = progress
        self.in_flight = in_flight
        self.started_at = datetime.now(UTC)
        self.run_id = new_run_id(self.started_at)
        self.folder = warehouse.home / "journal"

    def carry_out(self, made: Plan) -> PushResult:
        """Send the plan's rows and book them with those held back; without news only the run is noted."""
        result = _unsent(made)
        result.run_id = self.run_id
        if not (made.changes or made.held.get("adopt") or _has_news(made)):
            _close(result, Delivery())
            self.warehouse.note_run(self._record(result))
            return result
        with open_session(load(made.connection.crm), made.connection) as session:
            check = _inspect(session, made)
            journal = self._begin(made)
            try:
                delivery = self._send(session, made, journal, check)
            finally:
                journal.close()
        story = journals.read(journal.path) or Story(self._header(made))
        result.rows = [*map(_told, story.booked), *_held_back(made, "unknown")]
        _recount(result, story, made)
        _close(result, delivery)
        _publish(self.warehouse, story, self._record(result), journal.path)
        return result

    def _begin(self, made: Plan) -> Journal:
        journal = Journal.begin(self.folder, self._header(made))
        journal.held(_booked_held(held, self.started_at) for held in made.held_back(*_LOGGED))
        journal.adopted(_booked_held(held, self.started_at) for held in made.held_back("adopt"))
        return journal

    def _send(
        self, session: Session, made: Plan, journal: Journal, check: Callable[[Row], str | None] | None
    ) -> Delivery:
        courier = _courier(session, made.write.object, journal, self.run_id)
        task = self.progress.start(f"push {made.sync.name}", made.changes)
        rows = made.outbox() if check is None else _checked(made.outbox(), check, journal, self.started_at)
        delivery = deliver(
            courier, rows, in_flight=self.in_flight, advance=lambda rows: self.progress.advance(task, rows)
        )
        self.progress.done(task)
        return delivery

    def _header(self, made: Plan) -> Header:
        return Header(
            self.run_id, made.sync.name, made.connection.name, made.write.object, made.seal, self.started_at
        )

    def _record(self, result: PushResult) -> RunRecord:
        return RunRecord(
            run_id=self.run_id,
            command=f"push {result.sync}",
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            status=result.status,
            counts=result.counts,
            error=result.error,
        )


def _courier(session: Session, name: str, journal: Journal, run_id: str, *, prefix: str = "b") -> Courier:
    write = session.contract.writes[name]
    return Courier(session, write, journal, run_id=run_id, prefix=prefix)


def _inspect(session: Session, made: Plan) -> Callable[[Row], str | None] | None:
    if made.write.inspect is None or made.changes == 0:
        return None
    try:
        return made.write.inspect(session.client, session.connection)
    except GoneError:  # a workspace without a registry requires nothing
        return None


def _checked(
    rows: Iterator[Row], check: Callable[[Row], str | None], journal: Journal, at: datetime
) -> Iterator[Row]:
    """Pass on the rows that may be sent; the others are booked as rejected, with the reason."""
    refused: list[Booked] = []
    for row in rows:
        reason = check(row)
        if reason is None:
            yield row
            continue
        refused.append(
            Booked(
                row.key,
                row.crm_id,
                row.action,
                "rejected",
                row.fields,
                row.before,
                reason,
                None,
                at.isoformat(),
            )
        )
    journal.held(refused)


def _publish(warehouse: Warehouse, story: Story, record: RunRecord, path: Path) -> None:
    with warehouse.generation() as con:
        book(con, story, path.parent)
        record_run(con, record)
    journals.remove(path)


def _has_news(made: Plan) -> bool:
    """Tell whether rows are held back that the log does not show as held back yet."""
    found = made.con.execute(
        """
        select key, status, reason from plan_rows where list_contains($logged, status)
        except select key, status, error from roundtrip.push_log where sync = $sync
        limit 1
        """,
        {"logged": list(_LOGGED), "sync": made.sync.name},
    ).fetchone()
    return found is not None


# -- results -------------------------------------------------------------------------------------


def _unsent(made: Plan) -> PushResult:
    """Make the result of a push that has sent nothing (yet)."""
    counts = made.counts()
    unknown = made.held.get("unknown", 0)
    counts["skipped"] -= unknown
    return PushResult(
        sync=made.sync.name,
        connection=made.connection.name,
        object=made.write.object,
        counts=counts | {"created": 0, "updated": 0, "unknown": unknown},
        rows=[
            *({**entry(row, action=row.action), "status": "planned"} for row in made.outbox()),
            *_held_back(made),
        ],
    )


def _recount(result: PushResult, story: Story, made: Plan) -> None:
    tally = _tally(story.booked)
    for name in ("created", "updated", "rejected", "skipped", "conflict"):
        result.counts[name] = tally[name]
    result.counts["unknown"] = tally["unknown"] + made.held.get("unknown", 0)


def _tally(booked: list[Booked]) -> dict[str, int]:
    counts = dict.fromkeys(("created", "updated", "rejected", "skipped", "conflict", "unknown"), 0)
    for row in booked:
        counts[row.status] += 1
    return counts


def _close(result: PushResult, delivery: Delivery) -> None:
    """Set how the push ended: 130 before 3 before 1."""
    if delivery.error is not None:
        result.error = str(delivery.error)
    if delivery.is_interrupted:
        result.status, result.exit_code = "interrupted", 130
    elif isinstance(delivery.error, AuthError):
        result.status, result.exit_code = "refused", 3
    elif isinstance(delivery.error, ConnectorError) or any(
        result.counts[name] for name in ("rejected", "unknown", "conflict")
    ):
        result.status, result.exit_code = "failed", 1


def _told(row: Booked) -> dict[str, Any]:
    """Make the entry of a row as it was booked; the action of one that was not sent is its status."""
    held = Held(row.key, row.crm_id, row.action, row.status, row.error, row.sent, row.replaced)
    action = row.action if row.batch_id else row.status
    return {**entry(held, action=action, reason=row.error), "status": row.status}


def _held_back(made: Plan, *statuses: str) -> Iterator[dict[str, Any]]:
    for held in made.held_back(*statuses):
        yield {**entry(held, action=held.status, reason=held.reason), "status": held.status}


def _booked_held(held: Held, at: datetime) -> Booked:
    return Booked(
        key=held.key,
        crm_id=held.crm_id,
        action=held.action,
        status=held.status,
        sent=held.fields,
        replaced=held.before,
        error=held.reason,
        batch_id=None,
        pushed_at=at.isoformat(),
    )
