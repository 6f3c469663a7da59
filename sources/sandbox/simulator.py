"""What the simulators share: routes, keys, the rate limit and the order in which a request is judged.

A simulator is a module of this folder with `SIMULATOR = <subclass>`; nothing else lists it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Any, ClassVar, NoReturn

from sources.sandbox.exchange import Refusal, Request, Response
from sources.sandbox.limits import Allowance, RateLimit
from sources.sandbox.people import World
from sources.sandbox.store import Clock, Operation, Origin, Tenant


@dataclass(slots=True)
class Grant:
    """Say what a key may do and how the CRM names it."""

    key: str
    scopes: frozenset[str]
    label: str
    is_active: bool = True


def route(method: str, pattern: str) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Answer a method on paths that fully match; named groups arrive as arguments."""

    def mark(answer: Callable[..., Response]) -> Callable[..., Response]:
        routes: list[tuple[str, re.Pattern[str]]] = getattr(answer, "routes", [])
        answer.routes = [*routes, (method, re.compile(pattern))]  # type: ignore[attr-defined]
        return answer

    return mark


class Simulator(ABC):
    """Answer for one CRM; subclasses give the constants, the routes and the shape of an error."""

    name: ClassVar[str]
    # The CRM whose further contract this is; such a one is served only where a workspace is asked for.
    dialect_of: ClassVar[str] = ""
    base_path: ClassVar[str] = ""
    key_prefix: ClassVar[str]
    scopes: ClassVar[frozenset[str]] = frozenset()
    switches: ClassVar[type[Any]]
    # Share of `records` by which this CRM's people are shifted, so that two CRMs know some in common.
    people_offset: ClassVar[float] = 0.0
    _routes: ClassVar[list[tuple[str, re.Pattern[str], str]]] = []

    tenant: Tenant
    rate: RateLimit | None

    def __init_subclass__(cls) -> None:
        marked = ((name, method) for name, method in vars(cls).items() if hasattr(method, "routes"))
        own = [(verb, pattern, name) for name, method in marked for verb, pattern in method.routes]
        cls._routes = [*own, *cls._routes]

    def __init__(self, *, seed: int, now: Clock, switches: Any) -> None:
        self.seed = seed
        self.now = now
        self.settings = switches
        self.grants: list[Grant] = []

    def part(self, request: Request) -> "Simulator":
        """Return the simulator that answers a request; a CRM with several contracts has one for each."""
        return self

    @abstractmethod
    def populate(self, world: World) -> None:
        """Fill the workspace with made-up people."""

    @abstractmethod
    def key_of(self, request: Request) -> str:
        """Return the key a request carries, or an empty string."""

    @abstractmethod
    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        """Return an error in the CRM's own shape."""

    @abstractmethod
    def is_list(self, request: Request) -> bool:
        """Say whether a request asks for a page of records."""

    def environment(self) -> dict[str, str]:
        """Return the settings a connection needs beside address and key."""
        return {}

    def permit(self, grant: Grant, request: Request) -> None:
        """Raise `Refusal` when a key's scopes do not cover a request."""
        return

    def common_headers(self) -> dict[str, str]:
        """Return headers of every answer."""
        return {}

    def key(self, scopes: Iterable[str] | None = None, *, label: str = "roundtrip") -> str:
        """Return a key that works, made on first use; None stands for all scopes."""
        wanted = self.scopes if scopes is None else frozenset(scopes)
        for grant in self.grants:
            if grant.scopes == wanted and grant.label == label and grant.is_active:
                return grant.key
        text = f"{self.seed} {self.tenant.name} {len(self.grants)}"
        key = self.key_prefix + sha256(text.encode()).hexdigest()[:32]
        self.grants.append(Grant(key, wanted, label))
        return key

    def revoke(self, key: str | None = None) -> None:
        """Make a key, or all keys, stop working."""
        for grant in self.grants:
            if key is None or compare_digest(grant.key, key):
                grant.is_active = False

    def handle(self, request: Request) -> Response:
        """Answer one request; requests of a workspace are answered one after the other."""
        with self.tenant.lock:
            allowance = self.rate.take(self.now().timestamp()) if self.rate else None
            response = self._judge(request, allowance)
            response.headers.update(self.common_headers())
            if allowance:
                response.headers.update(self.rate_headers(allowance))
            return response

    def origin(
        self, request: Request, *, op: Operation | None = None, sent: Mapping[str, Any] | None = None
    ) -> Origin:
        """Return what the ledger says of a request's write."""
        return Origin(request.by, request.id, request.headers.get("idempotency-key", ""), op, sent)

    def respond(self, request: Request) -> Response:
        """Answer an authorised request; a CRM with idempotency keys wraps this."""
        return self.dispatch(request)

    def dispatch(self, request: Request) -> Response:
        """Hand a request to the method whose route fits; raises `Refusal` 404 or 405."""
        is_known_path = False
        for verb, pattern, name in self._routes:
            if match := pattern.fullmatch(request.path):
                if verb == request.method:
                    answer: Response = getattr(self, name)(request, **match.groupdict())
                    return answer
                is_known_path = True
        if is_known_path:
            raise Refusal(405, "method_not_allowed", f"{request.method} is not allowed on this path")
        raise Refusal(404, "not_found", "There is nothing at this path")

    def refused(self, refusal: Refusal) -> Response:
        """Return a refusal in the CRM's own shape."""
        return self.refusal(refusal.status, refusal.code, refusal.message, refusal.errors)

    def _judge(self, request: Request, allowance: Allowance | None) -> Response:
        try:
            grant = self._grant(request)
            request.by = grant.label
            if allowance and not allowance.is_granted:
                return self._too_many(allowance)
            self.permit(grant, request)
            return self.respond(request)
        except Refusal as refusal:
            return self.refused(refusal)

    def _grant(self, request: Request) -> Grant:
        given = self.key_of(request).encode()
        # Every key is compared, each in constant time, so that nothing can be learnt from the wait.
        fits = [grant for grant in self.grants if compare_digest(grant.key.encode(), given)]
        if not fits or not fits[0].is_active:
            raise Refusal(401, "unauthorized", "The API key is missing, wrong or revoked")
        return fits[0]

    def _too_many(self, allowance: Allowance) -> Response:
        response = self.refusal(429, "rate_limited", "Too many requests", {})
        if self.tells_retry_after():
            response.headers["Retry-After"] = str(allowance.retry_after_s)
        return response

    def rate_headers(self, allowance: Allowance) -> dict[str, str]:
        """Return what every answer tells of the rate limit."""
        return allowance.headers()

    def tells_retry_after(self) -> bool:
        """Say whether a 429 carries Retry-After."""
        return True


def is_missing(what: str) -> NoReturn:
    """Raise the 404 of a record that is not there."""
    raise Refusal(404, "not_found", f"No such {what}")
