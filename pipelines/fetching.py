"""Read resources from their CRMs into typed segments: the network half of a pull.

Each resource is read on a thread of its own and handed over in segments; what to do with them is `pull`'s.
Transport trouble ends a resource, not the run: what arrived is handed over with the error.
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

from sources.core.connector import FanOut, Resource
from sources.core.errors import ConnectorError
from sources.core.passes import Pass
from sources.core.sessions import Session
from sources.core.spool import Spool, Typed, type_rows


@dataclass(frozen=True, slots=True)
class State:
    """How far one resource has been read, as `roundtrip.resource_state` holds it."""

    strategy: str | None = None
    watermark: datetime | None = None
    feed_watermark: datetime | None = None
    page_token: str | None = None
    pass_started_at: datetime | None = None
    last_complete_at: datetime | None = None
    last_full_at: datetime | None = None


@dataclass(slots=True)
class Reading:
    """One resource's part in a pull: what is asked for, and what has become of it so far."""

    session: Session
    resource: Resource
    state: State
    strategy: str = "full"  # or "since": what the resource is read by from now on
    since: datetime | None = None  # where the window of this pass begins; None means everything
    backfill: bool = False  # a window the operator asked for: it moves no watermark
    token: str | None = None
    feed_watermark: datetime | None = None
    started: datetime | None = None
    complete: bool = False
    resumed: bool = False
    pages: int = 0
    repairs: int = 0
    rows: int = 0
    newest: datetime | None = None
    counts: dict[str, int] = field(default_factory=dict)
    seen: list[Path] = field(default_factory=list)  # typed files of this pass, for deletions by absence
    values: list[tuple[FanOut, str]] = field(
        default_factory=list
    )  # what a resource with a fan-out is asked for
    absent: bool = False  # the vendor does not document the list, and it is not there
    unlisted: int = 0  # records that only the feed knows, too many to be asked for one by one
    error: ConnectorError | None = None
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

    def now(self) -> datetime:
        """Give the time by the CRM's clock where it has told, else by ours."""
        return self.session.client.server_time() or datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a pass, typed and on disk; `final` ends the reading. `token` is where to go on after it."""

    reading: Reading
    typed: Typed | None
    token: str | None
    final: bool


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
        advance: Callable[[int], None],
    ) -> None:
        self._reading = reading
        self._out = out
        self._folder = folder / reading.connection / reading.resource.name
        self._checkpoint_s = checkpoint_s
        self._stop = stop
        self._advance = advance
        self._numbers = itertools.count()
        self._seq = 0

    def run(self) -> None:
        """Read to the end, to the first error, or until told to stop; always ends with a final segment."""
        reading = self._reading
        steps = Pass(
            reading.session, reading.resource, since=reading.since, token=reading.token, values=reading.values
        )
        spool: Spool | None = None
        try:
            spool = self._read(steps)
        except OSError as error:
            reading.error = ConnectorError(
                f"the working folder cannot be written ({error.strerror})",
                connection=reading.connection,
                resource=reading.resource.name,
                hint="Free space on that disk and run the same command again.",
            )
        finally:
            self._emit(spool, steps, final=True)

    def _read(self, steps: Pass) -> Spool:
        """Spool pages, handing over a segment whenever one is due; give the last, open spool."""
        reading = self._reading
        spool = self._new_spool()
        cut_at = time.monotonic() + self._checkpoint_s
        try:
            for page in steps:
                reading.started = reading.started or reading.state.pass_started_at or reading.now()
                reading.pages = steps.pages
                spool.append(page.rows)
                self._advance(len(page.rows))
                if self._stop.is_set():
                    return spool
                if time.monotonic() >= cut_at and spool.rows:
                    self._emit(spool, steps, final=False)
                    spool = self._new_spool()
                    cut_at = time.monotonic() + self._checkpoint_s
        except ConnectorError as error:
            if reading.resource.optional and not steps.pages and error.status in (404, 405, 410):
                reading.absent = True
            else:
                reading.error = error
            return spool
        reading.started = reading.started or reading.now()
        reading.resumed = steps.resumed
        return spool

    def _new_spool(self) -> Spool:
        return Spool(self._folder / f"{next(self._numbers):06d}.ndjson")

    def _emit(self, spool: Spool | None, steps: Pass, *, final: bool) -> None:
        reading = self._reading
        reading.repairs = steps.repairs
        if final:
            reading.complete = steps.complete
        typed = self._type(spool) if spool is not None else None
        token = None if steps.complete else steps.token
        self._out.put(Segment(reading, typed, token, final))

    def _type(self, spool: Spool) -> Typed | None:
        spool.close()
        reading = self._reading
        if not spool.rows:
            spool.path.unlink()
            return None
        target = spool.path.with_suffix(".parquet")
        typed = type_rows([spool.path], reading.resource, target, now=reading.now(), first_seq=self._seq)
        spool.path.unlink()
        self._seq += typed.rows
        reading.rows += typed.rows
        reading.newest = max((moment for moment in (reading.newest, typed.newest) if moment), default=None)
        self._count(typed)
        return typed

    def _count(self, typed: Typed) -> None:
        found = {"future": typed.future, "undated": typed.undated, "extra": typed.unknown}
        found |= {"misfits": sum(typed.misfits.values())}
        counts = self._reading.counts
        for name, number in found.items():
            counts[name] = counts.get(name, 0) + number
