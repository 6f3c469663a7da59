"""Carry a plan out under the warehouse's lock: send its rows with the journal on, then book them.

What is sent is the plan's decision, how it travels `sources.core.writing`'s. Settling what an earlier push
left open, guarding and asking come before, and are left to the commands.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.pushing.guards import last_look
from pipelines.pushing.results import (
    LOGGED,
    Entries,
    PushResult,
    booked_held,
    close,
    held_back,
    recount,
    unsent,
)
from pipelines.pushing.settling import journal_folder, publish
from pipelines.pushing.verifying import verify
from pipelines.warehouse import RunRecord, Warehouse, new_run_id
from sources import load
from sources.core import journal as journals
from sources.core.arriving import Recheck
from sources.core.delivering import Delivery, deliver
from sources.core.errors import GoneError
from sources.core.journal import Booked, Header, Journal, Story, booked_unsent
from sources.core.rows import Row
from sources.core.sessions import Session, open_session
from sources.core.writing import Courier


@dataclass(frozen=True, slots=True)
class Sending:
    """How a plan is carried out; `command` names the run, `push SYNC` where it is empty.

    With `verify`, every written record is read back afterwards. With `keeps_rest`, of a record that somebody
    edited since the last look all other fields are written.
    """

    in_flight: int = 4
    command: str = ""
    verify: bool = False
    keeps_rest: bool = False


def carry_out(made: Plan, warehouse: Warehouse, progress: Progress, how: Sending | None = None) -> PushResult:
    """Send a plan's rows and book them with those held back; without news only the run is noted.

    The caller holds the warehouse's lock, and has settled what earlier pushes left open.
    """
    return _Run(made, warehouse, progress, how or Sending()).carry_out()


class _Run:
    """One run that sends a plan's rows."""

    def __init__(self, made: Plan, warehouse: Warehouse, progress: Progress, how: Sending) -> None:
        self.made = made
        self.warehouse = warehouse
        self.progress = progress
        self.how = how
        self.started_at = datetime.now(UTC)
        self.run_id = new_run_id(self.started_at)
        self.command = how.command or f"push {made.sync.name}"

    def carry_out(self) -> PushResult:
        made = self.made
        has_work = made.changes or made.held.get("adopt") or _has_news(made)
        result = unsent(made, is_listed=not has_work)
        result.run_id = self.run_id
        if not has_work:
            close(result, Delivery())
            self.warehouse.note_run(self._record(result))
            return result
        with open_session(load(made.connection.crm), made.connection) as session:
            check = _inspect(session, made)
            journal = self._begin()
            try:
                courier = self._courier(session, journal)
                delivery = self._send(courier, journal, check)
                story = journals.read(journal.path) or Story(self._header())
                if self.how.verify and not delivery.is_interrupted:
                    self._verify(courier, story, journal, delivery)
            finally:
                journal.close()
        result.rows = Entries(story.booked, [*held_back(made, "unknown")])
        recount(result, story, made)
        close(result, delivery)
        publish(self.warehouse, story, self._record(result), journal.path)
        return result

    def _begin(self) -> Journal:
        journal = Journal.begin(journal_folder(self.warehouse), self._header())
        journal.held(booked_held(held, self.started_at) for held in self.made.held_back(*LOGGED))
        journal.adopted(booked_held(held, self.started_at) for held in self.made.held_back("adopt"))
        return journal

    def _courier(self, session: Session, journal: Journal) -> Courier:
        write = session.contract.writes[self.made.write.object]
        recheck = _recheck(self.made, self.warehouse, keeps_rest=self.how.keeps_rest)
        return Courier(session, write, journal, run_id=self.run_id, recheck=recheck)

    def _send(
        self, courier: Courier, journal: Journal, check: Callable[[Row], str | None] | None
    ) -> Delivery:
        made = self.made
        task = self.progress.start(self.command, made.changes)
        rows = made.outbox() if check is None else _checked(made.outbox(), check, journal, self.started_at)
        delivery = deliver(
            courier,
            rows,
            in_flight=self.how.in_flight,
            advance=lambda rows: self.progress.advance(task, rows),
        )
        self.progress.done(task)
        return delivery

    def _verify(self, courier: Courier, story: Story, journal: Journal, delivery: Delivery) -> None:
        self.progress.say(f"{self.command}: reading back what was written")
        error = verify(courier, story, journal, in_flight=self.how.in_flight)
        delivery.error = delivery.error or error

    def _header(self) -> Header:
        made = self.made
        return Header(
            run_id=self.run_id,
            sync=made.sync.name,
            connection=made.connection.name,
            object=made.write.object,
            seal=made.seal,
            started_at=self.started_at,
            command=self.command,
        )

    def _record(self, result: PushResult) -> RunRecord:
        return RunRecord(
            run_id=self.run_id,
            command=self.command,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            status=result.status,
            counts=result.counts,
            error=result.error,
        )


def _recheck(made: Plan, warehouse: Warehouse, *, keeps_rest: bool) -> Recheck | None:
    """Tell from when on records are looked at again; never where the model wins over any edit."""
    if not made.has_mirror or not made.write.resource:
        return None
    after = timedelta.max if made.sync.conflicts == "model_wins" else made.sync.recheck_after
    looked_at, _ = last_look(made.con, warehouse, made.connection, made.write)
    return Recheck(looked_at, after, keeps_rest) if looked_at else None


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
    try:
        for row in rows:
            reason = check(row)
            if reason is None:
                yield row
            else:
                refused.append(booked_unsent(row, "rejected", reason, at))
    finally:  # also when the CRM could not be asked about the next row
        journal.held(refused)


def _has_news(made: Plan) -> bool:
    """Tell whether rows are held back that the log does not show as held back yet."""
    found = made.con.execute(
        """
        select key, status, reason from plan_rows where list_contains($logged, status)
        except select key, status, error from roundtrip.push_log where sync = $sync
        limit 1
        """,
        {"logged": list(LOGGED), "sync": made.sync.name},
    ).fetchone()
    return found is not None
