"""A door to the sandbox's Vivre, and what its tests add there by hand."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

import httpx

from sources.sandbox import Sandbox
from sources.sandbox.store import Clock, utc_now
from sources.sandbox.vivre_rules import VivreSwitches

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ARJUN = {"name": "Arjun Das", "email": "arjun@deltaagro.example"}
Open: TypeAlias = Callable[..., tuple[Sandbox, httpx.Client]]


@contextmanager
def opening() -> Iterator[Open]:
    """Give a function that opens a sandbox and a client signed in to Vivre, under the switches given."""
    with ExitStack() as stack:

        def opened(
            *, records: int = 20, now: Clock = utc_now, **switches: Any
        ) -> tuple[Sandbox, httpx.Client]:
            box = stack.enter_context(Sandbox(records=records, now=now, vivre=VivreSwitches(**switches)))
            workspace = box.simulator("vivre").environment()["WORKSPACE_ID"]
            headers = {"Authorization": f"Bearer {box.key('vivre')}", "X-Workspace-ID": workspace}
            client = httpx.Client(base_url=box.base_url("vivre"), headers=headers, trust_env=False)
            return box, stack.enter_context(client)

        yield opened


def everything(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """Walk a list to its end."""
    rows: list[dict[str, Any]] = []
    while True:
        page = client.get(path, params=params | {"offset": len(rows)}).raise_for_status().json()
        rows += page["data"]
        if not page["data"] or len(rows) >= page["total"]:
            return rows


def contact_in(box: Sandbox, **fields: Any) -> str:
    """Add a contact by hand and return its id."""
    return str(box.tenant("vivre").create("contacts", **(ARJUN | fields))["id"])


def deal_in(box: Sandbox) -> str:
    """Add a contact with a deal by hand and return the deal's id."""
    contact_id = contact_in(box)
    made = box.tenant("vivre").create("deals", contact_id=contact_id, title="Loom", value=1_250_000)
    return str(made["id"])
