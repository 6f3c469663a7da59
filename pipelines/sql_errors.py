"""What DuckDB says of a wrong statement, as one line with the place: `… (line 3, column 10)`."""

import re

import duckdb

_EXCERPT = re.compile(r"^LINE (\d+): (.*)\n( *)\^", re.MULTILINE)
_MAX_CHARS = 300
# What these say may quote a value of a row, which belongs into no log.
_QUOTING = (
    duckdb.ConversionException,
    duckdb.ConstraintException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
)
_QUOTED = re.compile(r"'.*'|\".*\"")


def one_line(error: duckdb.Error, statement: str, *, file: str = "", above: int = 0) -> str:
    """Give the message, what DuckDB proposes, and the place in the statement where it names one.

    Of a statement that is taken from a file, `above` lines were put before it.
    """
    message, *more = str(error).splitlines()
    if isinstance(error, _QUOTING):
        message = _QUOTED.sub(lambda match: match.group() if match.group() in statement else "'…'", message)
    proposal = next((line for line in more if line.startswith(("Did you mean", "Candidate bindings"))), "")
    told = f"{message[:_MAX_CHARS].rstrip('.')}{_place(str(error), statement, file, above)}"
    return f"{told}. {proposal}" if proposal else told


def _place(text: str, statement: str, file: str, above: int) -> str:
    found = _EXCERPT.search(text)
    if found is None:
        return ""
    number, excerpt, margin = int(found.group(1)), found.group(2), found.group(3)
    lines, name = statement.splitlines(), f"{file} " if file else ""
    at = len(margin) - len(f"LINE {number}: ")
    shown = excerpt.removeprefix("...")
    start = lines[number - 1].find(shown.removesuffix("...")) if number <= len(lines) else -1
    if start < 0 or at < 0:
        return f" ({name}line {number - above})"
    column = start + at - (len(excerpt) - len(shown)) + 1
    return f" ({name}line {number - above}, column {column})"
