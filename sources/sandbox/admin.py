"""The side door under `/_sandbox/`: look into a sandbox in another process, edit by hand, order faults.

GET    /_sandbox/ledger/{crm}                     every write applied
GET    /_sandbox/records/{crm}/{resource}         the records as they are kept
GET    /_sandbox/requests                         [crm, method, path, query, status] of each request
GET    /_sandbox/settings                         the environment variables of the connections
POST   /_sandbox/faults                           one rule or a list of rules
DELETE /_sandbox/faults                           take all rules back
POST   /_sandbox/create/{crm}/{resource}          fields, and `by`
POST   /_sandbox/edit/{crm}/{resource}/{id}       fields, and `by`
POST   /_sandbox/delete/{crm}/{resource}/{id}
"""

from typing import TYPE_CHECKING, Any

from sources.sandbox.exchange import Refusal, Request, Response, reply

if TYPE_CHECKING:
    from sources.sandbox.server import Sandbox


def answer(box: "Sandbox", request: Request) -> Response:
    """Answer a request of the side door; a page in a browser gets no further than 403."""
    if not _is_local(request):
        return reply({"error": "only for loopback"}, 403)
    try:
        verb, *parts = request.path.strip("/").split("/")
        return reply(_answer(box, request, verb, parts))
    except Refusal as refusal:
        return reply({"error": refusal.message}, refusal.status)
    except (KeyError, TypeError, ValueError, LookupError) as error:
        return reply({"error": f"{type(error).__name__}: {error}"}, 400)


def _answer(box: "Sandbox", request: Request, verb: str, parts: list[str]) -> Any:
    match request.method, verb, parts:
        case "GET", "ledger", [crm]:
            return [write.as_dict() for write in list(box.tenant(crm).ledger)]
        case "GET", "records", [crm, resource]:
            return box.tenant(crm).records(resource)
        case "GET", "requests", []:
            return [list(entry) for entry in list(box.requests)]
        case "GET", "settings", []:
            return box.settings()
        case "POST", "faults", []:
            return _add_faults(box, request)
        case "DELETE", "faults", []:
            box.faults.clear()
            return {"rules": 0}
        case "POST", "create", [crm, resource]:
            return box.tenant(crm).create(resource, **request.json_object())
        case "POST", "edit", [crm, resource, id]:
            return box.tenant(crm).edit(resource, id, **request.json_object())
        case "POST", "delete", [crm, resource, id]:
            box.tenant(crm).delete(resource, id)
            return {"deleted": id}
    raise Refusal(404, "not_found", "There is nothing at this path")


def _add_faults(box: "Sandbox", request: Request) -> dict[str, int]:
    rules = request.json()
    for rule in rules if isinstance(rules, list) else [rules]:
        box.faults.add_plain(rule)
    return {"rules": len(box.faults.rules)}


def _is_local(request: Request) -> bool:
    """Say whether a request names this machine as host and comes from no web page."""
    host = request.headers.get("host", "").rpartition(":")[0]
    return host in ("127.0.0.1", "localhost") and "origin" not in request.headers
