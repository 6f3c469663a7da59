"""Commands that show and carry out what goes to a CRM, and take it back: `plan`, `push`, `undo`, `drift`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import render
from pipelines.commands.running import AllRows, AsJson, SyncName, Yes, agree, ask, can_ask, run
from pipelines.progress import Progress
from sources.core.errors import ConfigError


def plan(
    sync: SyncName,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the sealed plan to a file, for `push --plan FILE`."),
    ] = None,
    all_rows: AllRows = False,
    as_json: AsJson = False,
) -> int:
    """Show what a push would do, field by field.

    Sends nothing and changes nothing, in the CRM or in the warehouse. A file written with --out holds the
    records' values, personal data included; only its owner can read it.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.plan import plan as run_plan
        from pipelines.settings import load_project

        return run_plan(load_project(), sync, diff=all_rows, out=out, progress=progress)

    return run("plan", work, as_json=as_json, all_rows=all_rows)


def push(
    sync: SyncName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, send nothing.")] = False,
    limit: Annotated[int | None, typer.Option(help="Send at most so many records.", min=1)] = None,
    create_fields: Annotated[
        bool, typer.Option("--create-fields", help="Define custom fields that the CRM lacks.")
    ] = False,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Send exactly what `plan --out FILE` wrote, or stop with exit 5."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read back what was written, and list what differs.")
    ] = False,
    resend_unknown: Annotated[
        bool, typer.Option("--resend-unknown", help="Send rows again of which nobody can tell what became.")
    ] = False,
    yes: Yes = False,
    all_rows: AllRows = False,
    as_json: AsJson = False,
) -> int:
    """Send what the plan shows to the CRM, after asking."""

    def work(progress: Progress) -> render.Result:
        from pipelines.push import push as run_push
        from pipelines.settings import load_project

        if not (yes or dry_run or can_ask()):
            raise ConfigError(
                "push asks before it sends, and there is no terminal", hint="Add --yes or --dry-run."
            )
        confirm = agree if yes else ask
        return run_push(
            load_project(),
            sync,
            dry_run=dry_run,
            limit=limit,
            create_fields=create_fields,
            verify=verify,
            resend_unknown=resend_unknown,
            plan_file=plan_file,
            confirm=confirm,
            progress=progress,
        )

    return run("push", work, as_json=as_json, all_rows=all_rows, tells=not dry_run)


def dismiss(
    sync: Annotated[str, typer.Argument(metavar="SYNC")],
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY")] = None,
    clears: Annotated[bool, typer.Option("--clear", help="Plan the rows again.")] = False,
    as_json: AsJson = False,
) -> int:
    """Keep rows from coming back until the model gives them other values to write.

    Those with the keys given; without any, all that are rejected or unknown. It asks no CRM.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.dismiss import dismiss as run_dismiss
        from pipelines.settings import load_project

        return run_dismiss(load_project(), sync, keys or [], clears=clears)

    return run("dismiss", work, as_json=as_json)


def undo(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go back, send nothing.")
    ] = False,
    delete_created: Annotated[
        bool, typer.Option("--delete-created", help="Delete the records that the run created.")
    ] = False,
    yes: Yes = False,
    all_rows: AllRows = False,
    as_json: AsJson = False,
) -> int:
    """Write back the values that a push replaced, after asking.

    What was edited since stays as it is; that, and what cannot be taken back, is listed with the reason.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.undo import undo as run_undo

        if not (yes or dry_run or can_ask()):
            raise ConfigError(
                "undo asks before it sends, and there is no terminal", hint="Add --yes or --dry-run."
            )
        return run_undo(
            load_project(),
            run_id,
            dry_run=dry_run,
            delete_created=delete_created,
            confirm=agree if yes else ask,
            progress=progress,
        )

    return run("undo", work, as_json=as_json, all_rows=all_rows, tells=not dry_run)


def drift(
    sync: SyncName,
    repair: Annotated[bool, typer.Option("--repair", help="Write those fields again, after asking.")] = False,
    yes: Yes = False,
    all_rows: AllRows = False,
    as_json: AsJson = False,
) -> int:
    """List what was changed in the CRM since a sync wrote it.

    It asks no CRM: it tells what the last pull saw. Old is what was written, new what the CRM shows.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.drift import drift as run_drift
        from pipelines.drift import repair as run_repair
        from pipelines.settings import load_project

        if not repair:
            return run_drift(load_project(), sync)
        if not (yes or can_ask()):
            raise ConfigError(
                "drift --repair asks before it sends, and there is no terminal", hint="Add --yes."
            )
        return run_repair(load_project(), sync, confirm=agree if yes else ask, progress=progress)

    return run("drift", work, as_json=as_json, all_rows=all_rows)
