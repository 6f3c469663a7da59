"""`roundtrip check`: what each connection's key may do and what its API turns out to support.

Only reads. A connection that is refused does not stop the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.progress import Progress
from pipelines.settings import Project
from sources import load
from sources.core.connector import Connection, Probe, Resource, Since
from sources.core.errors import AuthError, ConnectorError
from sources.core.passes import Pass, honours_since
from sources.core.sessions import Session, open_session


@dataclass(slots=True)
class CheckResult:
    """What was found, one entry a connection."""

    connections: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None

    @property
    def exit_code(self) -> int:
        """Give 3 when a key was refused, 1 when something could not be read, else 0."""
        states = {each["status"] for each in self.connections}
        return 3 if "refused" in states else 1 if "failed" in states else 0

    @property
    def status(self) -> str:
        """Name the end."""
        return {0: "ok", 1: "failed", 3: "refused"}[self.exit_code]

    @property
    def error(self) -> str | None:
        """Give the first error's line."""
        return next((each["error"] for each in self.connections if each["error"]), None)

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip check`."""
        return {"connections": self.connections}


def check(project: Project, names: Sequence[str] = (), *, progress: Progress) -> CheckResult:
    """Look at connections, the default ones when none is named; `ConfigError` for one that is not set up."""
    connections = [project.connection(name) for name in project.wanted(names)]
    result = CheckResult()
    for connection in connections:
        progress.say(f"{connection.name}: asking")
        result.connections.append(_look(connection))
    return result


def _look(connection: Connection) -> dict[str, Any]:
    connector = load(connection.crm)
    entry: dict[str, Any] = {
        "connection": connection.name,
        "crm": connection.crm,
        "status": "ok",
        "dialect": None,
        "key": "set",
        "error": None,
        "resources": [],
        "writes": [],
        "quota": {},
        "findings": [],
    }
    try:
        with open_session(connector, connection) as session:
            entry["dialect"] = session.contract.name
            entry["writes"] = sorted(session.contract.writes)
            entry["resources"] = [_resource(session, each) for each in session.contract.resources]
            entry["findings"] = _settings(connection) + [
                _finding(session, probe) for probe in session.contract.probes
            ]
            entry["quota"] = _quota(session)
    except ConnectorError as error:
        entry["status"] = "refused" if isinstance(error, AuthError) else "failed"
        entry["error"] = str(error)
        return entry
    return entry | _standing(entry["resources"])


def _resource(session: Session, resource: Resource) -> dict[str, Any]:
    """Ask for a resource's first page; a refused key ends the look at the whole connection."""
    entry = {
        "resource": resource.name,
        "readable": True,
        "reason": None,
        "strategy": _strategy(session, resource),
    }
    if resource.fan_out:
        scopes = [each.resource for each in resource.fan_out if each.applies(session.connection)]
        return entry | {
            "readable": None,
            "reason": f"asked for per record of {', '.join(scopes) or 'nothing'}",
        }
    try:
        next(iter(Pass(session, resource)), None)
    except AuthError as error:
        if error.status == 401:
            raise
        return entry | {"readable": False, "reason": error.what, "refused": True}
    except ConnectorError as error:
        if resource.optional and error.status in (404, 405, 410):
            return entry | {"readable": False, "reason": "not served by this API; it can only be written"}
        return entry | {"readable": False, "reason": str(error), "failed": True}
    return entry


def _strategy(session: Session, resource: Resource) -> str:
    strategy = resource.strategy
    if not isinstance(strategy, Since):
        return "full"
    try:
        if strategy.probed and not honours_since(session, resource):
            return "full"
    except ConnectorError:
        return "unknown"
    feed = session.contract.feed
    return "since, with change feed" if feed is not None and resource.name in feed.entities else "since"


def _standing(resources: list[dict[str, Any]]) -> dict[str, str]:
    """Judge a connection by its resources: refused only when the key may read none of them."""
    refused = [each for each in resources if each.pop("refused", False)]
    failed = [each for each in resources if each.pop("failed", False)]
    if refused and len(refused) == len(resources):
        return {"status": "refused", "error": f"{refused[0]['resource']}: {refused[0]['reason']}"}
    if refused or failed:
        first = (refused + failed)[0]
        return {"status": "failed", "error": f"{first['resource']}: {first['reason']}"}
    return {}


def _settings(connection: Connection) -> list[dict[str, str]]:
    """List the questions that a setting answers, with the answer in force."""
    return [
        {
            "question": f"sources.{connection.name}.{option.name}",
            "about": option.doc,
            "answer": f"{connection.options.get(option.name)} (setting)",
        }
        for option in load(connection.crm).options
        if connection.options.get(option.name) is not None
    ]


def _finding(session: Session, probe: Probe) -> dict[str, str]:
    try:
        answer = probe.ask(session.client, session.connection)
    except ConnectorError as error:
        answer = f"could not be told: {error.what}"
    return {"question": probe.number, "about": probe.about, "answer": answer}


def _quota(session: Session) -> dict[str, Any]:
    state = session.client.budget.snapshot()
    return {
        "limit": state.limit,
        "remaining": state.remaining,
        "requests": state.requests,
        "refused": state.refused,
    }
