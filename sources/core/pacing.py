"""How fast a workspace may be asked: one budget per connection, for all threads, for reading and writing.

A budget learns from what the server says: `X-RateLimit-Limit`, `-Remaining` and `-Reset`, `Retry-After`,
and 429. It sends nothing itself; `core.client` asks it before every request and tells it every answer.
"""

import functools
import math
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

from sources.core.errors import RateLimitError

SHARE = 0.8  # of a limit that a tenant's other tools live by too

_COOL_DOWN_S = 5.0  # after a 429 that does not say how long to wait
_SLOWEST_PER_S = 0.1
_GROWTH_PER_SUCCESS = 0.01  # half a request per second more after fifty successes
_RECENT_S = 10.0  # over which the present rate is measured
_SAME_WINDOW_S = 1.5  # two ends of a window this close are one: Date and Reset are whole seconds
_SHORTEST_WINDOW_S = 0.5
_SHORTEST_PAUSE_S = 0.001  # less may be lost in a clock's rounding
_UNTOLD_WINDOW_S = 60.0
_ANSWER_PATIENCE_S = 60.0  # for a request that was granted and never reported back


class Clock(Protocol):
    """Time as a budget and a client see it, so that a test can turn it."""

    def time(self) -> float:
        """Give unix seconds."""

    def monotonic(self) -> float:
        """Give seconds that never run backwards."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class _SystemClock:
    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK: Clock = _SystemClock()


@dataclass(frozen=True, slots=True)
class BudgetState:
    """What a budget knows: the server's figures (`reset` in unix seconds) and its own counts."""

    limit: int | None
    remaining: int | None
    reset: float | None
    waited_s: float
    requests: int
    refused: int


@dataclass(slots=True)
class _Window:
    limit: int
    remaining: int
    reset: float  # unix seconds of the server's clock, which tells one window from another
    ends_at: float  # monotonic seconds of ours


class Budget:
    """Let requests go no faster than the server allows; safe to share between threads.

    `share` is the part of a stated limit that is used: the rest is left to others of the tenant.
    `max_per_minute` is a pace of one's own for APIs that say nothing. A wait longer than `max_wait_s`
    raises `RateLimitError` at once, it is never shortened.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        share: float = SHARE,
        max_per_minute: int | None = None,
        max_wait_s: float = 900.0,
    ) -> None:
        self._clock = clock
        self._share = share
        self._max_wait_s = max_wait_s
        self._pace_s = 60.0 / max_per_minute if max_per_minute else 0.0
        self._changed = threading.Condition()
        self._window: _Window | None = None
        self._is_told: bool | None = None  # whether answers carry figures; None before the first answer
        self._gate_at = -math.inf
        self._cut_at = -math.inf
        self._per_s = math.inf
        self._last_at = -math.inf
        self._sent: deque[float] = deque()
        self._in_flight = 0
        self._waited_s = 0.0
        self._requests = 0
        self._refused = 0

    def acquire(self) -> float:
        """Wait until a request may go out; give its `sent_at`. Each one ends in `observe` or `release`."""
        waited = 0.0
        while True:
            with self._changed:
                now = self._clock.monotonic()
                pause = self._pause_s(now)
                if pause is None:  # what an answer under way says decides
                    self._await_answer()
                    continue
                if pause <= 0:
                    return self._grant(now)
                self._check_wait(pause, waited)
                self._waited_s += pause
            waited += pause
            self._clock.sleep(pause)

    def observe(self, status: int, headers: Mapping[str, str], *, sent_at: float) -> None:
        """Learn from an answer: its status and lower-case headers."""
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            now = self._clock.monotonic()
            self._read_window(headers, now)
            self._read_wait(status, headers, now)
            if status == 429:
                self._refused += 1
                if "x-ratelimit-remaining" not in headers:
                    self._window = None  # its figures were wrong
                self._cut(now, sent_at)
            elif status < 400:
                self._per_s += _GROWTH_PER_SUCCESS
            self._changed.notify_all()

    def release(self) -> None:
        """Count a request as over that brought no answer."""
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._changed.notify_all()

    def snapshot(self) -> BudgetState:
        """Tell the present state."""
        with self._changed:
            window = self._window
            left = window.ends_at - self._clock.monotonic() if window else 0.0
            return BudgetState(
                limit=window.limit if window else None,
                remaining=window.remaining if window else None,
                reset=self._clock.time() + left if window else None,
                waited_s=self._waited_s,
                requests=self._requests,
                refused=self._refused,
            )

    # -- before a request ------------------------------------------------------------------------

    def _pause_s(self, now: float) -> float | None:
        """Give the seconds to wait, 0 to go, None to wait for an answer under way."""
        pace_s = max(self._pace_s, 1 / self._per_s)
        ready_at = max(self._gate_at, self._last_at + pace_s)
        if ready_at > now:
            return max(ready_at - now, _SHORTEST_PAUSE_S)
        if self._window and now < self._window.ends_at:
            return self._window_pause_s(self._window, now)
        # A new window: one request finds out what others of the tenant left of it.
        is_first = self._in_flight == 0 or (self._window is not None and self._last_at < self._window.ends_at)
        return 0.0 if is_first or self._is_told is False else None

    def _window_pause_s(self, window: _Window, now: float) -> float | None:
        reserve = window.limit - max(1, int(window.limit * self._share + 1e-9))
        if window.remaining <= reserve:
            return max(window.ends_at - now, _SHORTEST_PAUSE_S)
        # The requests under way are in `remaining` or not: until they are answered they count.
        return 0.0 if window.remaining - self._in_flight > reserve else None

    def _grant(self, now: float) -> float:
        self._in_flight += 1
        self._requests += 1
        self._last_at = now
        self._sent.append(now)
        while self._sent[0] < now - _RECENT_S:
            self._sent.popleft()
        return now

    def _check_wait(self, pause: float, waited: float) -> None:
        if pause + waited <= self._max_wait_s:
            return
        error = RateLimitError(
            f"the CRM asks to wait {math.ceil(pause)} s, longer than a run waits ({self._max_wait_s:.0f} s)",
            hint=f"Run again in {math.ceil(pause / 60)} min.",
        )
        error.retry_after_s = pause
        raise error

    def _await_answer(self) -> None:
        if not self._changed.wait(_ANSWER_PATIENCE_S):
            self._in_flight = 0

    # -- after an answer -------------------------------------------------------------------------

    def _read_window(self, headers: Mapping[str, str], now: float) -> None:
        remaining = _number(headers.get("x-ratelimit-remaining"))
        self._is_told = self._is_told or remaining is not None
        if remaining is None:
            return
        limit = _number(headers.get("x-ratelimit-limit"))
        old = self._window
        if limit is None:
            limit = max(remaining, float(old.limit) if old else 0.0)
        server_now = _server_now(headers, self._clock.time())
        reset = _reset(headers, server_now)
        if reset is None:
            reset = old.reset if old and old.ends_at > now else server_now + _UNTOLD_WINDOW_S
        ends_at = now + max(reset - server_now, _SHORTEST_WINDOW_S)
        new = _Window(int(limit), max(0, int(remaining)), reset, ends_at)
        if old is None or old.ends_at <= now or reset > old.reset + _SAME_WINDOW_S:
            self._window = new
        elif reset > old.reset - _SAME_WINDOW_S:  # an earlier one is of a window gone by
            old.remaining = min(old.remaining, new.remaining)

    def _read_wait(self, status: int, headers: Mapping[str, str], now: float) -> None:
        if status != 429 and status < 500:
            return
        wait_s = retry_after_s(headers, self._clock.time())
        if wait_s is None and status == 429:
            wait_s = _COOL_DOWN_S
            if self._window and self._window.ends_at > now:
                wait_s = self._window.ends_at - now
        if wait_s is not None:
            self._gate_at = max(self._gate_at, now + wait_s)

    def _cut(self, now: float, sent_at: float) -> None:
        """Halve the rate where no figures guide it, once for all requests of the same burst."""
        if self._is_told or sent_at <= self._cut_at:
            return
        span_s = max(1.0, now - self._sent[0]) if self._sent else 1.0
        self._per_s = max(_SLOWEST_PER_S, min(self._per_s, len(self._sent) / span_s) / 2)
        self._cut_at = now


# -- what headers say ----------------------------------------------------------------------------


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Read `Retry-After`: seconds, or an HTTP date judged by the server's own `Date`."""
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is None and text is not None:
        date = http_date(text)
        seconds = None if date is None else date - _server_now(headers, now)
    return None if seconds is None else max(0.0, seconds)


@functools.lru_cache(maxsize=16)  # the answers of one second bear the same
def http_date(text: str) -> float | None:
    """Read an HTTP date as unix seconds; None when it is none."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def backoff_s(attempt: int, rng: random.Random, *, first_s: float = 0.5, longest_s: float = 30.0) -> float:
    """Give the wait after an attempt (counted from 1): twice as long each time, with jitter."""
    longest = min(longest_s, first_s * 2.0 ** (attempt - 1))
    return longest * rng.uniform(0.5, 1.0)


def _reset(headers: Mapping[str, str], server_now: float) -> float | None:
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is None:
        return None
    if reset > 1e11:  # milliseconds
        return reset / 1000
    # As a date, a small number would lie in the seventies: it is a wait.
    return reset if reset > 1e8 else server_now + reset


def _server_now(headers: Mapping[str, str], now: float) -> float:
    date = http_date(headers["date"]) if "date" in headers else None
    return now if date is None else date


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
