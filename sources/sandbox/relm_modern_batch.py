"""How Relm's modern contract answers a batch: one result per operation, in the shape a switch gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sources.sandbox.exchange import Refusal, Request, Response, reply
from sources.sandbox.relm_modern_problems import invalid, unknown_value
from sources.sandbox.relm_modern_rules import TABLE_OF
from sources.sandbox.relm_modern_switches import RelmModernSwitches

_METHODS = ("create", "update", "delete")
_CONTENT = {"create": "data", "update": "patch"}


@dataclass(frozen=True, slots=True)
class Operation:
    """Hold one operation of a batch."""

    method: Literal["create", "update", "delete"]
    resource: str
    id: str
    content: dict[str, Any]

    @classmethod
    def read(cls, sent: Any) -> "Operation":
        """Return the operation a client sent; raises `Refusal` 422."""
        if not isinstance(sent, dict):
            raise invalid("An operation must be an object", field="operations")
        method, resource = sent.get("method"), TABLE_OF.get(str(sent.get("object")))
        if method not in _METHODS:
            raise unknown_value("method", method, _METHODS)
        if resource is None:
            raise unknown_value("object", sent.get("object"), TABLE_OF)
        name = _CONTENT.get(method)
        content = sent.get(name) if name else {}
        if not isinstance(content, dict):
            raise invalid(f"{method} takes an object {name}", field=name or "")
        return cls(method, resource, str(sent.get("id", "")), content)


def operations_of(request: Request, most: int) -> list[Any]:
    """Return what a batch asks for, not yet read; raises `Refusal` 413 for too much and 422 for no list."""
    sent = request.json_object().get("operations")
    if not isinstance(sent, list):
        raise invalid("operations must be a list", field="operations")
    if len(sent) > most:
        raise Refusal(413, "payload_too_large", f"A batch holds at most {most} operations")
    return sent


@dataclass(frozen=True, slots=True)
class Result:
    """Hold what became of one operation; `shown` is the record, or the problem when it was refused."""

    done: str
    status: int
    shown: Mapping[str, Any]

    def row(self, index: int) -> dict[str, Any]:
        """Return the result by index, with a word for what was done."""
        is_failed = self.status >= 400
        id, error = (None, self.shown) if is_failed else (self.shown["id"], None)
        return {"index": index, "status": self.done, "id": id, "error": error}

    def answer(self) -> dict[str, Any]:
        """Return the result as the single request would have answered."""
        return {"status": self.status, "error" if self.status >= 400 else "data": self.shown}


def batch_answer(results: list[Result], switches: RelmModernSwitches) -> Response:
    """Return the answer to a batch, which is 200 whatever became of its operations."""
    if switches.batch_answer == "http":
        return reply({"object": "batch", "results": [result.answer() for result in results]})
    rows = [result.row(index) for index, result in enumerate(results)]
    if switches.batch_answer == "bare":
        return reply(rows)
    return reply({"object": "batch", "data" if switches.batch_answer == "rows" else "results": rows})
