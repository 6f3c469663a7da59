"""Tell a webhook or a program how a run ended, as `[roundtrip.notify]` asks.

What is told holds no key and nothing about a person: names of connections, resources, models and syncs,
counts, and the error lines that a log would hold, addresses taken out. Telling never fails a run.
"""

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from pipelines.alarms import Alarms
from pipelines.render import Result, clean
from pipelines.settings import Project
from sources.core.auth import is_loopback, presentable

TIMEOUT_S = 10.0

_EVENTS = {
    0: "success",
    1: "failure",
    2: "failure",
    3: "failure",
    4: "locked",
    5: "guard",
    130: "interrupted",
}
_PULLED = ("rows", "new", "changed", "deleted")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def notify(
    project: Project,
    command: str,
    result: Result,
    *,
    now: datetime | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[str]:
    """Tell how a command ended, if that is asked for; give a line for each way that did not work."""
    alarms = project.alarms
    if not alarms.is_set:
        return []
    stale = find_stale(project, now or datetime.now(UTC)) if command in {"pull", "status"} else []
    events = {_EVENTS.get(result.exit_code, "failure")} if command != "status" else set()
    told = sorted((events | ({"stale"} if stale else set())) & alarms.on)
    if not told:
        return []
    body = json.dumps(message(project, command, result, events=told, stale=stale)).encode()
    failures = (_post(alarms, body, timeout_s), _run(alarms, body, timeout_s))
    return [f"notify: {failure}" for failure in failures if failure]


def find_stale(project: Project, now: datetime) -> list[dict[str, Any]]:
    """List the resources of the project's own connections that were last complete longer ago than allowed."""
    if "stale" not in project.alarms.on:
        return []
    from pipelines.warehouse import Warehouse

    warehouse = Warehouse(project.warehouse)
    with warehouse.reading() as con:
        rows = con.execute(
            "select connection, resource, epoch_us(last_complete_at) from roundtrip.resource_state"
            " where last_complete_at is not null order by all"
        ).fetchall()
    seen = {(name, resource): _EPOCH + timedelta(microseconds=at) for name, resource, at in rows}
    seen |= warehouse.looked()
    return [
        {"connection": name, "resource": resource, "last_success": at.isoformat()}
        for (name, resource), at in sorted(seen.items())
        if name in project.default_connections and now - at > project.alarms.stale_after
    ]


# -- what is told --------------------------------------------------------------------------------


def message(
    project: Project,
    command: str,
    result: Result,
    *,
    events: Sequence[str],
    stale: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Make the message; `text` sums it up in one line, under the name by which chat programs show it."""
    payload = result.payload()
    parts = [_part(part) for part in (*payload.get("resources", ()), *payload.get("models", ()))]
    told = {
        "version": 1,
        "project": project.root.name,
        "command": command,
        "events": list(events),
        "run_id": result.run_id,
        "status": result.status,
        "exit_code": result.exit_code,
        "error": _presentable(result.error),
        "sync": payload.get("sync"),
        "connection": payload.get("connection"),
        "object": payload.get("object"),
        "counts": _counts(payload),
        "failed": [part for part in parts if part["status"] not in {"ok", "absent"}],
        "stale": list(stale),
    }
    return {"text": _text(told), **told}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a resource or a model; a model's error may quote a row, so only its name and status."""
    if "resource" in part:
        names = {"connection": part["connection"], "resource": part["resource"]}
        return {**names, "status": part["status"], "error": _presentable(part["error"])}
    return {"model": part["name"], "status": part["status"], "error": None}


def _counts(payload: Mapping[str, Any]) -> dict[str, int]:
    if "resources" in payload:
        return {name: sum(part.get(name) or 0 for part in payload["resources"]) for name in _PULLED}
    if "models" in payload:
        return {"rows": sum(part.get("rows") or 0 for part in payload["models"])}
    return dict(payload.get("counts") or {})


def _presentable(line: str | None) -> str | None:
    return None if line is None else presentable(clean(line), None)


def _text(told: Mapping[str, Any]) -> str:
    words = " ".join(str(word) for word in (told["command"], told["sync"]) if word)
    line = f"roundtrip {words} in {told['project']}: {told['status']} (exit {told['exit_code']})"
    errors = [told["error"], *(part["error"] for part in told["failed"])]
    more = [error for error in dict.fromkeys(errors) if error][:3]
    if told["stale"]:
        names = [f"{each['connection']}.{each['resource']}" for each in told["stale"]]
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        more.append(f"stale: {shown}")
    return clean("; ".join([line, *more]))


# -- how it is told ------------------------------------------------------------------------------


class _NoRedirect(HTTPRedirectHandler):
    """What is told is for the address that was set, and for no other."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the answer then counts as an error."""


def _post(alarms: Alarms, body: bytes, timeout_s: float) -> str | None:
    """Send the message to the webhook; the host alone is named, for the address may be a secret."""
    if not alarms.url:
        return None
    ended: list[str | None] = []
    # A thread that can be left behind: looking up a name has no time-out of its own.
    sending = threading.Thread(target=lambda: ended.append(_sent(alarms.url, body, timeout_s)), daemon=True)
    sending.start()
    sending.join(timeout_s)
    what = ended[0] if ended else f"no answer within {timeout_s:g} s"
    return what and f"the webhook at {urlsplit(alarms.url).hostname} was not told ({what})."


def _sent(url: str, body: bytes, timeout_s: float) -> str | None:
    # The standard library's HTTP is enough here, and spares runs that need no CRM the import of a client.
    handlers: list[Any] = [_NoRedirect(), *([ProxyHandler({})] if is_loopback(url) else [])]
    headers = {"Content-Type": "application/json", "User-Agent": "roundtrip"}
    request = Request(url, data=body, headers=headers, method="POST")  # noqa: S310 (http or https, by `alarms`)
    try:
        with build_opener(*handlers).open(request, timeout=timeout_s) as answer:
            answer.read(1024)
    except HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return presentable(getattr(reason, "strerror", None) or type(reason).__name__, None)
    return None


def _run(alarms: Alarms, body: bytes, timeout_s: float) -> str | None:
    """Run the program, without a shell and without keys around it; it reads the message from its input."""
    if not alarms.command:
        return None
    name = alarms.command[0]
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("SOURCES__", "ROUNDTRIP__"))
    }
    try:
        done = subprocess.run(  # noqa: S603 (the operator's own program, from the settings)
            alarms.command,
            input=body,
            stdout=subprocess.DEVNULL,
            env=environ,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{name} did not end within {timeout_s:g} s."
    except OSError as error:
        return f"{name} cannot be run ({error.strerror})."
    return f"{name} ended with {done.returncode}." if done.returncode else None
