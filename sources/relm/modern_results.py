"""What Relm Modern answers to writes: one result per operation of a batch, records, problem documents.

The vendor types none of it beyond `object`, so results are read in every plausible shape, matched by index or
by place, and what fits nothing stays open.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sources.core.auth import presentable
from sources.core.bodies import decode_json
from sources.core.client import Answer
from sources.core.errors import ProtocolError
from sources.core.lanes import landed, left_open
from sources.core.rows import Outcome, Row, Verdict

_LISTS = ("data", "results", "operations")
_FAILED = frozenset({"failed", "error", "rejected", "invalid", "refused"})
_THERE = frozenset({"existing", "exists", "conflict"})
_VERDICTS: dict[Any, Verdict] = {"created": "created", "updated": "updated", "unchanged": "unchanged"}


def decode_batch(rows: Sequence[Row], answer: Answer) -> list[Outcome]:
    """Read the answer to a batch, or to the single request that carried a batch of one."""
    body = answer.json()
    if len(rows) == 1 and isinstance(body, Mapping) and isinstance(body.get("id"), str):
        return [_of_result(rows[0], {"status": answer.status, "data": body})]
    results = _results(body)
    if all(type(each.get("index")) is int for each in results):
        placed = {each["index"]: each for each in results}
    elif len(results) == len(rows):
        placed = dict(enumerate(results))
    else:
        placed = {}
    return [
        _of_result(row, placed[place]) if place in placed else left_open(row)
        for place, row in enumerate(rows)
    ]


def blame(rows: Sequence[Row], body: bytes) -> Mapping[int, str]:
    """Read from a problem document why a single row was refused; of several it names none."""
    try:
        problem = decode_json(body)
    except ProtocolError:
        return {}
    if len(rows) != 1 or not isinstance(problem, Mapping) or not problem.get("code"):
        return {}
    return {0: _reason(problem)}


def _results(body: Any) -> list[Mapping[str, Any]]:
    if isinstance(body, Mapping):
        body = next((body[name] for name in _LISTS if isinstance(body.get(name), list)), [])
    return [each for each in body if isinstance(each, Mapping)] if isinstance(body, list) else []


def _of_result(row: Row, result: Mapping[str, Any]) -> Outcome:
    status, error = result.get("status"), result.get("error")
    problem = error if isinstance(error, Mapping) else {"detail": error} if error else {}
    code = next((each for each in (status, problem.get("status")) if type(each) is int), None)
    if problem or str(status).lower() in _FAILED or (code or 0) >= 400:
        return _failed(row, code, problem)
    shown = result.get("data")
    record = shown if isinstance(shown, Mapping) else {}
    ids = (each for each in (result.get("id"), record.get("id")) if isinstance(each, str) and each)
    crm_id = next(ids, None)
    if row.action == "create" and (code == 200 or str(status).lower() in _THERE):
        return _is_there(row, crm_id)
    if crm_id is None or (row.crm_id and crm_id != row.crm_id):
        return left_open(row, "the result names another record, or none")
    return Outcome(row.seq, _VERDICTS.get(status, landed(row)), crm_id)


def _failed(row: Row, code: int | None, problem: Mapping[str, Any]) -> Outcome:
    """Tell what a refused operation means: a conflict shows the record that is there already."""
    if code is not None and code >= 500:
        return left_open(row, _reason(problem))
    if code == 429:
        return Outcome(row.seq, "absent", reason=_reason(problem))
    others = (each for each in problem.values() if isinstance(each, Mapping))
    existing = next((each["id"] for each in others if isinstance(each.get("id"), str)), None)
    if existing and row.action == "create":
        return _is_there(row, existing)
    return Outcome(row.seq, "rejected", row.crm_id, _reason(problem))


def _is_there(row: Row, crm_id: str | None) -> Outcome:
    """Reject a creation that met its record: nothing of the row was taken, an update can follow."""
    return Outcome(row.seq, "rejected", crm_id, "already_in_crm: pull first, then it is updated")


def _reason(problem: Mapping[str, Any]) -> str:
    """Give a problem's code and words; an operation may be refused without either."""
    words = [str(problem[name]) for name in ("code", "detail", "field") if problem.get(name)]
    return presentable(": ".join(words[:2]) + "".join(f" ({each})" for each in words[2:]), None) or "refused"
