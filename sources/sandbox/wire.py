"""The socket side: reads HTTP/1.1 requests, writes each answer in one piece, or breaks it as a fault asks."""

import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from socketserver import StreamRequestHandler
from threading import Event
from typing import Any, Protocol

from sources.sandbox.exchange import Response

_MAX_LINE = 65_536
_MAX_BODY = 64 * 1024 * 1024
_RESET = struct.pack("ii", 1, 0)


class Wire:
    """Hold one open connection, for whoever delivers an answer on it."""

    def __init__(self, connection: socket.socket, stopping: Event) -> None:
        self._connection = connection
        self._stopping = stopping
        self.is_open = True

    def send(self, payload: bytes) -> None:
        self._connection.sendall(payload)

    def wait(self, seconds: float) -> None:
        """Wait; ends early when the server stops."""
        self._stopping.wait(seconds)

    def close(self) -> None:
        """End the connection after what was sent."""
        self.is_open = False

    def reset(self) -> None:
        """Cut the connection so that the other side sees a reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.is_open = False


class App(Protocol):
    """Answer a parsed request on a wire."""

    def serve(self, method: str, target: str, headers: dict[str, str], body: bytes, wire: Wire) -> None: ...


class Server(ThreadingHTTPServer):
    """Listen on loopback, a daemon thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, app: App) -> None:
        self.app = app
        self.stopping = Event()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Connection)

    def server_bind(self) -> None:
        # The parent asks the name service for the host's name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def opened(self, connection: socket.socket) -> None:
        self._sockets.add(connection)

    def closed(self, connection: socket.socket) -> None:
        self._sockets.discard(connection)

    def stop(self) -> None:
        """Stop listening and cut what is open."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._sockets):
            _quietly(partial(connection.shutdown, socket.SHUT_RDWR))

    def shutdown_request(self, request: Any) -> None:
        # The parent sends a FIN first, which would hide a reset.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the other side cut."""


class _Connection(StreamRequestHandler):
    disable_nagle_algorithm = True
    server: Server

    def handle(self) -> None:
        self.server.opened(self.connection)
        wire = Wire(self.connection, self.server.stopping)
        try:
            while wire.is_open and not self.server.stopping.is_set():
                if not self._serve_one(wire):
                    return
        finally:
            self.server.closed(self.connection)

    def finish(self) -> None:
        _quietly(super().finish)

    def _serve_one(self, wire: Wire) -> bool:
        line = self.rfile.readline(_MAX_LINE)
        parts = line.decode("latin-1").split()
        if len(parts) != 3:
            return False
        headers = self._headers()
        body = self._body(headers, wire)
        if body is None:
            return False
        self.server.app.serve(parts[0], parts[1], headers, body, wire)
        return headers.get("connection", "").lower() != "close" and parts[2] != "HTTP/1.0"

    def _headers(self) -> dict[str, str]:
        headers = {}
        while (line := self.rfile.readline(_MAX_LINE)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return headers

    def _body(self, headers: dict[str, str], wire: Wire) -> bytes | None:
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            wire.send(packed(Response(411), datetime.now(UTC), is_closing=True))
            return None
        if int(length) > _MAX_BODY:
            wire.send(packed(Response(413), datetime.now(UTC), is_closing=True))
            return None
        if headers.get("expect", "").lower() == "100-continue":
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self.rfile.read(int(length))


def head(response: Response, now: datetime, *, is_closing: bool = False) -> bytes:
    """Return status line and headers, as they stand on the wire."""
    lines = [f"HTTP/1.1 {response.status} {_phrase(response.status)}", f"Date: {_date(int(now.timestamp()))}"]
    if response.body:
        lines.append(f"Content-Type: {response.content_type}")
    if response.status != 204:
        lines.append(f"Content-Length: {len(response.body)}")
    if is_closing:
        lines.append("Connection: close")
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def packed(response: Response, now: datetime, *, is_closing: bool = False) -> bytes:
    """Return a whole answer, as it stands on the wire."""
    return head(response, now, is_closing=is_closing) + response.body


@lru_cache(maxsize=4)
def _date(unix_s: int) -> str:
    return format_datetime(datetime.fromtimestamp(unix_s, UTC), usegmt=True)


@lru_cache(maxsize=64)
def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unnamed"


def _quietly(act: Callable[[], object]) -> None:
    """Do something to a socket that may be gone already."""
    try:
        act()
    except OSError:
        return
