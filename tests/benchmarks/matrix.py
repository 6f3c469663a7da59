"""The figures of pulling, measured: `python -m tests.benchmarks.matrix [--only full,latency] [--write]`.

Every row runs real processes against a loopback server of its own (`crm_server`), those that are compared in
turns, and checks what they brought: rows, distinct ids, the sum of a column. `--write` puts the tables into
RESULTS.md beside this file.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import measure_changes, measure_full, measure_places, measure_waits
from tests.benchmarks.measuring import Settings
from tests.benchmarks.results import write_section

SECTIONS: dict[str, tuple[str, Callable[[Settings], list[str]]]] = {
    "full": ("A full pull", measure_full.measure),
    "changes": ("Nothing changed, and little changed", measure_changes.measure),
    "latency": ("Waiting for answers", measure_waits.measure_latency),
    "drift": ("A list that moves", measure_waits.measure_drift),
    "generations": ("Copying a generation", measure_places.measure_copies),
    "start": ("Starting", measure_places.measure_start),
}
# Tools that want other versions than ours: each is measured where a Python of its own has it.
_OTHERS = {"singer": "singer-sdk and target-duckdb", "airbyte": "airbyte"}


def main() -> int:
    """Measure the sections that are asked for, and print or write their tables."""
    wanted = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="roundtrip-matrix-", dir=wanted.folder))
    settings = Settings(
        folder,
        wanted.records,
        wanted.large,
        wanted.repeat,
        is_quick=wanted.quick,
        huge=wanted.huge,
        others={name: given for name in _OTHERS if (given := getattr(wanted, name))},
    )
    try:
        for name in wanted.only.split(",") if wanted.only else SECTIONS:
            title, measure = SECTIONS[name]
            lines = measure(settings)
            sys.stdout.write("\n".join([f"## {title}", "", *lines, "", ""]))
            sys.stdout.flush()
            if wanted.write:
                write_section(title, "tests.benchmarks.matrix", lines)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.matrix", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000, help="rows of the large runs")
    parser.add_argument("--huge", type=int, default=0, help="rows of a third size for the growth, as 5000000")
    parser.add_argument("--repeat", type=int, default=3)
    for name, packages in _OTHERS.items():
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"one with {packages}, to measure that, too")
    parser.add_argument("--only", help=f"sections, comma-separated: {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="the small sizes only, once")
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's temporary folder")
    parser.add_argument("--write", action="store_true")
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.repeat = 1
    return wanted


if __name__ == "__main__":
    sys.exit(main())
