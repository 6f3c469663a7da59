"""What needs no CRM: copying a generation of the warehouse, and starting the program."""

import os
import time
from pathlib import Path

from pipelines import warehouse
from pipelines.in_place import sync
from tests.benchmarks.crm_server import Server
from tests.benchmarks.measuring import TABLE_HEAD, Settings, line, middle, roundtrip, run

_MB = 1024 * 1024
_STARTS = 7


def measure_copies(settings: Settings) -> list[str]:
    """Copy, sync and rename files of three sizes, as the end of a run does."""
    lines = list(TABLE_HEAD)
    for size_mb in (100,) if settings.is_quick else (100, 1024, 5 * 1024):
        source, target = settings.folder / "published", settings.folder / "build"
        _fill(source, size_mb)
        began = time.perf_counter()
        warehouse._clone(source, target)
        sync(target)
        target.replace(source)
        sync(settings.folder)
        lines.append(line(f"{size_mb:,} MB", "", f"{time.perf_counter() - began:.2f} s"))
        source.unlink()
    how = "with" if _shares_blocks(settings.folder) else "without"
    return [f"On a file system {how} reflinks.", "", *lines]


def _fill(path: Path, size_mb: int) -> None:
    block = os.urandom(_MB)
    with path.open("wb") as file:
        for _ in range(size_mb):
            file.write(block)
        os.fsync(file.fileno())


def _shares_blocks(folder: Path) -> bool:
    import fcntl

    with (folder / "one").open("wb+") as source, (folder / "two").open("wb") as target:
        source.write(b"x" * 4096)
        source.flush()
        try:
            fcntl.ioctl(target.fileno(), warehouse._FICLONE, source.fileno())
        except OSError:
            return False
    return True


def measure_start(settings: Settings) -> list[str]:
    """Start the program for its help, for `status`, and an empty Python for comparison."""
    folder = settings.folder / "start"
    with Server(1_000) as server:
        roundtrip(["pull", "relm", "--json"], folder, url=server.url)
        repeat = 1 if settings.is_quick else _STARTS
        taken = {
            "python -c pass": [run(["-c", "pass"], folder) for _ in range(repeat)],
            "--help": [roundtrip(["--help"], folder) for _ in range(repeat)],
            "status": [roundtrip(["status"], folder, url=server.url) for _ in range(repeat)],
        }
    figures = {"--help": "≤ 0.15 s", "status": "≤ 0.4 s"}
    return [
        *TABLE_HEAD,
        *(
            line(
                name,
                figures.get(name, ""),
                f"{middle(each).wall_s:.2f} s (processor {middle(each).cpu_s:.2f} s)",
            )
            for name, each in taken.items()
        ),
    ]
