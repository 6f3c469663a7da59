"""The page of the long runs' last results, RESULTS.md: one section each, replaced by the next such run."""

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def write_section(title: str, module: str, lines: Sequence[str], page: Path = RESULTS) -> None:
    """Replace a run's section of the page, or add it: its command, when and where it ran, what it found."""
    old = page.read_text(encoding="utf-8") if page.exists() else "# Results of the long runs\n"
    head, *sections = old.split("\n## ")
    where = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores"
    # Of a path its name alone: the folders are this machine's.
    given = [Path(each).name if Path(each).is_absolute() else each for each in sys.argv[1:]]
    command = " ".join([f"python -m {module}", *given])
    section = "\n".join([title, "", f"`{command}`", "", where, "", *lines]) + "\n"
    kept = [each.rstrip("\n") + "\n" for each in sections if each.split("\n", 1)[0] != title]
    page.write_text("\n## ".join([head.rstrip("\n") + "\n", *kept, section]), encoding="utf-8")
