"""The one error tree, sorted by what the caller can do about it.

ConnectorError               carries connection, resource, hint, status, request_id
├── ConfigError              the operator must act: stop
│   ├── AuthError            key refused, or permission missing
│   └── QuotaError           used up; waiting minutes does not help
├── TransientError           the same call may work later
│   ├── RateLimitError       429, or the budget's wait is too long for this run
│   └── UnavailableError     5xx, time-out, connection refused or cut
├── RefusedError             this request never works as it stands
│   ├── GoneError            404 or 410: the record or the endpoint is not there
│   └── RowRefusedError      a written row was refused: book it, go on
├── UncertainError           a write was sent and its answer lost: book it, never send it again blindly
├── ProtocolError            the API broke its own rules
├── LockedError              another run holds this warehouse
├── GuardError               a safety guard stopped the run before anything was done
└── InternalError            a fault of ours: what it struck is left, the rest goes on
"""

from pathlib import Path
from typing import Any


class ConnectorError(Exception):
    """Tell one failure in one line: `<connection> <resource>: <what> (<status>). <hint>`.

    `answer` is the CRM's whole answer, where there was one, for those who read the reasons of single rows.
    """

    answer: Any = None

    def __init__(
        self,
        what: str,
        *,
        connection: str = "",
        resource: str = "",
        hint: str = "",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        self.what = what
        self.connection = connection
        self.resource = resource
        self.hint = hint
        self.status = status
        self.request_id = request_id
        super().__init__(what)

    def __str__(self) -> str:
        place = " ".join(part for part in (self.connection, self.resource) if part)
        line = f"{place}: {self.what}" if place else self.what
        if self.status is not None and f"({self.status}" not in self.what:
            line += f" ({self.status})"
        if self.hint:
            line = f"{line.rstrip('.')}. {self.hint}"
        return line


class ConfigError(ConnectorError):
    """Stop: a setting or a command line must be mended by a person."""


class AuthError(ConfigError):
    """Stop: the CRM refused the key or its permissions."""


class QuotaError(ConfigError):
    """Stop: the account's quota is used up; minutes of waiting do not help."""


class TransientError(ConnectorError):
    """Try later: the same call may work then."""


class RateLimitError(TransientError):
    """Try later: the CRM asks for a longer wait than this run allows; `retry_after_s` says how long."""

    retry_after_s: float | None = None


class UnavailableError(TransientError):
    """Try later: no usable answer arrived."""


class RefusedError(ConnectorError):
    """Do not repeat: the CRM understood the request and refused it."""


class GoneError(RefusedError):
    """The record or endpoint is not there (404 and 410 are treated alike)."""


class RowRefusedError(RefusedError):
    """Book the row as rejected and go on with the others."""


class UncertainError(ConnectorError):
    """A write left us and no answer came back: it may or may not have been applied."""


class ProtocolError(ConnectorError):
    """The answer is not what the vendor documents (HTML, wrong shape, a cursor that repeats)."""


class LockedError(ConnectorError):
    """Another run holds the lock of this warehouse."""


class GuardError(ConnectorError):
    """A safety guard stopped the run; nothing was sent or marked."""


class InternalError(ConnectorError):
    """An exception that nobody foresaw; its words may quote a record, so only its kind and place are told."""

    def __init__(self, error: BaseException, *, connection: str = "", resource: str = "") -> None:
        super().__init__(
            f"internal error: {type(error).__name__}{_place(error)}",
            connection=connection,
            resource=resource,
            hint="Run it again with --debug for the traceback.",
        )


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" in {Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}"
