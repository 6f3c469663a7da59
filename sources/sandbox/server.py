"""The sandbox: the CRMs' APIs as one server on loopback, each under its own path prefix, with state.

`Sandbox` is the door for tests and for `serve`; what a CRM answers is left to its simulator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from itertools import count
from pkgutil import iter_modules
from threading import Lock, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

from sources.sandbox import admin
from sources.sandbox.exchange import Request, reply
from sources.sandbox.faults import Faults, Scene
from sources.sandbox.people import World
from sources.sandbox.simulator import Simulator
from sources.sandbox.store import Clock, Tenant, utc_now
from sources.sandbox.wire import Server, Wire, packed

_FOLDER = "sources.sandbox"


class Logged(NamedTuple):
    """Record one request; `status` is 0 where no status line went out."""

    crm: str
    method: str
    path: str
    query: str
    status: int


def simulators() -> dict[str, type[Simulator]]:
    """Return the simulators of this folder by CRM, one for each."""
    return {name: simulator for name, simulator in _contracts().items() if not simulator.dialect_of}


def _contracts() -> dict[str, type[Simulator]]:
    modules = iter_modules(import_module(_FOLDER).__path__)
    loaded = (import_module(f"{_FOLDER}.{module.name}") for module in modules)
    found = [module.SIMULATOR for module in loaded if hasattr(module, "SIMULATOR")]
    return {simulator.name: simulator for simulator in found}


@dataclass(frozen=True, slots=True)
class Made:
    """Say with what the workspaces are filled."""

    records: int
    seed: int
    now: Clock
    world_now: Clock


class Sandbox:
    """Serve the CRMs from a thread of this process, from entering the context to leaving it.

    `records` people are made per CRM, on its first use. Switches are given by CRM: `relm=RelmSwitches(...)`.
    `also` adds workspaces under further names, of a CRM or of a further contract of one:
    `{"rally_emea": "rally", "relm_modern": "relm_modern"}`.
    """

    def __init__(
        self,
        *,
        records: int = 50,
        seed: int = 1,
        port: int = 0,
        now: Clock = utc_now,
        also: Mapping[str, str] | None = None,
        **switches: Any,
    ) -> None:
        self.crms = {name: name for name in simulators()} | dict(also or {})
        if strange := sorted(set(switches) - set(self.crms)):
            raise ValueError(f"no such CRM: {', '.join(strange)}")
        start = now()
        self.now = now
        self.faults = Faults(seed)
        self.requests: list[Logged] = []
        self.before_list: Callable[[Request], None] | None = None
        self._made = Made(records, seed, now, lambda: start)
        self._known = _contracts()
        self._switches = switches
        self._running: dict[str, Simulator] = {}
        self._lock = Lock()
        self._numbers = count(1)
        self._port = port
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self._server = Server(self._port, self)
        Thread(target=self._server.serve_forever, args=(0.02,), name="sandbox", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server:
            self._server.stop()

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the sandbox is not running")
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def base_url(self, crm: str) -> str:
        """Return what a connection's `base_url` must be."""
        return f"{self.url}/{crm}{self._known[self.crms[crm]].base_path}"

    def key(self, crm: str, *, scopes: tuple[str, ...] | None = None, label: str = "roundtrip") -> str:
        """Return a key that works; None stands for all scopes."""
        return self.simulator(crm).key(scopes, label=label)

    def revoke(self, crm: str) -> None:
        """Make all keys of a CRM stop working."""
        self.simulator(crm).revoke()

    def tenant(self, crm: str) -> Tenant:
        """Return the workspace of a CRM, to look at and to edit by hand."""
        return self.simulator(crm).tenant

    def settings(self) -> dict[str, str]:
        """Return the environment variables that make every workspace a connection."""
        made: dict[str, str] = {}
        for name, contract in self.crms.items():
            crm = self._known[contract].dialect_of or contract
            given = {"BASE_URL": self.base_url(name), "API_KEY": self.key(name)}
            given |= {"CRM": crm} if crm != name else {}
            given |= self.simulator(name).environment()
            made |= {f"SOURCES__{name.upper()}__{key}": value for key, value in given.items()}
        return made

    def simulator(self, crm: str) -> Simulator:
        """Return the running simulator of a workspace, filled on first use; raises KeyError."""
        running = self._running.get(crm)
        if running is None:
            with self._lock:
                running = self._running.get(crm) or self._start(crm)
        return running

    def serve(self, method: str, target: str, headers: dict[str, str], body: bytes, wire: Wire) -> None:
        """Answer one request on its wire; called by the server's threads."""
        path, _, raw_query = target.partition("?")
        _, crm, *rest = path.split("/", 2)
        id = f"req_{next(self._numbers):06d}"
        request = Request(crm, method, "/" + "".join(rest), raw_query, headers, body, id)
        if crm == "_sandbox":
            wire.send(packed(admin.answer(self, request), self.now()))
        elif crm in self.crms:
            self._serve(request, wire)
        else:
            wire.send(packed(reply({"error": "no such CRM"}, 404), self.now()))

    def _serve(self, request: Request, wire: Wire) -> None:
        simulator = self.simulator(request.crm).part(request)
        is_list = simulator.is_list(request)
        if is_list and self.before_list:
            self.before_list(request)
        pages = self.faults.pages(request.crm)
        action = self.faults.action_for(request)
        response = action.instead(Scene(request, simulator, pages), wire)
        if response is None:
            response = action.turned(simulator.handle(request))
        if is_list and response.status == 200:
            pages[request.path] = response.copy()
        # Logged before it goes out, so that a client that has its answer finds its request counted.
        place = self._log(request, response.status)
        sent = action.deliver(response, self.now(), wire)
        if sent != response.status:
            self.requests[place] = self.requests[place]._replace(status=sent)

    def _log(self, request: Request, status: int) -> int:
        entry = Logged(request.crm, request.method, request.path, request.raw_query, status)
        with self._lock:
            self.requests.append(entry)
            return len(self.requests) - 1

    def _start(self, crm: str) -> Simulator:
        simulator = self._known[self.crms[crm]]
        switches = self._switches.get(crm) or simulator.switches()
        running = simulator(seed=self._made.seed, now=self.now, switches=switches)
        running.tenant.name = crm
        first = round(self._made.records * simulator.people_offset)
        # A minute back, so that the youngest made-up record is older than the first edit by hand.
        moment = self._made.world_now() - timedelta(minutes=1)
        running.populate(World(first, self._made.records, self._made.seed, moment))
        self._running[crm] = running
        return running
