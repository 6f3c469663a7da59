"""Cycles of push and pull over every CRM, each bending values: `python -m tests.benchmarks.quiet_push`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.test_quiet import CRMS, expected, sent_by_cycles


def main() -> int:
    """Print what each cycle sent, CRM by CRM; give 1 if one of them sent what it should not have."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quiet_push", description=__doc__)
    parser.add_argument("--cycles", type=int, default=10)
    cycles = parser.parse_args().cycles
    code = 0
    for name in CRMS:
        with tempfile.TemporaryDirectory() as folder:
            sent = sent_by_cycles(name, Path(folder), cycles)
        is_quiet = sent == expected(name, cycles)
        code |= not is_quiet
        sys.stdout.write(f"{name}: {sent} {'quiet' if is_quiet else 'NOT quiet'}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
