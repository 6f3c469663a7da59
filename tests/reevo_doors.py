"""Ways into a sandboxed Reevo, and what its tests make and look at there."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, TypeAlias

import httpx

from sources.sandbox import Sandbox
from sources.sandbox.reevo_switches import ReevoSwitches
from sources.sandbox.store import Tenant

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Open: TypeAlias = Callable[..., tuple[Tenant, httpx.Client]]
Row: TypeAlias = dict[str, Any]


def opened(
    stack: ExitStack,
    api: str,
    *,
    records: int = 30,
    scopes: tuple[str, ...] | None = None,
    now: Callable[[], datetime] | None = None,
    **switches: Any,
) -> tuple[Tenant, httpx.Client]:
    """Open a sandbox and a client signed in to one of Reevo's contracts, under the switches given."""
    clock: dict[str, Any] = {} if now is None else {"now": now}
    box = stack.enter_context(Sandbox(records=records, reevo=ReevoSwitches(**switches), **clock))
    key = box.key("reevo", scopes=scopes)
    headers = {"Authorization": f"Bearer {key}"} if api == "/api/v2" else {"x-api-key": key}
    client = httpx.Client(base_url=box.base_url("reevo") + api, headers=headers, trust_env=False)
    return box.tenant("reevo"), stack.enter_context(client)


def a_contact(tenant: Tenant, email: str = "lee@pier.example", **fields: Any) -> str:
    """Have somebody add a contact by hand."""
    return str(tenant.create("contacts", primary_email=email, **fields)["id"])


def an_account(tenant: Tenant, domain: str = "pier.example", **fields: Any) -> str:
    """Have somebody add an account by hand."""
    domains = [{"domain_name": domain, "is_primary": True}]
    return str(tenant.create("accounts", display_name="Pier", domains=domains, **fields)["id"])


def everything(client: httpx.Client, record_type: str, body: Row) -> list[Row]:
    """Walk a query to its end, as the vendor's example does: cursor and limit only."""
    page = client.post(f"/{record_type}/_query", json=body).raise_for_status().json()
    rows: list[Row] = page["data"]
    while page["next_cursor"]:
        more = {"cursor": page["next_cursor"], "limit": body.get("limit", 50)}
        page = client.post(f"/{record_type}/_query", json=more).raise_for_status().json()
        rows += page["data"]
    return rows


def found(client: httpx.Client, record_type: str, *filters: Row) -> list[Row]:
    """Return what fits the filters."""
    answer = client.post(f"/{record_type}/_query", json={"filters": filters, "limit": 100})
    rows: list[Row] = answer.raise_for_status().json()["data"]
    return rows


def held(answer: httpx.Response, name: str) -> Any:
    """Return the value of an attribute in an answer."""
    return answer.json()["data"]["attributes"][name]["value"]


def code(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]
