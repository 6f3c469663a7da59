"""How fast a push goes out: rows a second to a CRM that answers at once, with the journal on and without.

The CRM is a loopback server in a process of its own that counts rows and sends prepared answers; what is
measured is fetching rows from the plan, making bodies, the journal, the client, reading answers and keeping
outcomes. Planning and booking are timed apart. `python -m tests.benchmarks.push_rate --rows 100000`.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path

import msgspec

from pipelines.plan import Plan, make_plan
from pipelines.progress import SilentProgress
from pipelines.push import push
from pipelines.settings import Project, load_project
from pipelines.warehouse import Warehouse
from sources import load
from sources.core.delivering import deliver
from sources.core.journal import Header, Journal, NoJournal, read
from sources.core.sessions import open_session
from sources.core.writing import Courier, Log
from tests.pushing import Desk

# A workspace without a registry of custom fields takes any.
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
FIELDS = "".join(
    f'{name} = "{name}"\n' for name in ("first_name", "last_name", "phone", "company_id")
) + "".join(f'"metadata.m{i}" = "m{i}"\n' for i in range(5))


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# -- the server ----------------------------------------------------------------------------------


def serve() -> None:
    """Answer every batch as created, row by row, from prepared bytes; print the port first."""
    import asyncio

    answers: dict[int, bytes] = {}

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.received = bytearray()

        def data_received(self, data: bytes) -> None:
            self.received += data
            head = self.received.find(b"\r\n\r\n")
            while head >= 0:
                fields = bytes(self.received[:head]).lower()
                found = fields.find(b"content-length:")
                length = int(fields[found + 15 :].split(b"\r\n", 1)[0]) if found >= 0 else 0
                if len(self.received) < head + 4 + length:
                    return
                rows = self.received.count(b'{"email":', head) if length else 0
                del self.received[: head + 4 + length]
                if rows not in answers:
                    answers[rows] = prepared(rows) if rows else NOT_FOUND
                self.transport.write(answers[rows])  # type: ignore[attr-defined]
                head = self.received.find(b"\r\n\r\n")

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        say(str(server.sockets[0].getsockname()[1]))
        await server.serve_forever()

    asyncio.run(main())


def prepared(rows: int) -> bytes:
    """Make the whole answer to a batch of so many rows."""
    entries = [{"index": i, "status": "created", "id": f"con_{i:012}"} for i in range(rows)]
    body = msgspec.json.encode({"data": entries})
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run the server beside us; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


# -- measuring -----------------------------------------------------------------------------------


def project_in(root: Path, address: str, rows: int) -> Project:
    """Make a warehouse with an empty mirror and a model of so many new people."""
    environ = {"SOURCES__RELM__API_KEY": "sk_test_1", "SOURCES__RELM__BASE_URL": address}
    desk = Desk(root, fields=FIELDS, environ=environ)
    desk.mirror(looked_at=datetime.now(UTC))
    metadata = ", ".join(f"i * {i + 3} as m{i}" for i in range(5))
    desk.write(
        "create or replace table marts.leads as select 'lead' || i || '@new.example' as email,"
        f" 'First' || i as first_name, 'Last' || i as last_name, '+1 555 ' || i as phone,"
        f" 'cmp_' || (i % 997) as company_id, {metadata} from range({rows}) as t(i)"
    )
    return load_project(root, environ=environ)


@dataclass(frozen=True, slots=True)
class Took:
    """What a delivery took: on the clock, and of this process's processor, which other work cannot slow."""

    wall_s: float
    cpu_s: float


def engine(made: Plan, log: Log, in_flight: int) -> Took:
    """Time how long the plan's rows take to be delivered."""
    with open_session(load("relm"), made.connection) as session:
        courier = Courier(session, session.contract.writes["contacts"], log, run_id="rate")
        started, used = time.perf_counter(), time.process_time()
        delivery = deliver(courier, made.outbox(), in_flight=in_flight)
        took = Took(time.perf_counter() - started, time.process_time() - used)
    assert delivery.error is None, delivery.error
    assert delivery.counts == {"created": made.changes}
    return took


def measure(rows: int, repeat: int, in_flight: int) -> None:
    """Print rows a second with the journal and without it, and what planning and booking take."""
    with server() as address, tempfile.TemporaryDirectory() as folder:
        project = project_in(Path(folder), address, rows)
        warehouse = Warehouse(project.warehouse)
        with_it: list[Took] = []
        without: list[Took] = []
        with warehouse.reading() as con:
            started = time.perf_counter()
            made = make_plan(con, project, "leads")
            say(f"plan: {time.perf_counter() - started:.2f} s for {made.changes:,} rows")
            for turn in range(repeat):
                header = Header(f"rate-{turn}", "leads", "relm", "contacts", made.seal, datetime.now(UTC))
                journal = Journal.begin(Path(folder) / "journals", header)
                with_it.append(engine(made, journal, in_flight))
                journal.close()
                without.append(engine(made, NoJournal(), in_flight))
            begun = time.perf_counter()
            story = read(journal.path)
            assert story is not None
            assert len(story.booked) == rows
            say(
                f"journal: {journal.path.stat().st_size:,} bytes, read in {time.perf_counter() - begun:.2f} s"
            )
        for name, of in (("clock", attrgetter("wall_s")), ("processor", attrgetter("cpu_s"))):
            on, off = rows / min(map(of, with_it)), rows / min(map(of, without))
            say(f"engine by {name}: {on:,.0f} rows/s with the journal, {off:,.0f} without: {on / off:.2f}")
        started = time.perf_counter()
        result = push(
            project, "leads", confirm=lambda made: True, progress=SilentProgress(), in_flight=in_flight
        )
        took_s = time.perf_counter() - started
        say(f"whole push: {took_s:.2f} s, {rows / took_s:,.0f} rows/s, {result.counts['created']:,} created")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve()
    else:
        measure(options.rows, options.repeat, options.in_flight)


if __name__ == "__main__":
    main()
