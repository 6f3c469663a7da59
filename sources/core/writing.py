"""Deliver planned rows to a CRM: batches, a few requests in flight, halving, recovery, one outcome per row.

A CRM module says how a lane encodes, reads and looks; the loops are here. What is planned, and where
intents and outcomes are kept, is left to the caller.
"""

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

from sources.core.bodies import is_echo, value_at
from sources.core.client import Answer
from sources.core.connector import Call, Lane, Outcome, Row, Sight, Verdict, Write
from sources.core.errors import (
    AuthError,
    ConfigError,
    ConnectorError,
    GoneError,
    ProtocolError,
    RateLimitError,
    RefusedError,
    TransientError,
    UncertainError,
)
from sources.core.lanes import DELETE
from sources.core.pacing import SYSTEM_CLOCK, Clock
from sources.core.sessions import Session

_LOOK_BACK = timedelta(minutes=2)  # clocks differ, and time stamps are cut to whole seconds


@dataclass(frozen=True, slots=True)
class Batch:
    """One write request and the rows it carries; `id` tells it apart within its run."""

    id: str
    lane: str
    rows: tuple[Row, ...]
    call: Call
    idempotency_key: str
    sent_at: datetime


class Log(Protocol):
    """Where intents are kept before a request, and outcomes after it; both must be on disk on return."""

    def intent(self, batch: Batch) -> None: ...

    def outcome(self, batch_id: str, outcomes: Sequence[Outcome], *, at: datetime) -> None: ...


@dataclass(slots=True)
class Delivery:
    """How a delivery ended: `error` stopped it early, with what was done before in the log."""

    counts: dict[Verdict, int] = field(default_factory=dict)
    error: ConnectorError | None = None
    is_interrupted: bool = False


class Courier:
    """Send rows of one write through one session and log every step.

    `run_id` and `prefix` make batch ids and idempotency keys unique. `stop` ends the delivery after the
    requests in flight.
    """

    def __init__(
        self,
        session: Session,
        write: Write,
        log: Log,
        *,
        run_id: str,
        clock: Clock = SYSTEM_CLOCK,
        stop: threading.Event | None = None,
        prefix: str = "b",
    ) -> None:
        self.client = session.client
        self.connection = session.connection
        self.write = write
        self.log = log
        self.run_id = run_id
        self.clock = clock
        self.stop = stop or threading.Event()
        self.prefix = prefix
        self._numbers = count(1)
        self._lock = threading.Lock()

    # -- one batch -------------------------------------------------------------------------------

    def send(self, lane: Lane, rows: Sequence[Row]) -> list[Outcome]:
        """Send rows of one lane, at most its size, until each has an outcome.

        Raises what stops the whole delivery (key refused, quota, CRM out of reach), its rows logged.
        """
        batch = self.batch(lane, rows)
        self.log.intent(batch)
        try:
            answer = self.request(batch.call, lane)
        except RefusedError as error:
            return self._refused(lane, batch, error)
        except (ConfigError, RateLimitError):
            self._log(batch, _all(rows, "absent"))
            raise
        except (UncertainError, TransientError, ProtocolError) as error:
            return self._recover(lane, batch, error)
        return self._settle(lane, batch, answer)

    def settle(self, batch: Batch) -> list[Outcome]:
        """Find out what became of a batch that a killed run left open.

        Repeats it, to the byte and under the same key, while the CRM remembers the key; looks otherwise.
        Rows that took no effect go the lane's other way, or are left to the next plan. Raises what keeps
        the CRM from being asked, with nothing logged.
        """
        lane = self.write.lanes[batch.lane]
        if not lane.key_header or self.now() - batch.sent_at > timedelta(seconds=lane.repeat_s):
            outcomes = self._log(batch, self.look(lane, batch.rows, batch.sent_at))
            return self._go_on(lane, batch.rows, outcomes)
        try:
            answer = self.request(batch.call, lane)
        except RefusedError:
            return self._log(batch, _all(batch.rows, "absent"))
        return self._settle(lane, batch, answer)

    def request(self, call: Call, lane: Lane) -> Answer:
        """Send one call's bytes; the client repeats them only where the lane allows it."""
        return self.client.send(
            call.method,
            call.path,
            params=call.params,
            body=call.body,
            headers=call.headers,
            repeatable=lane.repeat_s > 0,
            resource=self.write.object,
        )

    def batch(self, lane: Lane, rows: Sequence[Row]) -> Batch:
        """Make the request that carries rows, its key bound to its body."""
        with self._lock:
            batch_id = f"{self.prefix}{next(self._numbers)}"
        call = lane.encode(rows, self.connection)
        key = f"{self.run_id}:{batch_id}:{hashlib.sha256(call.body).hexdigest()}"
        if lane.key_header:
            call = replace(call, headers={**call.headers, lane.key_header: key})
        return Batch(batch_id, lane.name, tuple(rows), call, key, self.now())

    def _settle(self, lane: Lane, batch: Batch, answer: Answer) -> list[Outcome]:
        """Read an answer; what it leaves open is looked up, what it left undone goes the lane's other way."""
        outcomes = self._decode(lane, batch, answer)
        open_rows = [row for row, each in zip(batch.rows, outcomes, strict=True) if each.verdict == "unknown"]
        if open_rows:
            looked = {each.seq: each for each in self._look_safely(lane, batch, open_rows)}
            outcomes = [_doubted(lane, looked.get(outcome.seq, outcome)) for outcome in outcomes]
        self._log(batch, outcomes)
        return self._go_on(lane, batch.rows, outcomes)

    def _decode(self, lane: Lane, batch: Batch, answer: Answer) -> list[Outcome]:
        """Read an answer; one that cannot be read is asked for once more where that has no second effect."""
        try:
            return lane.decode(batch.rows, answer)
        except ProtocolError:
            if lane.repeat_s == 0:
                return _all(batch.rows, "unknown", "the answer could not be read")
        try:
            return lane.decode(batch.rows, self.request(batch.call, lane))
        except ConnectorError:
            return _all(batch.rows, "unknown", "the answer could not be read")

    def _recover(self, lane: Lane, batch: Batch, error: ConnectorError) -> list[Outcome]:
        """Find out what became of a batch whose answer was lost; stop where rows stay open or undone."""
        outcomes = self._log(batch, self._look_safely(lane, batch, batch.rows))
        verdicts = {outcome.verdict for outcome in outcomes}
        if "unknown" in verdicts or ("absent" in verdicts and lane.fallback is None):
            raise error
        return self._go_on(lane, batch.rows, outcomes)

    def _go_on(self, lane: Lane, rows: Sequence[Row], outcomes: list[Outcome]) -> list[Outcome]:
        absent = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.verdict == "absent"]
        if not absent or lane.fallback is None:
            return outcomes
        other = self.write.lanes[lane.fallback]
        done = [outcome for outcome in outcomes if outcome.verdict != "absent"]
        for start in range(0, len(absent), other.size):
            done += self.send(other, absent[start : start + other.size])
        return done

    def _refused(self, lane: Lane, batch: Batch, error: RefusedError) -> list[Outcome]:
        """Part the bad rows of a refused batch from the good ones, by name or by halving."""
        rows = batch.rows
        if lane.gone is not None and isinstance(error, GoneError):
            return self._log(batch, _all(rows, lane.gone))
        named = {} if error.answer is None else lane.blame(rows, error.answer.body)
        if len(rows) == 1:
            return self._log(batch, _all(rows, "rejected", named.get(0) or error.what))
        bad = [Outcome(rows[index].seq, "rejected", reason=reason) for index, reason in named.items()]
        good = [row for index, row in enumerate(rows) if index not in named]
        if not good:
            return self._log(batch, bad)
        self._log(batch, [*bad, *_all(good, "absent")])
        if isinstance(error, GoneError):  # the endpoint itself is not there
            raise error
        if bad:
            return bad + self.send(lane, good)
        middle = len(rows) // 2
        return self.send(lane, rows[:middle]) + self.send(lane, rows[middle:])

    def look(self, lane: Lane, rows: Sequence[Row], since: datetime) -> list[Outcome]:
        """Look at what the CRM shows for rows whose outcome is not known; `unknown` where it cannot tell."""
        if lane.look is None:
            return _all(rows, "unknown", "the answer was lost")
        sights = lane.look(self.client, self.connection, rows, self.crm_time(since) - _LOOK_BACK)
        return [judge(self.write, row, sight) for row, sight in zip(rows, sights, strict=True)]

    def _look_safely(self, lane: Lane, batch: Batch, rows: Sequence[Row]) -> list[Outcome]:
        """Look, and leave the rows open when even that goes wrong; a refused key stops, with them logged."""
        try:
            return self.look(lane, rows, batch.sent_at)
        except AuthError:
            self._log(batch, _all(batch.rows, "unknown", "the answer was lost"))
            raise
        except ConnectorError:
            return _all(rows, "unknown", "the answer was lost and the CRM could not be asked")

    def crm_time(self, moment: datetime) -> datetime:
        """Turn a time of this machine's clock into one of the CRM's."""
        theirs = self.client.server_time()
        return moment if theirs is None else moment + (theirs - self.now())

    def _log(self, batch: Batch, outcomes: list[Outcome]) -> list[Outcome]:
        self.log.outcome(batch.id, outcomes, at=self.now())
        return outcomes

    def now(self) -> datetime:
        """Give this machine's time."""
        return datetime.fromtimestamp(self.clock.time(), UTC)


def deliver(
    courier: Courier,
    rows: Iterable[Row],
    *,
    in_flight: int = 4,
    advance: Callable[[int], None] = lambda rows: None,
) -> Delivery:
    """Send rows in their order, batched by lane, with a few requests in flight.

    Ctrl-C lets the requests in flight finish. What stopped the delivery is told, not raised. `advance` is
    called with the number of rows that got an outcome.
    """
    flight = _Flight(courier, advance)
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="push")
    try:
        for lane, part in batches(courier, rows):
            if courier.stop.is_set():
                break
            flight.running[pool.submit(courier.send, lane, part)] = lane, part
            if len(flight.running) >= in_flight:
                flight.land(wait(flight.running, return_when=FIRST_COMPLETED).done)
    except KeyboardInterrupt:
        flight.delivery.is_interrupted = True
        courier.stop.set()
    finally:
        pool.shutdown(wait=True)
    flight.land(list(flight.running))
    flight.read_ids()
    return flight.delivery


class _Flight:
    """The requests in flight of one delivery, and what came back."""

    def __init__(self, courier: Courier, advance: Callable[[int], None]) -> None:
        self.courier = courier
        self.advance = advance
        self.delivery = Delivery()
        self.running: dict[Future[list[Outcome]], tuple[Lane, list[Row]]] = {}
        self.started_at = courier.now()
        self._nameless: dict[str, list[Row]] = {}

    def land(self, futures: Iterable[Future[list[Outcome]]]) -> None:
        """Count what finished; the first error stops the delivery, a refused key outranks others."""
        for future in futures:
            lane, rows = self.running.pop(future)
            try:
                outcomes = future.result()
            except ConnectorError as error:
                if self.delivery.error is None or isinstance(error, AuthError):
                    self.delivery.error = error
                self.courier.stop.set()
                continue
            for outcome in outcomes:
                self.delivery.counts[outcome.verdict] = self.delivery.counts.get(outcome.verdict, 0) + 1
            created = {
                outcome.seq for outcome in outcomes if outcome.verdict == "created" and not outcome.crm_id
            }
            if created and lane.look:
                self._nameless.setdefault(lane.name, []).extend(row for row in rows if row.seq in created)
            self.advance(len(outcomes))

    def read_ids(self) -> None:
        """Ask once for the ids of created records that no answer told; without them the next pull tells."""
        if self.delivery.error or self.delivery.is_interrupted:
            return
        for name, rows in self._nameless.items():
            try:
                outcomes = self.courier.look(self.courier.write.lanes[name], rows, self.started_at)
            except ConnectorError:
                return  # the next pull tells the ids
            found = [replace(each, verdict="created", reason=None) for each in outcomes if each.crm_id]
            self.courier.log.outcome("ids", found, at=self.courier.now())


def batches(courier: Courier, rows: Iterable[Row]) -> Iterator[tuple[Lane, list[Row]]]:
    """Sort rows into their lanes and give each full batch, at the end the rest."""
    waiting: dict[str, list[Row]] = {}
    most = int(courier.connection.options.get("batch_size") or sys.maxsize)
    for row in rows:
        name = DELETE if row.action == "delete" else courier.write.lane(row, courier.connection)
        lane, mine = courier.write.lanes[name], waiting.setdefault(name, [])
        mine.append(row)
        if len(mine) >= min(lane.size, most):
            yield lane, waiting.pop(name)
    for name, mine in waiting.items():
        yield courier.write.lanes[name], mine


def judge(write: Write, row: Row, sight: Sight | None) -> Outcome:
    """Tell from a look at the CRM whether a row was applied: by values, exact ones first."""
    if sight is None:
        return Outcome(row.seq, "unknown", reason="the answer was lost and the CRM cannot be asked")
    if row.action == "delete":
        return Outcome(row.seq, "deleted" if sight.record is None else "absent", row.crm_id)
    if sight.record is None:
        return Outcome(row.seq, "absent")
    names = [name for name in row.fields if _is_readable(write, name)]
    shown = {name: value_at(sight.record, name) for name in names}
    landed: Verdict = "created" if row.action == "create" else "updated"
    if names and all(shown[name] == row.fields[name] for name in names):
        return Outcome(row.seq, landed, sight.crm_id)
    if names and row.action == "update" and all(shown[name] == row.before.get(name) for name in names):
        return Outcome(row.seq, "absent", sight.crm_id)
    if names and all(is_echo(row.fields[name], shown[name]) for name in names):
        return Outcome(row.seq, landed, sight.crm_id)
    return Outcome(row.seq, "unknown", sight.crm_id, reason="the CRM shows other values than were sent")


def _is_readable(write: Write, name: str) -> bool:
    writable = write.fields.get(name)
    return writable is None or writable.readable


def _doubted(lane: Lane, outcome: Outcome) -> Outcome:
    """Leave a row open that the CRM took and does not show, where no other lane tells why: lists may lag."""
    if outcome.verdict != "absent" or lane.fallback is not None:
        return outcome
    return replace(outcome, verdict="unknown", reason="the CRM took the request and does not show the record")


def _all(rows: Sequence[Row], verdict: Verdict, reason: str | None = None) -> list[Outcome]:
    return [Outcome(row.seq, verdict, reason=reason) for row in rows]
