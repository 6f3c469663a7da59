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
        _note(result, f"Pushed {name}", [_counted(pushed.payload()["counts"]), *_reasons(pushed)])
        result.exit_code = max(result.exit_code, pushed.exit_code)
    _note(
        result,
        "Pulled again: only what we wrote comes back",
        _pull_lines(pull.pull(project, progress=progress)),
    )
    for name in project.syncs:
        again = push.plan(project, name, progress=progress)
        _note_rest(result, name, again.payload()["counts"])
    _note(result, "Look at it", _next_lines(project, result.folder))


def _note(result: DemoResult, title: str, lines: list[str]) -> None:
    result.steps.append((title, lines))


def _note_rest(result: DemoResult, name: str, counts: dict[str, int]) -> None:
    """Tell what a plan after the round trip would still send: nothing, or the demo has failed."""
    left = counts["create"] + counts["update"] + counts["conflict"]
    said = "nothing left to send" if not left else f"{left:,} rows are left, which must not be"
    _note(result, f"Planned {name} again: {said}", [_counted(counts)])
    result.exit_code = max(result.exit_code, 1 if left else 0)


def _reasons(pushed: Any) -> list[str]:
    """Give the first reasons for rows that did not land."""
    held = [row for row in pushed.payload()["rows"] if row["reason"]]
    return [f"{row['key']}: {row['reason']}" for row in held[:3]]


def _pull_lines(pulled: pull.PullResult) -> list[str]:
    return [_pull_line(each) for each in pulled.payload()["resources"]]


def _pull_line(entry: dict[str, Any]) -> str:
    name = f"{entry['connection']}.{entry['resource']}"
    if entry["status"] == "absent":
        return f"{name}: not served by this API, which only takes it"
    return (
        f"{name}: {entry['rows']:,} rows read in {entry['pages']} pages,"
        f" {entry['new']:,} new, {entry['changed']:,} changed, {entry['unchanged']:,} unchanged"
        + (f" - {entry['error']}" if entry["error"] else "")
    )


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
        f"On one page, with charts: `cd {folder.name}`, then `roundtrip report --open`.",
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
    """Write the settings of a project on the sandbox; keys stand apart, as they should anywhere."""
    folder = home / ".dlt"
    folder.mkdir()
    config = ["[roundtrip]", f"connections = {list(box.crms)}".replace("'", '"'), ""]
    secrets = []
    for name in box.crms:
        config += [f"[sources.{name}]", f'base_url = "{box.base_url(name)}"', *_OPTIONS.get(name, ()), ""]
        config += [f'{key} = "{value}"' for key, value in _further_settings(box, name).items()]
        secrets += [f"[sources.{name}]", f'api_key = "{box.key(name)}"', ""]
    config += [_sync(name, target) for name, target in _TARGETS.items()]
    (folder / "config.toml").write_text("\n".join(config), encoding="utf-8")
    (folder / "secrets.toml").write_text("\n".join(secrets), encoding="utf-8")
    (folder / "secrets.toml").chmod(0o600)


def _further_settings(box: Sandbox, name: str) -> dict[str, str]:
    """Give what else the sandbox's connection needs, such as Vivre's workspace."""
    prefix = f"SOURCES__{name.upper()}__"
    found = {
        key.removeprefix(prefix).lower(): value
        for key, value in box.settings().items()
        if key.startswith(prefix)
    }
    return {key: value for key, value in found.items() if key not in ("base_url", "api_key")}


def _sync(crm: str, target: "_Target") -> str:
    fields = "\n".join(f'"{field}" = {rule}' for field, rule in target.fields.items())
    return f"""
[syncs.leads_to_{crm}]
connection = "{crm}"
object = "contacts"
model_sql = \"\"\"
select *, first_name || ' ' || last_name as full_name from marts.enriched_leads
where first_name is not null and last_name is not null
\"\"\"
key = "{target.key}"
mode = "{target.mode}"
max_changes = 10_000
[syncs.leads_to_{crm}.fields]
{fields}
"""


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the leads go in one CRM: its fields and the model's columns for them."""

    key: str
    fields: dict[str, str]
    mode: str = "upsert"


def _filled(column: str) -> str:
    return f'{{ column = "{column}", write = "if_empty" }}'


# The pace kept towards vendors that state no limit is no use on one's own machine.
_OPTIONS = dict.fromkeys(("ralivi", "vivre", "reevo"), ("max_per_minute = 60_000",))
_TARGETS = {
    "relm": _Target(
        "email",
        {
            "email": '"email"',
            "first_name": _filled("first_name"),
            "last_name": _filled("last_name"),
            "metadata.lead_score": '"lead_score"',
        },
    ),
    "rally": _Target(
        "email",
        {
            "email": '"email"',
            "firstName": _filled("first_name"),
            "lastName": _filled("last_name"),
            "leadScore": '"lead_score"',
        },
    ),
    "reevo": _Target(
        "primary_email",
        {
            "primary_email": '"email"',
            "first_name": _filled("first_name"),
            "last_name": _filled("last_name"),
            "attributes.cus_field__Score": '"lead_score"',
        },
    ),
    "vivre": _Target("email", {"email": '"email"', "name": '"full_name"'}, mode="create"),
}
