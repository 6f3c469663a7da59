"""What a push will cost before it starts: calls per lane, minutes at the CRM's limits, what counts as quota.

Worked out from the plan alone, without a call. Which lane a row takes is the CRM module's rule; how fast its
workspace may be asked is what its vendor documents, or the connection's own pace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from sources import load
from sources.core.connector import Connection, Contract
from sources.core.pacing import SHARE
from sources.core.rows import Row

if TYPE_CHECKING:
    from pipelines.plan import Plan

_ANSWER_S = 0.2  # a guess at how long a CRM takes to answer a write
_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows of a plan that are alike: the same action, found in the same way, with the same fields."""

    sample: Row
    records: int


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """What one lane has to carry: `rows` at `size` a call."""

    lane: str
    rows: int
    size: int
    calls: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many calls a push takes, for about how many seconds, and by which limit.

    `per_minute` is None where neither the vendor nor the settings name a limit; the time is then a guess at
    the CRM's answers. `quota` is how much of a monthly quota is used up, None where the vendor names none.
    """

    calls: int
    seconds: float
    per_minute: int | None
    quota: int | None
    lanes: tuple[LaneLoad, ...]

    def payload(self) -> dict[str, Any]:
        """Give the forecast's keys of the JSON object."""
        lanes = [
            {"lane": each.lane, "rows": each.rows, "rows_a_call": each.size, "calls": each.calls}
            for each in self.lanes
        ]
        return {
            "calls": self.calls,
            "seconds": round(self.seconds, 1),
            "calls_per_minute": self.per_minute,
            "quota": self.quota,
            "lanes": lanes,
        }


def shapes_of(made: "Plan") -> list[Shape]:
    """Sort the rows to send by what they are like; there are few shapes, however many rows."""
    found = made.con.execute(
        """
        select action, match, crm_id is not null as has_id, json_keys(fields) as names, count(*)
        from plan_rows where status = 'planned' and seq <= ? group by all order by all
        """,
        [made.last_seq],
    ).fetchall()
    return [
        Shape(Row(0, "", "id" if has_id else None, action, dict.fromkeys(names), match=match), records)
        for action, match, has_id, names, records in found
    ]


def forecast(made: "Plan", shapes: Sequence[Shape]) -> Forecast:
    """Count the calls of a plan and tell how long they take."""
    rows: dict[str, int] = {}
    for shape in shapes:
        name = made.write.lane(shape.sample, made.connection)
        rows[name] = rows.get(name, 0) + shape.records
    lanes = tuple(_load(made, name, number) for name, number in rows.items())
    contract = load(made.connection.crm).contract(made.connection)
    calls = sum(each.calls for each in lanes)
    return Forecast(
        calls=calls,
        seconds=_seconds(calls, contract, made.connection),
        per_minute=_per_minute(contract, made.connection),
        quota=made.changes if contract.quota == "rows" else None,
        lanes=lanes,
    )


def _load(made: "Plan", name: str, rows: int) -> LaneLoad:
    lane = made.write.lanes[name]
    size = min(lane.size, int(made.connection.options.get("batch_size") or lane.size))
    return LaneLoad(name, rows, size, ceil(rows / size) * lane.calls)


def _per_minute(contract: Contract, connection: Connection) -> int | None:
    own = connection.options.get("max_per_minute")
    stated = contract.per_minute and int(contract.per_minute * SHARE)
    return min((each for each in (own, stated) if each), default=None)


def _seconds(calls: int, contract: Contract, connection: Connection) -> float:
    """Tell the longest of what bounds a push: the answers, a pace of one's own, the vendor's minutes."""
    answers_s = calls * _ANSWER_S / min(_IN_FLIGHT, max(calls, 1))
    own, limit = connection.options.get("max_per_minute"), _per_minute(contract, connection)
    if limit is None or calls == 0:
        return answers_s
    # A pace spaces the calls evenly; a stated limit lets a minute's share through at once.
    waits_s = (calls - 1) * 60 / limit if limit == own else (calls - 1) // limit * 60
    return max(answers_s, waits_s)
