"""Pacing: a budget never spends more than the server allows, and every wait asked for is kept in full."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.core.errors import RateLimitError
from sources.core.pacing import SYSTEM_CLOCK, Budget, Clock, backoff_s, retry_after_s
from tests.scripted_server import TurnedClock

Say = Callable[[float, float], str]
WAYS_TO_SAY_RESET: dict[str, Say] = {
    "unix seconds": lambda end, now: str(ceil(end)),
    "unix milliseconds": lambda end, now: str(ceil(end) * 1000),
    "seconds from now": lambda end, now: str(ceil(end - now)),
}


class LimitingServer:
    """Count requests as a CRM does, by a clock of its own; `others` is what the tenant uses besides."""

    def __init__(
        self, clock: Clock, limit: int, window_s: float, *, skew_s: float = 0.0, others: int = 0
    ) -> None:
        self.clock, self.limit, self.window_s, self.skew_s, self.others = (
            clock,
            limit,
            window_s,
            skew_s,
            others,
        )
        self.say_reset: Say = WAYS_TO_SAY_RESET["unix seconds"]
        self.is_sliding = False
        self.stamps: list[float] = []
        self.windows: list[int] = []
        self.lock = threading.Lock()

    def ask(self) -> tuple[int, Mapping[str, str]]:
        with self.lock:
            now = self.clock.time() + self.skew_s
            self._turn(now)
            is_granted = len(self.stamps) < self.limit
            if is_granted:
                self.stamps.append(now)
                self.windows[-1] += 1
            return (200 if is_granted else 429), self._headers(now)

    def _turn(self, now: float) -> None:
        if self.is_sliding:
            self.stamps = [stamp for stamp in self.stamps if now - stamp < self.window_s]
        elif self.stamps and now - self.stamps[0] >= self.window_s:
            self.stamps = []
        if not self.stamps:
            self.stamps = [now] * self.others
            self.windows.append(self.others)

    def _headers(self, now: float) -> Mapping[str, str]:
        return {
            "date": formatdate(now, usegmt=True),
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.limit - len(self.stamps)),
            "x-ratelimit-reset": self.say_reset(self.stamps[0] + self.window_s, now),
        }


class FastClock:
    """Let real time run faster."""

    def __init__(self, times: float) -> None:
        self.times, self.started = times, time.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self.started) * self.times

    def time(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds / self.times)


def ask(budget: Budget, server: LimitingServer, latency_s: float = 0.0) -> int:
    sent_at = budget.acquire()
    status, headers = server.ask()
    if latency_s:
        server.clock.sleep(latency_s)
    budget.observe(status, headers, sent_at=sent_at)
    return status


def answered(budget: Budget, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
    budget.observe(status, headers or {}, sent_at=budget.acquire())


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 60),
    window_s=st.integers(2, 90),
    skew_s=st.floats(-5000, 5000),
    latency_s=st.floats(0, 3),
    way=st.sampled_from(sorted(WAYS_TO_SAY_RESET)),
)
def test_a_stated_limit_is_never_reached_whatever_the_servers_clock_says(
    limit: int, window_s: int, skew_s: float, latency_s: float, way: str
) -> None:
    clock = TurnedClock()
    server = LimitingServer(clock, limit, window_s, skew_s=skew_s)
    server.say_reset = WAYS_TO_SAY_RESET[way]
    budget = Budget(clock=clock)
    assert {ask(budget, server, latency_s) for _ in range(limit * 2 + 3)} == {200}
    assert max(server.windows) <= max(1, int(limit * 0.8 + 1e-9))


@settings(max_examples=30, deadline=None)
@given(limit=st.integers(2, 40), window_s=st.integers(2, 60), latency_s=st.floats(0, 2))
def test_a_sliding_limit_is_never_reached(limit: int, window_s: int, latency_s: float) -> None:
    clock = TurnedClock()
    server = LimitingServer(clock, limit, window_s)
    server.is_sliding = True
    budget = Budget(clock=clock)
    assert {ask(budget, server, latency_s) for _ in range(limit * 3)} == {200}


def test_eight_threads_leave_the_last_fifth_to_others_of_the_tenant() -> None:
    server = LimitingServer(FastClock(100), limit=50, window_s=10, others=8)
    budget = Budget(clock=server.clock)
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: ask(budget, server, 0.2), range(110)))
    assert set(statuses) == {200}
    assert max(server.windows) <= 40
    assert budget.snapshot().refused == 0


def test_a_whole_share_lets_the_limit_be_used_up_to_the_last_request() -> None:
    clock = TurnedClock()
    server = LimitingServer(clock, limit=10, window_s=60)
    budget = Budget(clock=clock, share=1.0)
    assert [ask(budget, server) for _ in range(10)] == [200] * 10
    assert clock.slept == []


def test_the_first_request_goes_alone_until_its_answer_tells_the_limit() -> None:
    budget = Budget(clock=SYSTEM_CLOCK)
    sent_at = budget.acquire()
    second = threading.Thread(target=budget.acquire)
    second.start()
    second.join(0.05)
    assert second.is_alive()
    budget.observe(200, {}, sent_at=sent_at)
    second.join(5)
    assert not second.is_alive()


def test_a_request_without_an_answer_gives_way_to_the_next() -> None:
    budget = Budget(clock=TurnedClock())
    budget.acquire()
    budget.release()
    budget.acquire()
    assert budget.snapshot().requests == 2


def test_an_answer_of_a_window_gone_by_does_not_shut_the_new_one() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    answered(budget, headers=figures(100, clock.now + 60))
    late = budget.acquire()
    clock.now += 61
    answered(budget, headers=figures(100, clock.now + 60))
    budget.observe(200, figures(0, clock.now - 1), sent_at=late)
    answered(budget, headers=figures(99, clock.now + 60))
    assert clock.slept == []


def figures(remaining: int, reset: float) -> dict[str, str]:
    told = {"limit": 100, "remaining": remaining, "reset": int(reset)}
    return {f"x-ratelimit-{name}": str(value) for name, value in told.items()}


def test_answers_that_overtake_each_other_never_raise_what_remains() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    for remaining in (50, 40, 45):
        answered(budget, headers=figures(remaining, clock.now + 60))
    assert budget.snapshot().remaining == 40


def test_retry_after_stops_every_thread_for_its_whole_length() -> None:
    clock = FastClock(100)
    budget = Budget(clock=clock)
    answered(budget)
    answered(budget, 429, {"retry-after": "30"})
    refused_at = clock.monotonic()
    with ThreadPoolExecutor(4) as threads:
        sent = list(threads.map(lambda _: budget.acquire(), range(4)))
    assert min(sent) >= refused_at + 29.9


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_in_seconds_is_obeyed_in_full(status: int) -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    answered(budget, status, {"retry-after": "120"})
    budget.acquire()
    assert sum(clock.slept) >= 120


def test_a_wait_longer_than_the_run_allows_is_told_and_not_shortened() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    answered(budget, 429, {"retry-after": "3600"})
    with pytest.raises(RateLimitError, match="3600 s") as caught:
        budget.acquire()
    assert caught.value.retry_after_s == 3600
    assert clock.slept == []


def test_a_429_that_says_nothing_halves_the_rate_once_for_a_whole_burst() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    answered(budget)
    sent = [budget.acquire() for _ in range(19)]
    for sent_at in sent:
        budget.observe(429, {}, sent_at=sent_at)
    for _ in range(11):
        answered(budget)
    assert clock.slept[0] == 5.0
    assert sum(clock.slept[1:]) == pytest.approx(1.0, rel=0.1)  # twenty in the last second became ten


def test_success_brings_the_rate_back_slowly() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    answered(budget, 429)
    for _ in range(200):
        answered(budget)
    assert clock.slept[1] > clock.slept[-1] * 2


def test_a_pace_of_ones_own_holds_in_every_minute() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock, max_per_minute=30)
    sent = []
    for _ in range(90):
        sent.append(budget.acquire())
        budget.observe(200, {}, sent_at=sent[-1])
    assert all(later - sooner >= 59.99 for sooner, later in zip(sent, sent[30:], strict=False))


def test_a_snapshot_tells_what_the_server_said_and_what_was_waited() -> None:
    clock = TurnedClock()
    budget = Budget(clock=clock)
    answered(budget, headers=figures(70, clock.now + 60))
    answered(budget, 429, {"retry-after": "7"})
    answered(budget, headers=figures(60, clock.now + 60))
    state = budget.snapshot()
    assert (state.limit, state.remaining, state.requests, state.refused) == (100, 60, 3, 1)
    assert state.reset == pytest.approx(clock.now + 60, abs=8)
    assert state.waited_s >= 7


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [("5", 5.0), ("1.5", 1.5), ("-3", 0.0), ("soon", None), ("", None), ("inf", None), ("1e999", None)],
)
def test_retry_after_is_read_as_seconds_or_not_at_all(text: str, wait_s: float | None) -> None:
    assert retry_after_s({"retry-after": text}, 0.0) == wait_s


def test_a_retry_after_date_is_judged_by_the_servers_own_clock() -> None:
    headers = {"retry-after": formatdate(90_000, usegmt=True), "date": formatdate(89_940, usegmt=True)}
    assert retry_after_s(headers, 5_000_000.0) == 60
    assert retry_after_s({"retry-after": headers["retry-after"]}, 89_990.0) == 10


@given(attempt=st.integers(1, 40), seed=st.integers())
def test_backing_off_doubles_with_jitter_up_to_half_a_minute(attempt: int, seed: int) -> None:
    longest = min(30.0, 0.5 * 2.0 ** (attempt - 1))
    assert longest / 2 <= backoff_s(attempt, random.Random(seed)) <= longest
