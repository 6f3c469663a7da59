"""Whether the command line takes a line of a page, without running it."""

import shlex
from typing import Any

import typer

from pipelines.cli import command_line


def take(line: str) -> str:
    """Parse `roundtrip …` as the command line does, raising on a word it does not know; give the command."""
    words = shlex.split(line)
    assert words[0] == "roundtrip"
    group = _group()
    with group.make_context("roundtrip", words[1:]) as context:
        name, command, rest = group.resolve_command(context, words[1:])
        command.make_context(name, rest, parent=context)
    return str(name)


def options_of(name: str) -> set[str]:
    """List the options of a command."""
    group = _group()
    with group.make_context("roundtrip", [name]) as context:
        command = group.get_command(context, name)
        return {option for parameter in command.get_params(context) for option in parameter.opts}


def _group() -> Any:
    return typer.main.get_command(command_line())  # Typer says less of it than is there
