"""A CRM's object as a dlt destination: rows of anybody's pipeline, written by the engine of `roundtrip push`.

Each row is looked up in the CRM first; what differs is sent in batches, halved where they are refused, with
the journal on. dlt hands a load over again after a kill: the journal of that load is settled first, and
what has an outcome is not sent again. There is no plan to look at, no ledger and no guard: those are
`roundtrip push`'s. dlt is imported when a destination is made, not when its module is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sources.core.connector import Connector
from sources.core.errors import ConfigError, ConnectorError
from sources.core.reading import connection_of
from sources.core.sessions import Session, open_session


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller of a destination wants; `folder` None keeps journals beside dlt's own files."""

    on_rejected: Literal["raise", "keep"] = "raise"
    folder: Path | None = None


def lazy_destination(connector: Connector, name: str) -> Callable[..., Any]:
    """Make `from sources.<crm> import <crm>_<object>` work without importing dlt.

    What it gives is called with `api_key` and `base_url` where dlt's settings do not have them,
    `on_rejected` ("raise", or "keep" them in a file and go on), `journal` (a folder for the journals and that
    file) and the connection's options. dlt hands nulls over as if they were not there: they change nothing.
    """

    def destination(
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        on_rejected: Literal["raise", "keep"] = "raise",
        journal: str | Path | None = None,
        **options: Any,
    ) -> Any:
        wishes = Wishes(on_rejected, Path(journal) if journal else None)
        return _dlt_destination(connector, name, wishes, (api_key, base_url, options))

    return destination


def _dlt_destination(
    connector: Connector, name: str, wishes: Wishes, given: tuple[str | None, str | None, dict[str, Any]]
) -> Any:
    import dlt

    api_key, base_url, options = given

    def write(items: Any, table: Any) -> None:
        connection = connection_of(connector, api_key or _secret(connector), base_url, options)
        with open_session(connector, connection) as session:
            _carry(session, name, Path(items), table["columns"], wishes)

    return dlt.destination(
        write,
        name=f"{connector.crm}_{name}",
        batch_size=0,  # whole files come, so that one that comes again is known
        loader_file_format="typed-jsonl",
        loader_parallelism_strategy="sequential",  # of two loads of one record the later one counts
    )()


def _secret(connector: Connector) -> str:
    import dlt

    key: Any = dlt.secrets.get(f"sources.{connector.crm}.api_key")
    if not key:
        raise ConfigError(
            "the key is missing",
            connection=connector.crm,
            hint=f"Set sources.{connector.crm}.api_key or SOURCES__{connector.crm.upper()}__API_KEY.",
        )
    return str(key)


def _carry(session: Session, name: str, file: Path, columns: Any, wishes: Wishes) -> None:
    """Carry one file; tells dlt which failures end for ever and which the next run may mend."""
    import dlt
    from dlt.common import logger
    from dlt.common.destination.exceptions import (
        DestinationTerminalException,
        DestinationTransientException,
    )

    from sources.core.loads import Load

    home = wishes.folder or Path(dlt.current.pipeline().working_dir) / "roundtrip"
    folder = home / f"{session.connector.crm}_{name}"
    try:
        left = Load(session, name, file, folder).run(columns)
    except ConfigError as error:
        raise DestinationTerminalException(str(error)) from error
    except ConnectorError as error:
        raise DestinationTransientException(str(error)) from error
    if left and wishes.on_rejected == "raise":
        raise DestinationTerminalException(left)
    if left:
        logger.warning(left)
