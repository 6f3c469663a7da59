"""Commands to begin with: `demo`, `sandbox`, `init`, `check`, and to go on by itself: `schedule`."""

from typing import Annotated, Literal

import typer

from pipelines import render
from pipelines.commands.running import AsJson, ConnectionNames, end, failure, run
from pipelines.progress import Progress
from sources.core.errors import ConfigError


def demo() -> int:
    """Run the whole round trip against the sandbox; no account needed.

    It pulls the sandbox's CRMs into DuckDB, enriches, plans, pushes, pulls again, and says what to look at
    next.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.demo import demo as run_demo

        return run_demo(progress=progress)

    return run("demo", work)


def sandbox(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.", min=0, max=65535)] = 8765,
    records: Annotated[int, typer.Option(help="Contacts per CRM.", min=0)] = 200,
) -> int:
    """Serve the CRM APIs on loopback with made-up data.

    It prints the settings to use it, and ends with Ctrl-C.
    """
    from sources.sandbox.serve import serve

    try:
        serve(port=port, records=records)
    except OSError as error:
        refused = ConfigError(
            f"port {port} cannot be used ({error.strerror})", hint="Give another with --port."
        )
        return end("sandbox", failure("sandbox", refused))
    return 0


def init() -> int:
    """Write commented settings with a sample sync, and sample models.

    What is there already is never overwritten.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.starter import init as lay_out

        project = load_project()
        return lay_out(project.root, project.models)

    return run("init", work)


def check(
    connections: ConnectionNames = None,
    as_json: AsJson = False,
) -> int:
    """Look what each key may do and what its API supports; only reads.

    Without a name it looks at the connections that the settings list, else all that have a key.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.check import check as look
        from pipelines.settings import load_project

        return look(load_project(), connections or (), progress=progress)

    return run("check", work, as_json=as_json)


Scheduler = Literal["cron", "systemd", "github", "airflow", "dagster"]


def schedule(
    scheduler: Annotated[Scheduler, typer.Argument(metavar="cron|systemd|github|airflow|dagster")],
    every: Annotated[str, typer.Option(help="How often: 15m, 1h, 6h, 1d.")] = "15m",
    push: Annotated[
        list[str] | None, typer.Option(metavar="SYNC", help="Push this sync too; may be given again.")
    ] = None,
) -> int:
    """Print a ready file that runs this project by itself.

    It pulls and enriches; what changes a CRM is added with --push. The file says what to do with it, and
    holds no key.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.schedules import schedule as write_schedule
        from pipelines.settings import load_project

        return write_schedule(load_project(), scheduler, every=every, pushes=push or ())

    return run("schedule", work)
