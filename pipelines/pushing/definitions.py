"""Custom fields that a CRM must know before a push may send them: which it does not, and defining them.

Only CRMs that declare a registry are asked. Whether to define fields is the operator's decision.
"""

from typing import TYPE_CHECKING, Any

from pipelines.progress import Progress
from sources import load
from sources.core.connector import Kind
from sources.core.errors import ConfigError, ConnectorError, GoneError
from sources.core.sessions import open_session

if TYPE_CHECKING:
    from pipelines.plan import Plan

_GLANCE_S = 5.0  # a plan needs no CRM: it does not wait for one that is out of reach


def undefined(made: "Plan") -> list[str]:
    """Ask the CRM which of the custom fields that a push would send have no definition."""
    return _ask(made)


def glance(made: "Plan", progress: Progress) -> None:
    """Refuse a plan that sends undefined fields, as far as the CRM answers at once.

    Raises `ConfigError` naming them. A CRM that cannot be asked gets a line: a plan can do without it.
    """
    try:
        lacking = _ask(made, timeout_s=_GLANCE_S, max_attempts=1)
    except ConnectorError:
        name = made.connection.name
        progress.say(f"{made.sync.name}: {name} could not be asked which custom fields it defines")
        return
    refuse(made, lacking)


def refuse(made: "Plan", names: list[str]) -> None:
    """Raise `ConfigError` where custom fields are not defined."""
    if names:
        listed = ", ".join(names)
        raise ConfigError(
            f"custom fields are mapped that the CRM does not define: {listed}; nothing was sent",
            connection=made.connection.name,
            resource=made.write.object,
            hint=f"Define them there, or run `roundtrip push {made.sync.name} --create-fields`.",
        )


def define(made: "Plan", names: list[str]) -> None:
    """Define custom fields in the CRM, each of the kind of its column in the model."""
    registry = made.write.registry
    if registry is None or not names:
        return
    keys = [name.partition(".")[2] for name in names]
    kinds: dict[str, Kind] = {key: made.custom_kinds[key] for key in keys}
    with open_session(load(made.connection.crm), made.connection) as session:
        registry.create(session.client, session.connection, kinds)


def _ask(made: "Plan", **client_settings: Any) -> list[str]:
    registry = made.write.registry
    if registry is None or not made.custom_kinds or made.changes == 0:
        return []
    with open_session(load(made.connection.crm), made.connection, **client_settings) as session:
        try:
            missing = registry.missing(session.client, session.connection, made.custom_kinds)
        except GoneError:  # a workspace without a registry takes any field
            return []
    return [f"{made.write.custom}.{key}" for key in missing]
