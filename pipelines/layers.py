"""Reads `.dlt/config.toml`, `.dlt/secrets.toml` and the environment, spelt as dlt spells them.

The environment wins over secrets, secrets over config. What the values mean is left to `settings` and
`syncs`; here they are only found, typed and, where wrong, named with the way to set them.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sources.core.errors import ConfigError

CONFIG = ".dlt/config.toml"
SECRETS = ".dlt/secrets.toml"

# How many parts the name of a setting has below each root; deeper names belong to dlt or to others.
_DEPTHS = {"roundtrip": 2, "destination": 3, "sources": 3, "syncs": 3}
_DEEPER = {"roundtrip.notify": 3}  # a table among plain settings
_SECRET = ("api_key", "hash_key")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Section:
    """One table of settings, and where it stands (`("sources", "relm")`)."""

    path: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def section(self, name: str) -> "Section":
        """Give a table below this one, empty where it is not set."""
        return Section((*self.path, name), self.table(name))

    def error(self, name: str, what: str) -> ConfigError:
        """Make the error of one setting: what is wrong, and both ways to set it."""
        return ConfigError(f"{spelt(*self.path, name)} {what}", hint=set_hint(*self.path, name))

    def refuse_unknown(self, known: Sequence[str]) -> None:
        """Refuse settings that nobody reads: most are misspelt."""
        for name in self.values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"Is {near[0]} meant?" if near else f"There are: {', '.join(sorted(known))}."
                raise ConfigError(f"{spelt(*self.path, name)} is not a setting", hint=hint)

    # -- typed values ----------------------------------------------------------------------------

    def text(self, name: str, default: str | None = None) -> str | None:
        """Give a text without the space around it; empty counts as not set."""
        value = self.values.get(name, "")
        if not isinstance(value, str):
            raise self.error(name, "is not a text")
        return value.strip() or default

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Give a text out of a closed list."""
        value = self.text(name, default) or default
        if value not in choices:
            raise self.error(name, f"is not one of {', '.join(choices)}")
        return value

    def number(self, name: str, default: float, *, at_least: float = 0) -> float:
        """Give a number that is at least `at_least`."""
        value = self._parsed(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not at_least <= value < float("inf"):
            raise self.error(name, f"is not a number of at least {at_least:g}")
        return float(value)

    def whole(self, name: str, default: int, *, at_least: int = 0) -> int:
        """Give a whole number that is at least `at_least`."""
        value = self.number(name, default, at_least=at_least)
        if value != int(value):
            raise self.error(name, "is not a whole number")
        return int(value)

    def share(self, name: str, default: float) -> float:
        """Give a share, 0 to 1."""
        value = self.number(name, default)
        if value > 1:
            raise self.error(name, "is not a share from 0 to 1")
        return value

    def span(self, name: str, default: str) -> timedelta:
        """Give a length of time, spelt as a whole number of s, m, h or d."""
        found = _SPAN.fullmatch((self.text(name, default) or default).strip())
        if found is None:
            raise self.error(name, 'is not a length of time, as in "90s", "15m", "24h" or "7d"')
        return timedelta(**{_UNITS[found[2]]: int(found[1])})

    def flag(self, name: str, *, default: bool) -> bool:
        """Give true or false."""
        value = self._parsed(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "is neither true nor false")
        return value

    def words(self, name: str) -> tuple[str, ...] | None:
        """Give a list of texts, or None where it is not set."""
        value = self._parsed(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.error(name, 'is not a list of names, as in ["relm"]')
        return tuple(dict.fromkeys(value))

    def table(self, name: str) -> Mapping[str, Any]:
        """Give a table, empty where it is not set."""
        value = self._parsed(name, {})
        if not isinstance(value, dict):
            raise self.error(name, "is not a table")
        return value

    def _parsed(self, name: str, default: Any) -> Any:
        """Give a value that is not a text; a text (the environment has no other kind) is read as JSON."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return default if value is None else value
        if not value.strip():
            return default
        try:
            return json.loads(value.lower() if value.lower() in {"true", "false"} else value)
        except ValueError as error:
            raise self.error(name, "is neither a number, true, false nor JSON") from error


def spelt(*path: str) -> str:
    """Spell a setting as TOML does: `syncs.leads.fields."metadata.lead_score"`."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in path)


def set_hint(*path: str) -> str:
    """Say how a setting is set, in the file and in the environment."""
    depth = _depth(path)
    variable = "__".join(path[:depth]).upper()
    kind = " (as JSON)" if len(path) > depth else ""
    return f"Set {spelt(*path)} in {SECRETS if path[-1] in _SECRET else CONFIG} or {variable}{kind}."


def _depth(path: Sequence[str]) -> int:
    return _DEEPER.get(".".join(path[:2]), _DEPTHS[path[0]])


def read_layers(root: Path, environ: Mapping[str, str]) -> Section:
    """Merge the two files below `root` and the environment; a missing file is an empty one."""
    config, secrets = _read_toml(root, CONFIG), _read_toml(root, SECRETS)
    _refuse_keys_in_config(config)
    merged = _merge(config, secrets)
    for path, value in _from_environment(environ):
        _put(merged, path, value)
    return Section((), merged)


def _read_toml(root: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}", hint="Mend that line.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text", hint="Save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be read ({error.strerror})", hint="Check the file's owner and mode."
        ) from error


def _refuse_keys_in_config(config: Mapping[str, Any]) -> None:
    found = [
        f"sources.{name}.api_key"
        for name, section in _tables(config.get("sources")).items()
        if isinstance(section, dict) and section.get("api_key")
    ]
    if _tables(config.get("roundtrip")).get("hash_key"):
        found.append("roundtrip.hash_key")
    if found:
        raise ConfigError(
            f"{found[0]} stands in {CONFIG}, which is made to be committed",
            hint=f"Move it to {SECRETS}, and replace the key if the file was shared.",
        )


def _from_environment(environ: Mapping[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """List the settings of the environment; an empty variable counts as not set."""
    found = []
    for variable in sorted(environ):
        path = tuple(variable.lower().split("__"))
        if (
            variable.isupper()
            and path[0] in _DEPTHS
            and len(path) in {_DEPTHS[path[0]], _depth(path)}
            and all(path)
            and environ[variable].strip()
        ):
            found.append((path, environ[variable]))
    return found


def _put(merged: dict[str, Any], path: tuple[str, ...], value: str) -> None:
    *sections, name = path
    table = merged
    for section in sections:
        if not isinstance(table.get(section), dict):
            table[section] = {}
        table = table[section]
    table[name] = value


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {name: _merge(value, {}) if isinstance(value, dict) else value for name, value in under.items()}
    for name, value in over.items():
        if isinstance(value, dict):
            merged[name] = _merge(_tables(merged.get(name)), value)
        else:
            merged[name] = value
    return merged


def _tables(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
