"""Answers of a CRM changed on their way out, for tests of what a pull makes of odd values."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sources.sandbox.exchange import Response
from sources.sandbox.faults import Action


@dataclass(frozen=True)
class Recast(Action):
    """Answer what `change` makes of the CRM's JSON; `text` works on the bytes' text instead."""

    change: Callable[[Any], Any] = lambda body: body
    text: Callable[[str], str] | None = None

    def turned(self, response: Response) -> Response:
        if response.status != 200:
            return response
        body = response.body.decode()
        made = self.text(body) if self.text else json.dumps(self.change(json.loads(body)))
        return Response(response.status, made.encode(), response.headers)


def each_row(change: Callable[[dict[str, Any]], Any]) -> Recast:
    """Change every row of a list, whether the list is bare or stands under `data`."""

    def turned(body: Any) -> Any:
        for row in body if isinstance(body, list) else body["data"]:
            change(row)
        return body

    return Recast(turned)


@dataclass
class TurnedTime:
    """A CRM's clock that a test turns by hand."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time: float) -> datetime:
        """Let time pass (`hours=3`) and give the new time."""
        self.now += timedelta(**time)
        return self.now


def whole_second() -> datetime:
    """Give the real time, cut to the second."""
    return datetime.now(UTC).replace(microsecond=0)
