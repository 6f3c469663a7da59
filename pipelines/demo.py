"""`roundtrip demo`: the main job in one go, against the sandbox, with no account anywhere.

Works in a folder of its own, so that what it leaves can be looked at; nothing else is touched.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import enrich, pull, push
from pipelines.progress import Progress
from pipelines.settings import Project, load_project
from pipelines.warehouse import Warehouse
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox

FOLDER = "roundtrip-demo"
_MARK = ".made-by-roundtrip-demo"


@dataclass(slots=True)
class DemoResult:
    """What the demo did, step by step, each with lines for a person."""

    folder: Path
    steps: list[tuple[str, list[str]]] = field(default_factory=list)
    exit_code: int = 0
    run_id: str | None = None
    error: str | None = None

    @property
    def status(self) -> str:
        """Name the end."""
        return "failed" if self.exit_code else "ok"

    def payload(self) -> dict[str, Any]:
        """Give the steps as JSON."""
        return {"steps": [{"step": title, "lines": lines} for title, lines in self.steps]}


def demo(*, progress: Progress, folder: Path | None = None, records: int = 300) -> DemoResult:
    """Start the sandbox, pull, enrich, plan, push, pull again and plan again; under a minute on two cores.

    `folder` (default `roundtrip-demo` below the working directory) is made anew if it is an earlier demo's,
    and refused if it is anything else.
    """
    home = _fresh_folder(folder or Path.cwd() / FOLDER)
    result = DemoResult(home)
    with Sandbox(records=records) as box:
        _write_settings(home, box)
        project = load_project(home, environ={})
        _run(project, result, progress)
    return result


def _run(project: Project, result: DemoResult, progress: Progress) -> None:
    _note(result, "Pulled", _pull_lines(pull.pull(project, progress=progress)))
    enriched = enrich.enrich(project, progress=progress)
    _note(result, "Enriched", [f"marts.{model.name}: {model.rows:,} rows" for model in enriched.models])
    for name in project.syncs:
        planned = push.plan(project, name, progress=progress)
        _note(result, f"Planned {name}", _plan_lines(planned))
        pushed = push.push(project, name, confirm=lambda plan: True, progress=progress)
        _note(result, f"Pushed {name}", [_counted(pushed.payload()["counts"])])
        result.exit_code = max(result.exit_code, pushed.exit_code if pushed.exit_code not in (0, 1) else 0)
    _note(
        result,
        "Pulled again: only what we wrote comes back",
        _pull_lines(pull.pull(project, progress=progress)),
    )
    for name in project.syncs:
        again = push.plan(project, name, progress=progress)
        _note(result, f"Planned {name} again: nothing left to send", [_counted(again.payload()["counts"])])
    _note(result, "Look at it", _next_lines(project, result.folder))


def _note(result: DemoResult, title: str, lines: list[str]) -> None:
    result.steps.append((title, lines))


def _pull_lines(pulled: pull.PullResult) -> list[str]:
    return [
        f"{each['connection']}.{each['resource']}: {each['rows']:,} rows read in {each['pages']} pages,"
        f" {each['new']:,} new, {each['changed']:,} changed, {each['unchanged']:,} unchanged"
        + (f" - {each['error']}" if each["error"] else "")
        for each in pulled.payload()["resources"]
    ]


def _plan_lines(planned: Any) -> list[str]:
    payload = planned.payload()
    lines = [_counted(payload["counts"])]
    for row in [each for each in payload["rows"] if each["action"] == "update"][:3]:
        changes = ", ".join(
            f"{name}: {each['old']!r} -> {each['new']!r}" for name, each in row["fields"].items()
        )
        lines.append(f"{row['key']}: {changes}")
    return lines


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items() if number) or "nothing"


def _next_lines(project: Project, folder: Path) -> list[str]:
    top = _top_leads(project)
    return [
        *top,
        f"Open {project.warehouse} with DuckDB: select * from marts.enriched_leads order by lead_score desc;",
        "What was written, field by field with the value it replaced: select * from roundtrip.push_log;",
        "What changed in the CRMs since the first pull: select * from roundtrip.changes;",
        f"Go on by hand: `roundtrip sandbox`, then `cd {folder.name}` in another terminal.",
        "With your own CRM: `roundtrip init`, put the key into .dlt/secrets.toml, then `roundtrip pull`.",
    ]


def _top_leads(project: Project) -> list[str]:
    with Warehouse(project.warehouse).reading() as con:
        rows = con.execute(
            "select lead_score, lead_grade, first_name, last_name from marts.enriched_leads"
            " order by lead_score desc, email_key limit 3"
        ).fetchall()
    return [
        f"Lead {score} ({grade}): {first or ''} {last or ''}".rstrip() for score, grade, first, last in rows
    ]


def _fresh_folder(home: Path) -> Path:
    home = home.absolute()
    if home.exists() and any(home.iterdir()):
        if not (home / _MARK).exists():
            raise ConfigError(f"{home} is not an earlier demo's folder", hint="Run the demo somewhere else.")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / _MARK).touch()
    return home


def _write_settings(home: Path, box: Sandbox) -> None:
    folder = home / ".dlt"
    folder.mkdir()
    names = [name for name in box.crms if name in _READ]
    config = ["[roundtrip]", f"connections = {names!r}".replace("'", '"'), ""]
    secrets = []
    for name in names:
        config += [f"[sources.{name}]", f'base_url = "{box.base_url(name)}"', ""]
        secrets += [f"[sources.{name}]", f'api_key = "{box.key(name)}"', ""]
    config += [_SYNCS[name] for name in names if name in _SYNCS]
    (folder / "config.toml").write_text("\n".join(config), encoding="utf-8")
    (folder / "secrets.toml").write_text("\n".join(secrets), encoding="utf-8")
    (folder / "secrets.toml").chmod(0o600)


_READ = ("relm", "rally")
_SYNCS = {
    "relm": """
[syncs.leads_to_relm]
connection = "relm"
object = "contacts"
model = "marts.enriched_leads"
key = "email"
max_changes = 2000
[syncs.leads_to_relm.fields]
email = "email"
first_name = { column = "first_name", write = "if_empty" }
last_name = { column = "last_name", write = "if_empty" }
"metadata.lead_score" = "lead_score"
"metadata.lead_grade" = "lead_grade"
""",
    "rally": """
[syncs.leads_to_rally]
connection = "rally"
object = "contacts"
model = "marts.enriched_leads"
key = "email"
max_changes = 2000
[syncs.leads_to_rally.fields]
email = "email"
firstName = { column = "first_name", write = "if_empty" }
lastName = { column = "last_name", write = "if_empty" }
leadScore = "lead_score"
""",
}
