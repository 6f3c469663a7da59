"""Commands that look at the warehouse and change nothing: `why`, `status`, `runs`, `query`, `report`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines import render
from pipelines.commands.running import AsJson, leave_stdout, moment_of, run
from pipelines.progress import Progress

Shape = Literal["table", "csv", "json", "parquet"]


def why(
    connection: Annotated[str, typer.Argument(metavar="CONNECTION")],
    key: Annotated[str, typer.Argument(metavar="EMAIL", help="Or another key of the record, or its id.")],
    field: Annotated[str | None, typer.Argument(metavar="FIELD")] = None,
    object_name: Annotated[str, typer.Option("--object", metavar="OBJECT")] = "contacts",
    as_json: AsJson = False,
) -> int:
    """Tell which run, row and batch put a record's values there, and what they replaced.

    What others changed since is told too, as the pulls saw it.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.why import why as run_why

        return run_why(load_project(), connection, key, field, object_name=object_name)

    return run("why", work, as_json=as_json)


def status(
    notify: Annotated[
        bool, typer.Option("--notify", help="Tell those that [roundtrip.notify] names what is stale.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Show how fresh everything is, and how each sync stands.

    It asks no CRM: it tells what the warehouse knows.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.status import status as run_status

        return run_status(load_project())

    return run("status", work, as_json=as_json, tells=notify)


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


def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    connection: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this connection; may be given again.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="What happened since then; a year where not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; roundtrip-report.html where not given.")
    ] = None,
    show_keys: Annotated[
        bool, typer.Option("--show-keys", help="Write out the keys of refused records, mostly addresses.")
    ] = False,
) -> int:
    """Write one HTML page: pipeline, deals won and lost, activity, scores, freshness, pushes, rejections.

    The page needs no network and no script, and can be mailed: it holds sums, and masks whom they are about.
    What stands open is always shown whole; --since bounds what happened.
    """
    moment = moment_of(since)

    def work(_: Progress) -> render.Result:
        from pipelines.report import report as run_report
        from pipelines.settings import load_project

        result = run_report(
            load_project(), connections=connection or (), since=moment, out=out, show_keys=show_keys
        )
        if open_it:
            import webbrowser

            webbrowser.open(result.path.as_uri())
        return result

    return run("report", work)


def query(
    statement: Annotated[
        str,
        typer.Argument(
            metavar="SQL", help="One statement that reads; @FILE reads it from a file, - from standard input."
        ),
    ],
    shape: Annotated[Shape, typer.Option("--format", help="How rows are written.")] = "table",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file; parquet needs one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Write at most so many rows.", min=1)] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Leave texts in CSV as they are, formulas of spreadsheets included.")
    ] = False,
) -> int:
    """Ask the warehouse anything in SQL; nothing can be changed by it.

    Schemas: one per connection, crm (all connections alike), marts (your models), roundtrip (runs, changes,
    pushes). Only the warehouse can be read: no other file, no network.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.query import query as run_query
        from pipelines.query import read_statement
        from pipelines.settings import load_project

        sql = read_statement(statement, sys.stdin)
        try:
            return run_query(load_project(), sql, shape=shape, out=out, limit=limit, is_raw=raw)
        except BrokenPipeError:  # a reader such as `head` has what it wanted
            leave_stdout()
            return render.TextResult()

    return run("query", work)
