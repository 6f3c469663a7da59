"""A client that talks to a scripted server, by a clock that a test turns."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sources.core.auth import Auth
from sources.core.client import Client
from sources.core.errors import ConnectorError
from tests.scripted_server import ScriptedServer, Step, TurnedClock

KEY = "sk_live_0123456789abcdef"


def client_of(url: str, clock: TurnedClock | None = None, **settings: Any) -> Client:
    return Client(
        connection="relm",
        base_url=url,
        auth=Auth("Authorization", "Bearer ", KEY),
        clock=clock or TurnedClock(),
        rng=random.Random(1),
        **settings,
    )


@contextmanager
def serving(*steps: Step | bytes, **settings: Any) -> Iterator[tuple[ScriptedServer, Client]]:
    with ScriptedServer(*steps) as server, client_of(server.url, **settings) as client:
        yield server, client


def told(*steps: Step | bytes, method: str = "GET", **settings: Any) -> tuple[ConnectorError, ScriptedServer]:
    """Send one request to a script that ends in an error; give the error and what the server saw."""
    with serving(*steps, **settings) as (server, client), pytest.raises(ConnectorError) as caught:
        client.send(method, "/contacts", repeatable=method == "GET", resource="contacts").json()
    return caught.value, server
