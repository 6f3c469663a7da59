"""A fast CRM on loopback for measurements: Relm Classic's lists by cursor, Rally's by offset.

Rows are serialised before the first request, so that a page costs a slice and a join. What is measured is
the reader. It runs in a process of its own (`start`), and is steered by `POST /_control` with JSON:
`touch` rows, set `latency_ms`, `gzip`, `mutate` the list on every page request, `reset` the counters.
"""

import argparse
import asyncio
import functools
import gzip
import json
import random
import re
import subprocess
import sys
import time
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl
from urllib.request import Request, urlopen

from tests.benchmarks.crm_rows import KINDS, Rows

_HEAD = re.compile(rb"(GET|POST) (\S+) HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
REPOSITORY = Path(__file__).parents[2]


class Crm:
    """The records of a server and how it answers."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.latency_s = 0.0
        self.is_gzip = False
        self.mutates = False
        self.lists: dict[str, Rows] = {}
        self.rng = random.Random(1)
        self._packed: dict[bytes, bytes] = {}
        self.reset()

    def packed(self, body: bytes) -> bytes:
        """Compress an answer, once."""
        if body not in self._packed:
            self._packed[body] = gzip.compress(body, 1)
        return self._packed[body]

    def reset(self) -> None:
        """Begin counting anew."""
        self.calls: dict[str, int] = {}
        self.first_at: float | None = None
        self.last_at = 0.0

    def rows(self, path: str) -> Rows:
        """Give the list behind a path; it is made when it is first asked for."""
        if path not in self.lists:
            self.lists[path] = Rows(KINDS[path], self.records)
        return self.lists[path]

    def answer(self, path: str, query: dict[str, str]) -> bytes | None:
        """Give the body of an answer, None for a path that is not there."""
        if path == "/sync/changes":
            return self._feed(query)
        if path not in KINDS:
            return None
        rows = self.rows(path)
        self.calls[path] = self.calls.get(path, 0) + 1
        if self.mutates:
            rows.mutate(self.rng)
        limit = int(query.get("limit", "200"))
        return self._page(path, rows, limit, query)

    def _page(self, path: str, rows: Rows, limit: int, query: dict[str, str]) -> bytes:
        if not path.startswith("/v1/"):
            at = int(query.get("offset", "0"))
            return b"[" + b",".join(rows.since(query.get("updatedSince"))[at : at + limit]) + b"]"
        at = int(query.get("cursor", "c0")[1:])
        found = rows.since(query.get("filter[updated_at][gte]"))
        end = at + limit
        tail = f'],"has_more":true,"next_cursor":"c{end}"}}' if end < len(found) else '],"has_more":false}'
        return b'{"object":"list","data":[' + b",".join(found[at:end]) + tail.encode()

    def _feed(self, query: dict[str, str]) -> bytes:
        since = datetime.fromisoformat(query["since"])
        entries = [
            {
                "id": rows.seq[place],
                "entityType": rows.kind.feed,
                "entityId": rows.ids[place],
                "action": "updated",
                "changedAt": rows.touched[place].isoformat(),
            }
            for path, rows in self.lists.items()
            if not path.startswith("/v1/")
            for place in sorted(rows.touched, key=lambda place: rows.seq[place])
            if rows.touched[place] >= since
        ]
        return json.dumps(entries[: int(query.get("limit", "1000"))]).encode()

    def control(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out an order and tell how things stand."""
        if order.get("reset"):
            self.reset()
        self.latency_s = order.get("latency_ms", self.latency_s * 1000) / 1000
        self.is_gzip = order.get("gzip", self.is_gzip)
        self.mutates = order.get("mutate", self.mutates)
        if "touch" in order:
            self.rows(order["path"]).touch(order["touch"])
        span_s = self.last_at - self.first_at if self.first_at is not None else 0.0
        told: dict[str, Any] = {"calls": self.calls, "span_s": span_s}
        if "path" in order:
            told["facts"] = self.rows(order["path"]).facts()
        if "settled" in order:
            told["settled"] = self.rows(order["path"]).settled()
        return told


class _Protocol(asyncio.Protocol):
    def __init__(self, crm: Crm) -> None:
        self._crm = crm
        self._buffer = b""
        self._cache: dict[bytes, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._serve(head + b"\r\n", rest[:length])

    def _serve(self, head: bytes, body: bytes) -> None:
        matched = _HEAD.match(head)
        assert matched is not None
        path, _, query = matched[2].decode().partition("?")
        if path == "/_control":
            self._send(200, json.dumps(self._crm.control(json.loads(body))).encode())
            return
        crm = self._crm
        crm.first_at = crm.first_at or time.monotonic()
        found = crm.answer(path, dict(parse_qsl(query)))
        is_packed = crm.is_gzip and found is not None and b"gzip" in head
        if is_packed and found is not None:
            found = crm.packed(found)
        status = 404 if found is None else 200
        if crm.latency_s:
            loop = asyncio.get_running_loop()
            loop.call_later(crm.latency_s, functools.partial(self._send, status, found, is_packed=is_packed))
        else:
            self._send(status, found, is_packed=is_packed)

    def _send(self, status: int, body: bytes | None, *, is_packed: bool = False) -> None:
        self._crm.last_at = time.monotonic()
        content = body or b"{}"
        packed = "Content-Encoding: gzip\r\n" if is_packed else ""
        head = (
            f"HTTP/1.1 {status} X\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: application/json\r\n"
            f"{packed}Content-Length: {len(content)}\r\n\r\n"
        )
        if not self._transport.is_closing():
            self._transport.write(head.encode() + content)


class Server:
    """A server in a process of its own; `records` rows in every list."""

    def __init__(self, records: int) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.crm_server", "--records", str(records)]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.records = records

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def control(self, **order: Any) -> dict[str, Any]:
        """Steer the server and read its counters."""
        request = Request(f"{self.url}/_control", json.dumps(order).encode(), method="POST")
        with urlopen(request, timeout=600) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


async def _serve(records: int) -> None:
    crm = Crm(records)
    server = await asyncio.get_running_loop().create_server(lambda: _Protocol(crm), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    asyncio.run(_serve(parser.parse_args().records))


if __name__ == "__main__":
    main()
