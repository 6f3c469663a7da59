"""What waiting costs: slow answers, and a list that moves with every request."""

import math

import duckdb

from tests.benchmarks.crm_server import Server
from tests.benchmarks.measuring import TABLE_HEAD, Settings, line, roundtrip

_LATENCY_MS = 80
_PAGE = 200
_LISTS = ("contacts", "companies", "deals", "activities")


def measure_latency(settings: Settings) -> list[str]:
    """Take the time from the first request to the last answer, as the server saw it."""
    return [*TABLE_HEAD, *_measure_cursor(settings), *_measure_offset(settings)]


def _measure_cursor(settings: Settings) -> list[str]:
    """Read 100 pages by cursor, and then four such lists at once."""
    with Server(100 * _PAGE) as server:
        server.control(latency_ms=_LATENCY_MS)
        lists = [f"relm.{name}" for name in _LISTS]
        alone_s, calls = _span(server, settings, "cursor", lists[:1])
        together_s, _ = _span(server, settings, "four", lists)
    ideal_s = calls * _LATENCY_MS / 1000
    return [
        line(
            f"cursor, {calls} requests, {_LATENCY_MS} ms each",
            "≤ 1.05 × requests × latency",
            f"{alone_s / ideal_s:.3f} ({alone_s:.2f} s)",
        ),
        line(
            "four cursor lists at once",
            "≤ 1.1 × the slowest",
            f"{together_s / alone_s:.3f} ({together_s:.2f} s)",
        ),
    ]


def _measure_offset(settings: Settings) -> list[str]:
    records = 50_000 if settings.is_quick else 400_000
    with Server(records) as server:
        server.control(latency_ms=_LATENCY_MS)
        span_s, calls = _span(server, settings, "offset", ["rally.contacts"])
    in_turn_s = calls * _LATENCY_MS / 1000
    told = f"{in_turn_s / span_s:.1f} times ({calls} requests in {span_s:.2f} s)"
    return [line(f"offset, {records:,} rows, up to 32 in flight", "≥ 25 times one after another", told)]


def _span(server: Server, settings: Settings, name: str, lists: list[str]) -> tuple[float, int]:
    for each in lists:
        server.control(path=_path(each))  # makes the rows
    server.control(reset=True)
    crm = lists[0].partition(".")[0]
    folder = settings.folder / name
    roundtrip(["pull", *lists, "--json"], folder, url=server.url, crm=crm)
    told = server.control()
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as con:
        for each in lists:
            found = con.execute(f"select count(*), count(distinct id) from {each}").fetchall()
            if found != [(server.records, server.records)]:
                raise SystemExit(f"{each} brought {found}")
    return told["span_s"], sum(told["calls"].values())


def _path(target: str) -> str:
    crm, _, name = target.partition(".")
    return f"/v1/{name}" if crm == "relm" else f"/{name}"


def measure_drift(settings: Settings) -> list[str]:
    """Change the list on every page request, and look for rows missed or doubled."""
    records = settings.records
    with Server(records) as server:
        server.control(path="/contacts", mutate=True, reset=True)
        folder = settings.folder / "drift"
        roundtrip(["pull", "rally.contacts", "--json"], folder, url=server.url, crm="rally")
        told = server.control(path="/contacts", mutate=False, settled=True)
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as con:
        ids = [row[0] for row in con.execute("select id from rally.contacts").fetchall()]
    calls = told["calls"]["/contacts"]
    return [
        *TABLE_HEAD,
        line(f"{records:,} rows: missed", "0", str(len(set(told["settled"]) - set(ids)))),
        line(f"{records:,} rows: doubled", "0", str(len(ids) - len(set(ids)))),
        line(
            f"{records:,} rows: requests",
            "≤ 1.3 × ideal",
            f"{calls / math.ceil(records / _PAGE):.2f} ({calls} requests, one change each)",
        ),
    ]
