"""dlt's DuckDB destination, its settings looked up once.

dlt asks a destination for its settings and abilities two dozen times a load, and each time looks through the
environment and all settings files: half of what a small load takes.
"""

from typing import Any

import dlt


class SettledDuckDb(dlt.destinations.duckdb):
    """The destination of one load; make a new one for the next."""

    def __init__(self, credentials: Any) -> None:
        super().__init__(credentials)
        self._settled: dict[tuple[Any, ...], Any] = {}

    @property
    def destination_type(self) -> str:
        """Give dlt's own name, which dlt keeps in the warehouse."""
        return "dlt.destinations.duckdb"

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        """Give the settings that were found for the same beginnings before."""
        asked = {name: value for name, value in initial_config.items() if name != "credentials"}
        key = (type(initial_config), accept_partial, repr(asked))
        if key not in self._settled:
            self._settled[key] = super().configuration(initial_config, accept_partial)
        return self._settled[key]
