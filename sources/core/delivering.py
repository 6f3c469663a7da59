"""Deliver planned rows: sorted into batches by lane, a few of them on their way at a time, until stopped.

What becomes of one batch is `writing`'s.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter

from sources.core.connector import Lane
from sources.core.errors import AuthError, ConnectorError
from sources.core.lanes import DELETE
from sources.core.rows import Outcome, Row, Verdict
from sources.core.writing import Courier

_VERDICT = attrgetter("verdict")


@dataclass(slots=True)
class Delivery:
    """How a delivery ended: `error` stopped it early, with what was done before in the log."""

    counts: Counter[Verdict] = field(default_factory=Counter)
    error: ConnectorError | None = None
    is_interrupted: bool = False


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
    with _sparing_what_was_there():
        _fly(flight, rows, in_flight)
    flight.read_ids()
    return flight.delivery


@contextmanager
def _sparing_what_was_there() -> Iterator[None]:
    """Keep the garbage collector from going over all older objects again for every few thousand rows."""
    if gc.get_freeze_count():  # somebody else's doing, and theirs to undo
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _fly(flight: "_Flight", rows: Iterable[Row], in_flight: int) -> None:
    courier = flight.courier
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="push")
    try:
        for lane, part in batches(courier, rows):
            if courier.stop.is_set():
                break
            flight.running[_begin(pool, courier, lane, part)] = lane, part
            if len(flight.running) >= in_flight:
                flight.land(wait(flight.running, return_when=FIRST_COMPLETED).done)
    except ConnectorError as error:  # of the look that a row is given before it is sent
        flight.delivery.error = error
    except KeyboardInterrupt:
        flight.delivery.is_interrupted = True
        courier.stop.set()
    finally:
        pool.shutdown(wait=True)
    flight.land(list(flight.running))


def _begin(pool: ThreadPoolExecutor, courier: Courier, lane: Lane, rows: list[Row]) -> Future[list[Outcome]]:
    """Hand rows to a thread, where possible as a request: made where they were just read it costs least."""
    batch = courier.ready(lane, rows)
    if batch is None:
        return pool.submit(courier.dispatch, lane, rows)
    return pool.submit(courier.carry, lane, batch)


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
            self.delivery.counts.update(map(_VERDICT, outcomes))
            created = {each.seq for each in outcomes if not each.crm_id and each.verdict == "created"}
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
            found = [Outcome(each.seq, "created", each.crm_id) for each in outcomes if each.crm_id]
            self.courier.log.outcome("ids", found, at=self.courier.now())


def batches(courier: Courier, rows: Iterable[Row]) -> Iterator[tuple[Lane, list[Row]]]:
    """Sort rows into their lanes and give each full batch, at the end the rest."""
    lanes, lane_of, connection = courier.write.lanes, courier.write.lane, courier.connection
    sizes = {name: courier.size(lane) for name, lane in lanes.items()}
    waiting: dict[str, list[Row]] = {}
    for row in rows:
        name = DELETE if row.action == "delete" else lane_of(row, connection)
        mine = waiting.get(name)
        if mine is None:
            mine = waiting[name] = []
        mine.append(row)
        if len(mine) >= sizes[name] and len(mine) >= courier.room(lanes[name]):
            yield lanes[name], waiting.pop(name)
    for name, mine in waiting.items():
        yield lanes[name], mine
