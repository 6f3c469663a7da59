"""`roundtrip pull`: bring what changed in the CRMs into the next generation of the warehouse.

`windows` decides what to ask for, `fetching` reads, `deltas` and `deletions` find out what is new, changed
or gone, dlt merges (`loading`). This module runs them side by side and publishes rows and watermarks in one
generation, so that neither can run ahead of the other.
"""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from queue import Empty, Queue
from time import monotonic
from typing import TypedDict

import duckdb

from pipelines import privacy
from pipelines.dictionary import write_comments
from pipelines.interrupts import held
from pipelines.progress import Progress
from pipelines.pulling import deletions, deltas, history, loading
from pipelines.pulling.feeds import Feeds, fetch_unlisted
from pipelines.pulling.fetching import Fetcher, Reading, Segment, State, StoppableClock
from pipelines.pulling.results import PullResult
from pipelines.pulling.views import write_views
from pipelines.pulling.windows import choose, decide
from pipelines.pushing import ledger
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, new_run_id, on_disk, record_run, spare_memory
from sources import load
from sources.core.connector import Connection
from sources.core.errors import ConnectorError, InternalError
from sources.core.pacing import SYSTEM_CLOCK, Clock
from sources.core.privacy import Shield
from sources.core.sessions import Session, open_session

__all__ = ["PullResult", "pull"]

_THREADS = 8


def pull(
    project: Project,
    targets: Sequence[str] = (),
    *,
    full: bool = False,
    since: datetime | None = None,
    accept_deletes: bool = False,
    progress: Progress,
    clock: Clock = SYSTEM_CLOCK,
) -> PullResult:
    """Pull `CONNECTION`s or single `CONNECTION.RESOURCE`s; none means the default connections.

    A resource that fails does not stop the others: its error stands in its reading. Raises `ConfigError`
    before anything is asked, and `LockedError` when another run holds the warehouse.
    """
    wanted = _wanted(project, targets)
    warehouse = Warehouse(project.warehouse, project.publish)
    with warehouse.lock("roundtrip pull"), contextlib.ExitStack() as stack:
        run = _PullRun(project, warehouse, accept_deletes=accept_deletes, progress=progress, clock=clock)
        try:
            run.plan(wanted, stack, full=full, since=since)
            return run.carry_out()
        except Exception as error:
            run.note_failure(error if isinstance(error, ConnectorError) else InternalError(error))
            raise


@dataclass(slots=True)
class _Findings:
    """What one commit found out about a reading before anything is published."""

    state: State
    delta: deltas.Delta | None = None
    gone: set[str] = field(default_factory=set)


class _Most(TypedDict):
    """How many deletions pass without a person's word; a share of None means any number."""

    max_share: float | None
    max_number: int


class _PullRun:
    """One pull under the warehouse's lock."""

    def __init__(
        self,
        project: Project,
        warehouse: Warehouse,
        *,
        accept_deletes: bool,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self.project = project
        self.warehouse = warehouse
        self.accept_deletes = accept_deletes
        self.progress = progress
        self.started_at = datetime.now(UTC)
        self.run_id = new_run_id(self.started_at)
        self.folder = warehouse.home / "spool"
        self.lookback = timedelta(seconds=project.lookback_s)
        self.feeds = Feeds(lookback=self.lookback, say=progress.say)
        self.stop = threading.Event()
        self.will_load = threading.Event()
        self.clock = StoppableClock(self.stop, clock)
        self.pending: list[Segment] = []
        self.waiting = 0
        self.result = PullResult(self.run_id)

    def plan(
        self, wanted: dict[str, list[str]], stack: contextlib.ExitStack, *, full: bool, since: datetime | None
    ) -> None:
        """Open the sessions and decide what to ask for; a probe that fails is its resource's error."""
        connections = {name: self.project.connection(name) for name in wanted}
        with self.warehouse.reading() as con:
            changes = privacy.find_changes(con, connections.values())
            states, shields = _known(con, connections)
            contracts = deltas.read_contracts(con)
        if changes:
            privacy.settle(self.warehouse, changes, self.progress)
            with self.warehouse.reading() as con:
                states, shields = _known(con, connections)
        for name, chosen in wanted.items():
            connection = connections[name]
            session = stack.enter_context(open_session(load(connection.crm), connection, clock=self.clock))
            is_other = contracts.get(name, session.contract.name) != session.contract.name
            if is_other:
                self.progress.say(f"{name}: its contract is another now, so everything is read again")
            for resource in choose(session, chosen, self.progress):
                state = states.get((name, resource.name), State())
                state = state.forgotten() if is_other else state
                reading = Reading(session, resource, state, asked_at=self.started_at)
                reading.shield = shields[name][resource.name]
                self.result.readings.append(reading)
                try:
                    decide(reading, full=full, since=since, now=self.started_at, progress=self.progress)
                except ConnectorError as error:
                    reading.error = error

    def carry_out(self) -> PullResult:
        """Read all resources side by side, committing every `checkpoint_s`, and book the run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        active = [reading for reading in self.result.readings if reading.error is None]
        try:
            self._read_all([reading for reading in active if not reading.resource.fan_out])
            self._fan_out([reading for reading in active if reading.resource.fan_out])
            if not self.stop.is_set():
                self._commit(last=True)
        except KeyboardInterrupt:
            self.stop.set()
        if self.stop.is_set():
            self._commit_interrupted()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.result

    def _commit_interrupted(self) -> None:
        """Publish what arrived and conclude nothing from it: what is gone is not asked for any more."""
        self.result.interrupted = True
        for segment in self.pending:
            segment.reading.complete = False
        self._commit(last=True)

    def note_failure(self, error: ConnectorError) -> None:
        """Keep a record of a run that could not publish what it read, where the disk takes it."""
        for reading in self.result.readings:
            reading.error = reading.error or error
        with contextlib.suppress(OSError, ConnectorError):
            self.warehouse.note_run(replace(self._record(last=True), status="failed", error=str(error)))

    def _read_all(self, readings: list[Reading]) -> None:
        queue: Queue[Segment] = Queue()
        self.waiting = len(readings)
        with ThreadPoolExecutor(_THREADS) as pool:
            futures = [pool.submit(self._fetcher(reading, queue).run) for reading in readings]
            try:
                self._collect(queue)
            except BaseException as error:
                self.stop.set()
                self._drain(queue, futures)
                if not isinstance(error, KeyboardInterrupt):
                    raise
        for future in futures:
            future.result()

    def _fan_out(self, readings: list[Reading]) -> None:
        """Read the lists that are asked for once per value of another resource, now that those are known."""
        if not readings or self.stop.is_set():
            return
        with self.warehouse.reading() as con:
            for reading in readings:
                reading.scopes = deltas.find_scopes(con, reading, self.result.readings)
        self._read_all(readings)

    def _fetcher(self, reading: Reading, queue: "Queue[Segment]") -> Fetcher:
        task = self.progress.start(f"{reading.connection} {reading.resource.name}", None)
        return Fetcher(
            reading,
            queue,
            folder=self.folder,
            checkpoint_s=self.project.checkpoint_s,
            stop=self.stop,
            advance=lambda rows, total: self._note_rows(reading, task, rows, total),
        )

    def _note_rows(self, reading: Reading, task: int, rows: int, total: int | None) -> None:
        """Count rows that came; those of a first pass will certainly be loaded."""
        if total is not None and not reading.scopes:  # of one list of many it would tell too little
            self.progress.expect(task, total)
        self.progress.advance(task, rows)
        if rows and reading.state.last_complete_at is None:
            self.will_load.set()

    def _collect(self, queue: "Queue[Segment]") -> None:
        commit_at = monotonic() + self.project.checkpoint_s
        is_prepared = False
        while self.waiting:
            if self.will_load.is_set() and not is_prepared:
                # By the thread that loads: two that import dlt at once see each other's half-made modules.
                loading.prepare()
                is_prepared = True
            with contextlib.suppress(Empty):
                self._take(queue.get(timeout=0.1))
            if self.pending and monotonic() >= commit_at and self.waiting:
                self._commit(last=False)
                commit_at = monotonic() + self.project.checkpoint_s

    def _drain(self, queue: "Queue[Segment]", futures: "Iterable[Future[None]]") -> None:
        for future in futures:
            future.exception()
        with contextlib.suppress(Empty):
            while True:
                self._take(queue.get_nowait())

    def _take(self, segment: Segment) -> None:
        self.waiting -= segment.final
        if not segment.reading.is_given_up:
            self.pending.append(segment)
            segment.reading.seen.extend(segment.files)

    # -- committing ------------------------------------------------------------------------------

    def _commit(self, *, last: bool) -> None:
        """Publish what arrived since the last commit, or only note the run when nothing is new."""
        before = [(reading, reading.tally()) for reading in self.result.readings]
        try:
            with on_disk(self.warehouse.path):
                self._commit_parts(last=last)
        except BaseException:
            for reading, tally in before if self.pending else []:
                reading.reset(tally)  # the same segments will be counted again
            raise

    def _commit_parts(self, *, last: bool) -> None:
        parts: dict[int, list[Segment]] = {}
        for segment in self.pending:
            parts.setdefault(id(segment.reading), []).append(segment)
        before = {key: part[0].reading.tally() for key, part in parts.items()}
        with self.warehouse.reading() as con:
            spare_memory(con, self.warehouse.home)
            found = [(part[0].reading, self._find(con, part)) for part in parts.values()]
            is_news = ledger.has_unsettled(con, {reading.connection for reading, _ in found})
        is_news = is_news or any(
            each.delta or each.gone or deltas.is_news(reading, each.state) for reading, each in found
        )
        with held():
            while is_news and found:
                try:
                    self._publish(found, last=last)
                    break
                except ConnectorError as error:
                    found = self._without_broken(found, error, before)
            if last and not (is_news and found):
                self.warehouse.note_run(replace(self._record(last=True), looked=self.result.looked))
            self.pending = []  # only now: an interrupt before this leaves them to the last commit

    def _without_broken(
        self,
        found: "list[tuple[Reading, _Findings]]",
        error: ConnectorError,
        before: Mapping[int, tuple[int, int, int, int]],
    ) -> "list[tuple[Reading, _Findings]]":
        """Give up the connection whose rows could not be merged; an error of the file itself is raised."""
        broken = [reading for reading, _ in found if reading.connection == error.connection]
        if not broken:
            raise error
        for reading in broken:
            reading.give_up(error, before[id(reading)])
        return [(reading, each) for reading, each in found if not reading.is_given_up]

    def _find(self, con: duckdb.DuckDBPyConnection, part: list[Segment]) -> _Findings:
        reading = part[0].reading
        files = [path for segment in part for path in segment.files]
        gone: set[str] = set()
        if part[-1].final:
            feed = self.feeds.consult(reading, self.result.readings)
            try:
                if feed is not None and (unlisted := fetch_unlisted(con, reading, feed, self.folder)):
                    files.append(unlisted)
                    reading.seen.append(unlisted)
                gone = deletions.find_gone(
                    con,
                    reading,
                    feed,
                    **self._most_deletes(),
                )
            except ConnectorError as error:
                reading.error = error
        delta = deltas.find_delta(
            con,
            reading,
            files,
            self.folder,
            guard=lambda missing: deletions.check_number(con, reading, missing, **self._most_deletes()),
        )
        gone = gone if reading.error is None else set()  # the list itself may show too many as deleted
        reading.deleted += len(gone)
        return _Findings(deltas.next_state(reading, part[-1], lookback=self.lookback), delta, gone)

    def _most_deletes(self) -> "_Most":
        share = None if self.accept_deletes else self.project.max_deletes_share
        return {"max_share": share, "max_number": self.project.max_deletes}

    def _publish(self, found: "list[tuple[Reading, _Findings]]", *, last: bool) -> None:
        sessions = {id(reading.session): reading.session for reading, _ in found}
        size_bytes = sum(each.delta.size_bytes for _, each in found if each.delta)
        with self.warehouse.generation(size_bytes=size_bytes) as con:
            spare_memory(con, self.warehouse.home)
            for session in sessions.values():
                own = [(reading, each.delta) for reading, each in found if reading.session is session]
                self._load(con, session, [(reading, delta) for reading, delta in own if delta])
            for reading, each in found:
                if each.gone:
                    history.mark_deleted(con, reading, each.gone, run_id=self.run_id, now=reading.now())
                deltas.write_state(con, reading, each.state)
            write_views(con)
            history.note_stage_moves(con, {reading.connection: reading.now() for reading, _ in found})
            writes = {each.connection.name: each.contract.writes for each in sessions.values()}
            ledger.settle_echoes(con, writes=writes)
            write_comments(con)
            record_run(con, self._record(last=last))
        for reading, each in found:
            reading.state = each.state

    def _load(
        self, con: duckdb.DuckDBPyConnection, session: Session, found: list[tuple[Reading, deltas.Delta]]
    ) -> None:
        name = session.connection.name
        if deltas.read_contracts(con).get(name, session.contract.name) != session.contract.name:
            deltas.forget_places(con, name)  # of what this run does not read
        con.execute(
            "insert or replace into roundtrip.connections (connection, crm, contract, options, privacy)"
            " values (?, ?, ?, ?, ?)",
            [
                name,
                session.connection.crm,
                session.contract.name,
                json.dumps(dict(session.connection.options)),
                privacy.describe(session.connection),
            ],
        )
        now = session.client.server_time() or datetime.now(UTC)
        for reading, delta in found:
            is_first = reading.state.is_first
            history.note_changes(con, name, delta, is_first=is_first, run_id=self.run_id, now=now)
        if found:
            loading.load(con, name, [delta for _, delta in found], self.warehouse.home / "dlt")

    def _record(self, *, last: bool) -> RunRecord:
        """Describe the run; until the last commit it counts as interrupted, which a kill makes true."""
        return RunRecord(
            run_id=self.run_id,
            command="pull",
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            status=self.result.status if last else "interrupted",
            counts=self.result.payload(),
            error=self.result.error,
        )


def _known(
    con: duckdb.DuckDBPyConnection, connections: Mapping[str, Connection]
) -> tuple[dict[tuple[str, str], State], dict[str, dict[str, Shield]]]:
    """Read how far each resource has been read, and what of each is not to be kept."""
    shields = {
        name: privacy.shields(con, each, load(each.crm).contract(each)) for name, each in connections.items()
    }
    return deltas.read_states(con), shields


def _wanted(project: Project, targets: Sequence[str]) -> dict[str, list[str]]:
    """Group targets by connection; an empty list of resources means all of them."""
    wanted: dict[str, list[str]] = {}
    for target in project.wanted(targets):
        connection, _, resource = target.partition(".")
        crm = load(project.connection(connection).crm)
        if resource:
            crm.contract(project.connection(connection)).resource(resource)
        chosen = wanted.setdefault(connection, [])
        if resource and resource not in chosen:
            chosen.append(resource)
    return wanted
