"""The examples that end each command's help. A test holds them to the commands' own words and options."""

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "demo": ("roundtrip demo",),
    "sandbox": ("roundtrip sandbox", "roundtrip sandbox --port 9000 --records 5000"),
    "init": ("roundtrip init",),
    "check": ("roundtrip check", "roundtrip check relm --json"),
    "pull": ("roundtrip pull", "roundtrip pull relm.contacts rally --since 2026-01-31"),
    "enrich": ("roundtrip enrich", "roundtrip enrich enriched_leads"),
    "forget": ("roundtrip forget ann@example.com --dry-run",),
    "plan": ("roundtrip plan leads_to_relm", "roundtrip plan leads_to_relm --diff --json"),
    "push": ("roundtrip push leads_to_relm --limit 10", "roundtrip push leads_to_relm --yes --verify"),
    "undo": (
        "roundtrip undo 20260301T120000Z-3f9a --dry-run",
        "roundtrip undo 20260301T120000Z-3f9a --delete-created",
    ),
    "drift": ("roundtrip drift leads_to_relm", "roundtrip drift leads_to_relm --repair"),
    "dismiss": ("roundtrip dismiss leads_to_relm", "roundtrip dismiss leads_to_relm ann@example.com"),
    "why": ("roundtrip why relm ann@example.com", "roundtrip why relm ann@example.com last_name"),
    "status": ("roundtrip status", "roundtrip status --notify"),
    "runs": ("roundtrip runs", "roundtrip runs --command push --limit 5"),
    "query": (
        'roundtrip query "select stage, count(*) from crm.contacts group by stage"',
        "roundtrip query @leads.sql --format csv --out leads.csv",
    ),
    "schedule": (
        "roundtrip schedule cron --every 1h",
        "roundtrip schedule systemd --push leads_to_relm | sh",
    ),
    "report": ("roundtrip report --open", "roundtrip report --since 2026-01-01 --out january.html"),
}


def epilog(command: str) -> str | None:
    r"""Lay a command's examples out below its help, each on a line of its own (`\b` keeps the lines)."""
    examples = EXAMPLES.get(command)
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)]) if examples else None
