"""Rows carried to a sandboxed CRM by the real client: one by one without a warehouse, or by whole syncs."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from pipelines.progress import SilentProgress
from pipelines.pull import pull
from pipelines.push import PushResult, push
from pipelines.settings import load_project
from pipelines.warehouse import Warehouse
from sources import load
from sources.core.connector import Lane, Write
from sources.core.delivering import Delivery, deliver
from sources.core.rows import Action, Match, Outcome, Row
from sources.core.sessions import Session, open_session
from sources.core.writing import Batch, Courier
from sources.sandbox import Sandbox
from sources.sandbox.store import Write as Written


class QuickClock:
    """A clock on which waiting takes no time: it is turned forward instead."""

    def __init__(self) -> None:
        self.turned_s = 0.0

    def time(self) -> float:
        return time.time() + self.turned_s

    def monotonic(self) -> float:
        return time.monotonic() + self.turned_s

    def sleep(self, seconds: float, /) -> None:
        self.turned_s += seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)


class Notebook:
    """A log of intents and outcomes in memory."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.told: dict[int, Outcome] = {}

    def intent(self, batch: Batch) -> None:
        self.batches.append(batch)

    def outcome(self, batch_id: str, outcomes: Sequence[Outcome], *, at: datetime) -> None:
        self.told |= {each.seq: each for each in outcomes}

    def withheld(self, rows: Sequence[Row], outcomes: Sequence[Outcome], *, at: datetime) -> None:
        self.told |= {each.seq: each for each in outcomes}


class Door:
    """One connection to a sandboxed CRM, to write through."""

    def __init__(self, box: Sandbox, name: str, session: Session, clock: QuickClock) -> None:
        self.box, self.name, self.session, self.clock = box, name, session, clock
        self.log = Notebook()
        self._numbers = count(1)

    def write(self, name: str) -> Write:
        return self.session.contract.writes[name]

    def lane(self, name: str, lane: str) -> Lane:
        return self.write(name).lanes[lane]

    def courier(self, name: str) -> Courier:
        return Courier(self.session, self.write(name), self.log, run_id="run", clock=self.clock)

    def send(self, name: str, *rows: Row) -> list[Outcome]:
        """Deliver rows of an object and give their outcomes, those of a stopped delivery as well."""
        self.delivery = self.deliver(name, *rows)
        return [self.log.told.get(row.seq, Outcome(row.seq, "absent")) for row in rows]

    def deliver(self, name: str, *rows: Row) -> Delivery:
        return deliver(self.courier(name), rows, in_flight=1)

    def refusal(self, name: str, row: Row) -> str | None:
        """Tell why a row must not be sent, by the object's look at the workspace."""
        inspect = self.write(name).inspect
        return inspect(self.session.client, self.session.connection)(row) if inspect else None

    def new(self, key: str = "k1", /, **fields: Any) -> Row:
        """Make a row for a record that has never been seen."""
        return self.row(key, "create", "new", fields=fields)

    def change(self, crm_id: str, key: str = "k1", /, *, match: Match = "id", **fields: Any) -> Row:
        """Make a row for a record that is there."""
        return self.row(key, "update", match, crm_id=crm_id, fields=fields)

    def row(
        self, key: str, action: Action, match: Match, *, fields: dict[str, Any], crm_id: str | None = None
    ) -> Row:
        return Row(next(self._numbers), key, crm_id, action, fields, match=match)

    def record(self, table: str, crm_id: str | None) -> dict[str, Any]:
        """Give a record as the CRM holds it."""
        return next(each for each in self.box.tenant(self.name).records(table) if each["id"] == crm_id)

    def written(self, table: str) -> list[Written]:
        """List what the CRM applied to a table for us."""
        return [
            each
            for each in self.box.tenant(self.name).ledger
            if each.resource == table and each.by == "roundtrip"
        ]

    def asked(self, method: str, part: str) -> int:
        """Count the requests of a kind that the CRM has seen."""
        return sum(each.method == method and part in each.path for each in self.box.requests)


@contextmanager
def door(
    root: Path, name: str, *, also: str = "", records: int = 10, switches: Any = None, **options: Any
) -> Iterator[Door]:
    """Open a door to a CRM under switches and options; `also` is the contract to serve under the name."""
    clock = QuickClock()
    given = {} if switches is None else {name: switches}
    with Sandbox(records=records, now=clock.now, also={name: also} if also else {}, **given) as box:
        environ = {key: value for key, value in box.settings().items() if f"__{name.upper()}__" in key}
        connection = load_project(root, environ=environ).connections[name]
        settings = {**connection.options, "max_per_minute": None, **options}
        connection = replace(connection, options=settings)
        with open_session(load(connection.crm), connection, clock=clock) as session:
            yield Door(box, name, session, clock)


class Desk:
    """A project with one connection to a sandboxed CRM and one sync into it."""

    def __init__(self, root: Path, box: Sandbox, name: str, sync: str, **options: Any) -> None:
        """Declare the sync `leads`, its TOML below `connection`; `options` are those of the connection."""
        (root / ".dlt").mkdir(exist_ok=True)
        text = f'[syncs.leads]\nconnection = "{name}"\n{sync}'
        (root / ".dlt" / "config.toml").write_text(text, encoding="utf-8")
        environ = {key: value for key, value in box.settings().items() if f"__{name.upper()}__" in key}
        project = load_project(root, environ=environ)
        settings = {**project.connections[name].options, "max_per_minute": None, **options}
        connection = replace(project.connections[name], options=settings)
        self.project = replace(project, connections={name: connection})

    def pull(self, *targets: str) -> None:
        """Pull resources."""
        result = pull(self.project, targets, progress=SilentProgress())
        assert result.exit_code == 0, result.error

    def model(self, query: str) -> None:
        """Make the model `marts.leads` of a query."""
        warehouse = Warehouse(self.project.warehouse)
        with warehouse.lock("test"), warehouse.generation() as con:
            con.execute(f"create or replace table marts.leads as {query}")

    def push(self) -> PushResult:
        """Push the sync, one request at a time."""
        return push(self.project, "leads", confirm=lambda made: True, progress=SilentProgress(), in_flight=1)
