"""Faults on demand: which requests go wrong, and how, down to what happens on the socket.

An action stands in for the CRM (`instead`), changes its answer (`turned`) or spoils the delivery (`deliver`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from threading import Lock
from typing import Any, Literal

from sources.sandbox.exchange import Refusal, Request, Response
from sources.sandbox.simulator import Simulator
from sources.sandbox.wire import Wire, head, packed


@dataclass(frozen=True, slots=True)
class Scene:
    """Hold what an action may look at."""

    request: Request
    simulator: Simulator
    pages: dict[str, Response]


@dataclass(frozen=True)
class Action:
    """Let a request through unharmed; each fault changes one step of it."""

    def fits(self, request: Request) -> bool:
        """Say whether the fault makes sense for a request; others are not counted."""
        return True

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        """Return an answer given without asking the CRM, or None."""
        return None

    def turned(self, response: Response) -> Response:
        """Return the CRM's answer as it is to be delivered."""
        return response

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        """Send an answer and return the status that went out, 0 for none."""
        wire.send(packed(response, now))
        return response.status


@dataclass(frozen=True)
class Status(Action):
    """Answer with a status, in the CRM's error shape unless a body is given; nothing is applied."""

    code: int
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        if self.body is None:
            made = scene.simulator.refused(Refusal(self.code, "fault", "A fault was asked for"))
        else:
            made = Response(self.code, self.body.encode(), {}, self.content_type)
        made.headers.update(self.headers)
        return made


@dataclass(frozen=True)
class TooMany(Action):
    """Answer 429; the wait is told in seconds, as a date, or not at all."""

    wait_s: int = 1
    form: Literal["seconds", "date", "none"] = "seconds"

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        made = scene.simulator.refused(Refusal(429, "rate_limited", "Too many requests"))
        if self.form == "seconds":
            made.headers["Retry-After"] = str(self.wait_s)
        elif self.form == "date":
            until = scene.simulator.now().astimezone(UTC) + timedelta(seconds=self.wait_s)
            made.headers["Retry-After"] = format_datetime(until, usegmt=True)
        return made


@dataclass(frozen=True)
class Redirect(Action):
    """Send the client elsewhere."""

    location: str
    code: int = 302

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        return Response(self.code, b"", {"Location": self.location})


@dataclass(frozen=True)
class Reset(Action):
    """Cut the connection before anything is applied or answered."""

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        wire.reset()
        return Response(0)

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        return 0


@dataclass(frozen=True)
class ResetAfterHeaders(Action):
    """Apply, send the headers, cut."""

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        wire.send(head(response, now))
        wire.reset()
        return response.status


@dataclass(frozen=True)
class HalfBody(Action):
    """Apply, promise the whole length, send half of the body and close."""

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        wire.send(head(response, now) + response.body[: len(response.body) // 2])
        wire.close()
        return response.status


@dataclass(frozen=True)
class Hang(Action):
    """Wait, before or after the CRM applies the request, then answer as usual."""

    seconds: float
    when: Literal["before", "after"] = "before"

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        if self.when == "before":
            wire.wait(self.seconds)
        return None

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        if self.when == "after":
            wire.wait(self.seconds)
        return super().deliver(response, now, wire)


@dataclass(frozen=True)
class Drip(Action):
    """Send the body in pieces with a pause between them."""

    pieces: int = 20
    gap_s: float = 0.05

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        wire.send(head(response, now))
        size = max(1, -(-len(response.body) // self.pieces))
        for start in range(0, len(response.body), size):
            wire.wait(self.gap_s)
            wire.send(response.body[start : start + size])
        return response.status


@dataclass(frozen=True)
class Garbage(Action):
    """Answer bytes that are no JSON, and say that they are."""

    def turned(self, response: Response) -> Response:
        return Response(response.status, b'{"data": [\xff\xfe\x00', response.headers)


@dataclass(frozen=True)
class NotHttp(Action):
    """Answer something that is not HTTP, and close."""

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        wire.send(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
        wire.close()
        return 0


@dataclass(frozen=True)
class Html(Action):
    """Answer a sign-in page with 200, as a proxy or a portal does; nothing is applied."""

    code: int = 200

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        page = b"<!doctype html><title>Sign in</title><h1>Sign in to go on</h1>"
        return Response(self.code, page, {}, "text/html; charset=utf-8")


@dataclass(frozen=True)
class WrongShape(Action):
    """Answer JSON of another shape than documented."""

    body: str = '{"ok":true,"items":{}}'

    def turned(self, response: Response) -> Response:
        return Response(response.status, self.body.encode(), response.headers)


@dataclass(frozen=True)
class ApplyThenDrop(Action):
    """Apply the request, then cut the connection without an answer."""

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        wire.reset()
        return 0


@dataclass(frozen=True)
class ApplyThenStatus(Action):
    """Apply the request, then answer as if it had failed."""

    code: int = 500

    def turned(self, response: Response) -> Response:
        return Response(self.code, b'{"error":{"code":"internal","message":"Something went wrong"}}')


@dataclass(frozen=True)
class RevokeKey(Action):
    """Revoke the key a request carries, then let the CRM judge it."""

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        scene.simulator.revoke(scene.simulator.key_of(scene.request))
        return None


@dataclass(frozen=True)
class ExpireCursor(Action):
    """Refuse a cursor as no longer valid; requests without one are not counted."""

    code: int = 400

    def fits(self, request: Request) -> bool:
        return bool(request.cursor())

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        return scene.simulator.refused(Refusal(self.code, "invalid_cursor", "The cursor has expired"))


@dataclass(frozen=True)
class SamePage(Action):
    """Answer a list request with the page last answered on its path."""

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        return scene.pages.get(scene.request.path)


PLAIN = Action()
ACTIONS: dict[str, type[Action]] = {
    "status": Status,
    "too_many": TooMany,
    "redirect": Redirect,
    "reset": Reset,
    "reset_after_headers": ResetAfterHeaders,
    "half_body": HalfBody,
    "hang": Hang,
    "drip": Drip,
    "garbage": Garbage,
    "not_http": NotHttp,
    "html": Html,
    "wrong_shape": WrongShape,
    "apply_then_drop": ApplyThenDrop,
    "apply_then_status": ApplyThenStatus,
    "revoke_key": RevokeKey,
    "expire_cursor": ExpireCursor,
    "same_page": SamePage,
}


@dataclass
class Rule:
    """Say which requests an action befalls.

    `path` is a regular expression searched in path and query below the CRM's prefix. `nth` is the first
    matching request that is hit, counted from 1; `times` how many are hit, None for all that follow.
    """

    action: Action
    crm: str | None = None
    method: str | None = None
    path: str = ""
    nth: int = 1
    times: int | None = 1
    probability: float = 1.0
    seen: int = 0
    fired: int = 0

    def matches(self, request: Request) -> bool:
        target = f"{request.path}?{request.raw_query}"
        is_meant = self.crm in (None, request.crm) and self.method in (None, request.method)
        return is_meant and re.search(self.path, target) is not None and self.action.fits(request)

    def fires(self, rng: Random) -> bool:
        """Count one matching request and say whether it is hit."""
        self.seen += 1
        is_due = self.seen >= self.nth and (self.times is None or self.fired < self.times)
        is_hit = is_due and (self.probability >= 1 or rng.random() < self.probability)
        self.fired += is_hit
        return is_hit


class Faults:
    """Hold the rules in force; the first that fires decides."""

    def __init__(self, seed: int) -> None:
        self.rules: list[Rule] = []
        self._rng = Random(seed)
        self._lock = Lock()
        self._pages: dict[str, dict[str, Response]] = {}

    def add(
        self,
        action: Action,
        *,
        crm: str | None = None,
        method: str | None = None,
        path: str = "",
        nth: int = 1,
        times: int | None = 1,
        probability: float = 1.0,
    ) -> Rule:
        """Put a rule in force and return it; its `fired` counts the requests it hit."""
        rule = Rule(action, crm, method, path, nth, times, probability)
        with self._lock:
            self.rules.append(rule)
        return rule

    def add_plain(self, rule: Mapping[str, Any]) -> Rule:
        """Put a rule from JSON in force: `action` by name, its arguments under `with`, else as in `add`."""
        rest = {name: value for name, value in rule.items() if name not in ("action", "with")}
        return self.add(ACTIONS[rule["action"]](**rule.get("with", {})), **rest)

    def clear(self) -> None:
        """Take all rules back."""
        with self._lock:
            self.rules.clear()

    def action_for(self, request: Request) -> Action:
        """Return what befalls a request."""
        if not self.rules:
            return PLAIN
        with self._lock:
            matching = [rule for rule in self.rules if rule.matches(request)]
            return next((rule.action for rule in matching if rule.fires(self._rng)), PLAIN)

    def pages(self, crm: str) -> dict[str, Response]:
        """Return the pages last answered by a CRM, by path."""
        return self._pages.setdefault(crm, {})
