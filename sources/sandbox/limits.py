"""Rate limits as the CRMs count them: so many requests per window, told in three headers."""

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from typing import Literal


@dataclass(frozen=True, slots=True)
class Allowance:
    """Say what one request did to the window; `reset` is in unix seconds."""

    is_granted: bool
    limit: int
    remaining: int
    reset: int
    retry_after_s: int

    def headers(self) -> dict[str, str]:
        """Return the header trio both Relm and Rally document."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


@dataclass(slots=True)
class RateLimit:
    """Count requests in a fixed window, which starts with its first request, or in a sliding one."""

    limit: int
    window_s: float = 60.0
    kind: Literal["fixed", "sliding"] = "fixed"
    counts_refused: bool = False
    _stamps: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> Allowance:
        """Count one request at `now` (unix seconds)."""
        self._forget(now)
        is_granted = len(self._stamps) < self.limit
        if is_granted or self.counts_refused:
            self._stamps.append(now)
        return self._allowance(now, is_granted)

    def _forget(self, now: float) -> None:
        stamps = self._stamps
        if self.kind == "fixed":
            if stamps and now - stamps[0] >= self.window_s:
                stamps.clear()
            return
        while stamps and now - stamps[0] >= self.window_s:
            stamps.popleft()

    def _allowance(self, now: float, is_granted: bool) -> Allowance:
        opened = self._stamps[0] if self._stamps else now
        reset = ceil(opened + self.window_s)
        remaining = max(0, self.limit - len(self._stamps))
        return Allowance(is_granted, self.limit, remaining, reset, max(1, ceil(reset - now)))
