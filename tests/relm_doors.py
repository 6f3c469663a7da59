"""Doors to both contracts of the sandbox's Relm, for the tests of what they answer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

import httpx

from sources.sandbox import Sandbox
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from sources.sandbox.relm_rules import RelmSwitches
from sources.sandbox.store import utc_now

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "relm_modern"
LISTS = ("contacts", "companies", "deals", "activities")
Open: TypeAlias = Callable[..., tuple[Sandbox, httpx.Client]]
_SWITCHES: dict[str, Callable[..., Any]] = {"relm": RelmSwitches, NAME: RelmModernSwitches}


@contextmanager
def opening(contract: str) -> Iterator[Open]:
    """Give a function that opens a sandbox and a client signed in to Relm, under the switches given."""
    with ExitStack() as stack:

        def opened(
            *, records: int = 30, now: Callable[[], datetime] = utc_now, **switches: Any
        ) -> tuple[Sandbox, httpx.Client]:
            given: dict[str, Any] = {contract: _SWITCHES[contract](**switches)}
            also = {contract: contract} if contract == NAME else {}
            box = stack.enter_context(Sandbox(records=records, also=also, now=now, **given))
            headers = {"Authorization": f"Bearer {box.key(contract)}"}
            client = httpx.Client(
                base_url=box.base_url(contract), headers=headers, trust_env=False, verify=False
            )
            return box, stack.enter_context(client)

        yield opened


def everything(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """Walk a list to its end."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(path, params=params | cursor).raise_for_status().json()
        rows += page["data"]
        if not page["has_more"]:
            return rows
        cursor = {"cursor": page["next_cursor"]}


def made(client: httpx.Client, resource: str = "contacts", **fields: Any) -> dict[str, Any]:
    """Create a record that is sure to stand and return it."""
    blank = {"contacts": {"first_name": "Lee"}, "companies": {"name": "Pier"}, "deals": {"title": "Deal"}}
    answer = client.post(f"/{resource}", json=blank.get(resource, {}) | fields)
    assert answer.status_code == 201, answer.text
    record: dict[str, Any] = answer.json()
    return record


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and field of a problem document."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["code"], body.get("field")


def batch(client: httpx.Client, *operations: dict[str, Any]) -> httpx.Response:
    """Send a batch."""
    return client.post("/batch", json={"operations": list(operations)})


def keyed(client: httpx.Client, path: str, sent: dict[str, Any], key: str = "k1") -> httpx.Response:
    """Post with an Idempotency-Key."""
    return client.post(path, json=sent, headers={"Idempotency-Key": key})
