"""Commands that look at the warehouse and change nothing: `status`, `runs`, `query`."""

from typing import Annotated

import typer

from pipelines import render
from pipelines.commands.running import AsJson, run
from pipelines.progress import Progress


def status(as_json: AsJson = False) -> int:
    """Show how fresh everything is, and how each sync stands.

    It asks no CRM: it tells what the warehouse knows.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.status import status as run_status

        return run_status(load_project())

    return run("status", work, as_json=as_json)


def runs(
    limit: Annotated[int, typer.Option(help="Show so many, the newest first.", min=1)] = 20,
    command: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Only those of one command, such as pull.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List what ran, for how long, and what came of it.

    Runs that changed nothing are listed too.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.runs import runs as list_runs
        from pipelines.settings import load_project

        return list_runs(load_project(), limit=limit, command=command)

    return run("runs", work, as_json=as_json)
