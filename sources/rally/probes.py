"""What Rally's pages leave open and a look can tell; numbers are those of the vendor sheet's section 13."""

from sources.core import probing
from sources.core.client import Client
from sources.core.connector import Connection, Probe


def _is_inclusive(client: Client, connection: Connection) -> str:
    rows = probing.rows_of(client.get("/contacts", {"limit": "50"}, resource="check"))
    stamps = sorted(str(row["updatedAt"]) for row in rows if row.get("updatedAt"))
    if not stamps:
        return "no record to look at"
    again = probing.rows_of(
        client.get("/contacts", {"updatedSince": stamps[-1], "limit": "50"}, resource="check")
    )
    found = any(str(row.get("updatedAt")) == stamps[-1] for row in again)
    return f"updatedSince is {'inclusive' if found else 'exclusive'}; windows overlap in any case"


def _narrowed(client: Client, connection: Connection) -> str:
    rows = probing.rows_of(client.get("/contacts", {"fields": "id,email", "limit": "1"}, resource="check"))
    if not rows:
        return "no record to look at"
    return f"fields=id,email gives {', '.join(sorted(rows[0]))}"


def _decimals(client: Client, connection: Connection) -> str:
    rows = probing.rows_of(client.get("/deals", {"limit": "50"}, resource="check"))
    kinds = {type(row["value"]).__name__ for row in rows if row.get("value") is not None}
    return (
        f"amounts come as {', '.join(sorted(kinds))}; both are read exactly"
        if kinds
        else "no amount to look at"
    )


PROBES = (
    Probe("A2", "page size honoured beyond the vendor's examples", probing.honoured_limit("/contacts", 1000)),
    Probe("A3", "sort order of lists", probing.order("/contacts", ("createdAt", "updatedAt"))),
    Probe("A4", "is updatedSince inclusive", _is_inclusive),
    Probe("A5", "what a narrowed read returns", _narrowed),
    Probe("A15", "values of a deal's status", probing.values_seen("/deals", "status")),
    Probe("A16", "stamps of deals", probing.fields_seen("/deals", ("createdAt", "updatedAt"))),
    Probe("A16", "stamps of activities", probing.fields_seen("/activities", ("createdAt", "updatedAt"))),
    Probe("A17", "a pipelines endpoint", probing.is_there("/pipelines")),
    Probe("A17", "a users endpoint", probing.is_there("/users")),
    Probe("A22", "limits told in answers", probing.limits_told("/contacts")),
    Probe("A24", "how decimals are written", _decimals),
)
