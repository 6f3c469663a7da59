"""What Relm's pages leave open and a look can tell; numbers are those of the vendor sheet's section 9."""

from sources.core import probing
from sources.core.client import Client
from sources.core.connector import Connection, Probe


def _version(client: Client, connection: Connection) -> str:
    answer = client.get("/v1/contacts", {"limit": "1"}, resource="check")
    told = answer.headers.get("relm-version")
    return f"Relm-Version: {told}" if told else "no Relm-Version header, which Classic sends"


def _required(client: Client, connection: Connection) -> str:
    rows = probing.rows_of(client.get("/v1/schema/fields", {"object_type": "contact"}, resource="check"))
    keys = sorted(str(row.get("key")) for row in rows if row.get("required"))
    return (
        f"every contact written needs metadata {', '.join(keys)}"
        if keys
        else "no required custom field on contacts"
    )


def _filters(client: Client, connection: Connection) -> str:
    body = client.get("/schema", resource="check").json()
    objects = body.get("objects", []) if isinstance(body, dict) else []
    listed = {
        str(each.get("key")): each.get("list_filters", []) for each in objects if isinstance(each, dict)
    }
    dated = sorted(key for key, names in listed.items() if any("updated" in str(name) for name in names))
    return f"a date filter exists on {', '.join(dated)}" if dated else "no list takes a date filter"


def _usage(client: Client, connection: Connection) -> str:
    body = client.get("/usage", resource="check").json()
    used, limit, plan = body.get("used"), body.get("limit"), body.get("plan")
    return f"{used} of {limit} requests used in {body.get('period')} (plan {plan})"


CLASSIC = (
    Probe(
        "C1", "change stamps on contacts", probing.fields_seen("/v1/contacts", ("created_at", "updated_at"))
    ),
    Probe("C2", "order of lists", probing.order("/v1/contacts", ("created_at", "updated_at"))),
    Probe("C12", "limits told in answers", probing.limits_told("/v1/contacts")),
    Probe("C17", "required custom fields", _required),
    Probe("A1", "version header", _version),
    Probe("dialect", "is the Modern schema served here too", probing.is_there("/v1/schema")),
)

MODERN = (
    Probe("M2", "order of lists", probing.order("/contacts", ("created_at",))),
    Probe("M4", "limits told in answers", probing.limits_told("/contacts")),
    Probe("B3", "filters of lists", _filters),
    Probe("B1", "monthly quota", _usage),
)
