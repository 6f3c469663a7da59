"""How long a plan of N rows takes, and in how much memory: `python -m tests.benchmarks.plan_size --rows N`.

Builds warehouses of that many Rally contacts with ten mapped fields, with and without a ledger of earlier
pushes, of which 0 %, 1 % or all records differ from the model, and plans each in a process of its own.
`--folder` is where they are built and kept; `--write` puts the table into RESULTS.md beside this file.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.plan import make_plan
from pipelines.settings import Project, load_project
from pipelines.warehouse import Warehouse

RESULTS = Path(__file__).parent / "RESULTS.md"
_TITLE = "## The size of a plan"
_HEAD = "| rows | changed | pushed before | seconds (median, best) | CPU seconds (best) | peak MB |"
_KEYS = {"SOURCES__RALLY__API_KEY": "key", "SOURCES__RALLY__BASE_URL": "http://127.0.0.1:9/api/v1"}
# Per mapped field: its column, and the value of row i in SQL.
_FIELDS = {
    "firstName": ("first_name", "'First ' || i"),
    "lastName": ("last_name", "'Last ' || (i % 1000)"),
    "phone": ("phone", "'+49 30 ' || (1000000 + i)"),
    "mobile": ("mobile", "case when i % 3 > 0 then '+49 170 ' || i end"),
    "title": ("title", "'Title ' || (i % 50)"),
    "department": ("department", "'Department ' || (i % 20)"),
    "leadSource": ("lead_source", "'source ' || (i % 7)"),
    "ownerId": ("owner_id", "'usr_' || (i % 31)"),
    "lifecycleStage": ("lifecycle_stage", "'stage ' || (i % 5)"),
    "leadScore": ("lead_score", "(i % 100)::bigint"),
}


@dataclass(frozen=True)
class Case:
    """One warehouse: how many rows, how many of 100 differ, whether all were pushed before."""

    rows: int
    changed_percent: int
    has_ledger: bool

    def folder(self, root: Path) -> Path:
        """Give the folder of the case's project."""
        return root / f"{self.rows}-{self.changed_percent}-{'ledger' if self.has_ledger else 'new'}"


def build(root: Path, case: Case) -> None:
    """Make a case's settings and warehouse, where they are not there yet."""
    folder = case.folder(root)
    (folder / ".dlt").mkdir(parents=True, exist_ok=True)
    mapped = "\n".join(f'{field} = "{column}"' for field, (column, _) in _FIELDS.items())
    (folder / ".dlt" / "config.toml").write_text(
        '[syncs.leads]\nconnection = "rally"\nobject = "contacts"\nmodel = "marts.leads"\nkey = "email"\n'
        f"[syncs.leads.fields]\n{mapped}\n",
        encoding="utf-8",
    )
    warehouse = Warehouse(_project(root, case).warehouse)
    if warehouse.exists():
        return
    values = ", ".join(f"{value} as {column}" for column, value in _FIELDS.values())
    columns = ", ".join(column for column, _ in _FIELDS.values())
    with warehouse.lock("benchmark"), warehouse.generation() as con:
        con.execute("create schema rally")
        con.execute(
            "create table rally.contacts as select 'con_' || i as id, 'lead' || i || '@b.example' as email,"
            f" {values}, null::json as _extra, '' as _row_hash,"
            " timestamptz '2026-03-01 09:00:00Z' as _synced_at, null::timestamptz as _deleted_at"
            f" from range({case.rows}) as t(i)"
        )
        con.execute(f"create table marts.leads as select email, {columns} from rally.contacts")
        con.execute(
            "update marts.leads set title = 'New ' || title"
            f" where regexp_extract(email, '[0-9]+')::bigint % 100 < {case.changed_percent}"
        )
        con.execute(
            "insert into roundtrip.resource_state (connection, resource, last_complete_at)"
            " values ('rally', 'contacts', ?)",
            [datetime.now(UTC)],
        )
        if case.has_ledger:
            con.execute(_earlier_pushes())


def _earlier_pushes() -> str:
    sent = ", ".join(f"'{field}': {column}" for field, (column, _) in _FIELDS.items())
    return f"""
    insert into roundtrip.ledger
        (connection, object, key, crm_id, sent, echo, run_id, pushed_at, sent_at, echo_at)
    select 'rally', 'contacts', email, id, to_json({{{sent}}}), to_json({{{sent}}}), 'earlier',
        timestamptz '2026-03-01 08:00:00Z', timestamptz '2026-03-01 08:00:00Z',
        timestamptz '2026-03-01 09:30:00Z'
    from rally.contacts
    """


def _project(root: Path, case: Case) -> Project:
    return load_project(case.folder(root), environ=_KEYS)


def measure(root: Path, case: Case) -> dict[str, float]:
    """Plan a case in this process: seconds by the clock and of both cores together, peak megabytes."""
    project = _project(root, case)
    warehouse = Warehouse(project.warehouse)
    with warehouse.reading() as con:
        before, cpu_before = time.perf_counter(), time.process_time()
        make_plan(con, project, "leads")
        seconds, cpu_s = time.perf_counter() - before, time.process_time() - cpu_before
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb}


def main() -> int:
    """Build, measure in a fresh process per run, print the best and the middle of the runs."""
    wanted = _arguments()
    if wanted.one:
        rows, changed_percent, has_ledger = json.loads(wanted.one)
        _say(json.dumps(measure(Path(wanted.folder), Case(rows, changed_percent, has_ledger))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(wanted.folder or temporary)
        lines = [_HEAD, "| --- " * 6 + "|"]
        _say(*lines)
        for case in _cases(wanted):
            build(root, case)
            line = _line(case, [_run(root, case) for _ in range(wanted.runs)])
            _say(line)
            lines.append(line)
        if wanted.write:
            _write(wanted, lines)
    return 0


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _cases(wanted: argparse.Namespace) -> list[Case]:
    return [
        Case(wanted.rows, changed, has_ledger) for changed in wanted.changed for has_ledger in (False, True)
    ]


def _run(root: Path, case: Case) -> dict[str, float]:
    order = json.dumps([case.rows, case.changed_percent, case.has_ledger])
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.plan_size", "--folder", str(root), "--one", order],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _line(case: Case, runs: Sequence[dict[str, float]]) -> str:
    seconds = sorted(run["seconds"] for run in runs)
    peak_mb = max(run["peak_mb"] for run in runs)
    cpu_s = min(run["cpu_s"] for run in runs)
    told = f"{seconds[len(seconds) // 2]:.2f}, {seconds[0]:.2f} | {cpu_s:.2f} | {peak_mb:,.0f} |"
    return f"| {case.rows:,} | {case.changed_percent} % | {'yes' if case.has_ledger else 'no'} | {told}"


def _write(wanted: argparse.Namespace, lines: Sequence[str]) -> None:
    """Replace the section of RESULTS.md that holds these figures."""
    command = f"python -m tests.benchmarks.plan_size --rows {wanted.rows} --runs {wanted.runs} --write"
    where = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, 2 cores shared with others"
    section = "\n".join([_TITLE, "", f"`{command}`", "", where, "", *lines, ""])
    parts = RESULTS.read_text(encoding="utf-8").split("\n## ")
    kept = [part for part in parts if not part.startswith(_TITLE.removeprefix("## "))]
    RESULTS.write_text("\n## ".join(kept).rstrip() + "\n\n" + section, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time plans of many rows.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--changed", type=int, nargs="+", default=[0, 1, 100], help="percent of the records")
    parser.add_argument("--folder", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
