"""Requests to one workspace: sent with its key, repeated where that is safe, answered or raised as one error.

Connections are kept by `core.transport`; how fast requests go is left to `core.pacing`, pages to
`core.paging`, what a write's answer means to the CRM modules.

Repeating follows from two questions asked of each failed attempt: may the server have acted on it, and may
the same bytes be sent again. A request that never left, or that the server says it did not process (429,
425), is always repeated; any other failure that may pass only where the caller says `repeatable`. A write of
which an attempt may have been applied never ends in an error that says it was not.
"""

import functools
import importlib.metadata
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec
import tenacity

from sources.core.auth import (
    Auth,
    check_base_url,
    check_key,
    home_address,
    is_plain_path,
    key_hint,
    presentable,
    without_addresses,
)
from sources.core.errors import (
    AuthError,
    ConfigError,
    ConnectorError,
    GoneError,
    ProtocolError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
    UnavailableError,
    UncertainError,
)
from sources.core.pacing import SYSTEM_CLOCK, Budget, Clock, backoff_s, http_date, retry_after_s
from sources.core.refusals import read_refusal
from sources.core.transport import Transport

STATUSES: Mapping[int, type[Exception]] = {
    401: AuthError,
    402: QuotaError,
    403: AuthError,
    404: GoneError,
    408: UnavailableError,
    410: GoneError,
    425: UnavailableError,
    429: RateLimitError,
    501: RefusedError,
}
"""What a status means; another 4xx is a `RefusedError`, another 5xx an `UnavailableError`."""

_NOT_PROCESSED = frozenset({425, 429})
_MAX_REDIRECTS = 3
_REQUEST_IDS = ("x-request-id", "request-id", "x-correlation-id")
_QUOTA_CODES = frozenset({"quota_exceeded", "spend_cap_reached"})
# In JSON: a character of two halves, half of one (a group), any other escape.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB]%s\\u[dD][c-fC-F]%s|(\\u[dD][89a-fA-F]%s)|\\." % ((rb"[0-9a-fA-F]{2}",) * 3)
)
_NO_PARAMS: tuple[tuple[str, str], ...] = ()
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Params = Sequence[tuple[str, str]] | Mapping[str, str]

logger = logging.getLogger("roundtrip.http")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; header names are lower-case, `elapsed_s` runs from sending to the last byte."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    elapsed_s: float = 0.0
    connection: str = ""
    resource: str = ""

    def json(self, type: Any = Any) -> Any:  # noqa: A002 (msgspec's own word)
        """Decode the body; `ProtocolError` when it is no JSON or not of the type."""
        if not self.body.strip():
            raise self._broken("the answer is empty", "")
        content_type = self.headers.get("content-type", "")
        if "html" in content_type.lower() or self.body.lstrip()[:1] == b"<":
            raise self._broken("the answer is a web page, not JSON", "Check the connection's base_url.")
        try:
            return msgspec.json.decode(self.body, type=type)
        except msgspec.ValidationError as error:
            shape = presentable(str(error), None)
            raise self._broken(f"the answer has another shape than documented: {shape}", "") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if (mended := _with_halves_as_text(self.body)) != self.body:
                return replace(self, body=mended).json(type)
            raise self._broken("the answer is not JSON", "") from None

    def _broken(self, what: str, hint: str) -> ProtocolError:
        return ProtocolError(
            what, connection=self.connection, resource=self.resource, status=self.status, hint=hint
        )


@dataclass(slots=True)
class _Call:
    method: str
    url: str
    params: tuple[tuple[str, str], ...]
    body: bytes | None
    headers: Mapping[str, str]
    repeatable: bool
    resource: str
    attempts: int = 0
    redirects: int = 0
    is_open: bool = False  # an attempt may have been applied


@dataclass(frozen=True, slots=True)
class _Failure:
    error: ConnectorError
    cause: Exception | None = None
    is_transient: bool = False
    is_open: bool = True  # this attempt may have been applied
    is_paced: bool = False  # the budget already waits for as long as the server asked


class _TooLargeError(httpx.HTTPError):
    pass


_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# A lost answer: what httpx calls it, what it is here, and whether another attempt may go better.
_LOST: tuple[tuple[type[httpx.HTTPError], type[ConnectorError], str, bool], ...] = (
    (_TooLargeError, ProtocolError, "the answer is larger than any page", False),
    (httpx.DecodingError, ProtocolError, "the answer's compression is broken", False),
    (httpx.TimeoutException, UnavailableError, "no whole answer came in time", True),
)


class Client:
    """Speak to one workspace; safe to share between threads.

    `statuses` overrides rows of `STATUSES`. `timeout_s` bounds each wait for bytes, `answer_s` a whole body.
    """

    def __init__(  # noqa: PLR0913 (one per setting, all by name)
        self,
        *,
        connection: str,
        base_url: str,
        auth: Auth | None,
        budget: Budget | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        statuses: Mapping[int, type[Exception]] = MappingProxyType({}),
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        timeout_s: float = 30.0,
        answer_s: float = 120.0,
        max_attempts: int = 5,
        max_body_bytes: int = 64 * 1024 * 1024,
        key_hint: str = "",
    ) -> None:
        self.connection = connection
        self._key_hint = key_hint
        check_base_url(connection, base_url)
        if auth is not None:
            check_key(connection, auth, key_hint)
        self._auth = auth
        self._base_url = base_url.rstrip("/")
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": user_agent(),
            **headers,
        }
        self._statuses = {**STATUSES, **statuses}
        self._clock = clock
        self._rng = rng or random.Random()
        self.budget = budget or Budget(clock=clock)
        self._answer_s = answer_s
        self._max_attempts = max_attempts
        self._max_body_bytes = max_body_bytes
        self._server_date: tuple[float, float] | None = None
        timeout = httpx.Timeout(timeout_s, connect=min(10.0, timeout_s), pool=None)
        self._extensions = {"timeout": timeout.as_dict()}
        self._transport = Transport(base_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def get(self, path: str, params: Params = _NO_PARAMS, *, resource: str = "") -> Answer:
        """Read, repeating as needed; raises one `ConnectorError`."""
        return self.send("GET", path, params=params, repeatable=True, resource=resource)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Params = _NO_PARAMS,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
        resource: str = "",
    ) -> Answer:
        """Send one request and give its answer of 2xx; `repeatable` says that the same bytes may go twice.

        Raises `UncertainError` when a write may have been applied and no answer tells.
        """
        pairs = tuple(params.items() if isinstance(params, Mapping) else params)
        sent = {**self._headers, **(headers or {}), **(self._auth.headers() if self._auth else {})}
        if body is not None and not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = "application/json"
        call = _Call(method, self._url(path, resource), pairs, body, sent, repeatable, resource)
        result = self._attempt(call)
        if isinstance(result, _Failure) and result.is_transient:
            coming: Iterator[Answer | _Failure] = chain([result], iter(lambda: self._attempt(call), None))
            result = self._policy()(lambda: next(coming))
        if isinstance(result, Answer):
            return result
        raise _final(call, result) from result.cause

    def server_time(self) -> datetime | None:
        """Give the server's present time by its last `Date`, None before the first answer."""
        seen = self._server_date
        if seen is None:
            return None
        date, at = seen
        return datetime.fromtimestamp(date, UTC) + timedelta(seconds=self._clock.monotonic() - at)

    # -- attempts --------------------------------------------------------------------------------

    def _policy(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_result(
                lambda result: isinstance(result, _Failure) and result.is_transient
            ),
            stop=tenacity.stop_after_attempt(self._max_attempts),
            wait=self._wait_s,
            sleep=self._clock.sleep,
            retry_error_callback=_last_result,
        )

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        return 0.0 if _last_result(state).is_paced else backoff_s(state.attempt_number, self._rng)

    def _attempt(self, call: _Call) -> Answer | _Failure:
        call.attempts += 1
        result = self._exchange(call)
        if isinstance(result, Answer):
            return result
        call.is_open = call.is_open or result.is_open
        may_repeat = call.repeatable or not result.is_open
        return replace(result, is_transient=result.is_transient and may_repeat)

    def _exchange(self, call: _Call) -> Answer | _Failure:
        """Send once, within the budget; redirects that stay at home are followed."""
        try:
            sent_at = self.budget.acquire()
        except RateLimitError as error:
            error.connection, error.resource = self.connection, call.resource
            return _Failure(error, is_open=False)
        answer = None
        try:
            answer = self._receive(call)
        except ConfigError as error:  # of this machine's own; nothing was sent
            error.connection, error.resource = self.connection, call.resource
            return _Failure(error, is_open=False)
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            self._log(call, "no answer")
            return self._lost(call, cause)
        finally:
            if answer is None:
                self.budget.release()
            else:
                self.budget.observe(answer.status, answer.headers, sent_at=sent_at)
        self._log(call, f"{answer.status} {answer.elapsed_s * 1000:.0f} ms")
        return self._judge(call, answer)

    def _receive(self, call: _Call) -> Answer:
        started = self._clock.monotonic()
        # Made here and not by httpx's client, which takes as long to merge its defaults as to send a request.
        request = httpx.Request(
            call.method,
            call.url,
            params=call.params or None,
            content=call.body,
            headers=call.headers,
            extensions=self._extensions,
        )
        with self._transport.send(request) as response:
            headers = dict(response.headers)
            if (date := http_date(headers.get("date", ""))) is not None:
                self._server_date = (date, self._clock.monotonic())
            body = self._read(response, started)
        elapsed_s = self._clock.monotonic() - started
        return Answer(response.status_code, headers, body, elapsed_s, self.connection, call.resource)

    def _read(self, response: httpx.Response, started: float) -> bytes:
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > self._max_body_bytes:
                raise _TooLargeError(f"more than {self._max_body_bytes} bytes")
            if self._clock.monotonic() - started > self._answer_s:
                raise httpx.ReadTimeout(f"longer than {self._answer_s} s")
        return bytes(body)

    def _log(self, call: _Call, what: str) -> None:
        if not logger.isEnabledFor(logging.DEBUG):
            return
        path = without_addresses(urlsplit(call.url).path)
        logger.debug("%s %s %s attempt %d", call.method, path, what, call.attempts)

    def _url(self, path: str, resource: str) -> str:
        if not is_plain_path(path):
            raise RefusedError("an id cannot stand in a path", connection=self.connection, resource=resource)
        return f"{self._base_url}/{path.strip('/')}"

    # -- what came of an attempt -----------------------------------------------------------------

    def _judge(self, call: _Call, answer: Answer) -> Answer | _Failure:
        if 200 <= answer.status < 300:
            return answer
        if answer.status >= 400:
            return self._refusal(call, answer)
        if answer.status in (301, 302, 303, 307, 308):
            return self._redirect(call, answer)
        what = f"the answer has a status that no request asked for ({answer.status})"
        return _Failure(self._error(ProtocolError, what, call, answer))

    def _redirect(self, call: _Call, answer: Answer) -> Answer | _Failure:
        """Follow a redirect of a GET to the same scheme, host and port; the key goes nowhere else."""
        target = home_address(call.url, answer.headers.get("location", ""))
        hint = "Check the connection's base_url."
        if target is None or call.method != "GET" or call.redirects == _MAX_REDIRECTS:
            where = "to another address" if target is None else "a write, or again and again"
            what = f"the CRM redirects {where} ({answer.status})"
            return _Failure(self._error(ProtocolError, what, call, answer, hint=hint))
        call.url, call.params = target, ()
        call.redirects += 1
        return self._exchange(call)

    def _refusal(self, call: _Call, answer: Answer) -> _Failure:
        if self._auth:
            answer = replace(answer, body=self._auth.masked(answer.body))
        code, reason = read_refusal(answer.body)
        kind = self._kind(answer, code, reason)
        error = self._error(kind, _what(kind, answer.status, presentable(reason, self._auth)), call, answer)
        wait_s = retry_after_s(answer.headers, self._clock.time())
        if isinstance(error, RateLimitError):
            error.retry_after_s = wait_s
        error.answer = answer
        return _Failure(
            error,
            is_transient=isinstance(error, TransientError),
            is_open=isinstance(error, UnavailableError) and answer.status not in _NOT_PROCESSED,
            is_paced=answer.status == 429 or (answer.status >= 500 and wait_s is not None),
        )

    def _kind(self, answer: Answer, code: str, reason: str) -> type[ConnectorError]:
        default = RefusedError if answer.status < 500 else UnavailableError
        kind = self._statuses.get(answer.status, default)
        if not issubclass(kind, ConnectorError):
            return default
        # A used-up quota is told with 429 as well (Relm's codes, Reevo's texts): no wait of minutes helps.
        is_timed = "retry-after" in answer.headers or "x-ratelimit-reset" in answer.headers
        is_used_up = code in _QUOTA_CODES or ("quota" in reason.lower() and not is_timed)
        return QuotaError if is_used_up and issubclass(kind, RateLimitError) else kind

    def _lost(self, call: _Call, cause: httpx.HTTPError | httpx.InvalidURL) -> _Failure:
        if isinstance(cause, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
            # httpx quotes the header at fault, which may be the key: its error is not kept.
            error = self._error(ProtocolError, "the request cannot be written as HTTP", call)
            return _Failure(error, is_open=False)
        if isinstance(cause, _NOT_SENT):
            return self._unsent(call, cause)
        for kinds, error_kind, what, is_transient in _LOST:
            if isinstance(cause, kinds):
                return _Failure(self._error(error_kind, what, call), cause, is_transient=is_transient)
        if "illegal" in str(cause):  # h11's word for bytes that are not HTTP
            error = self._error(ProtocolError, "the answer is not HTTP", call)
        else:
            error = self._error(UnavailableError, "the connection was cut before the whole answer came", call)
        return _Failure(error, cause, is_transient=True)

    def _unsent(self, call: _Call, cause: httpx.HTTPError) -> _Failure:
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            what = "the certificate of the CRM's host is not trusted"
            error = self._error(ConfigError, what, call, hint="Check the connection's base_url.")
            return _Failure(error, cause, is_open=False)
        evidence = re.sub(r"^\[Errno -?\d+\] ", "", presentable(str(cause), self._auth)) or "time-out"
        error = self._error(UnavailableError, f"the CRM cannot be reached ({evidence})", call)
        return _Failure(error, cause, is_transient=True, is_open=False)

    def _error(
        self,
        kind: type[ConnectorError],
        what: str,
        call: _Call,
        answer: Answer | None = None,
        *,
        hint: str = "",
    ) -> ConnectorError:
        if issubclass(kind, AuthError):
            hint = self._key_hint or key_hint(self.connection)
        headers = answer.headers if answer else _NO_HEADERS
        request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), "")
        return kind(
            what,
            connection=self.connection,
            resource=call.resource,
            hint=hint,
            status=answer.status if answer else None,
            request_id=presentable(request_id, self._auth)[:80] or None,
        )


def _last_result(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _final(call: _Call, failure: _Failure) -> ConnectorError:
    """Give the error to raise: one that says `not applied` only if that holds for every attempt."""
    error = failure.error
    if not call.is_open or call.method == "GET" or (call.repeatable and type(error) is UnavailableError):
        return error
    kind = UnavailableError if call.repeatable and isinstance(error, TransientError) else UncertainError
    told = {name: getattr(error, name) for name in ("connection", "resource", "hint", "status", "request_id")}
    final = kind(f"a request was sent and what became of it is not known: {error.what}", **told)
    final.answer = error.answer
    return final


def _what(kind: type[ConnectorError], status: int, reason: str) -> str:
    evidence = f"({status}: {reason})" if reason else f"({status})"
    if status == 403 and issubclass(kind, AuthError):
        return f"the key lacks a permission for this {evidence}"
    for known, text in _WHAT:
        if issubclass(kind, known):
            return f"{text} {evidence}"
    return f"the CRM answered with an error {evidence}"


_WHAT: tuple[tuple[type[ConnectorError], str], ...] = (
    (AuthError, "the key was refused"),
    (QuotaError, "the account's quota is used up"),
    (GoneError, "there is no such record or endpoint"),
    (RefusedError, "the request was refused"),
    (RateLimitError, "too many requests"),
    (UnavailableError, "the CRM could not answer"),
)


def _with_halves_as_text(body: bytes) -> bytes:
    """Make of half a character, which no text can hold, the six characters that it was written with.

    Servers send one that cut texts within an emoji.
    """
    return _ESCAPES.sub(lambda found: b"\\" + found[0] if found[1] else found[0], body)


@functools.cache
def user_agent() -> str:
    """Name this program and its version."""
    try:
        return f"roundtrip/{importlib.metadata.version('roundtrip')}"
    except importlib.metadata.PackageNotFoundError:
        return "roundtrip"
