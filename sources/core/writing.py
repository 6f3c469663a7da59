"""Write batches of planned rows to a CRM: looked at again, halved, recovered, one outcome per row.

A CRM module says how a lane encodes, reads and looks; the loops are here. What is planned, and where
intents and outcomes are kept, is left to the caller, many batches to `delivering`.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Protocol, TypeVar

from sources.core.arriving import Arrived, Recheck
from sources.core.client import Answer
from sources.core.connector import Call, Lane, Write
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
from sources.core.lanes import DELETE, Look
from sources.core.pacing import SYSTEM_CLOCK, Clock
from sources.core.parting import Parting
from sources.core.rows import Outcome, Row, Sight, Verdict
from sources.core.sessions import Session
from sources.core.sights import HIDDEN, THERE, judge, row_without, still_planned, unedited

T = TypeVar("T")
_LOOK_BACK = timedelta(minutes=2)  # clocks differ, and time stamps are cut to whole seconds
_LOOKED_AT_ONCE = 25  # rows of a lane for single ones: where a list shows changes, one request shows all
_MOST_APART = timedelta(seconds=10)  # clocks that differ by less are taken to agree
_SETTLED = timedelta(minutes=5)  # what was made longer ago, a list shows
_OVERTAKEN = 412  # says an API with a compare-and-set of a record that has another version


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
    """Where intents are kept before a request, and outcomes after it; both must be on disk on return.

    Rows that a look keeps from being sent at all are kept by `withheld`.
    """

    def intent(self, batch: Batch) -> None: ...

    def outcome(self, batch_id: str, outcomes: Sequence[Outcome], *, at: datetime) -> None: ...

    def withheld(self, rows: Sequence[Row], outcomes: Sequence[Outcome], *, at: datetime) -> None: ...


class Courier:
    """Send rows of one write through one session and log every step.

    `run_id` and `prefix` make batch ids and idempotency keys unique. `stop` ends the delivery after the
    requests in flight. Without `recheck`, records are changed as they were planned.
    """

    def __init__(  # noqa: PLR0913 (all but what to send, and where, by name)
        self,
        session: Session,
        write: Write,
        log: Log,
        *,
        run_id: str,
        clock: Clock = SYSTEM_CLOCK,
        stop: threading.Event | None = None,
        prefix: str = "b",
        recheck: Recheck | None = None,
    ) -> None:
        self.client = session.client
        self.connection = session.connection
        self.write = write
        self.log = log
        self.run_id = run_id
        self.clock = clock
        self.stop = stop or threading.Event()
        self.prefix = prefix
        self.recheck = recheck
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._arrived = Arrived(recheck.looked_at, recheck.after) if recheck else None

    # -- looking before --------------------------------------------------------------------------

    def room(self, lane: Lane) -> int:
        """Tell how many rows of a lane are taken up at once: a request's, or more to be looked at."""
        size = self.size(lane)
        return max(size, _LOOKED_AT_ONCE) if self._is_due() else size

    def ready(self, lane: Lane, rows: Sequence[Row]) -> Batch | None:
        """Make the request of rows of one lane, None where they have to be looked at or parted before."""
        return None if len(rows) > self.size(lane) or self._is_due() else self.batch(lane, rows)

    def dispatch(self, lane: Lane, rows: Sequence[Row]) -> list[Outcome]:
        """Send rows of one lane, without those that a look just before shows to be no longer as planned."""
        rows, outcomes = self._looked_at(rows)
        size = self.size(lane)
        for start in range(0, len(rows), size):
            if start and self.stop.is_set():
                break
            outcomes += self.send(lane, rows[start : start + size])
        return outcomes

    def reread(self, rows: Sequence[Row], since: datetime) -> list[Sight | None]:
        """Read what the CRM shows of rows now; None where it cannot be asked."""
        sights, _ = self._sights(rows, since)
        return [sights.get(row.seq) for row in rows]

    def _sights(self, rows: Sequence[Row], since: datetime) -> tuple[dict[int, Sight | None], set[int]]:
        """Read what the CRM shows of rows now, and which of them it refuses to show."""
        sights: dict[int, Sight | None] = {}
        refused: set[int] = set()
        for look, part in self._looks(rows):
            try:
                seen = self._since(since, partial(look, self.client, self.connection, part))
            except RefusedError:
                refused.update(row.seq for row in part)
            else:
                sights |= {row.seq: sight for row, sight in zip(part, seen, strict=True)}
        return sights, refused

    def _looks(self, rows: Sequence[Row]) -> Iterator[tuple[Look, Sequence[Row]]]:
        """Give the looks at rows: one for all, else each record's own and one for those without an id."""
        if self.write.reread is not None:
            yield self.write.reread, rows
            return
        nameless: dict[int, tuple[Look, list[Row]]] = {}
        for row in rows:
            look = self.write.lanes[self.write.lane(row, self.connection)].look
            if look is not None and row.crm_id:
                yield look, [row]
            elif look is not None:
                nameless.setdefault(id(look), (look, []))[1].append(row)
        yield from nameless.values()

    def _looked_at(self, rows: Sequence[Row]) -> tuple[Sequence[Row], list[Outcome]]:
        """Part the rows that may be written from those whose record was edited or made meanwhile."""
        if self.recheck is None or not self._is_due():
            return rows, []
        due = [row for row in rows if row.action != "create" and row.crm_id]
        sights, refused = self._sights(due, self.recheck.looked_at) if due else ({}, set())
        judged: dict[int, Row | Outcome] = {
            row.seq: _hidden(row)
            if row.seq in refused
            else still_planned(self.write, row, sights.get(row.seq))
            for row in due
        }
        judged |= self._met(rows)
        seen = [row for row in rows if isinstance(judged.get(row.seq), Outcome)]
        held = [each for each in judged.values() if isinstance(each, Outcome)]
        rests: dict[int, Row] = {}
        if self.recheck.keeps_rest:
            rests = {
                row.seq: rest for row in seen if (rest := unedited(self.write, row, sights.get(row.seq)))
            }
        if held:
            self.log.withheld([row_without(row, rests.get(row.seq)) for row in seen], held, at=self.now())
        kept = [rests.get(row.seq) or judged.get(row.seq, row) for row in rows]
        return [each for each in kept if isinstance(each, Row)], held

    def _met(self, rows: Sequence[Row], *, at_once: bool = False) -> dict[int, Outcome]:
        """Give the new records that somebody else made since the last look, or of which nobody can tell."""
        new = [row for row in rows if row.action == "create"] if self.write.upserts else []
        if not new or self.recheck is None or self._arrived is None:
            return {}
        if self.write.arrivals is None:
            # Long enough ago for a CRM to be sure of what it does not show.
            since = min(self.recheck.looked_at, self.now() - _SETTLED)
            sights, refused = self._sights(new, since)
            return {row.seq: _hidden(row) for row in new if row.seq in refused} | {
                seq: Outcome(seq, "conflict", sight.crm_id, THERE)
                for seq, sight in sights.items()
                if sight is not None and sight.record is not None
            }
        keys = self._arrived.keys(self._arrivals, self.now, at_once=at_once)
        if keys is None:
            return {row.seq: _hidden(row) for row in new}
        key = self.write.arrivals.key
        return {
            row.seq: Outcome(row.seq, "conflict", None, THERE)
            for row in new
            if key(row, self.connection) in keys
        }

    def _arrivals(self, since: datetime) -> Collection[Hashable] | None:
        if self.write.arrivals is None:
            return None
        try:
            return self._since(since, partial(self.write.arrivals.keys, self.client, self.connection))
        except RefusedError:
            return None

    def _is_due(self) -> bool:
        return self.recheck is not None and self.recheck.is_due(self.now())

    def size(self, lane: Lane) -> int:
        """Tell how many rows one request of a lane carries."""
        return min(lane.size, int(self.connection.options.get("batch_size") or lane.size))

    # -- one batch -------------------------------------------------------------------------------

    def send(self, lane: Lane, rows: Sequence[Row], parting: Parting | None = None) -> list[Outcome]:
        """Send rows of one lane, at most its size, until each has an outcome.

        Raises what stops the whole delivery (key refused, quota, CRM out of reach, one refusal of whatever is
        sent), its rows logged. `parting` is what is known of the batch that they are a part of.
        """
        return self.carry(lane, self.batch(lane, rows), parting)

    def carry(self, lane: Lane, batch: Batch, parting: Parting | None = None) -> list[Outcome]:
        """Send a request that is made, and all that follows from its answer, as `send` does."""
        rows, parting = batch.rows, parting or Parting(batch.rows)
        self.log.intent(batch)
        try:
            answer = self.request(batch.call, lane)
        except RefusedError as error:
            return self._refused(lane, batch, error, parting)
        except (ConfigError, RateLimitError):
            self._log(batch, _all(rows, "absent"))
            raise
        except (UncertainError, TransientError, ProtocolError) as error:
            return self._recover(lane, batch, error, parting)
        return self._settle(lane, batch, answer, parting)

    def settle(self, batch: Batch) -> list[Outcome]:
        """Find out what became of a batch that a killed run left open, by a look: people work on meanwhile.

        New records that it does not show are sent again, to the byte and under the same key while the CRM
        remembers the key, else the lane's other way. Changes that took no effect are left to the next plan,
        which knows what the records hold by then. Raises what keeps the CRM from being asked, with nothing
        logged.
        """
        lane, rows = self.write.lanes[batch.lane], batch.rows
        outcomes = self._seen_after(lane, batch)
        if self._is_repeatable(lane, batch, outcomes):
            try:
                answer = self.request(batch.call, lane)
            except RefusedError:
                return self._log(batch, _all(rows, "absent"))
            return self._settle(lane, batch, answer, Parting(rows))
        self._log(batch, outcomes)
        told = list(zip(rows, outcomes, strict=True))
        new = [row for row in rows if row.action == "create"]
        done = [outcome for row, outcome in told if row.action != "create"]
        made = [outcome for row, outcome in told if row.action == "create"]
        return done + self._go_on(lane, new, made, Parting(rows))

    def _seen_after(self, lane: Lane, batch: Batch) -> list[Outcome]:
        """Look at a batch's records, by their ids too: the journal does not keep how their keys are spelt."""
        try:
            if self.write.reread is None or lane.name == DELETE:
                return self.look(lane, batch.rows, batch.sent_at)
            sights = self.reread(batch.rows, batch.sent_at)
            return [judge(self.write, row, sight) for row, sight in zip(batch.rows, sights, strict=True)]
        except RefusedError:  # what the API does not serve tells nothing
            return _all(batch.rows, "unknown", "the answer was lost and the CRM cannot be asked")

    def _is_repeatable(self, lane: Lane, batch: Batch, outcomes: Sequence[Outcome]) -> bool:
        """Tell whether the same bytes can meet no record that somebody else made or edited."""
        is_key_alive = lane.key_header and self.now() - batch.sent_at <= timedelta(seconds=lane.repeat_s)
        return (
            bool(is_key_alive)
            and all(row.action == "create" for row in batch.rows)
            and (
                not self.write.upserts
                or {outcome.verdict for outcome in outcomes} in ({"absent"}, {"absent", "created"})
            )
        )

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

    def _settle(self, lane: Lane, batch: Batch, answer: Answer, parting: Parting) -> list[Outcome]:
        """Read an answer; what it leaves open is looked up, what it left undone goes the lane's other way."""
        outcomes = self._decode(lane, batch, answer)
        open_rows = [
            row
            for row, told in zip(batch.rows, outcomes, strict=True)
            if told.verdict == "unknown" and told.crm_id is None  # else the answer names another record
        ]
        if open_rows:
            looked = {each.seq: each for each in self._look_safely(lane, batch, open_rows, is_over=True)}
            outcomes = [_doubted(lane, looked.get(outcome.seq, outcome)) for outcome in outcomes]
        self._log(batch, outcomes)
        parting.settled(outcomes)
        undone = [each for each in outcomes if each.verdict == "absent"] if lane.fallback is None else []
        if undone:
            raise RateLimitError(
                f"the CRM left {len(undone)} of {len(outcomes)} rows undone: {undone[0].reason or ''}",
                connection=self.connection.name,
                resource=self.write.object,
                hint="They come again with the next push.",
            )
        return self._go_on(lane, batch.rows, outcomes, parting)

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

    def _recover(self, lane: Lane, batch: Batch, error: ConnectorError, parting: Parting) -> list[Outcome]:
        """Find out what became of a batch whose answer was lost; stop where rows stay open or undone."""
        outcomes = self._log(batch, self._look_safely(lane, batch, batch.rows))
        verdicts = {outcome.verdict for outcome in outcomes}
        if "unknown" in verdicts or ("absent" in verdicts and lane.fallback is None):
            raise error
        parting.settled(outcomes)
        return self._go_on(lane, batch.rows, outcomes, parting)

    def _go_on(
        self, lane: Lane, rows: Sequence[Row], outcomes: list[Outcome], parting: Parting
    ) -> list[Outcome]:
        absent = _those(rows, outcomes, "absent")
        if not absent or lane.fallback is None:
            return outcomes
        other = self.write.lanes[lane.fallback]
        done = [outcome for outcome in outcomes if outcome.verdict != "absent"]
        met = self._met(absent, at_once=True)
        if met:
            self.log.withheld([row for row in absent if row.seq in met], [*met.values()], at=self.now())
            done += met.values()
            absent = [row for row in absent if row.seq not in met]
        for start in range(0, len(absent), other.size):
            done += self._send_part(other, absent[start : start + other.size], parting)
        return done

    def _refused(self, lane: Lane, batch: Batch, error: RefusedError, parting: Parting) -> list[Outcome]:
        """Part the bad rows of a refused batch from the good ones, by name or by halving."""
        rows = batch.rows
        if lane.gone is not None and isinstance(error, GoneError):
            return self._log(batch, _all(rows, lane.gone))
        named = {} if error.answer is None else lane.blame(rows, error.answer.body)
        if len(rows) == 1:
            return self._refused_alone(lane, batch, error, named.get(0) or error.what, parting)
        bad = [Outcome(rows[index].seq, "rejected", reason=reason) for index, reason in named.items()]
        good = [row for index, row in enumerate(rows) if index not in named]
        if not good:
            return self._log(batch, bad)
        self._log(batch, [*bad, *_all(good, "absent")])
        if isinstance(error, GoneError):  # the endpoint itself is not there
            raise error
        if bad:
            parting.named(bad)
            return bad + self._send_part(lane, good, parting)
        middle = len(rows) // 2
        halves = rows[:middle], rows[middle:]
        return [outcome for half in halves for outcome in self._send_part(lane, half, parting)]

    def _refused_alone(
        self, lane: Lane, batch: Batch, error: RefusedError, reason: str, parting: Parting
    ) -> list[Outcome]:
        """Reject a row, or leave it to its newer record where an API says that this is why."""
        (row,) = batch.rows
        if error.status != _OVERTAKEN or row.action != "update":
            outcomes = self._log(batch, _all(batch.rows, "rejected", reason))
            parting.settled(outcomes)
            return outcomes
        judged = still_planned(self.write, row, *self.reread(batch.rows, batch.sent_at))
        if isinstance(judged, Row) and judged.known != row.known and row.seq not in parting.overtaken:
            parting.overtaken.add(row.seq)
            self._log(batch, _all(batch.rows, "absent"))
            return self.send(lane, [judged], parting)
        reason = (judged.reason if isinstance(judged, Outcome) else None) or reason
        return self._log(batch, [Outcome(row.seq, "conflict", row.crm_id, reason)])

    def _send_part(self, lane: Lane, rows: Sequence[Row], parting: Parting) -> list[Outcome]:
        """Send a part of a refused batch, unless rows from all over it are refused for one reason alone."""
        outcomes: list[Outcome] = []
        for row in parting.samples():
            outcomes += self.send(lane, [row], parting)
        untried = [row for row in rows if row.seq not in parting.tried]
        if untried and parting.is_hopeless():
            raise RefusedError(
                f"whatever is sent is refused for the same reason: {parting.reason}",
                connection=self.connection.name,
                resource=self.write.object,
                hint="The rows that were not tried come again with the next push.",
            )
        return outcomes + (self.send(lane, untried, parting) if untried else [])

    def look(
        self, lane: Lane, rows: Sequence[Row], since: datetime, *, is_over: bool = False
    ) -> list[Outcome]:
        """Look at what the CRM shows for rows whose outcome is not known; `unknown` where it cannot tell.

        Of rows without a key, one that shows proves that the others took no effect once the batch `is_over`:
        until the CRM has answered, it may still be at work on them.
        """
        if lane.look is None:
            return _all(rows, "unknown", "the answer was lost")
        sights = self._since(since, partial(lane.look, self.client, self.connection, rows))
        if is_over and lane.fallback and self.write.key_form == "none" and any(sights):
            sights = [sight or Sight() for sight in sights]
        return [judge(self.write, row, sight) for row, sight in zip(rows, sights, strict=True)]

    def _look_safely(
        self, lane: Lane, batch: Batch, rows: Sequence[Row], *, is_over: bool = False
    ) -> list[Outcome]:
        """Look, and leave the rows open when even that goes wrong; a refused key stops, with them logged."""
        try:
            return self.look(lane, rows, batch.sent_at, is_over=is_over)
        except AuthError:
            self._log(batch, _all(batch.rows, "unknown", "the answer was lost"))
            raise
        except ConnectorError:
            return _all(rows, "unknown", "the answer was lost and the CRM could not be asked")

    def _since(self, moment: datetime, ask: Callable[[datetime], T]) -> T:
        """Ask for what was since a moment; again where a session's first answer tells of another time."""
        is_first = self.client.server_time() is None
        asked = self.crm_time(moment)
        answer = ask(asked - _LOOK_BACK)
        if is_first and abs(self.crm_time(moment) - asked) > _MOST_APART:
            return ask(self.crm_time(moment) - _LOOK_BACK)
        return answer

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


def _hidden(row: Row) -> Outcome:
    return Outcome(row.seq, "conflict", row.crm_id, HIDDEN)


def _doubted(lane: Lane, outcome: Outcome) -> Outcome:
    """Leave a row open that the CRM took and does not show, where no other lane tells why: lists may lag."""
    if outcome.verdict != "absent" or lane.fallback is not None:
        return outcome
    reason = "the CRM took the request and does not show the record"
    return Outcome(outcome.seq, "unknown", outcome.crm_id, reason)


def _those(rows: Sequence[Row], outcomes: Sequence[Outcome], verdict: Verdict) -> list[Row]:
    return [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.verdict == verdict]


def _all(rows: Sequence[Row], verdict: Verdict, reason: str | None = None) -> list[Outcome]:
    return [Outcome(row.seq, verdict, reason=reason) for row in rows]
