"""Relm's modern errors: problem documents (RFC 9457) with a code, and what is wrong where."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from sources.sandbox.exchange import Refusal

PROBLEM = "application/problem+json"
_PAGES = "https://relmcrm.com/errors/"
# What the shared parts of the sandbox raise, by the code of this contract.
_CODES = {
    "invalid_json": "bad_request",
    "invalid_request": "bad_request",
    "idempotency_conflict": "idempotency_key_reused",
}


def problem(
    status: int, code: str, detail: str, errors: Mapping[str, Any], *, request_id: str
) -> dict[str, Any]:
    """Return the document of an error."""
    code = _CODES.get(code, code)
    return {
        "type": _PAGES + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        **errors,
        "request_id": request_id,
    }


def with_classic_error(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a problem that also carries the error object of the older contract."""
    names = {"code": "code", "message": "detail", "request_id": "request_id"}
    return {**document, "error": {name: document[source] for name, source in names.items()}}


def bad_request(detail: str, *, field: str | None = None, valid: Iterable[str] | None = None) -> Refusal:
    """Return the refusal of a request that cannot be understood."""
    return Refusal(400, "bad_request", detail, errors=_where(field, valid))


def invalid(detail: str, *, field: str) -> Refusal:
    """Return the refusal of a record that breaks a rule."""
    return Refusal(422, "validation_failed", detail, errors=_where(field, None))


def unknown_field(field: str, valid: Iterable[str]) -> Refusal:
    """Return the refusal of a field that does not exist."""
    options = list(valid)
    errors = _where(field, options) | _suggestion(field, options)
    return Refusal(422, "unknown_field", f"There is no field {field}", errors=errors)


def unknown_value(field: str, value: object, valid: Iterable[str]) -> Refusal:
    """Return the refusal of a value that is not in its set."""
    options = list(valid)
    errors = _where(field, options) | _suggestion(str(value), options)
    return Refusal(422, "unknown_value", f"{field} does not take this value", errors=errors)


def invalid_reference(field: str, object_type: str) -> Refusal:
    """Return the refusal of an id that names no record."""
    return Refusal(422, "invalid_reference", f"{field} names no {object_type}", errors=_where(field, None))


def conflict(detail: str, *, field: str | None = None) -> Refusal:
    """Return the refusal of what collides with something that is there."""
    return Refusal(409, "conflict", detail, errors=_where(field, None))


def _where(field: str | None, valid: Iterable[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if field is None else {"field": field}
    return found if valid is None else found | {"valid_options": list(valid)}


def _suggestion(given: str, options: list[str]) -> dict[str, str]:
    close = get_close_matches(given, options, n=1)
    return {"suggestion": close[0]} if close else {}
