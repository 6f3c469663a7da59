"""What stands in a model's file: which tables it reads, what it is for, its select or its function.

`NAME.sql` holds one select. `NAME.py` holds `INPUTS` (argument -> table, view or select) and a function
`build` that takes those as pandas frames and gives one; a parameter `as_of` gets the day of the run. Building
the tables is left to `enrich`.
"""

import ast
import importlib.util
import inspect
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb

from pipelines.sql_errors import one_line
from sources.core.errors import ConfigError, ConnectorError

_MART = re.compile(r'^(?:"?\w+"?\.)??marts\.(?:"([^"]+)"|(\w+))$', re.IGNORECASE)
_NAMED_MART = re.compile(r"\bmarts\.\"?(\w+)", re.IGNORECASE)
_TABLE = re.compile(r'[\w."]+')
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def reads_of(path: Path) -> set[str]:
    """List the models that a model reads from, itself left out."""
    text = _text(path)
    statements = [text] if path.suffix == ".sql" else _inputs(text)
    if statements is None:
        return set(_NAMED_MART.findall(text)) - {path.stem}
    return {name for each in statements for name in _marts(each)} - {path.stem}


def about_of(path: Path) -> str:
    """Give what a model says of itself: its first comment or docstring, as one line."""
    text = _text(path)
    if path.suffix == ".py":
        try:
            return " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        except SyntaxError:
            return ""
    found = re.match(r"\s*((?:--[^\n]*\n)+)", text)
    return " ".join(found.group(1).replace("--", " ").split()) if found else ""


def select_of(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Give the one select of a SQL model; `ConfigError` when there is none, or more or something else."""
    text = _text(path)
    try:
        statements = con.extract_statements(text)
    except duckdb.Error as error:
        raise ConnectorError(one_line(error, text, file=path.name)) from error
    if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
        raise ConnectorError(f"{path.name} holds {len(statements)} statements, and a model is one select")
    return text.rstrip().rstrip(";")


def run_python(con: duckdb.DuckDBPyConnection, path: Path, *, as_of: date) -> Any:
    """Run a Python model over the frames it asks for and give the frame that it builds."""
    try:
        module = _loaded(path)
        inputs, build = _asked(module, path)
        frames = {name: _frame(con, path, name, source) for name, source in inputs.items()}
        if "as_of" in inspect.signature(build).parameters and "as_of" not in frames:
            frames["as_of"] = as_of
        return build(**frames)
    except (duckdb.Error, ConnectorError):
        raise
    except Exception as error:  # a model is the user's code: whatever it raises is that model's failure
        said = _said(error, _text(path))
        raise ConnectorError(f"{type(error).__name__}: {said}{_line_in(error, path)}") from error


# -- SQL -----------------------------------------------------------------------------------------


def _marts(statement: str) -> set[str]:
    """List the tables of schema `marts` that a table's name or a select reads, as DuckDB reads it."""
    if _TABLE.fullmatch(statement):
        statement = f"from {statement}"
    try:
        with duckdb.connect() as con:
            names = con.get_table_names(statement, qualified=True)
    except duckdb.Error:  # wrong SQL is told when the model is built
        return set(_NAMED_MART.findall(statement))
    found = (_MART.match(re.split(r" as ", name, flags=re.IGNORECASE)[0]) for name in names)
    return {each.group(1) or each.group(2) for each in found if each}


# -- Python --------------------------------------------------------------------------------------


def _inputs(text: str) -> list[str] | None:
    """Read what `INPUTS` names without running the file; None where it is computed or not there."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return None
    for node in body:
        if isinstance(node, ast.Assign) and any(ast.unparse(each) == "INPUTS" for each in node.targets):
            try:
                return [str(each) for each in ast.literal_eval(node.value).values()]
            except (ValueError, AttributeError):
                return None
    return None


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"roundtrip_model_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _asked(module: ModuleType, path: Path) -> tuple[Mapping[str, str], Any]:
    """Give what a model asks for and its function; every parameter must have an input of its name."""
    inputs, build = getattr(module, "INPUTS", None), getattr(module, "build", None)
    if not isinstance(inputs, Mapping) or not callable(build):
        raise ConfigError(f"{path.name} must hold INPUTS (argument -> table) and a function build")
    parameters = inspect.signature(build).parameters.values()
    is_open = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    wanted = {each.name for each in named if each.default is each.empty}
    missing = sorted(wanted - inputs.keys() - {"as_of"})
    beyond = [] if is_open else sorted(inputs.keys() - {each.name for each in parameters})
    if missing:
        raise ConfigError(f"{path.name}: build asks for {missing[0]}, which INPUTS does not name")
    if beyond:
        raise ConfigError(f"{path.name}: INPUTS names {beyond[0]}, which build does not take")
    return inputs, build


def _frame(con: duckdb.DuckDBPyConnection, path: Path, name: str, source: str) -> Any:
    query = f"select * from {source}" if _TABLE.fullmatch(source) else source
    try:
        return con.execute(query).df()
    except duckdb.Error as error:
        raise ConnectorError(f"{path.name}: INPUTS[{name!r}]: {one_line(error, query)}") from error


def _said(error: Exception, text: str) -> str:
    """Give the first line of an error; what it quotes may be a value of a row, unless the file has it too."""
    lines = str(error).splitlines() or [""]
    return _QUOTED.sub(lambda match: match.group() if _stands_in(text, match.group()) else "'…'", lines[0])[
        :300
    ]


def _stands_in(text: str, quoted: str) -> bool:
    return any(f"{mark}{quoted[1:-1]}{mark}" in text for mark in "'\"")


def _line_in(error: Exception, path: Path) -> str:
    """Tell the last line of the model's file that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" ({path.name} line {error.lineno}, column {error.offset})"
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" ({path.name} line {line})" if line else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from error
