"""Spool and type the rows of one resource while its next pages are fetched.

Rows go to disk as they come; every few megabytes what has come is typed on a thread of its own. What the
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

CHUNK_BYTES = 8 * 1024 * 1024
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
        return bool(self._typing) or self._spool is not None

    def append(self, rows: Sequence[msgspec.Raw]) -> None:
        """Keep the rows of a page."""
        if not rows:
            return
        if self._spool is None:
            self._spool = Spool(self._folder / f"{self._made:06d}.ndjson", self._shield)
            self._made += 1
        self._spool.append(rows)
        if self._spool.size_bytes >= CHUNK_BYTES:
            self._type_aside(self._spool)
            self._spool = None

    def finish(self) -> list[Typed]:
        """Give what came since the last time, typed."""
        typed = [each.result() for each in self._typing]
        self._typing = []
        if self._spool is not None:
            typed.append(self._type(self._spool))
        self._spool = None
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
        typed = type_rows([spool.path], self._resource, target, now=self._now())
        spool.path.unlink()
        return typed
