"""The command line: `roundtrip COMMAND`. The commands themselves stand in `pipelines.commands`."""

import gc
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from pipelines import __version__, render
from pipelines.commands import looking, pulling, pushing, starting
from pipelines.commands.examples import epilog
from pipelines.commands.running import Debug, end

# How many objects are made between two searches for cycles: with Python's 700 importing takes a tenth longer.
_GC_OBJECTS = 50_000

# In the order of the help.
COMMANDS = (
    starting.demo,
    starting.sandbox,
    starting.init,
    starting.check,
    pulling.pull,
    pulling.enrich,
    pulling.forget,
    pushing.plan,
    pushing.push,
    pushing.dismiss,
    pushing.undo,
    pushing.drift,
    looking.why,
    looking.status,
    looking.runs,
    looking.query,
    starting.schedule,
    looking.report,
)


def command_line(*, has_own_options: bool = True, has_help: bool = True) -> typer.Typer:
    """Put the commands together; Typer's own options of the whole and the help of each only where asked for.

    Left unset they cost each command 0.07 s: Typer imports pydantic to check that they are.
    """
    made = typer.Typer(
        name="roundtrip",
        help="Pull CRMs into DuckDB, enrich what is there, and push what changed back.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=has_own_options,
        add_help_option=has_own_options,
    )
    made.callback()(_options)
    for command in COMMANDS:
        made.command(add_help_option=has_help, epilog=epilog(command.__name__))(command)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    gc.set_threshold(_GC_OBJECTS, 20, 20)
    words = list(sys.argv[1:] if arguments is None else arguments)
    Debug.is_on = "--debug" in words
    if Debug.is_on:
        logging.basicConfig(format="%(message)s")
        os.environ.setdefault("RUNTIME__LOG_LEVEL", "WARNING")  # of dlt, which is silent otherwise
        logging.getLogger("pipelines").setLevel(logging.DEBUG)
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name beyond the terminal's alphabet is no error
    is_command = bool(words) and not words[0].startswith("-")
    app = command_line(has_own_options=not is_command, has_help=not is_command or "--help" in words)
    try:
        code = app(words, prog_name="roundtrip", standalone_mode=False)
    except typer.TyperException as error:
        return _refuse_usage(error, words)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:  # of the help and the version: commands tell their own
        print(f"roundtrip: what was asked for cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def run() -> NoReturn:
    """Run the command line as a process, which ends without taking apart what the system takes anyway.

    That is a tenth of a second after a pull. Files, locks and threads are closed where they were opened;
    only the two streams are left.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            pass  # nobody reads it any more
        except OSError:
            code = code or 1
    os._exit(code)


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _show_version(value: bool) -> None:
    if value:
        print(f"roundtrip {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks; may stand anywhere.")] = False,
) -> None:
    pass


def _refuse_usage(error: typer.TyperException, words: Sequence[str]) -> int:
    """Put a usage error into one line that names the help to read."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "roundtrip"
    message = error.format_message().strip().replace("Value error, ", "")  # pydantic's words, not ours
    if message.startswith("Usage:"):  # no command at all: the help says it best
        print(message, file=sys.stderr)
        return 2
    message = render.clean(message).rstrip(".")
    line = f"{message}{'' if message.endswith('?') else '.'} See {path} --help."
    command = next((word for word in words if not word.startswith("-")), "")
    return end(command, render.Failure(command, 2, line), as_json="--json" in words)
