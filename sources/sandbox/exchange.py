"""One request and its answer, as the simulators see them; bytes on a socket are left to `wire`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

JSON = "application/json"


@dataclass(slots=True)
class Request:
    """Hold one request below the prefix of its CRM; header names are lower-case."""

    crm: str
    method: str
    path: str
    raw_query: str
    headers: dict[str, str]
    body: bytes
    id: str = ""
    by: str = ""

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.raw_query, keep_blank_values=True)

    def param(self, name: str) -> str | None:
        """Return the first value of a query parameter, or None."""
        return next((value for key, value in self.query if key == name), None)

    def cursor(self) -> str | None:
        """Return the cursor a request sends in its query or in its JSON body, or None."""
        if sent := self.param("cursor"):
            return sent
        try:
            body = _decode(self.body)
        except msgspec.DecodeError:
            return None
        found = body.get("cursor") if isinstance(body, dict) else None
        return found if isinstance(found, str) else None

    def json(self) -> Any:
        """Return the parsed body; raises `Refusal` 400 when it is not JSON."""
        try:
            return _decode(self.body)
        except msgspec.DecodeError as error:
            raise Refusal(400, "invalid_json", f"The body is not JSON: {error}") from error

    def json_object(self) -> dict[str, Any]:
        """Return the parsed body; raises `Refusal` 400 when it is not a JSON object."""
        value = self.json()
        if not isinstance(value, dict):
            raise Refusal(400, "invalid_request", "The body must be a JSON object")
        return value


@dataclass(slots=True)
class Response:
    """Hold one answer; length, date and connection headers are added on the wire."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON

    def copy(self) -> "Response":
        """Return an answer whose headers may be changed without changing these."""
        return Response(self.status, self.body, dict(self.headers), self.content_type)


class Refusal(Exception):  # noqa: N818 - an answer of the CRM, not an error of ours
    """Carry a refusal up to where the CRM's own error shape is known."""

    def __init__(
        self, status: int, code: str, message: str, *, errors: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.errors = dict(errors or {})


def reply(value: Any, status: int = 200, *, content_type: str = JSON) -> Response:
    """Return an answer with a JSON body."""
    return Response(status, encode(value), {}, content_type)


def encode(value: Any) -> bytes:
    """Return a value as JSON bytes."""
    return _encode(value)


def decode(body: bytes) -> Any:
    """Return the value of JSON bytes."""
    return _decode(body)
