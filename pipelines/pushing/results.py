"""What a push did, told for the command line: counts, rows with what became of them, how it ended.

Reads plans and journals only. Sending and booking are left to `sending`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, overload

from pipelines.plan import Held, Plan, entry
from pipelines.pushing.verifying import differing
from sources.core.delivering import Delivery
from sources.core.errors import AuthError, ConnectorError
from sources.core.journal import Booked, Story, values_of

_NOT_CLEAN = ("rejected", "unknown", "conflict", "differs", "not_seen")
LOGGED = ("rejected", "skipped", "conflict")  # what is held back and stands in the log


@dataclass(slots=True)
class PushResult:
    """What a push did, for the command line."""

    sync: str
    connection: str
    object: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    rows: Sequence[dict[str, Any]] = field(default_factory=list)
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip push`."""
        return {
            "sync": self.sync,
            "connection": self.connection,
            "object": self.object,
            "counts": self.counts,
            "rows": self.rows,
        }


def unsent(made: Plan, *, is_listed: bool = True) -> PushResult:
    """Make the result of a push that has sent nothing (yet), with its rows or without."""
    counts = made.counts()
    unknown = made.held.get("unknown", 0)
    counts["skipped"] -= unknown
    if "delete" in made.sent:
        counts |= {"delete": made.sent["delete"], "deleted": 0}
    return PushResult(
        sync=made.sync.name,
        connection=made.connection.name,
        object=made.write.object,
        counts=counts | {"created": 0, "updated": 0, "unknown": unknown},
        rows=[*_planned(made), *held_back(made)] if is_listed else [],
    )


def _planned(made: Plan) -> Iterator[dict[str, Any]]:
    for row in made.outbox():
        yield {**entry(row, action=row.action), "status": "planned"}


def recount(result: PushResult, story: Story, made: Plan) -> None:
    """Count what became of the rows instead of what was planned for them."""
    counts = tally(story.booked)
    for name in ("created", "updated", "rejected", "skipped", "conflict"):
        result.counts[name] = counts[name]
    if "deleted" in result.counts:
        result.counts["deleted"] = counts["deleted"]
    result.counts["unknown"] = counts["unknown"] + made.held.get("unknown", 0)
    result.counts |= Counter(row.verified for row in story.booked if row.verified)


def tally(booked: list[Booked]) -> dict[str, int]:
    """Count booked rows by their status."""
    counts = dict.fromkeys(("created", "updated", "deleted", "rejected", "skipped", "conflict", "unknown"), 0)
    for row in booked:
        counts[row.status] += 1
    return counts


def close(result: PushResult, delivery: Delivery) -> None:
    """Set how the push ended: 130 before 3 before 1."""
    if delivery.error is not None:
        result.error = str(delivery.error)
    if delivery.is_interrupted:
        result.status, result.exit_code = "interrupted", 130
    elif isinstance(delivery.error, AuthError):
        result.status, result.exit_code = "refused", 3
    elif isinstance(delivery.error, ConnectorError) or any(result.counts.get(name) for name in _NOT_CLEAN):
        result.status, result.exit_code = "failed", 1


class Entries(Sequence[dict[str, Any]]):
    """The entries of booked rows and others; the former are made when they are looked at, and few are."""

    def __init__(self, booked: Sequence[Booked], others: Sequence[dict[str, Any]]) -> None:
        self._booked = booked
        self._others = others

    def __len__(self) -> int:
        return len(self._booked) + len(self._others)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        each = range(len(self))[place]  # raises IndexError as a list does
        past = each - len(self._booked)
        return told(self._booked[each]) if past < 0 else self._others[past]


def told(row: Booked) -> dict[str, Any]:
    """Make the entry of a row as it was booked; the action of one that was not sent is its status."""
    held = Held(
        row.key, row.crm_id, row.action, row.status, row.error, values_of(row.sent), values_of(row.replaced)
    )
    action = row.action if row.batch_id else row.status
    made = {**entry(held, action=action, reason=row.error), "status": row.status}
    return made if row.verified is None else made | _verified(row, made["fields"])


def _verified(row: Booked, fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Make the part of an entry that tells what reading back showed, each other value beside its field."""
    names = differing(row)
    shown = {name: {**fields[name], "shown": row.shown[name]} for name in names}
    reason = f"differs: {', '.join(names)}" if names else row.verified
    return {
        "verified": row.verified,
        "reason": None if row.verified == "verified" else reason,
        "fields": fields | shown,
    }


def held_back(made: Plan, *statuses: str) -> Iterator[dict[str, Any]]:
    """Make the entries of the plan's rows that are not sent."""
    for held in made.held_back(*statuses):
        yield {**entry(held, action=held.status, reason=held.reason), "status": held.status}


def booked_held(held: Held, at: datetime) -> Booked:
    """Make the log's entry of a row that is not sent."""
    return Booked(
        key=held.key,
        crm_id=held.crm_id,
        action=held.action,
        status=held.status,
        sent=held.fields,
        replaced=held.before,
        error=held.reason,
        batch_id=None,
        pushed_at=at.isoformat(),
    )
