"""Commands that bring records in, make something of them, or let them go: `pull`, `enrich`, `forget`."""

from functools import partial
from typing import Annotated

import typer

from pipelines import render
from pipelines.commands.running import AsJson, Targets, Yes, agree, ask, can_ask, moment_of, run
from pipelines.progress import Progress
from sources.core.errors import ConfigError


def pull(
    targets: Targets = None,
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
    moment = moment_of(since)

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

    return run("pull", work, as_json=as_json, tells=True)


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

    return run("enrich", work, as_json=as_json, tells=True)


def forget(
    email: Annotated[str, typer.Argument(metavar="EMAIL")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would go from which table; change nothing.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Take a person out of the warehouse, its history and its logs, after asking.

    Goes by the e-mail address, in every connection. Contact records and activities are deleted, other tables
    lose what points to the person and names them. No pull stores these records again. The CRMs stay as they
    are, and what else lies beyond reach is listed.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.forget import forget as run_forget
        from pipelines.settings import load_project

        if not (yes or dry_run or can_ask()):
            raise ConfigError(
                "forget asks before it deletes, and there is no terminal", hint="Add --yes or --dry-run."
            )
        confirm = agree if yes else partial(ask, question="Forget this person, for good?")
        return run_forget(load_project(), email, dry_run=dry_run, confirm=confirm, progress=progress)

    return run("forget", work, as_json=as_json)
