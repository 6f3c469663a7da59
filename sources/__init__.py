"""The CRMs. The folder is the register: each module or package here is one CRM with a `CONNECTOR`."""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from sources.core.errors import ConfigError

if TYPE_CHECKING:
    from sources.core.connector import Connector  # 0.02 s that the help does without

_NOT_A_CRM = {"core", "sandbox"}


def names() -> list[str]:
    """List the CRMs by looking at the folder; no CRM module is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_A_CRM)


def load(crm: str) -> "Connector":
    """Import one CRM's module and give its connector; `ConfigError` when there is no such CRM."""
    if crm not in names():
        raise ConfigError(f"there is no CRM '{crm}'", hint=f"There are: {', '.join(names())}.")
    connector: Connector = importlib.import_module(f"sources.{crm}").CONNECTOR
    return connector
