"""A first pull of a whole list against dlt's own REST source and against the least that can be done."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb

from tests.benchmarks.crm_server import Server
from tests.benchmarks.measuring import TABLE_HEAD, Measure, Settings, line, middle, roundtrip, run

PATH = "/v1/contacts"
_SCORE = "metadata ->> 'lead_score'"
_FLAT_SCORE = "metadata__lead_score"  # as dlt has it
_FIGURES = {
    ("dlt", 0): "≥ 20 times",
    ("dlt_parquet", 0): "≥ 5 times",
    ("dlt_parquet", 1): "≥ 12 times",
    ("floor", 0): "≤ 1.8 times",
    ("floor", 1): "≤ 1.0 times",
}
_PEAKS_MB = (280, 400)


def measure(settings: Settings) -> list[str]:
    """Measure every size; the slowest peers only at the first, and there once."""
    lines = list(TABLE_HEAD)
    for place, records in enumerate(settings.sizes):
        with Server(records) as server:
            facts = server.control(path=PATH)["facts"]
            taken = _measure_size(settings, server, facts, place)
            lines += _lines(records, place, taken)
            if not place:
                ours = middle(taken["ours"])
                lines.append(_measure_packed(settings, server, facts, ours))
                lines += [_measure_other(settings, name, server, facts, ours) for name in settings.others]
    return lines


def _measure_packed(settings: Settings, server: Server, facts: dict[str, Any], ours: Measure) -> str:
    """Measure answers that are compressed; the first run has the server compress them."""
    server.control(gzip=True)
    taken = [
        _measure_one("ours", settings.folder / f"packed-{turn}", server, facts)
        for turn in range(settings.repeat + 1)
    ]
    server.control(gzip=False)
    packed = middle(taken[1:])
    told = f"{packed.wall_s / ours.wall_s:.2f} times (processor {packed.cpu_s / ours.cpu_s:.2f} times)"
    return line(f"{server.records:,} rows: answers with gzip against plain ones", "", told)


def _measure_other(
    settings: Settings, name: str, server: Server, facts: dict[str, Any], ours: Measure
) -> str:
    """Measure a tool that has a Python of its own, and tell what it brought if that is not the list."""
    folder = settings.folder / name
    file = folder / "peer.duckdb"
    script = Path(__file__).with_name(f"peer_{name}.py")
    taken = run([str(script), server.url, str(file)], folder, python=settings.others[name])
    found = _facts(file, _SCORE)
    told = f"{taken.wall_s / ours.wall_s:.1f} times ({taken.wall_s:.1f} s, {taken.peak_mb:.0f} MB)"
    if found != tuple(facts.values()):
        told += f"; it brought {found[0]:,} rows"
    return line(f"{server.records:,} rows against {name}", "", told)


def _measure_size(
    settings: Settings, server: Server, facts: dict[str, Any], place: int
) -> dict[str, list[Measure]]:
    taken: dict[str, list[Measure]] = defaultdict(list)
    for turn in range(settings.repeat):
        names = ["ours", "floor", "pages"]
        names += ["dlt_parquet"] if not (place and turn) else []  # minutes at the large size
        names += ["dlt"] if not (place or turn) else []
        for name in names:
            folder = settings.folder / f"{name}-{server.records}-{turn}"
            taken[name].append(_measure_one(name, folder, server, facts))
    return taken


def _measure_one(name: str, folder: Path, server: Server, facts: dict[str, Any]) -> Measure:
    if name == "ours":
        measure = roundtrip(["pull", "relm.contacts", "--json"], folder, url=server.url)
        file = folder / "warehouse.duckdb"
    else:
        file = folder / "peer.duckdb"
        folder.mkdir()
        measure = run(["-m", "tests.benchmarks.peers", name, server.url, str(file)], folder)
    if name != "pages":
        check(file, facts, score=_FLAT_SCORE if name.startswith("dlt") else _SCORE)
        file.unlink()
    return measure


def check(file: Path, facts: dict[str, Any], score: str = _SCORE) -> None:
    """See that a copy has the rows, the distinct ids and the sum of the CRM."""
    found = _facts(file, score)
    if found != tuple(facts.values()):
        raise SystemExit(f"{file.parent.name} brought {found}, the CRM has {facts}")


def _facts(file: Path, score: str) -> tuple[Any, ...]:
    with duckdb.connect(str(file), read_only=True) as con:
        return con.execute(
            f"select count(*), count(distinct id), sum(({score})::bigint) from relm.contacts"
        ).fetchall()[0]


def _lines(records: int, place: int, taken: dict[str, list[Measure]]) -> list[str]:
    ours = middle(taken["ours"])
    lines = [
        line(f"{records:,} rows: Roundtrip", "", f"{ours.wall_s:.2f} s (processor {ours.cpu_s:.2f} s)"),
        line(f"{records:,} rows: peak memory", f"≤ {_PEAKS_MB[place]} MB", f"{ours.peak_mb:.0f} MB"),
    ]
    for name, measures in taken.items():
        if name == "ours":
            continue
        peer = middle(measures)
        if name == "pages":
            lines.append(line(f"{records:,} rows: its pages alone, thrown away", "", f"{peer.wall_s:.2f} s"))
            continue
        ratio = ours.wall_s / peer.wall_s if name == "floor" else peer.wall_s / ours.wall_s
        told = f"{ratio:.2f} times ({peer.wall_s:.2f} s, {peer.peak_mb:.0f} MB)"
        lines.append(line(f"{records:,} rows against {name}", _FIGURES.get((name, place), ""), told))
    return lines
