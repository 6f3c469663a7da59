"""The shape of the code: who imports whom, what stays unloaded, how things are called, how long they get.

The CRMs are taken from the folder, so that a new one is held to this without being named here.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sources
from tests.conftest import REPOSITORY, clean_environ

CRMS = sorted(
    path.stem
    for path in (REPOSITORY / "sources").iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").exists())
    and path.name not in ("core", "sandbox", "__init__.py")
)
COMMANDS = {
    f"pipelines.{name}"
    for name in ("pull", "enrich", "push", "undo", "drift", "dismiss", "why", "status", "runs", "query")
} | {f"pipelines.{name}" for name in ("check", "report", "schedules", "forget", "webhooks")}
ABOVE_COMMANDS = {"pipelines.cli", "pipelines.demo"} | {
    f"pipelines.commands.{name}" for name in ("starting", "pulling", "pushing", "looking")
}
LIGHT = ABOVE_COMMANDS - {"pipelines.demo"} | {
    f"pipelines.{name}"
    for name in (
        "__main__",
        "render",
        "progress",
        "settings",
        "layers",
        "syncs",
        "alarms",
        "commands.running",
    )
}
# All others stand between: 2.
CORE_ORDER = {"errors": 0, "rows": 0, "connector": 1, "reading": 3, "writing": 3} | {
    "delivering": 4,
    "journal": 4,
    "incoming": 5,
    "loads": 5,
    "destination": 5,
}
ONLY_IN = {
    "httpx": {"sources.core.client", "sources.core.transport"},
    "dlt": {
        *("sources.core.reading", "sources.core.destination", "sources.core.loads"),
        *("pipelines.pulling.loading", "pipelines.pulling.settled", "pipelines.pull"),
    },
    "pandas": {"pipelines.enrich", "pipelines.frames"},
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "stuff"}


@cache
def modules() -> dict[str, Path]:
    """Map each module of the two packages to its file; models are not modules, they are run as files."""
    files = [*REPOSITORY.glob("sources/**/*.py"), *REPOSITORY.glob("pipelines/**/*.py")]
    return {_name(path): path for path in files if path.parent != REPOSITORY / "pipelines" / "models"}


def _name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(module: str, *, at_start_only: bool = False) -> frozenset[str]:
    """List what a module imports, wherever the statement stands, save what is for the type checker."""
    found = set()
    for node in _running(
        ast.parse(modules()[module].read_text(encoding="utf-8")), at_start_only=at_start_only
    ):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {_imported(node.module, alias.name) for alias in node.names}
    return frozenset(found)


def _imported(module: str, name: str) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in modules() else module


def _running(node: ast.AST, *, at_start_only: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        is_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and at_start_only
        if not is_for_types and not is_later:
            yield child
            yield from _running(child, at_start_only=at_start_only)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def offenders(inside: str, *banned: str, but: tuple[str, ...] = ()) -> list[str]:
    """List the imports of `banned` packages made inside a package."""
    return [
        f"{module} imports {target}"
        for module in modules()
        if is_within(module, inside)
        for target in imports(module)
        if any(is_within(target, each) for each in banned)
        and not any(is_within(target, each) for each in but)
    ]


# -- the register --------------------------------------------------------------------------------


def test_the_folder_is_the_register_of_crms() -> None:
    assert len(CRMS) > 0
    assert sources.names() == CRMS


@pytest.mark.parametrize("crm", CRMS)
def test_a_crm_is_spelt_one_way_and_gives_its_dlt_source(crm: str) -> None:
    assert sources.load(crm).crm == crm
    assert hasattr(sys.modules[f"sources.{crm}"], crm)


# -- who imports whom ----------------------------------------------------------------------------


def test_sources_never_import_pipelines() -> None:
    assert offenders("sources", "pipelines") == []


@pytest.mark.parametrize("crm", CRMS)
def test_a_crm_imports_only_itself_and_the_core(crm: str) -> None:
    assert offenders(f"sources.{crm}", "sources", but=("sources.core", f"sources.{crm}")) == []


def test_the_core_knows_no_crm() -> None:
    assert offenders("sources.core", "sources", but=("sources.core",)) == []


def test_the_sandbox_is_independent_of_the_clients_it_is_there_to_test() -> None:
    assert offenders("sources.sandbox", "sources", "pipelines", but=("sources.sandbox",)) == []


def test_only_the_command_line_and_the_demo_use_the_sandbox() -> None:
    users = {
        module for module in modules() if any(is_within(each, "sources.sandbox") for each in imports(module))
    }
    assert {each for each in users if is_within(each, "pipelines")} <= ABOVE_COMMANDS


def test_the_core_imports_downwards_only() -> None:
    def order(module: str) -> int:
        return CORE_ORDER.get(module.removeprefix("sources.core."), 2)

    upwards = [
        f"{module} imports {target}"
        for module in modules()
        if is_within(module, "sources.core") and module != "sources.core"
        for target in imports(module, at_start_only=True)
        if is_within(target, "sources.core") and order(target) > order(module)
    ]
    assert upwards == []


def test_commands_never_import_each_other() -> None:
    importers = {
        f"{module} imports {target}"
        for module in modules().keys() - ABOVE_COMMANDS
        for target in imports(module) & COMMANDS - {module}
    }
    assert importers == set()


def test_settings_and_warehouse_stand_below_what_uses_them() -> None:
    names = ("settings", "layers", "syncs", "alarms", "warehouse", "in_place")
    allowed = {f"pipelines.{name}" for name in names}
    for module in allowed:
        assert {each for each in imports(module) if is_within(each, "pipelines")} <= allowed


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: imports(module, at_start_only=True) & modules().keys() - {module} for module in modules()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


# -- what is imported where ----------------------------------------------------------------------


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_is_imported_in_its_own_modules_only(library: str) -> None:
    users = {module for module in modules() if any(is_within(each, library) for each in imports(module))}
    assert users <= ONLY_IN[library]


def test_duckdb_is_below_the_crms_only_in_the_spool_and_never_in_what_the_help_needs() -> None:
    users = {module for module in modules() if any(is_within(each, "duckdb") for each in imports(module))}
    assert {each for each in users if is_within(each, "sources")} <= {"sources.core.spool"}
    assert users & LIGHT == set()


def loaded_by(folder: Path, *words: str) -> set[str]:
    """Run the command line in a process of its own and list the packages it loaded."""
    code = (
        "import sys; from pipelines.cli import main; main(sys.argv[1:]);"
        " print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


def test_help_loads_neither_dlt_nor_pandas_nor_duckdb_nor_http(tmp_path: Path) -> None:
    for words in (["--help"], ["pull", "--help"]):
        loaded = loaded_by(tmp_path, *words)
        assert "pipelines" in loaded
        assert loaded & {"dlt", "pandas", "numpy", "pyarrow", "duckdb", "httpx", "rich"} == set()


def test_status_loads_neither_dlt_nor_pandas(tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, "status")
    assert "duckdb" in loaded
    assert loaded & {"dlt", "pandas", "pyarrow"} == set()


def test_settings_load_neither_dlt_nor_duckdb_nor_http() -> None:
    code = "import sys, pipelines.settings; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environ(), capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & {"dlt", "pandas", "pyarrow", "duckdb", "httpx"} == set()


# -- names and sizes -----------------------------------------------------------------------------


def test_no_module_has_a_vague_name_or_one_of_the_standard_library() -> None:
    stems = {part for module in modules() for part in module.split(".")} - {"__main__"}
    assert stems & (VAGUE | set(sys.stdlib_module_names)) == set()


def test_no_module_is_longer_than_500_lines() -> None:
    assert {module: lines for module, path in modules().items() if (lines := _lines(path)) > 500} == {}


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def test_no_settings_or_warehouses_are_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False
    ).stdout.split()
    assert [
        name for name in listed if name.endswith((".duckdb", "/secrets.toml")) or ".roundtrip/" in name
    ] == []
