"""The command line: `roundtrip COMMAND`.

Each command reads the settings, calls one function of `pipelines` and hands its result to `render`; it
decides nothing else. Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer

from pipelines import __version__, render
from pipelines.progress import Progress, show_progress
from sources.core.errors import ConfigError

app = typer.Typer(
    name="roundtrip",
    help="Pull CRMs into DuckDB, enrich what is there, and push what changed back.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object, also on failure.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")]
AllRows = Annotated[bool, typer.Option("--diff", help="List every row, not only the first ones.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _Debug.is_on = "--debug" in words
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name beyond the terminal's alphabet is no error
    try:
        code = app(words, prog_name="roundtrip", standalone_mode=False)
    except typer.TyperException as error:
        return _refuse_usage(error, words)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return code if isinstance(code, int) else 0


class _Debug:
    """Whether `--debug` was given; the one switch that is read where exceptions end."""

    is_on = False


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _show_version(value: bool) -> None:
    if value:
        print(f"roundtrip {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks; may stand anywhere.")] = False,
) -> None:
    pass


# -- commands ------------------------------------------------------------------------------------


@app.command()
def demo() -> int:
    """Run the whole round trip against the sandbox; no account needed.

    It pulls the sandbox's CRMs into DuckDB, enriches, plans, pushes, pulls again, and says what to look at
    next.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.demo import demo as run_demo

        return run_demo(progress=progress)

    return _run("demo", work)


@app.command()
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
        return _end("sandbox", _failure("sandbox", refused))
    return 0


@app.command()
def init() -> int:
    """Write commented settings with a sample sync, and sample models.

    What is there already is never overwritten.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.starter import init as lay_out

        project = load_project()
        return lay_out(project.root, project.models)

    return _run("init", work)


@app.command()
def check(
    connections: Annotated[list[str] | None, typer.Argument(metavar="CONNECTION")] = None,
    as_json: AsJson = False,
) -> int:
    """Look what each key may do and what its API supports; only reads.

    Without a name it looks at the connections that the settings list, else all that have a key.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.check import check as look
        from pipelines.settings import load_project

        return look(load_project(), connections or (), progress=progress)

    return _run("check", work, as_json=as_json)


@app.command()
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

    return _run("pull", work, as_json=as_json)


@app.command()
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

    return _run("enrich", work, as_json=as_json)


@app.command()
def plan(
    sync: Annotated[str, typer.Argument(metavar="SYNC")], all_rows: AllRows = False, as_json: AsJson = False
) -> int:
    """Show what a push would do, field by field.

    Sends nothing and changes nothing, in the CRM or in the warehouse.
    """

    def work(progress: Progress) -> render.Result:
        from pipelines.plan import plan as run_plan
        from pipelines.settings import load_project

        return run_plan(load_project(), sync, diff=all_rows, progress=progress)

    return _run("plan", work, as_json=as_json, all_rows=all_rows)


@app.command()
def push(
    sync: Annotated[str, typer.Argument(metavar="SYNC")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, send nothing.")] = False,
    limit: Annotated[int | None, typer.Option(help="Send at most so many records.", min=1)] = None,
    create_fields: Annotated[
        bool, typer.Option("--create-fields", help="Define custom fields that the CRM lacks.")
    ] = False,
    yes: Yes = False,
    all_rows: AllRows = False,
    as_json: AsJson = False,
) -> int:
    """Send what the plan shows to the CRM, after asking."""

    def work(progress: Progress) -> render.Result:
        from pipelines.push import push as run_push
        from pipelines.settings import load_project

        if not (yes or dry_run or _can_ask()):
            raise ConfigError(
                "push asks before it sends, and there is no terminal", hint="Add --yes or --dry-run."
            )
        confirm = _agree if yes else _ask
        return run_push(
            load_project(),
            sync,
            dry_run=dry_run,
            limit=limit,
            create_fields=create_fields,
            confirm=confirm,
            progress=progress,
        )

    return _run("push", work, as_json=as_json, all_rows=all_rows)


@app.command()
def status(as_json: AsJson = False) -> int:
    """Show how fresh everything is, and how each sync stands.

    It asks no CRM: it tells what the warehouse knows.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.status import status as run_status

        return run_status(load_project())

    return _run("status", work, as_json=as_json)


# -- running -------------------------------------------------------------------------------------


def _run(
    command: str, work: Callable[[Progress], render.Result], *, as_json: bool = False, all_rows: bool = False
) -> int:
    """Do a command's work and print its result, whatever became of it: the only catch-all there is."""
    result: render.Result
    with show_progress() as progress:
        try:
            result = work(progress)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (ends in one line and an exit code)
            if _Debug.is_on:
                traceback.print_exception(error)
            result = _failure(command, error)
    return _end(command, result, as_json=as_json, all_rows=all_rows)


def _failure(command: str, error: BaseException) -> render.Failure:
    return render.Failure(command, render.exit_code_of(error), render.error_line(error))


def _end(command: str, result: render.Result, *, as_json: bool = False, all_rows: bool = False) -> int:
    """Print a result; a reader that has gone away does not change how the command ended."""
    try:
        if as_json:
            print(render.json_object(command, result, all_rows=all_rows))
        else:
            render.show(result, sys.stdout, all_rows=all_rows)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter complains at its end
    with contextlib.suppress(OSError):
        for line in render.error_lines(result):
            print(line, file=sys.stderr, flush=True)
    return result.exit_code


def _refuse_usage(error: typer.TyperException, words: Sequence[str]) -> int:
    """Put a usage error into one line that names the help to read."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "roundtrip"
    message = error.format_message().strip()
    if message.startswith("Usage:"):  # no command at all: the help says it best
        print(message, file=sys.stderr)
        return 2
    message = render.clean(message).rstrip(".")
    line = f"{message}{'' if message.endswith('?') else '.'} See {path} --help."
    command = next((word for word in words if not word.startswith("-")), "")
    return _end(command, render.Failure(command, 2, line), as_json="--json" in words)


# -- questions -----------------------------------------------------------------------------------


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(plan: render.Result) -> bool:
    """Ask on the terminal whether to send; anything but yes means no."""
    render.show(plan, sys.stderr)
    print("Send this? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _agree(_: render.Result) -> bool:
    return True


def _moment(text: str | None) -> datetime | None:
    """Read a date or a time; without a zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("not a date such as 2026-01-31", param_hint="--since") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
