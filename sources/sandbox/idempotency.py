"""Idempotency keys: the first answer to a key and body is given again, another body is a conflict."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sources.sandbox.exchange import Refusal, Request, Response


@dataclass(frozen=True, slots=True)
class Kept:
    """Hold a first answer with what it answered."""

    at: datetime
    body: bytes
    path: str
    answer: Response


@dataclass(slots=True)
class FirstAnswers:
    """Keep first answers for a while; bodies are compared byte by byte, paths only if they count."""

    window_s: float
    path_counts: bool = False
    kept: dict[str, Kept] = field(default_factory=dict)

    def given(self, key: str, request: Request, now: datetime) -> Response | None:
        """Return the first answer, or None for a new key; raises `Refusal` 409 for another body."""
        kept = self.kept.get(key)
        if kept is None or now - kept.at >= timedelta(seconds=self.window_s):
            return None
        if kept.body != request.body or (self.path_counts and kept.path != request.path):
            raise Refusal(409, "idempotency_conflict", "This Idempotency-Key was used with another body")
        return kept.answer.copy()

    def keep(self, key: str, request: Request, answer: Response, now: datetime) -> None:
        """Keep the answer of a first request."""
        self.kept[key] = Kept(now, request.body, request.path, answer.copy())
