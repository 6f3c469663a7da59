"""Read resources from their CRMs into typed segments: the network half of a pull.

Each resource is read on a thread of its own and handed over in segments; what to do with them is `pull`'s.
Whatever goes wrong ends a resource, not the run: what arrived is handed over with the error.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue

from pipelines.pulling.spooling import Spooling
from sources.core.connector import Resource, Scope
from sources.core.errors import ConnectorError, InternalError, ProtocolError, UnavailableError
from sources.core.pacing import SYSTEM_CLOCK, Clock
from sources.core.passes import Pass
from sources.core.privacy import Shield
from sources.core.sessions import Session
from sources.core.spool import SpoolError, Typed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """How far one resource has been read, as `roundtrip.resource_state` holds it."""

    strategy: str | None = None
    watermark: datetime | None = None
    feed_watermark: datetime | None = None
    page_token: str | None = None
    pass_started_at: datetime | None = None
    pass_since: datetime | None = None
    last_complete_at: datetime | None = None
    last_full_at: datetime | None = None
    history_from: datetime | None = None  # when it had been read whole for the first time
    fanned_at: datetime | None = None  # scopes that landed until then have been asked for
    fanned_by: list[str] | None = None  # the resources whose records these are

    @property
    def is_first(self) -> bool:
        """Tell whether it has never been read whole, by any contract."""
        return self.history_from is None and self.last_complete_at is None

    def forgotten(self) -> "State":
        """Give the state of one that is to be read as if for the first time; its history goes on."""
        return State(history_from=self.history_from or self.last_complete_at)


@dataclass(slots=True)
class Reading:
    """One resource's part in a pull: what is asked for, and what has become of it so far."""

    session: Session
    resource: Resource
    state: State
    asked_at: datetime  # when the run began, by our own clock
    strategy: str = "full"  # or "since": what the resource is read by from now on
    since: datetime | None = None  # where the window of this pass begins; None means everything
    backfill: bool = False  # a window the operator asked for: it moves no watermark
    token: str | None = None
    feed_watermark: datetime | None = None
    started: datetime | None = None
    ended: bool = False  # the pass was read to its end, proven or not
    complete: bool = False
    resumed: bool = False
    pages: int = 0
    repairs: int = 0
    rows: int = 0
    newest: datetime | None = None
    counts: dict[str, int] = field(default_factory=dict)
    seen: list[Path] = field(default_factory=list)  # typed files of this pass, for deletions by absence
    scopes: list[Scope] = field(default_factory=list)  # what a resource with a fan-out is asked for
    refused: int = 0  # scopes that the CRM did not know: what they hold was not seen
    absent: bool = False  # the vendor does not document the list, and it is not there
    unlisted: int = 0  # records that only the feed knows, too many to be asked for one by one
    has_gap: bool = False  # the feed does not reach back to where it was last followed
    is_rebuild: bool = False  # `--full`: compare values, not hashes, so that damaged rows are mended
    shield: Shield = field(default_factory=Shield)  # what of each row is not kept, or only as a digest
    error: ConnectorError | None = None
    is_given_up: bool = False  # rows of it could not be published, so nothing that was read after them may be
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0

    @property
    def connection(self) -> str:
        """Give the connection's name."""
        return self.session.connection.name

    @property
    def has_feed(self) -> bool:
        """Tell whether the CRM has a change feed that covers this resource."""
        feed = self.session.contract.feed
        return feed is not None and self.resource.name in feed.entities

    @property
    def is_full(self) -> bool:
        """Tell whether this pass, once complete, has seen every record."""
        return self.since is None and not self.resumed and not self.backfill

    def tally(self) -> tuple[int, int, int, int]:
        """Give what was counted against the warehouse so far."""
        return self.new, self.changed, self.unchanged, self.deleted

    def reset(self, tally: tuple[int, int, int, int]) -> None:
        """Go back to an earlier tally."""
        self.new, self.changed, self.unchanged, self.deleted = tally

    def give_up(self, error: ConnectorError, tally: tuple[int, int, int, int]) -> None:
        """Leave what was read unpublished, and go back to an earlier tally."""
        self.error, self.is_given_up = error, True
        self.reset(tally)

    def now(self) -> datetime:
        """Give the time by the CRM's clock where it has told, else by ours."""
        return self.session.client.server_time() or datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a pass, typed and on disk; `final` ends the reading. `token` is where to go on after it."""

    reading: Reading
    files: tuple[Path, ...]
    token: str | None
    final: bool


class StoppableClock:
    """A clock on which a wait ends with an error as soon as the run is told to stop."""

    def __init__(self, stop: threading.Event, clock: Clock = SYSTEM_CLOCK) -> None:
        self._stop = stop
        self._clock = clock

    def time(self) -> float:
        """Give unix seconds."""
        return self._clock.time()

    def monotonic(self) -> float:
        """Give seconds that never run backwards."""
        return self._clock.monotonic()

    def sleep(self, seconds: float, /) -> None:
        """Wait, or raise `UnavailableError` when the run stops."""
        if self._clock is not SYSTEM_CLOCK:
            self._clock.sleep(seconds)
        if self._stop.wait(seconds if self._clock is SYSTEM_CLOCK else 0):
            raise UnavailableError("the run was stopped while it waited")


class Fetcher:
    """Read one resource and put its segments into a queue; a segment is cut every `checkpoint_s`."""

    def __init__(
        self,
        reading: Reading,
        out: "Queue[Segment]",
        *,
        folder: Path,
        checkpoint_s: float,
        stop: threading.Event,
        advance: Callable[[int, int | None], None],
    ) -> None:
        self._reading = reading
        self._out = out
        self._spooling = Spooling(
            folder / reading.connection / reading.resource.name,
            reading.resource,
            now=reading.now,
            shield=reading.shield,
        )
        self._checkpoint_s = checkpoint_s
        self._stop = stop
        self._advance = advance
        self._token = reading.token

    def run(self) -> None:
        """Read to the end, to the first error, or until told to stop; always ends with a final segment.

        A segment's token stands behind rows that were handed over, never behind ones that got lost here.
        """
        reading = self._reading
        steps = Pass(
            reading.session, reading.resource, since=reading.since, token=reading.token, scopes=reading.scopes
        )
        files: tuple[Path, ...] = ()
        try:
            self._read(steps)
            files = self._finish()
            self._token = steps.token
            reading.complete = steps.complete
        except SpoolError as error:
            error.connection, error.resource = reading.connection, reading.resource.name
            reading.error = error
        except Exception as error:  # noqa: BLE001  (a fault of ours in one list must not cost the others)
            place = {"connection": reading.connection, "resource": reading.resource.name}
            _log.debug("%(connection)s %(resource)s", place, exc_info=error)
            reading.error = InternalError(error, **place)
        finally:
            self._spooling.close()
            reading.repairs, reading.resumed = steps.repairs, steps.resumed
            self._note_refused(steps.refused)
            self._out.put(Segment(reading, files, self._token, final=True))

    def _read(self, steps: Pass) -> None:
        """Spool pages, handing over a segment whenever one is due."""
        reading = self._reading
        self._spooling.open()
        began = time.monotonic()
        cut_at = began + self._checkpoint_s
        try:
            for page in steps:
                self._note_start(began)
                reading.pages = steps.pages
                self._spooling.append(page.rows)
                self._advance(len(page.rows), page.total)
                if self._stop.is_set():
                    return
                if time.monotonic() >= cut_at and self._spooling.has_rows:
                    self._cut(steps)
                    cut_at = time.monotonic() + self._checkpoint_s
        except SpoolError:
            raise
        except ConnectorError as error:
            self._judge(error, steps)
            return
        self._note_start(began)
        reading.ended = True
        if not steps.complete:
            reading.error = self._unproven()

    def _note_start(self, began: float) -> None:
        """Note when the pass began, by the CRM's clock: what changes from then on, it may not have shown."""
        reading = self._reading
        if reading.started is None:
            resumed_at = reading.state.pass_started_at if reading.token is not None else None
            reading.started = resumed_at or reading.now() - timedelta(seconds=time.monotonic() - began)

    def _judge(self, error: ConnectorError, steps: Pass) -> None:
        """Say what an error means: a list that is not there, a stop, or a failure of this resource."""
        reading = self._reading
        if reading.resource.optional and not steps.pages and error.status in (404, 405, 410):
            reading.absent = reading.state.strategy is None
            if not reading.absent:
                error.hint = "It was there before; its rows stay as they were, and nothing counts as deleted."
                reading.error = error
        elif not self._stop.is_set():
            reading.error = error

    def _note_refused(self, scopes: int) -> None:
        self._reading.refused = scopes
        if scopes:
            self._reading.counts["refused_scopes"] = scopes

    def _unproven(self) -> ConnectorError:
        return ProtocolError(
            "the list did not end as documented; what arrived is kept, and nothing counts as deleted",
            connection=self._reading.connection,
            resource=self._reading.resource.name,
            hint="The next pull reads it again.",
        )

    def _cut(self, steps: Pass) -> None:
        """Hand over what was read so far."""
        files = self._finish()
        self._token = steps.token
        self._out.put(Segment(self._reading, files, self._token, final=False))

    def _finish(self) -> tuple[Path, ...]:
        """Type what was read so far, and count it."""
        reading = self._reading
        found = self._spooling.finish()
        for typed in found:
            reading.rows += typed.rows
            reading.newest = max(
                (moment for moment in (reading.newest, typed.newest) if moment), default=None
            )
            self._count(typed)
        return tuple(typed.path for typed in found)

    def _count(self, typed: Typed) -> None:
        found = {"future": typed.future, "undated": typed.undated, "extra": typed.unknown}
        found |= {"misfits": sum(typed.misfits.values())}
        counts = self._reading.counts
        for name, number in found.items():
            counts[name] = counts.get(name, 0) + number
