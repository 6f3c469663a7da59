"""Write a run's changes into the published file itself, for warehouses that nobody reads meanwhile.

Until the run's last step everything it writes goes to DuckDB's log beside the file, which itself stays as it
was. A marker says that the log belongs to a run that has not ended: who finds one with nobody at work throws
the log away, and with it the whole run. Once the marker is gone the log counts, whatever happens next.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb

# dlt has the log taken into the file when it passes 1 GB, after which nothing could be thrown away.
MOST_BYTES = 512 * 1024 * 1024


class InPlace:
    """The log of one warehouse file; `home` is its working folder. The lock must be held."""

    def __init__(self, path: Path, home: Path) -> None:
        self._path = path
        self._marker = home / f"{path.stem}.unfinished"

    def is_unfinished(self) -> bool:
        """Tell whether a run is writing, or was stopped while it did."""
        return self._marker.exists()

    def recover(self) -> None:
        """Take back what a run wrote that was stopped."""
        if self.is_unfinished():
            for log in self._path.parent.glob(f"{self._path.name}.wal*"):
                log.unlink(missing_ok=True)
            sync(self._path.parent)
            self._end()

    @contextlib.contextmanager
    def writing(self, con: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let a block write over a connection and close it: all of what the block does stays, or nothing."""
        try:
            self._marker.touch()
            sync(self._marker.parent)
            con.execute("set checkpoint_threshold = '1TB'")
            yield
            self._end()
            con.execute("checkpoint")
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # without this closing takes the log into the file
                con.execute("pragma disable_checkpoint_on_shutdown")
            with contextlib.suppress(duckdb.Error):
                con.close()
            self.recover()
            raise
        con.close()

    def _end(self) -> None:
        self._marker.unlink()
        sync(self._marker.parent)


def sync(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
