"""Spool and type the rows of one resource while its next pages are fetched.

Rows go to disk as they come; every so many rows what has come is typed on a thread of its own. What the
files hold, and when a part of a pass is handed over, is left to `fetching`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import msgspec

from sources.core.connector import Resource
from sources.core.privacy import Shield
from sources.core.spool import Spool, Typed, type_rows

# DuckDB writes tables in groups of so many rows: a file that is just one is inserted without a detour through
# the log. The first files are smaller, so that a list of common size is typed while it is read, too.
_GROUP_ROWS = 122_880
_FIRST_ROWS, _FIRST_FILES = _GROUP_ROWS // 4, 4
_MOST_BYTES = 96 * 1024 * 1024
_MOST_WAITING = 2  # spools that may wait to be typed: a slow disk slows the reading down, it fills no memory


class Spooling:
    """Take pages in and give typed files, in order; every method may raise `SpoolError`."""

    def __init__(
        self, folder: Path, resource: Resource, *, now: Callable[[], datetime], shield: Shield
    ) -> None:
        self._folder = folder
        self._resource = resource
        self._now = now
        self._shield = shield
        self._spool: Spool | None = None
        self._made = 0
        self._typing: list[Future[Typed]] = []
        self._pool: ThreadPoolExecutor | None = None

    @property
    def has_rows(self) -> bool:
        """Tell whether any row came since the last `finish`."""
        return bool(self._typing) or (self._spool is not None and self._spool.rows > 0)

    def open(self) -> Spool:
        """Begin a file: a folder that cannot be written shows before anything is asked."""
        if self._spool is None:
            self._spool = Spool(self._folder / f"{self._made:06d}.ndjson", self._shield)
            self._made += 1
        return self._spool

    def append(self, rows: Sequence[msgspec.Raw]) -> None:
        """Keep the rows of a page."""
        while rows:
            spool = self.open()
            most = _FIRST_ROWS if self._made <= _FIRST_FILES else _GROUP_ROWS
            fitting = most - spool.rows
            spool.append(rows[:fitting])
            rows = rows[fitting:]
            if spool.rows >= most or spool.size_bytes >= _MOST_BYTES:
                self._type_aside(spool)
                self._spool = None

    def finish(self) -> list[Typed]:
        """Give what came since the last time, typed."""
        typed = [each.result() for each in self._typing]
        self._typing = []
        spool, self._spool = self._spool, None
        if spool is not None and spool.rows:
            typed.append(self._type(spool))
        elif spool is not None:
            spool.close()
            spool.path.unlink()
        return typed

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown()

    def _type_aside(self, spool: Spool) -> None:
        if len(self._typing) >= _MOST_WAITING:
            self._typing[-_MOST_WAITING].result()
        self._pool = self._pool or ThreadPoolExecutor(1, "roundtrip-typing")
        self._typing.append(self._pool.submit(self._type, spool))

    def _type(self, spool: Spool) -> Typed:
        spool.close()
        target = spool.path.with_suffix(".parquet")
        typed = type_rows([spool.path], self._resource, target, now=self._now(), widest=spool.widest)
        spool.path.unlink()
        return typed
