"""Kept connections: no more than requests are under way."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx

from sources.core.transport import Transport
from tests.scripted_server import ScriptedServer, reply

WHOLE = reply(body=b'{"data": []}')


def ask(transport: Transport, url: str) -> bytes:
    request = httpx.Request("GET", url, extensions={"timeout": httpx.Timeout(5).as_dict()})
    with transport.send(request) as response:
        return response.read()


def connections_of(server: ScriptedServer) -> int:
    return len(server._threads) - 1  # beside the one that accepts


def test_requests_in_turn_share_one_connection() -> None:
    with ScriptedServer(WHOLE) as server, closing(Transport(server.url)) as transport:
        assert {ask(transport, server.url) for _ in range(5)} == {b'{"data": []}'}
        assert connections_of(server) == 1


def test_requests_at_once_have_a_connection_each_and_leave_them_to_the_next() -> None:
    with (
        ScriptedServer(WHOLE) as server,
        closing(Transport(server.url)) as transport,
        ThreadPoolExecutor(4) as pool,
    ):
        assert len(list(pool.map(lambda _: ask(transport, server.url), range(80)))) == 80
        assert connections_of(server) <= 4
