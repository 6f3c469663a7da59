"""Random edits, faults, kills and pulls over one CRM, and what must hold in the end.

The engine of the laws in `test_laws_pull` and of the long run in `tests.benchmarks.chaos_pull`.
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.settings import Project
from sources.core.errors import ConnectorError
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request
from sources.sandbox.faults import (
    Action,
    ExpireCursor,
    Garbage,
    HalfBody,
    Html,
    Reset,
    ResetAfterHeaders,
    Status,
    TooMany,
    WrongShape,
)
from sources.sandbox.ralivi_rules import RaliviSwitches
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.vivre_rules import VivreSwitches
from tests.pulling import environ_of, project_for, pulled, rows
from tests.warm import WarmRuns

# Each way of reading: by window and feed, by a window that is probed, and whole by cursor and by offset.
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "feed": ("rally", {"rally": RallySwitches(max_limit=10)}),
    "since": ("relm", {"relm": RelmSwitches(max_limit=10)}),
    "full cursor": ("relm", {"relm": RelmSwitches(max_limit=10, updated_at="hidden")}),
    "full position": ("ralivi", {"ralivi": RaliviSwitches(max_limit=10)}),
    "full offset": ("vivre", {"vivre": VivreSwitches(max_limit=10)}),
}
STEPS = ("edit", "create", "delete", "drift", "fault", "pull", "kill", "kill late", "interrupt")
FAULTS: tuple[Action, ...] = (
    *(Status(500), Status(503), Status(400), TooMany(2), TooMany(form="none"), TooMany(3600)),
    *(Reset(), ResetAfterHeaders(), HalfBody(), Garbage(), Html(), WrongShape()),
    *(ExpireCursor(400), ExpireCursor(410)),
)


@dataclass
class Case:
    """One CRM and one warehouse on their way through random steps."""

    box: Sandbox
    project: Project
    crm: str
    runs: WarmRuns
    rng: random.Random
    kills: int = 0
    published: list[float] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"{self.crm}.contacts"

    def do(self, step: str) -> None:
        """Take one step."""
        getattr(self, "_" + step.replace(" ", "_"))()

    def settle(self) -> None:
        """Let everything work again and pull: what was cut is finished, then a whole look is taken."""
        self.box.faults.clear()
        self.box.before_list = None
        for _ in range(2):
            self._must_pull()
        self.check(is_whole=self.crm != "relm")
        self._must_pull(full=True)
        self.check(is_whole=True)

    def check(self, *, is_whole: bool) -> None:
        """Compare warehouse and CRM; without a feed, deletions wait for the next whole pass."""
        shown = {row["id"]: self._value(row) for row in self.box.tenant(self.crm).records("contacts")}
        name = self._column()
        stored = rows(self.project, f"select id, {name} from {self.target} where _deleted_at is null")
        assert len(stored) == len(dict(stored)), "a record stands twice in the warehouse"
        found = dict(stored)
        assert {id: found.get(id) for id in shown} == shown, "a record is missing or old"
        assert not is_whole or found == shown, "a record is in the warehouse that the CRM does not have"
        self._check_history(found)

    def _check_history(self, found: dict[str, Any]) -> None:
        """Follow each record's history: every change begins with the value the last one ended with."""
        last: dict[str, Any] = {}
        for id, old, new in rows(
            self.project,
            "select id, old_value, new_value from roundtrip.changes where field = ? order by rowid",
            self._column(),
        ):
            assert last.get(id, old) == old, "history has a gap or tells a change twice"
            last[id] = new
        assert {id: found.get(id, value) for id, value in last.items()} == last, (
            "history ends with another value"
        )

    def _must_pull(self, **options: Any) -> None:
        result = pulled(self.project, self.target, accept_deletes=True, **options)
        assert result.exit_code == 0, result.error

    # -- steps -----------------------------------------------------------------------------------

    def _edit(self) -> None:
        for id in self._some(4):
            self.box.tenant(self.crm).edit("contacts", id, **{self._field(): f"v{self.rng.random():.9f}"})

    def _create(self) -> None:
        name = f"n{self.rng.random():.9f}"
        self.box.tenant(self.crm).create("contacts", email=f"{name}@example.com", **{self._field(): name})

    def _delete(self) -> None:
        for id in self._some(2):
            self.box.tenant(self.crm).delete("contacts", id)

    def _drift(self) -> None:
        """Change something before each of the next page requests."""
        left = [20]

        def change(_: Request) -> None:
            if left[0] > 0:
                left[0] -= 1
                self.rng.choice((self._edit, self._create, self._delete))()

        self.box.before_list = change

    def _fault(self) -> None:
        self.box.faults.clear()
        action = self.rng.choice(FAULTS)
        nth, times = self.rng.randint(1, 5), self.rng.choice((1, 2, 8))
        self.box.faults.add(action, path="/contacts", nth=nth, times=times)

    def _pull(self) -> None:
        with contextlib.suppress(ConnectorError):
            pulled(self.project, self.target, accept_deletes=True)

    def _kill(self) -> None:
        """Kill a run at one of its list requests."""
        at, seen, before = self.rng.randint(1, 6), [0], self.box.before_list

        def strike(request: Request) -> None:
            if before:
                before(request)
            seen[0] += 1
            if seen[0] == at:
                run.kill()

        run = self._begin()
        self.box.before_list = strike
        self._end(run)
        self.box.before_list = before

    def _kill_late(self) -> None:
        """Kill a run after a random time, so that loading and publishing are hit as well."""
        run = self._begin()
        time.sleep(self.rng.uniform(0.02, 1.2))
        run.kill()
        self._end(run)

    def _interrupt(self) -> None:
        run = self._begin()
        time.sleep(self.rng.uniform(0.02, 0.6))
        run.kill(15)
        self._end(run)

    def _begin(self) -> Any:
        # A wait asked for by a fault would be waited for in earnest: kills and waits meet in the other steps.
        self.box.faults.clear()
        environ = environ_of(self.box) | {"ROUNDTRIP__CHECKPOINT_S": "1"}
        return self.runs.start(self.project.root, ["pull", self.target, "--accept-deletes"], environ)

    def _end(self, run: Any) -> None:
        self.kills += run.end() < 0

    # -- records ---------------------------------------------------------------------------------

    def _some(self, most: int) -> list[str]:
        ids = [row["id"] for row in self.box.tenant(self.crm).records("contacts")]
        return self.rng.sample(ids, min(self.rng.randint(1, most), len(ids)))

    def _field(self) -> str:
        return {"vivre": "company", "relm": "phone", "rally": "phone", "ralivi": "phone"}[self.crm]

    def _column(self) -> str:
        return self._field()

    def _value(self, row: dict[str, Any]) -> Any:
        return row[self._field()]


@contextlib.contextmanager
def case(strategy: str, runs: WarmRuns, seed: int, *, records: int = 35) -> Iterator[Case]:
    """Make a CRM and a warehouse for one case; both are gone afterwards."""
    crm, switches = STRATEGIES[strategy]
    with Sandbox(records=records, seed=1, **switches) as box, tempfile.TemporaryDirectory() as folder:
        project = project_for(box, Path(folder), crm, checkpoint_s=0.01 if seed % 2 else 60.0)
        yield Case(box, project, crm, runs, random.Random(seed))
