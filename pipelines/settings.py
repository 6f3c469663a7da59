"""One project's settings: its warehouse, models, connections and syncs.

Light on purpose: neither dlt nor DuckDB is imported, and a CRM's module only when a connection of it is
looked at. A setting is checked when it is looked at, so that a mistake in one connection leaves the others
usable. Finding and typing values is left to `layers`, what a sync is to `syncs`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import sources
from pipelines.alarms import NOBODY, Alarms, read_alarms
from pipelines.layers import CONFIG, Section, read_layers, set_hint
from pipelines.syncs import FieldRule, Mode, Sync, check_target, read_sync
from sources.core.auth import check_base_url
from sources.core.errors import ConfigError

if TYPE_CHECKING:  # needed when a connection is looked at, not for all that read settings
    from sources.core.connector import Connection, Connector, Option

__all__ = ["FieldRule", "Mode", "Project", "Sync", "load_project"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SETTINGS = (
    "connections",
    "models",
    "checkpoint_s",
    "lookback_s",
    "max_deletes_share",
    "max_deletes",
    "publish",
    "hash_key",
    "notify",
)
_FIXED = ("crm", "base_url", "api_key", "exclude", "hash")
# Schemas of ours and of DuckDB; a connection's dataset would land among their tables.
_RESERVED = {"crm", "roundtrip", "marts", "main", "temp", "system", "information_schema", "pg_catalog"}
_SHORTEST_HASH_KEY = 16
_PLACEHOLDER = "<configure me>"  # what dlt writes where a value is still to be filled in

Value = TypeVar("Value")


@dataclass(frozen=True)
class Project:
    """One project; paths are absolute. `connections` holds those that have a key."""

    root: Path
    warehouse: Path
    models: Path
    connections: Mapping[str, Connection]
    syncs: Mapping[str, Sync]
    default_connections: tuple[str, ...] = ()
    checkpoint_s: float = 60.0
    lookback_s: float = 900.0
    max_deletes_share: float = 0.02
    max_deletes: int = 500
    publish: str = "generation"  # or "in_place": without a copy, for warehouses without readers
    alarms: Alarms = NOBODY

    def connection(self, name: str) -> Connection:
        """Find a connection; `ConfigError` says which setting is missing or wrong."""
        if name in self.connections:
            return self.connections[name]
        _check_name(name)
        raise ConfigError(
            f"{name}: there is no key for this connection",
            hint=set_hint("sources", name, "api_key") + _there_are(" With a key:", self.connections),
        )

    def wanted(self, names: Sequence[str]) -> Sequence[str]:
        """Give the names asked for, else the project's connections; `ConfigError` where there are none."""
        if names or self.default_connections:
            return names or self.default_connections
        raise ConfigError(
            "no connection has a key",
            hint="Begin with `roundtrip init`; then, for Relm: " + set_hint("sources", "relm", "api_key"),
        )

    def sync(self, name: str) -> Sync:
        """Find a sync whose target exists and can be written to; `ConfigError` otherwise."""
        if name not in self.syncs:
            have = _there_are("There are:", self.syncs) or "Declare it as [syncs.NAME]."
            raise ConfigError(f"there is no sync {name!r} in {CONFIG}", hint=have)
        sync = self.syncs[name]
        connection = self.connection(sync.connection)
        check_target(sync, connection, sources.load(connection.crm).contract(connection))
        return sync


def _models(home: Path, setting: str | None) -> Path:
    """Give the folder of models: the one set, else the project's, else those that come with Roundtrip."""
    own = home / (setting or "pipelines/models")
    return own if setting or own.is_dir() else Path(__file__).parent / "models"


def _there_are(lead: str, names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"{lead} {listed}." if listed else ""


class Lazy(Mapping[str, Value], Generic[Value]):
    """Hold named values that are made, and checked, when they are first looked at."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Value]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make
        self._made: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_project(root: Path | None = None, environ: Mapping[str, str] = os.environ) -> Project:
    """Read the settings below `root` (default: `DLT_PROJECT_DIR`, else the working directory).

    A relative warehouse lies in the working directory, as dlt has it, or below `root` where that is given.
    """
    beside = (root or Path.cwd()).absolute()
    home = beside if root else Path(environ.get("DLT_PROJECT_DIR") or beside).expanduser().absolute()
    if not home.is_dir():
        raise ConfigError(f"the project folder {home} is not there", hint="Make it, or set DLT_PROJECT_DIR.")
    layers = read_layers(home, environ)
    settings, declared = layers.section("roundtrip"), layers.section("sources")
    settings.refuse_unknown(_SETTINGS)
    with_key = [name for name in sorted(declared.values) if _has_key(declared.values[name])]
    listed = settings.words("connections")
    syncs = layers.section("syncs")
    hash_key = _hash_key(settings)
    return Project(
        root=home,
        warehouse=_warehouse(layers, beside, schemas={*with_key, *(listed or ())}),
        models=_models(home, settings.text("models")),
        connections=Lazy(with_key, lambda name: _read_connection(declared.section(name), hash_key)),
        syncs=Lazy(syncs.values, lambda name: read_sync(syncs.section(name))),
        default_connections=tuple(with_key) if listed is None else listed,
        checkpoint_s=settings.number("checkpoint_s", 60.0, at_least=1),
        lookback_s=settings.number("lookback_s", 900.0),
        max_deletes_share=settings.share("max_deletes_share", 0.02),
        max_deletes=settings.whole("max_deletes", 500),
        publish=settings.choice("publish", ("generation", "in_place"), "generation"),
        alarms=read_alarms(settings.section("notify")),
    )


def _warehouse(layers: Section, beside: Path, *, schemas: set[str]) -> Path:
    """Find the warehouse; one whose name is also a schema is refused, DuckDB could not tell them apart."""
    section = layers.section("destination").section("duckdb")
    setting = section.text("credentials") or "warehouse.duckdb"
    if setting.startswith(("md:", "motherduck:", ":memory:")):
        raise section.error("credentials", "is not a file: the warehouse is a DuckDB file on this machine")
    path = beside / Path(setting.removeprefix("duckdb:///")).expanduser()
    stem = path.stem.lower().removesuffix("_staging")
    if stem in schemas | _RESERVED | set(sources.names()):
        raise section.error(
            "credentials", f"is {path.name}, and {stem} is also a schema: DuckDB could not tell the two apart"
        )
    return path


# -- connections ---------------------------------------------------------------------------------


def _has_key(section: Any) -> bool:
    key = section.get("api_key", "") if isinstance(section, dict) else ""
    return not isinstance(key, str) or key.strip() not in {"", _PLACEHOLDER}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or "__" in name:
        raise ConfigError(
            f"{name!r} cannot be the name of a connection, for it names a schema",
            hint="Use a-z, 0-9 and single _, as in rally_emea.",
        )
    if name in _RESERVED or name.endswith("_staging"):
        raise ConfigError(
            f"{name!r} cannot be the name of a connection, for it is a schema of its own",
            hint=f"Rename [sources.{name}], and give it a crm.",
        )


def _hash_key(settings: Section) -> str:
    """Read the key of digests; a short one would let anybody find out addresses by trying them."""
    key = settings.text("hash_key") or ""
    if key and len(key) < _SHORTEST_HASH_KEY:
        raise settings.error("hash_key", f"is shorter than {_SHORTEST_HASH_KEY} characters")
    return key


def _read_connection(section: Section, hash_key: str) -> Connection:
    from sources.core.connector import Connection
    from sources.core.privacy import check_privacy

    name = section.path[-1]
    _check_name(name)
    connector = _connector(section)
    section.refuse_unknown((*_FIXED, *(option.name for option in connector.options)))
    connection = Connection(
        name=name,
        crm=connector.crm,
        base_url=_base_url(section, connector),
        api_key=_api_key(section),
        options={option.name: _option(section, option) for option in connector.options},
        exclude=section.words("exclude") or (),
        hashed=section.words("hash") or (),
        hash_key=hash_key,
    )
    check_privacy(connection, connector.contract(connection))
    return connection


def _connector(section: Section) -> Connector:
    crm = section.text("crm")
    known = ", ".join(sources.names())
    if crm is None and section.path[-1] not in sources.names():
        raise section.error("crm", f"is not set, and {section.path[-1]} is not the name of a CRM ({known})")
    if crm is not None and crm not in sources.names():
        raise section.error("crm", f"is {crm!r}, which is not one of {known}")
    return sources.load(crm or section.path[-1])


def _base_url(section: Section, connector: Connector) -> str:
    url = section.text("base_url", connector.base_url)
    if url is None:
        raise section.error("base_url", f"is not set: each tenant of {connector.title} has its own address")
    try:
        check_base_url(section.path[-1], url)
    except ConfigError as error:
        raise ConfigError(error.what, hint=set_hint(*section.path, "base_url")) from error
    return url.rstrip("/")


def _api_key(section: Section) -> str:
    key = section.text("api_key") or ""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise section.error("api_key", "holds characters that no key has (spaces, line ends, curly quotes)")
    return key


def _option(section: Section, option: Option) -> str | int | float | bool | None:
    """Read one option as the type of its default."""
    if option.required and section.text(option.name) is None:
        raise section.error(option.name, f"is not set: {option.doc}")
    if option.default is None and section.text(option.name) is None:
        return None
    if option.choices:
        return section.choice(option.name, option.choices, str(option.default))
    if isinstance(option.default, bool):
        return section.flag(option.name, default=option.default)
    if isinstance(option.default, int):
        return section.whole(option.name, option.default)
    if isinstance(option.default, float):
        return section.number(option.name, option.default)
    return section.text(option.name, option.default)
