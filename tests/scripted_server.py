"""A server that says exactly the bytes of a script, and a clock that a test turns by hand."""

import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

RESET = None  # in a step: cut the connection without a farewell
Step = Sequence[bytes | float | None]  # bytes to send, seconds to pause, RESET

_CUT = struct.pack("ii", 1, 0)


def reply(
    status: int = 200,
    body: bytes = b"{}",
    headers: Mapping[str, str] | None = None,
    *,
    content_type: str = "application/json",
) -> bytes:
    """Write a whole answer that keeps the connection."""
    told = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} Told\r\n{lines}\r\n".encode() + body


@dataclass
class TurnedClock:
    """Stand still, except for sleeping."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - 1_700_000_000.0

    def sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """Answer each request with the next step; the last one is said again and again."""

    def __init__(self, *steps: Step | bytes) -> None:
        self.steps: list[Step] = [[step] if isinstance(step, bytes) else step for step in steps]
        self.requests: list[Seen] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(wire,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, wire: socket.socket) -> None:
        wire.settimeout(0.1)
        with wire:
            try:
                while (seen := self._receive(wire)) is not None and self._say(wire, self._next(seen)):
                    pass
            except OSError:  # the client left
                return

    def _next(self, seen: Seen) -> Step:
        with self._lock:
            self.requests.append(seen)
            return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]

    def _say(self, wire: socket.socket, step: Step) -> bool:
        """Say one step; tell whether the connection stays open, which it does after one whole reply."""
        for piece in step:
            if piece is RESET:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)
                return False
            if isinstance(piece, bytes):
                wire.sendall(piece)
            elif self._closing.wait(piece):
                return False
        return len(step) == 1

    def _receive(self, wire: socket.socket) -> Seen | None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = self._read(wire)
            if not part:
                return None
            head += part
        head, _, body = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self._read(wire)
        return Seen(method, target, headers, body)

    def _read(self, wire: socket.socket) -> bytes:
        while not self._closing.is_set():
            try:
                return wire.recv(65536)
            except TimeoutError:
                continue
        return b""
