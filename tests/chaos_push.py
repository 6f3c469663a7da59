"""Pushes killed at any instant, with faults, cut journals and pulls between, and what must hold in the end.

The engine of the law in `test_laws_push` and of the long run in `tests.benchmarks.chaos_push`. The sandbox's
own ledger is the judge: it says what was applied, how often and with which values.
"""

import contextlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from signal import SIGKILL
from typing import Any

from pipelines.plan import plan
from pipelines.progress import SilentProgress
from pipelines.pull import pull
from pipelines.push import push
from pipelines.settings import Project, load_project
from pipelines.warehouse import Warehouse
from sources.core.journal import left_over
from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request, Response
from sources.sandbox.faults import Action, ApplyThenDrop, ApplyThenStatus, HalfBody, Hang, Scene
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.wire import Wire
from tests.warm import Run, WarmRuns

WORKERS = 4  # requests in flight of one push


@dataclass(frozen=True)
class Way:
    """One way of writing: a CRM's object and the sync into it, with where a record holds key and value.

    Each round of a case adds `new` rows to the model and edits up to `edits` of the others, where the API
    changes records at all. `is_blind` says that nothing can be asked about a record afterwards.
    """

    crm: str
    object: str
    sync: str
    key: str
    value: tuple[str, ...] = ()
    sent_value: str = ""
    new: int = 20
    edits: int = 0
    options: str = ""
    switches: Mapping[str, Any] = field(default_factory=dict)
    is_blind: bool = False

    def value_of(self, record: Mapping[str, Any]) -> Any:
        """Read the value that edits change; None where there are none."""
        found: Any = record if self.value else None
        for name in self.value:
            found = (found or {}).get(name)
        return found


_FAST = "max_per_minute = 1000000"
_RELM = 'key = "email"\n[syncs.leads.fields]\nfirst_name = "first"\n"metadata.lead_score" = "round"'
_RALLY = 'key = "email"\n[syncs.leads.fields]\nfirstName = "first"\nlastName = "first"\nleadScore = "round"'
_REEVO = (
    'key = "primary_email"\n[syncs.leads.fields]\nprimary_email = "email"\nfirst_name = "first"\n'
    '"attributes.title" = "note"'
)
_VIVRE = 'key = "email"\nmode = "create"\n[syncs.leads.fields]\nname = "first"\nemail = "email"'
_DEALS = 'key = "email"\n[syncs.leads.fields]\ncontact_id = "contact"\ntitle = "email"'
_RALLY_WAY = Way("rally", "contacts", _RALLY, "email", ("leadScore",), "$.leadScore", new=220, edits=15)
WAYS: dict[str, Way] = {
    "relm batches under a key": Way(
        "relm",
        "contacts",
        _RELM,
        "email",
        ("metadata", "lead_score"),
        '$."metadata.lead_score"',
        new=60,
        edits=20,
        options="batch_size = 10",
        switches={"relm": RelmSwitches(rate_limit=None)},
    ),
    "rally bulks and upserts": replace(_RALLY_WAY, switches={"rally": RallySwitches(rate_limit=None)}),
    "rally where a second bulk doubles": replace(
        _RALLY_WAY, switches={"rally": RallySwitches(rate_limit=None, bulk_existing="duplicates")}
    ),
    "reevo asserts": Way(
        "reevo",
        "contacts",
        _REEVO,
        "primary_email",
        ("title",),
        '$."attributes.title"',
        edits=10,
        options=_FAST,
    ),
    "vivre contacts": Way("vivre", "contacts", _VIVRE, "email", options=_FAST),
    "vivre deals, which nothing shows": Way("vivre", "deals", _DEALS, "title", options=_FAST, is_blind=True),
}


class Strike(Action):
    """Kill the push that a request comes from: before it is applied, before it is answered, or just after."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.run: Run | None = None

    def fits(self, request: Request) -> bool:
        return request.method != "GET"

    def instead(self, scene: Scene, wire: Wire) -> Response | None:
        self._strike("before")
        return None

    def deliver(self, response: Response, now: datetime, wire: Wire) -> int:
        self._strike("applied")
        with contextlib.suppress(OSError):
            super().deliver(response, now, wire)
        self._strike("answered")
        return response.status

    def _strike(self, moment: str) -> None:
        if self.run is not None and moment == self.when:
            self.run.kill()


# How a push is killed: at one of its write requests, at any time of its life, or not at all.
ANY_TIME = "any time"
KILLS = ("before", "applied", "answered", ANY_TIME, ANY_TIME)
FAULTS: tuple[Action | None, ...] = (
    *(None, None, None),
    *(ApplyThenDrop(), ApplyThenStatus(500), HalfBody(), Hang(0.02, "after")),
)


@dataclass
class Found:
    """What the sandbox's ledger and the warehouse show in the end, beside each other.

    `repeated` counts values that were applied again: the same bytes under the API's own promise that a
    repetition has no second effect. `untrue` are values that our log calls written and the CRM never took.
    `conflicts` are listed, and come of a cut journal alone: what only it knew as ours looks like an edit.
    """

    rows: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    unknown: int = 0
    most_unknown_batches: int = 0
    untrue: int = 0
    conflicts: int = 0
    is_quiet: bool = True

    @property
    def is_well(self) -> bool:
        """Tell whether nothing was lost, doubled or called what it is not."""
        is_bounded = self.most_unknown_batches <= WORKERS
        return not (self.lost or self.doubled or self.untrue) and is_bounded and self.is_quiet


@dataclass
class Case:
    """One CRM, one warehouse and one model on their way through killed pushes."""

    name: str
    box: Sandbox
    root: Path
    runs: WarmRuns
    rng: random.Random
    wanted: dict[str, int] = field(default_factory=dict)
    round: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    cuts: int = 0
    life_s: float = 0.0  # how long a push takes that nobody kills

    def __post_init__(self) -> None:
        self.way = WAYS[self.name]
        folder = self.root / ".dlt"
        folder.mkdir()
        (folder / "config.toml").write_text(
            f"[sources.{self.way.crm}]\n{self.way.options}\n"
            f'[syncs.leads]\nconnection = "{self.way.crm}"\nobject = "{self.way.object}"\n'
            f'model = "marts.leads"\n{self.way.sync}\n',
            encoding="utf-8",
        )
        mine = f"SOURCES__{self.way.crm.upper()}__"
        settings = self.box.settings()
        self.environ = {name: value for name, value in settings.items() if name.startswith(mine)}
        self.project: Project = load_project(self.root, environ=self.environ)
        self.warehouse = Warehouse(self.project.warehouse)
        self._contact = str(self.box.tenant(self.way.crm).records("contacts")[0]["id"])
        self._pull()
        self._learn_length()

    def _learn_length(self) -> None:
        """Let one push live, to know how long one does."""
        self._change_model()
        began = time.monotonic()
        run = self._start()
        assert run.end() == 0, run.err
        self.life_s = time.monotonic() - began

    def _start(self) -> Run:
        return self.runs.start(self.root, ["push", "leads", "--yes", "--json"], self.environ)

    # -- one round -------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Change the model, kill a push of it, and leave what a machine may leave."""
        self._change_model()
        self._strike(self.rng.choice(KILLS))
        self.box.faults.clear()
        is_cut = not self.way.is_blind and self.rng.random() < 0.2 and self._cut()
        if is_cut or self.rng.random() < 0.3:
            self._pull()

    def _change_model(self) -> None:
        self.round += 1
        known = sorted(self.wanted)
        for email in self.rng.sample(known, min(self.way.edits, len(known))):
            self.wanted[email] = self.round
        self.wanted |= {f"lead{self.round}x{n}@new.example": self.round for n in range(self.way.new)}
        self._write_model()

    def _write_model(self) -> None:
        with self.warehouse.lock("test"), self.warehouse.generation() as con:
            con.execute(
                "create or replace table marts.leads as select email, round, round::varchar as note,"
                " 'F' as first, ? as contact from (select unnest(?::varchar[]) as email,"
                " unnest(?::integer[]) as round)",
                [self._contact, list(self.wanted), list(self.wanted.values())],
            )

    def _arm(self) -> None:
        action = self.rng.choice(FAULTS)
        if action is not None:
            nth, times = self.rng.randint(1, 6), self.rng.choice((1, 2))
            self.box.faults.add(action, crm=self.way.crm, nth=nth, times=times)

    def _strike(self, kill: str) -> None:
        strike = Strike(kill)
        if kill != ANY_TIME:
            self.box.faults.add(strike, crm=self.way.crm, nth=self.rng.randint(1, 8))
        self._arm()
        strike.run = run = self._start()
        if kill == ANY_TIME:
            time.sleep(self.rng.uniform(0.03, self.life_s))
            run.kill()
        code = run.end()
        strike.run = None
        self.kills[kill] += code < 0
        assert code in (0, 1, -SIGKILL), run.err

    def _cut(self) -> bool:
        """Take bytes off the end of the journal that is left, up to two lines of it."""
        journals = self._journals()
        if not journals:
            return False
        whole = journals[-1].read_bytes()
        tail = b"".join(whole.splitlines(keepends=True)[-2:])
        journals[-1].write_bytes(whole[: len(whole) - self.rng.randint(1, len(tail))])
        self.cuts += 1
        return True

    def _journals(self) -> list[Path]:
        return left_over(self.warehouse.home / "journal")

    # -- the end ---------------------------------------------------------------------------------

    def settle(self) -> Found:
        """Pull and push until nothing is sent any more, and judge by the sandbox's ledger."""
        self.box.faults.clear()
        for _ in range(4):
            self._pull()
            if not self._push():
                break
        found = self._judge()
        self._pull()
        found.is_quiet = not self._push() and self._journals() == []
        return found

    def _pull(self) -> None:
        if self.way.is_blind:
            return
        result = pull(self.project, [f"{self.way.crm}.{self.way.object}"], progress=SilentProgress())
        assert result.exit_code == 0, result.error

    def _push(self) -> int:
        """Push and count what was sent."""
        already = len(self.box.tenant(self.way.crm).ledger)
        result = push(
            self.project, "leads", confirm=lambda made: True, progress=SilentProgress(), in_flight=WORKERS
        )
        assert result.exit_code in (0, 1), result.error
        return len(self.box.tenant(self.way.crm).ledger) - already

    def _judge(self) -> Found:
        tenant = self.box.tenant(self.way.crm)
        records = {each["id"]: each for each in tenant.records(self.way.object)}
        applied = Counter(
            (records[write.id][self.way.key], _text(self.way.value_of(write.fields)))
            for write in tenant.ledger
            if write.resource == self.way.object and write.by == "roundtrip"
        )
        held = Counter(each[self.way.key] for each in records.values() if each[self.way.key] in self.wanted)
        there = {(each[self.way.key], _text(self.way.value_of(each))) for each in records.values()}
        missing = {key for key, _ in self._expected() - there}
        unknown = self._logged("status = 'unknown'")
        conflicts = self._conflicts() if self.cuts else set()
        told = {key for key, *_ in unknown} if self.way.is_blind else conflicts
        return Found(
            rows=len(self.wanted),
            lost=len(missing - told),
            doubled=sum(number - 1 for number in held.values()),
            repeated=sum(number - 1 for number in applied.values()),
            unknown=len({key for key, *_ in unknown}),
            most_unknown_batches=_most(unknown),
            untrue=len({each[:2] for each in self._logged("status <> 'unknown'")} - applied.keys()),
            conflicts=len(missing & conflicts),
        )

    def _conflicts(self) -> set[str]:
        found = plan(self.project, "leads", progress=SilentProgress())
        return {row["key"] for row in found.rows if row["action"] == "conflict"}

    def _expected(self) -> set[tuple[str, str | None]]:
        return {(key, str(number) if self.way.value else None) for key, number in self.wanted.items()}

    def _logged(self, condition: str) -> Sequence[tuple[Any, ...]]:
        """Give key, value, run and batch of the rows that our log says were sent."""
        value = f"sent ->> '{self.way.sent_value}'" if self.way.value else "null"
        with self.warehouse.reading() as con:
            return con.execute(
                f"select key, {value}, run_id, batch_id from roundtrip.push_log"
                f" where batch_id is not null and status in ('created', 'updated', 'unknown') and {condition}"
            ).fetchall()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _most(unknown: Sequence[tuple[Any, ...]]) -> int:
    """Count the batches with unknown rows of the run that has most of them."""
    batches = {(run, batch) for _, _, run, batch in unknown}
    return max(Counter(run for run, _ in batches).values(), default=0)


class PeerCase(Case):
    """The same model, sandbox and kills with dlt's own destination in our place; it has no journal to cut."""

    def _write_model(self) -> None:
        rows = [
            {"email": email, "round": number, "first": "F", "contact": self._contact}
            for email, number in self.wanted.items()
        ]
        (self.root / "leads.json").write_text(json.dumps(rows), encoding="utf-8")

    def _start(self) -> Run:
        how = "bulk" if "bulk doubles" in self.name else "upsert"
        order = [self.way.crm, self.way.object, how]
        return self.runs.start(self.root, order, self.environ, main="tests.benchmarks.peer_dlt")

    def _cut(self) -> bool:
        return False

    def _pull(self) -> None:
        return

    def _push(self) -> int:
        already = len(self.box.tenant(self.way.crm).ledger)
        run = self._start()
        run.end()
        return len(self.box.tenant(self.way.crm).ledger) - already

    def _logged(self, condition: str) -> Sequence[tuple[Any, ...]]:
        return []


@contextlib.contextmanager
def case(name: str, runs: WarmRuns, seed: int, *, peer: str = "", records: int = 5) -> Iterator[Case]:
    """Make a CRM and a warehouse for one case; both are gone afterwards. `peer` is who pushes, if not we."""
    kind = PeerCase if peer else Case
    switches = WAYS[name].switches
    with Sandbox(records=records, seed=1, **switches) as box, tempfile.TemporaryDirectory() as folder:
        yield kind(name, box, Path(folder), runs, random.Random(f"{name} {seed}"))
