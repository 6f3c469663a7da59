"""Run a command: do its work, print its result, turn whatever happens into one line and an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from pipelines import render
from pipelines.progress import Progress, show_progress

AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object, also on failure.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")]
AllRows = Annotated[bool, typer.Option("--diff", help="List every row, not only the first ones.")]


class Debug:
    """Whether `--debug` was given; the one switch that is read where exceptions end."""

    is_on = False


def run(
    command: str, work: Callable[[Progress], render.Result], *, as_json: bool = False, all_rows: bool = False
) -> int:
    """Do a command's work and print its result, whatever became of it: the only catch-all there is."""
    result: render.Result
    with show_progress() as progress:
        try:
            result = work(progress)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (ends in one line and an exit code)
            if Debug.is_on:
                traceback.print_exception(error)
            result = failure(command, error)
    return end(command, result, as_json=as_json, all_rows=all_rows)


def failure(command: str, error: BaseException) -> render.Failure:
    """Give the result of a command that ended with an exception."""
    return render.Failure(command, render.exit_code_of(error), render.error_line(error))


def end(command: str, result: render.Result, *, as_json: bool = False, all_rows: bool = False) -> int:
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


# -- questions -----------------------------------------------------------------------------------


def can_ask() -> bool:
    """Tell whether there is a person at a terminal to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(plan: render.Result) -> bool:
    """Ask on the terminal whether to send; anything but yes means no."""
    render.show(plan, sys.stderr)
    print("Send this? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def agree(_: render.Result) -> bool:
    """Answer yes, for `--yes`."""
    return True
