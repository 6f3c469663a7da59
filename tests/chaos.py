"""Random edits, faults, kills and pulls over one way of reading a CRM, and what must hold after each case.

The engine of the laws in `test_laws_pull` and of the long run in `tests.benchmarks.chaos_pull`.
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.pull import PullResult
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
from sources.sandbox.reevo_switches import ReevoSwitches
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.store import Tenant
from sources.sandbox.vivre_rules import VivreSwitches
from tests.pulling import environ_of, project_for, pulled, rows
from tests.warm import WarmRuns


@dataclass(frozen=True)
class Way:
    """One way of reading records: where, by which switches, and what its incremental runs can notice.

    `path` finds its list requests, `email` is its field of addresses; a record without one hangs on others.
    """

    crm: str
    switches: Mapping[str, Any]
    field: str = "phone"
    resource: str = "contacts"
    path: str = "/contacts/"
    email: str | None = "email"
    notices_edits: bool = True
    notices_deletions: bool = True

    @property
    def target(self) -> str:
        """Give the table, which is what `pull` is asked for as well."""
        return f"{self.crm}.{self.resource}"


# By window and feed, by windows that are probed or sorted, whole by cursor, position and offset, and for each
# of other records.
WAYS: dict[str, Way] = {
    "feed": Way("rally", {"rally": RallySwitches(max_limit=10)}),
    "since": Way("relm", {"relm": RelmSwitches(max_limit=10)}, notices_deletions=False),
    "sorted since": Way(
        "reevo",
        {"reevo": ReevoSwitches(v2_max_limit=10)},
        field="title",
        path="/contact/_query",
        email="primary_email",
        notices_deletions=False,
    ),
    "fan-out": Way(
        "reevo",
        {"reevo": ReevoSwitches(v2_max_limit=5)},
        field="location",
        resource="activities",
        path="/activity/_query",
        email=None,
        notices_edits=False,
        notices_deletions=False,
    ),
    "full cursor": Way("relm", {"relm": RelmSwitches(max_limit=10, updated_at="hidden")}),
    "full position": Way("ralivi", {"ralivi": RaliviSwitches(max_limit=10)}),
    "full offset": Way("vivre", {"vivre": VivreSwitches(max_limit=10)}, field="company"),
}
STEPS = ("edit", "create", "delete", "drift", "fault", "pull", "kill", "kill late", "interrupt")
FAULTS: tuple[Action, ...] = (
    *(Status(500), Status(503), Status(400), TooMany(2), TooMany(form="none"), TooMany(3600)),
    *(Reset(), ResetAfterHeaders(), HalfBody(), Garbage(), Html(), WrongShape()),
    *(ExpireCursor(400), ExpireCursor(410)),
)


@dataclass
class World:
    """One CRM and one warehouse on their way through random steps."""

    box: Sandbox
    project: Project
    way: Way
    runs: WarmRuns
    rng: random.Random
    kills: int = 0

    def do(self, step: str) -> None:
        """Take one step."""
        getattr(self, "_" + step.replace(" ", "_"))()

    def settle(self, *, is_thorough: bool = True) -> None:
        """Let everything work again, pull, and compare; a thorough end takes a whole look as well."""
        self.box.faults.clear()
        self.box.before_list = None
        if self._must_pull().readings[0].token is not None:
            self._must_pull()  # one ended what was cut, one looks at what changed meanwhile
        self.check(is_whole=self.way.notices_deletions, is_fresh=self.way.notices_edits)
        if is_thorough:
            self._must_pull(full=True)
            self.check(is_whole=True, is_fresh=True)

    def check(self, *, is_whole: bool, is_fresh: bool) -> None:
        """Compare warehouse and CRM, as far as the way of reading can know it without a whole pass."""
        shown = {row["id"]: row[self.way.field] for row in self._records()}
        stored = rows(
            self.project, f"select id, {self.way.field} from {self.way.target} where _deleted_at is null"
        )
        found = dict(stored)
        assert len(stored) == len(found), "a record stands twice in the warehouse"
        assert shown.keys() <= found.keys(), "a record is missing"
        assert not is_fresh or {id: found[id] for id in shown} == shown, "a record is old"
        assert not is_whole or found.keys() == shown.keys(), "a record is there that the CRM does not have"
        self._check_history(found)

    def _check_history(self, found: dict[str, Any]) -> None:
        """Follow each record's history: every change begins with the value the last one ended with."""
        last: dict[str, Any] = {}
        for id, old, new in rows(
            self.project,
            "select id, old_value, new_value from roundtrip.changes where field = ? order by rowid",
            self.way.field,
        ):
            assert last.get(id, old) == old, "history has a gap or tells a change twice"
            last[id] = new
        assert {id: found.get(id, value) for id, value in last.items()} == last, (
            "history ends with another value"
        )

    def _must_pull(self, **options: Any) -> PullResult:
        result = pulled(self.project, self.way.target, accept_deletes=True, **options)
        assert result.exit_code == 0, result.error
        return result

    # -- steps -----------------------------------------------------------------------------------

    def _edit(self) -> None:
        for id in self._some(4):
            self._tenant.edit(self.way.resource, id, **{self.way.field: f"v{self.rng.random():.9f}"})

    def _create(self) -> None:
        name = f"n{self.rng.random():.9f}"
        given = {self.way.email: f"{name}@example.com"} if self.way.email else self._like_another()
        self._tenant.create(self.way.resource, **{**given, self.way.field: name})

    def _delete(self) -> None:
        for id in self._some(2):
            self._tenant.delete(self.way.resource, id)

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
            pulled(self.project, self.way.target, accept_deletes=True)

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
        return self.runs.start(self.project.root, ["pull", self.way.target, "--accept-deletes"], environ)

    def _end(self, run: Any) -> None:
        self.kills += run.end() < 0

    # -- records ---------------------------------------------------------------------------------

    @property
    def _tenant(self) -> Tenant:
        return self.box.tenant(self.way.crm)

    def _records(self) -> list[dict[str, Any]]:
        """List the records that a list request can reach."""
        found = self._tenant.records(self.way.resource)
        if self.way.email is None:
            return [row for row in found if row["account_id"] or row["opportunity_id"]]
        return found

    def _some(self, most: int) -> list[str]:
        ids = [row["id"] for row in self._records()]
        return self.rng.sample(ids, min(self.rng.randint(1, most), len(ids)))

    def _like_another(self) -> dict[str, Any]:
        """Give what ties a record to those by which it is found."""
        another = self.rng.choice(self._records())
        return {
            name: another[name] for name in ("account_id", "opportunity_id", "type", "sub_type", "metadata")
        }


@contextlib.contextmanager
def world(name: str, runs: WarmRuns, seed: int, *, records: int = 35) -> Iterator[World]:
    """Make a CRM and a warehouse; both are gone afterwards."""
    way = WAYS[name]
    with Sandbox(records=records, seed=1, **way.switches) as box, tempfile.TemporaryDirectory() as folder:
        project = project_for(box, Path(folder), way.crm, checkpoint_s=60.0 if seed % 3 else 0.01)
        yield World(box, project, way, runs, random.Random(seed))
