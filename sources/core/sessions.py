"""An open connection to one workspace: its contract chosen, its client ready, its budget shared."""

import random
from types import TracebackType
from typing import Any, Self

from sources.core.auth import Auth
from sources.core.client import Client
from sources.core.connector import Connection, Connector
from sources.core.pacing import SYSTEM_CLOCK, Budget, Clock


class Session:
    """Hold what every call to one workspace needs; close it when done."""

    def __init__(self, connector: Connector, connection: Connection, client: Client) -> None:
        self.connector = connector
        self.connection = connection
        self.contract = connector.contract(connection)
        self.client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()


def open_session(
    connector: Connector,
    connection: Connection,
    *,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
    **client_settings: Any,
) -> Session:
    """Open a session; no request is sent yet. `client_settings` go to the client (time-outs, attempts)."""
    client = Client(
        connection=connection.name,
        base_url=connection.base_url,
        auth=Auth(connector.auth_header, connector.auth_prefix, connection.api_key),
        budget=Budget(clock=clock, max_per_minute=connection.options.get("max_per_minute")),
        headers=connector.headers(connection),
        statuses=connector.statuses,
        clock=clock,
        rng=rng or random.Random(),
        **client_settings,
    )
    return Session(connector, connection, client)
