"""One file of a dlt load package on its way to a CRM, so that it may come again at any time.

Where the file comes from, and what a failure means to dlt, is `destination`'s.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sources.core import journal as journals
from sources.core.bodies import encode_json
from sources.core.delivering import deliver
from sources.core.errors import ConfigError
from sources.core.incoming import Held, Incoming, key_of
from sources.core.journal import Header, Journal, Story, values_of
from sources.core.rows import Row
from sources.core.sessions import Session
from sources.core.writing import Courier

_CHUNK = 1_000  # rows that are looked up at once
_OURS = "_dlt_"

Numbered = tuple[int, dict[str, Any]]


class Load:
    """One file of a load package on its way to the CRM.

    Of several rows with one key the last one counts. The journal stays until the next load begins: dlt may
    hand over again what is done. A row that was rejected is tried again when its file comes again.
    """

    def __init__(self, session: Session, name: str, file: Path, folder: Path) -> None:
        self.session = session
        self.write = session.contract.writes[name]
        self.file = file
        self.folder = folder
        self.load_id = file.parent.parent.name
        table, file_id, *_ = file.name.split(".")
        self.run_id = f"{self.load_id}.{table}.{file_id}"
        self.held: list[Held] = []
        self.in_crm: set[str] = set()  # rows that a look showed to be there

    def run(self, columns: Mapping[str, Any]) -> str | None:
        """Send what is not sent yet and tell of the rows that did not land, None where all did.

        Raises `ConnectorError` where the CRM cannot be reached or the rows fit no field.
        """
        incoming = Incoming(self.session, self.write)
        names = incoming.names(_plain_columns(columns, self.session.connection.name))
        self._clear_older()
        journal, story = self._journal()
        try:
            courier = self._courier(journal)
            for chunk in self._chunks(names, story):
                delivery = deliver(courier, self._sendable(incoming.prepared(chunk), story))
                if delivery.error is not None:
                    raise delivery.error
        finally:
            journal.close()
        return self._report(journals.read(journal.path) or story)

    # -- the journal -----------------------------------------------------------------------------

    def _journal(self) -> tuple[Journal, Story]:
        """Begin the file's journal; one that is there is settled first."""
        path = self.folder / f"{self.run_id}.jsonl"
        story = journals.read(path) if path.exists() else None
        if story is None:
            path.unlink(missing_ok=True)
            header = Header(
                self.run_id,
                self.write.object,
                self.session.connection.name,
                self.write.object,
                "",
                datetime.now(UTC),
                "dlt",
            )
            return Journal.begin(self.folder, header), Story(header)
        if story.open:
            self._settle(path, story)
            story = journals.read(path) or story
        return Journal.resume(path), story

    def _settle(self, path: Path, story: Story) -> None:
        journal = Journal.resume(path)
        try:
            courier = self._courier(journal)
            for batch in story.open:
                courier.settle(batch)
        finally:
            journal.close()

    def _clear_older(self) -> None:
        """Settle and drop the journals of earlier loads, which dlt does not hand over any more."""
        for path in journals.left_over(self.folder):
            if path.name.startswith(f"{self.load_id}."):
                continue
            story = journals.read(path)
            if story is not None and story.open:
                self._settle(path, story)
            journals.remove(path)

    def _courier(self, journal: Journal) -> Courier:
        prefix = journals.fresh_prefix(journal.path, "b")
        return Courier(self.session, self.write, journal, run_id=self.run_id, prefix=prefix)

    # -- rows ------------------------------------------------------------------------------------

    def _chunks(self, names: Mapping[str, str], story: Story) -> Iterator[list[Numbered]]:
        """Give the rows that count and have not landed, as many at a time as are looked up at once."""
        column = next(column for column, name in names.items() if name == self.write.key)
        last = {key_of(row.get(column)): seq for seq, row in self._lines()}
        landed = {row.key for row in story.booked if row.status in ("created", "updated")}
        due = (
            (seq, {names[column]: value for column, value in row.items() if column in names})
            for seq, row in self._lines()
            if (key := key_of(row.get(column))) is None or (last[key] == seq and key not in landed)
        )
        while chunk := list(islice(due, _CHUNK)):
            yield chunk

    def _lines(self) -> Iterator[Numbered]:
        from dlt.common.json import json
        from dlt.common.storages import FileStorage

        seq = 0
        with FileStorage.open_zipsafe_ro(str(self.file)) as lines:
            for line in lines:
                rows = json.typed_loads(line)
                for row in [rows] if isinstance(rows, dict) else rows:
                    seq += 1
                    yield seq, row

    def _sendable(self, prepared: Iterable[Row | Held], story: Story) -> Iterator[Row]:
        """Give the rows to send; one whose outcome is unknown is looked at, and not sent again."""
        unknown = {row.key for row in story.booked if row.status == "unknown"}
        for each in prepared:
            if isinstance(each, Held):
                self._keep(each)
            elif each.key not in unknown:
                yield each

    def _keep(self, held: Held) -> None:
        if held.status == "unchanged" and held.key is not None:
            self.in_crm.add(held.key)
        else:
            self.held.append(held)

    # -- the report ------------------------------------------------------------------------------

    def _report(self, story: Story) -> str | None:
        """Keep the rows that did not land in a file of their own, and tell how many there are."""
        rows = [
            {"key": each.key, "status": each.status, "reason": each.reason, "fields": each.fields}
            for each in self.held
        ]
        rows += [
            {"key": each.key, "status": each.status, "reason": each.error, "fields": values_of(each.sent)}
            for each in story.booked
            if each.status in ("rejected", "unknown") and each.key not in self.in_crm
        ]
        path = self.folder / f"{self.run_id}.left.ndjson"
        if not rows:
            path.unlink(missing_ok=True)
            return None
        _write(path, b"".join(encode_json(row) + b"\n" for row in rows))
        counts = Counter(str(row["status"]) for row in rows)
        if not counts.keys() - {"skipped"}:
            return None
        told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        place = f"{self.session.connection.name} {self.write.object}"
        return f"{place}: not every row landed ({told}). They are listed with the reasons in {path}"


def _plain_columns(columns: Mapping[str, Any], connection: str) -> list[str]:
    """Give the columns that are not dlt's own; one that it split by type would lose values."""
    named = {name: each for name, each in columns.items() if not name.startswith(_OURS)}
    if split := [name for name, each in named.items() if each.get("variant")]:
        raise ConfigError(
            f"values of another type came into column '{split[0]}'",
            connection=connection,
            hint="Give the column one type, or say it in the resource's `columns`.",
        )
    return list(named)


def _write(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as target:
        target.write(content)
