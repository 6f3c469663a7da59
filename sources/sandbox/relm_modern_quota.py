"""The monthly request quota of Relm's modern contract: hard on the free plan, else metered beyond it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sources.sandbox.exchange import Refusal
from sources.sandbox.relm_modern_switches import Members, Plan
from sources.sandbox.store import Clock

_REQUESTS = {"free": 1_000, "pro": 100_000, "scale": 2_000_000}


@dataclass(slots=True)
class Quota:
    """Count the requests of a calendar month, in UTC; a cap of None is no cap, 0 allows no overage."""

    plan: Plan
    now: Clock
    given: int | None
    used: int
    cap_usd: float | None
    usd_per_request: float
    period: str = ""

    def __post_init__(self) -> None:
        self.period = self._month()

    @property
    def limit(self) -> int:
        return _REQUESTS[self.plan] if self.given is None else self.given

    def take(self, requests: int = 1) -> None:
        """Count requests; raises `Refusal` 429 when the plan or the cap on spending does not allow them."""
        self._turn_over()
        over = self.used + requests - self.limit
        if over > 0 and (self.plan == "free" or self.cap_usd == 0):
            raise Refusal(429, "quota_exceeded", "The requests of this month are used up")
        if over > 0 and self.cap_usd is not None and over * self.usd_per_request > self.cap_usd:
            raise Refusal(429, "spend_cap_reached", "The cap on overage spending is reached")
        self.used += requests

    def usage(self) -> dict[str, str | int]:
        """Return what GET /usage tells."""
        self._turn_over()
        over = max(0, self.used - self.limit)
        return {
            "object": "usage",
            "period": self.period,
            "used": self.used,
            "overage": over,
            "limit": self.limit,
            "plan": self.plan,
        }

    def headers(self, members: Members) -> dict[str, str]:
        """Return what every answer tells of the quota; the reset is in unix seconds."""
        self._turn_over()
        values = (self.limit, max(0, self.limit - self.used), int(self._next_month().timestamp()))
        return {f"X-Quota-{name}": str(value) for name, value in zip(members, values, strict=True)}

    def _turn_over(self) -> None:
        if self.period != self._month():
            self.period, self.used = self._month(), 0

    def _month(self) -> str:
        return self.now().astimezone(UTC).strftime("%Y-%m")

    def _next_month(self) -> datetime:
        first = self.now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return (first + timedelta(days=32)).replace(day=1)
