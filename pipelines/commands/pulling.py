"""Commands that bring records in and make something of them: `pull`, `enrich`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines import render
from pipelines.commands.running import AsJson, run
from pipelines.progress import Progress


def pull(
    targets: Annotated[list[str] | None, typer.Argument(metavar="CONNECTION[.RESOURCE]")] = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything again, from the first page.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Read what changed since then (ISO 8601).")
    ] = None,
    accept_deletes: Annotated[
        bool, typer.Option("--accept-deletes", help="Mark deletions even past the guard.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Pull what changed in the CRMs into the warehouse.

    Without a name it pulls the connections that the settings list, else all that have a key.
    """
    moment = _moment(since)

    def work(progress: Progress) -> render.Result:
        from pipelines.pull import pull as run_pull
        from pipelines.settings import load_project

        return run_pull(
            load_project(),
            targets or (),
            full=full,
            since=moment,
            accept_deletes=accept_deletes,
            progress=progress,
        )

    return run("pull", work, as_json=as_json)


def enrich(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL")] = None, as_json: AsJson = False
) -> int:
    """Build the models (SQL, or Python with pandas) into schema marts.

    Without a name it builds all of them.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.enrich import enrich as run_enrich
        from pipelines.settings import load_project

        return run_enrich(load_project(), models or (), progress=progress)

    return run("enrich", work, as_json=as_json)


def _moment(text: str | None) -> datetime | None:
    """Read a date or a time; without a zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("not a date such as 2026-01-31", param_hint="--since") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
