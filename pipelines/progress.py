"""Shows how far long work has come: bars on a terminal, plain lines elsewhere, always on standard error.

Every method may be called from any thread, and none ever fails a run: a closed standard error is ignored.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from pipelines.render import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress(Protocol):
    """What long work reports to; texts may come from a CRM."""

    def start(self, task: str, total: int | None = None) -> int:
        """Begin a task of `total` items (None: not known) and return its id."""

    def expect(self, task_id: int, total: int) -> None:
        """Learn how many items a task that has begun will have."""

    def advance(self, task_id: int, n: int = 1) -> None:
        """Count `n` more items of a task."""

    def done(self, task_id: int) -> None:
        """End a task."""

    def say(self, line: str) -> None:
        """Tell one line."""


@dataclass(slots=True)
class _Task:
    name: str
    total: int | None
    began_at: float
    count: int = 0
    said_at: float = 0.0

    def line(self, now: float) -> str:
        return f"{self.name}: {self.done()}{self.pace(now)}"

    def last_line(self, now: float) -> str:
        took_s = now - self.began_at
        took = f", {_span(took_s)}" if took_s >= 1 else ""
        return f"{self.name}: {self.done()}{took}"

    def done(self) -> str:
        return f"{self.count:,}" if self.total is None else f"{self.count:,} of {self.total:,}"

    def pace(self, now: float) -> str:
        """Say how many a second so far and, of a known total, how long the rest takes at that."""
        took_s = now - self.began_at
        if took_s < 1 or not self.count:
            return ""
        rate = self.count / took_s
        told = f", {rate:,.0f}/s" if rate >= 10 else f", {rate:.1f}/s"
        left = None if self.total is None else self.total - self.count
        return f"{told}, {_span(left / rate)} left" if left and left > 0 else told


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{round(whole / 60)} min" if whole < 7200 else f"{whole / 3600:.1f} h"


class SilentProgress:
    """Say nothing."""

    def start(self, task: str, total: int | None = None) -> int:
        return 0

    def expect(self, task_id: int, total: int) -> None:
        pass

    def advance(self, task_id: int, n: int = 1) -> None:
        pass

    def done(self, task_id: int) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class PlainProgress:
    """Write lines: what is told, each task's end, and between them a sign of life now and then."""

    def __init__(
        self, stream: TextIO, *, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.RLock()
        self._tasks: dict[int, _Task] = {}
        self._next_id = 1

    def start(self, task: str, total: int | None = None) -> int:
        with self._lock:
            task_id, self._next_id = self._next_id, self._next_id + 1
            now = self._clock()
            self._tasks[task_id] = _Task(task, total, began_at=now, said_at=now)
            return task_id

    def expect(self, task_id: int, total: int) -> None:
        with self._lock:
            if task_id in self._tasks:
                self._tasks[task_id].total = total

    def advance(self, task_id: int, n: int = 1) -> None:
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None:
                return
            task.count += n
            now = self._clock()
            if now - task.said_at >= self._every_s:
                task.said_at = now
                self.say(task.line(now))

    def done(self, task_id: int) -> None:
        with self._lock:
            task = self._tasks.pop(task_id, None)
            if task is not None:
                self.say(task.last_line(self._clock()))

    def say(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            print(clean(line), file=self._stream, flush=True)

    def close(self) -> None:
        """End the tasks that are still open."""
        for task_id in sorted(self._tasks):
            self.done(task_id)


class TerminalProgress:
    """Draw a bar per running task below the lines told; nothing is drawn while no task runs."""

    def __init__(self, console: "Console", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.RLock()
        self._tasks: dict[int, _Task] = {}
        self._bars: RichProgress | None = None
        self._ids: dict[int, TaskID] = {}

    def start(self, task: str, total: int | None = None) -> int:
        with self._lock:
            task_id = len(self._ids) + 1
            begun = self._tasks[task_id] = _Task(clean(task), total, began_at=self._clock())
            bars = self._drawn()
            self._ids[task_id] = bars.add_task(begun.name, total=total, counted=begun.done(), pace="")
            return task_id

    def expect(self, task_id: int, total: int) -> None:
        with self._lock:
            if task_id in self._tasks and self._bars is not None:
                self._tasks[task_id].total = total
                self._bars.update(self._ids[task_id], total=total)

    def advance(self, task_id: int, n: int = 1) -> None:
        with self._lock:
            if task_id in self._tasks and self._bars is not None:
                task = self._tasks[task_id]
                task.count += n
                pace = task.pace(self._clock()).removeprefix(", ")
                self._bars.update(self._ids[task_id], advance=n, counted=task.done(), pace=pace)

    def done(self, task_id: int) -> None:
        with self._lock:
            task = self._tasks.pop(task_id, None)
            if task is None or self._bars is None:
                return
            self._bars.remove_task(self._ids[task_id])
            self.say(task.last_line(self._clock()))
            if not self._tasks:
                self._bars.stop()
                self._bars = None

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._console.print(clean(line), markup=False, highlight=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """End the tasks that are still open and take the bars away."""
        for task_id in sorted(self._tasks):
            self.done(task_id)

    def _drawn(self) -> "RichProgress":
        """Give the bars, drawn from now on: they stop when no task runs, so that a question can be asked."""
        if self._bars is None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            name = TextColumn("{task.description}", markup=False)
            self._bars = Progress(
                name,
                BarColumn(20),
                TextColumn("{task.fields[counted]}", markup=False, justify="right"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[pace]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        return self._bars


@contextlib.contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Choose what the stream (default: standard error) can show."""
    stream = stream or sys.stderr
    shown = _on_terminal(stream) if is_terminal(stream) else PlainProgress(stream)
    try:
        yield shown
    finally:
        shown.close()


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}


def _on_terminal(stream: TextIO) -> TerminalProgress:
    from rich.console import Console

    return TerminalProgress(Console(file=stream))
