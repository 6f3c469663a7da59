"""What Reevo's pages leave open and a look can tell; numbers are those of the vendor sheet's section 9."""

from typing import Any

import msgspec

from sources.core import probing
from sources.core.client import Client
from sources.core.connector import Connection, Probe

_V1, _V2 = "/api/v1/public", "/api/v2"


def _query(client: Client, path: str, body: dict[str, Any]) -> Any:
    return client.send("POST", path, body=msgspec.json.encode(body), repeatable=True, resource="check").json()


def _cursor_place(client: Client, connection: Connection) -> str:
    body = _query(client, f"{_V2}/contact/_query", {"limit": 1})
    if isinstance(body, dict) and "next_cursor" in body:
        return "next_cursor stands at the top level"
    return "next_cursor stands under meta" if isinstance(body, dict) and "meta" in body else "no cursor seen"


def _schema(client: Client, record_type: str) -> dict[str, dict[str, Any]]:
    body = client.get(f"{_V2}/_schema/{record_type}", resource="check").json()
    attributes = body.get("attributes", []) if isinstance(body, dict) else []
    return {str(each.get("api_name")): each for each in attributes if isinstance(each, dict)}


def _account_name(client: Client, connection: Connection) -> str:
    names = [name for name in ("display_name", "name") if name in _schema(client, "account")]
    return f"accounts are named by {' and '.join(names) or 'neither name nor display_name'}"


def _stamp(client: Client, connection: Connection) -> str:
    told = _schema(client, "contact").get("updated_at", {})
    marks = [name for name in ("filterable", "sortable") if told.get(f"is_{name}")]
    return (
        f"updated_at is {' and '.join(marks)}" if marks else "updated_at is neither filterable nor sortable"
    )


def _custom(client: Client, connection: Connection) -> str:
    found = sorted(name for name, each in _schema(client, "contact").items() if each.get("is_custom"))
    return (
        f"custom attributes of contacts: {', '.join(found)}" if found else "no custom attribute on contacts"
    )


def _unique(client: Client, connection: Connection) -> str:
    found = sorted(name for name, each in _schema(client, "contact").items() if each.get("is_unique"))
    return (
        f"contacts can be matched by {', '.join(found)}" if found else "the schema marks no unique attribute"
    )


def _accounts_listed(client: Client, connection: Connection) -> str:
    body = _query(client, f"{_V1}/accounts/search", {"domain_name": ".", "limit": 1})
    return "a dot finds accounts" if isinstance(body, list) and body else "a dot finds no account"


def _opportunities_listed(client: Client, connection: Connection) -> str:
    body = _query(client, f"{_V1}/opportunities/search", {"limit": 1})
    return "an empty search lists opportunities" if isinstance(body, list) and body else "it finds none"


_OTHER_CONTACTS = probing.is_there(
    f"{_V1}/contacts/search", method="POST", body=b'{"contact_email":"nobody@example.invalid","limit":1}'
)

V2 = (
    Probe("v2 1", "place of the cursor", _cursor_place),
    Probe("v2 6", "name of an account", _account_name),
    Probe("v2 4", "the change stamp", _stamp),
    Probe("v2 6", "what contacts can be matched by", _unique),
    Probe("B8", "custom attributes", _custom),
    Probe("v1 8", "contacts/search in v1", _OTHER_CONTACTS),
)

V1 = (
    Probe("v1 1", "is v2 served", probing.is_there(f"{_V2}/health")),
    Probe("v1 6", "does a dot list all accounts", _accounts_listed),
    Probe("v1 7", "does an empty search list all opportunities", _opportunities_listed),
    Probe("v1 8", "contacts/search", _OTHER_CONTACTS),
)
