"""Run a command: do its work, print its result, turn whatever happens into one line and an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines import render
from pipelines.progress import Progress, show_progress
from sources.core.errors import ConfigError


def _sync_names() -> list[str]:
    """List the project's syncs for the shell to complete; where they cannot be read, none."""
    from pipelines.settings import load_project

    try:
        return list(load_project().syncs)
    except ConfigError:
        return []


def _connection_names() -> list[str]:
    from pipelines.settings import load_project

    try:
        return list(load_project().connections)
    except ConfigError:
        return []


SyncName = Annotated[str, typer.Argument(metavar="SYNC", autocompletion=_sync_names)]
ConnectionNames = Annotated[
    list[str] | None, typer.Argument(metavar="CONNECTION", autocompletion=_connection_names)
]
Targets = Annotated[
    list[str] | None, typer.Argument(metavar="CONNECTION[.RESOURCE]", autocompletion=_connection_names)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object, also on failure.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")]
AllRows = Annotated[bool, typer.Option("--diff", help="List every row, not only the first ones.")]


class Debug:
    """Whether `--debug` was given; the one switch that is read where exceptions end."""

    is_on = False


def run(
    command: str,
    work: Callable[[Progress], render.Result],
    *,
    as_json: bool = False,
    all_rows: bool = False,
    tells: bool = False,
) -> int:
    """Do a command's work and print its result, whatever became of it: the only catch-all there is.

    A command that `tells` then tells those that `[roundtrip.notify]` names.
    """
    # The command line of httpx, which is not used, would import click, pygments and rich with it.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    result: render.Result
    with show_progress() as progress:
        try:
            result = work(progress)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (ends in one line and an exit code)
            if Debug.is_on:
                traceback.print_exception(error)
            result = failure(command, error)
    exit_code = end(command, result, as_json=as_json, all_rows=all_rows)
    if tells:
        _tell(command, result)
    return exit_code


def _tell(command: str, result: render.Result) -> None:
    """Tell how a command ended; whatever happens here, the command has ended as it has."""
    from pipelines.notify import notify
    from pipelines.settings import load_project

    try:
        lines = notify(load_project(), command, result)
    except ConfigError:
        return  # the command has said it already: it reads the same settings
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (a run never fails for its message)
        lines = [f"notify: {render.error_line(error)}"]
    with contextlib.suppress(OSError):
        for line in lines:
            print(render.clean(line), file=sys.stderr, flush=True)


def failure(command: str, error: BaseException) -> render.Failure:
    """Give the result of a command that ended with an exception."""
    return render.Failure(command, render.exit_code_of(error), render.error_line(error))


def end(command: str, result: render.Result, *, as_json: bool = False, all_rows: bool = False) -> int:
    """Print a result; a reader that has gone away does not change how the command ended, a full disk does."""
    lost: list[str] = []
    try:
        if as_json:
            print(render.json_object(command, result, all_rows=all_rows))
        else:
            render.show(result, sys.stdout, all_rows=all_rows)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_stdout()
    except OSError as error:
        leave_stdout()
        lost = [f"the result could not be written to standard output ({error.strerror})"]
    with contextlib.suppress(OSError):
        for line in (*render.error_lines(result), *lost):
            print(line, file=sys.stderr, flush=True)
    return result.exit_code or len(lost)


def moment_of(since: str | None) -> datetime | None:
    """Read the date or time of `--since`; without a zone it is UTC."""
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise typer.BadParameter("not a date such as 2026-01-31", param_hint="--since") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def leave_stdout() -> None:
    """Write to nobody from now on, or the interpreter complains at its end that the reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- questions -----------------------------------------------------------------------------------


def can_ask() -> bool:
    """Tell whether there is a person at a terminal to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(plan: render.Result, *, question: str = "Send this?") -> bool:
    """Show on the terminal what is about to happen and ask whether it shall; anything but yes means no."""
    render.show(plan, sys.stderr)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def agree(_: render.Result) -> bool:
    """Answer yes, for `--yes`."""
    return True
