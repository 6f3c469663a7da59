"""The journal of one push: what was about to be sent, and what came of it, on disk at every instant.

An append-only file of JSON lines: a header, then an `intent` with the exact bytes before each request and an
`outcome` after it. After a kill the file tells which requests may or may not have been applied. It is folded
into the warehouse at the end, and deleted only when that generation is published.
"""

import base64
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from sources.core.bodies import decode_json, encode_json
from sources.core.connector import Call
from sources.core.errors import ProtocolError
from sources.core.rows import Action, Match, Outcome, Row
from sources.core.writing import Batch

VERSION = 2
_whole = msgspec.json.Decoder(msgspec.Raw).decode
_CLOSED = {"created", "updated", "deleted", "unchanged", "rejected", "conflict", "unknown"}
_TELLING = {"rejected", "conflict", "unknown"}  # the statuses that come with a reason


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal is about; `command` is the run that began it."""

    run_id: str
    sync: str
    connection: str
    object: str
    seal: str
    started_at: datetime
    command: str = "push"


class Booked(msgspec.Struct, frozen=True, gc=False):
    """One row of a push as `roundtrip.push_log` takes it; `status` is a status of the interface.

    `sent` and `replaced` are mappings, or their JSON as a journal has it; `values_of` reads both.

    It was in the CRM's hands from `sent_at` on; at `pushed_at` what became of it was known. A look at the
    CRM in between may have come too early to find it. `verified` and `shown` are what reading it back told:
    verified, differs or not_seen, and the values.
    """

    key: str | None
    crm_id: str | None
    action: str | None
    status: str
    sent: Any
    replaced: Any
    error: str | None
    batch_id: str | None
    pushed_at: str
    sent_at: str | None = None
    seq: int | None = None
    verified: str | None = None
    shown: Any = None


@dataclass(slots=True)
class Story:
    """A journal as read: what is certain, and the batches whose outcome is not.

    `adopted` are rows of which model and CRM came to the same values by themselves.
    """

    header: Header
    booked: list[Booked] = field(default_factory=list)
    adopted: list[Booked] = field(default_factory=list)
    open: list[Batch] = field(default_factory=list)


class Journal:
    """Append to one journal; safe to call from several threads, on disk when a call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._end = os.fstat(self._file).st_size
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, folder: Path, header: Header) -> "Journal":
        """Start the journal of a run; its name is on disk as well when this returns."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = cls(folder / f"{header.run_id}.jsonl")
        journal.append({"type": "header", "version": VERSION, **_plain_header(header)})
        sync_folder(folder)
        return journal

    @classmethod
    def resume(cls, path: Path) -> "Journal":
        """Go on with a journal that a kill left behind; a line cut by it is taken off first."""
        whole = path.read_bytes()
        journal = cls(path)
        journal._end = whole.rfind(b"\n") + 1
        os.ftruncate(journal._file, journal._end)
        return journal

    def intent(self, batch: Batch) -> None:
        """Keep a request and its rows before it is sent."""
        call = batch.call
        entry = {
            "type": "intent",
            "batch": batch.id,
            "lane": batch.lane,
            "idempotency_key": batch.idempotency_key,
            "method": call.method,
            "path": call.path,
            "headers": dict(call.headers),
            "sha256": hashlib.sha256(call.body).hexdigest(),
            "sent_at": batch.sent_at.isoformat(),
            "rows": [
                (row.seq, row.key, row.crm_id, row.action, row.match, row.fields, row.before)
                for row in batch.rows
            ],
        }
        self.append(entry | _plain_body(call.body))

    def outcome(self, batch_id: str, outcomes: Sequence[Outcome], *, at: datetime) -> None:
        """Keep what became of rows of a batch, and when that was known."""
        self.append({"type": "outcome", "batch": batch_id, "at": at.isoformat(), "rows": outcomes})

    def withheld(self, rows: Sequence[Row], outcomes: Sequence[Outcome], *, at: datetime) -> None:
        """Keep rows that a look just before the sending held back, with what it showed."""
        verdicts = {each.seq: each for each in outcomes}
        self.held(booked_unsent(row, verdicts[row.seq].verdict, verdicts[row.seq].reason, at) for row in rows)

    def shown(self, rows: Iterable[Booked]) -> None:
        """Keep what the CRM showed when rows were read back."""
        told = [_Sight(row.seq, row.verified, row.shown) for row in rows]
        self.append({"type": "shown", "rows": told})

    def held(self, rows: Iterable[Booked]) -> None:
        """Keep rows that are not sent, with the reason."""
        self._append_many("held", rows)

    def adopted(self, rows: Iterable[Booked]) -> None:
        """Keep rows whose values model and CRM already share."""
        self._append_many("adopted", rows)

    def append(self, entry: dict[str, Any]) -> None:
        """Append one line and wait until the disk has it; of a line that does not fit nothing stays."""
        line = encode_json(entry) + b"\n"
        with self._lock:
            try:
                _write_all(self._file, line)
                os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
            self._end += len(line)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._file)

    def _append_many(self, kind: str, rows: Iterable[Booked]) -> None:
        part: list[Booked] = []
        for row in rows:
            part.append(row)
            if len(part) == 500:
                self.append({"type": kind, "rows": part})
                part = []
        if part:
            self.append({"type": kind, "rows": part})


class NoJournal:
    """A log that keeps nothing, where nothing is sent."""

    def intent(self, batch: Batch) -> None:
        """Keep nothing."""

    def outcome(self, batch_id: str, outcomes: Sequence[Outcome], *, at: datetime) -> None:
        """Keep nothing."""

    def withheld(self, rows: Sequence[Row], outcomes: Sequence[Outcome], *, at: datetime) -> None:
        """Keep nothing."""


def left_over(folder: Path) -> list[Path]:
    """List the journals that wait for folding, oldest first."""
    return sorted(folder.glob("*.jsonl")) if folder.exists() else []


def read(path: Path) -> Story | None:
    """Read a journal, a torn last line left out; None when not even its header is whole.

    `ProtocolError` when a whole line is damaged: then nothing in it can be trusted.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        return None
    story = Story(_header(path, first))
    reader = _Reader(story)
    for line in lines:
        reader.take(_read_line(path, line))
    reader.close()
    return story


def fresh_prefix(path: Path, letter: str) -> str:
    """Begin the ids of batches as no earlier life of a journal did: since then it has grown."""
    return f"{letter}{path.stat().st_size}."


def remove(path: Path) -> None:
    """Delete a journal whose rows are published."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Reader:
    """Bring intents and outcomes together, row by row: the last word on a row counts."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.batches: dict[str, _Intent] = {}
        self.asked: dict[int, str] = {}  # seq -> the batch that carried it last
        self.told: dict[int, tuple[Outcome, str]] = {}
        self.shown: dict[int, _Sight] = {}

    def take(self, line: "_Line") -> None:
        match line:
            case _Intent():
                self.batches[line.batch] = line
                for row in line.rows:
                    self.asked[row.seq] = line.batch
                    self.told.pop(row.seq, None)
            case _Told():
                self.told.update((each.seq, (each, line.at)) for each in line.rows)
            case _Shown():
                self.shown |= {each.seq: each for each in line.rows if each.seq is not None}
            case _Held():
                self.story.booked.extend(line.rows)
            case _Adopted():
                self.story.adopted.extend(line.rows)

    def close(self) -> None:
        for intent in self.batches.values():
            mine = [row for row in intent.rows if self.asked[row.seq] == intent.batch]
            if all(row.seq in self.told for row in mine):
                self.story.booked.extend(self._booked(intent, mine))
            else:
                self.story.open.append(_batch(intent))

    def _booked(self, intent: "_Intent", rows: Sequence["_Planned"]) -> Iterator[Booked]:
        for row in rows:
            outcome, at = self.told[row.seq]
            if outcome.verdict not in _CLOSED:
                continue
            booked = _booked_row(row, outcome, intent, at)
            sight = self.shown.get(row.seq)
            if sight is not None:
                booked = msgspec.structs.replace(booked, verified=sight.verified, shown=sight.shown)
            yield booked


def values_of(held: Any) -> dict[str, Any]:
    """Read the values of a booked row, which a journal leaves as JSON until somebody asks."""
    values: dict[str, Any] = decode_json(held) if isinstance(held, msgspec.Raw) else held
    return values


def _booked_row(row: "_Planned", outcome: Outcome, intent: "_Intent", at: str) -> Booked:
    """Make the log's entry of a sent row."""
    status = "updated" if outcome.verdict == "unchanged" else outcome.verdict
    is_other = row.crm_id and outcome.crm_id not in (None, row.crm_id)
    return Booked(
        key=row.key,
        crm_id=outcome.crm_id or row.crm_id,
        action=row.action,
        status=status,
        sent=row.fields,
        replaced={} if is_other else row.before,  # what another record than the planned one held is not known
        error=outcome.reason if status in _TELLING else None,
        batch_id=intent.batch,
        pushed_at=at,
        sent_at=intent.sent_at,
        seq=row.seq,
    )


def booked_unsent(row: Row, status: str, reason: str | None, at: datetime) -> Booked:
    """Make the log's entry of a planned row that was not sent."""
    return Booked(
        key=row.key,
        crm_id=row.crm_id,
        action=row.action,
        status=status,
        sent=row.fields,
        replaced=row.before,
        error=reason,
        batch_id=None,
        pushed_at=at.isoformat(),
    )


# -- lines ---------------------------------------------------------------------------------------


class _Planned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row as its intent has it."""

    seq: int
    key: str
    crm_id: str | None
    action: Action
    match: Match
    fields: msgspec.Raw
    before: msgspec.Raw


class _Sight(msgspec.Struct, frozen=True):
    """What reading a row back told."""

    seq: int | None
    verified: str | None
    shown: Any


class _Intent(msgspec.Struct, frozen=True, tag_field="type", tag="intent"):
    batch: str
    lane: str
    idempotency_key: str
    method: str
    path: str
    headers: dict[str, str]
    sent_at: str
    rows: list[_Planned]
    json: msgspec.Raw = msgspec.Raw()
    body: str | None = None
    body_base64: str | None = None


class _Told(msgspec.Struct, frozen=True, tag_field="type", tag="outcome"):
    at: str
    rows: list[Outcome]


class _Shown(msgspec.Struct, frozen=True, tag_field="type", tag="shown"):
    rows: list[_Sight]


class _Held(msgspec.Struct, frozen=True, tag_field="type", tag="held"):
    rows: list[Booked]


class _Adopted(msgspec.Struct, frozen=True, tag_field="type", tag="adopted"):
    rows: list[Booked]


_Line = _Intent | _Told | _Shown | _Held | _Adopted
_line = msgspec.json.Decoder(_Line, float_hook=Decimal).decode


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line


def _read_line(path: Path, line: bytes) -> _Line:
    try:
        line.decode()  # values that stay JSON are not looked at otherwise
        read: _Line = _line(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(path) from error
    return read


def _damaged(path: Path) -> ProtocolError:
    return ProtocolError(f"{path.name} is damaged", hint=f"Look at it, then move it out of {path.parent}.")


def _header(path: Path, line: bytes) -> Header:
    entry = _first(path, line)
    try:
        if entry["type"] != "header" or entry["version"] != VERSION:
            raise KeyError
        return Header(
            **{
                **_without(entry, "type", "version"),
                "started_at": datetime.fromisoformat(entry["started_at"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"{path.name} is not a journal of this version",
            hint=f"Look at it, then move it out of {path.parent}.",
        ) from error


def _first(path: Path, line: bytes) -> Any:
    try:
        return decode_json(line)
    except ProtocolError as error:
        raise _damaged(path) from error


def _plain_header(header: Header) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(header)
    return plain | {"started_at": header.started_at.isoformat()}


def _plain_body(body: bytes) -> dict[str, Any]:
    """Keep a body as it is where it is JSON on one line, else so that the same bytes come back."""
    try:
        raw = _whole(body)
        if b"\n" not in body and bytes(raw) == body:
            return {"json": raw}
    except msgspec.DecodeError:
        pass
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def _batch(intent: _Intent) -> Batch:
    rows = (
        Row(
            each.seq,
            each.key,
            each.crm_id,
            each.action,
            decode_json(each.fields),
            decode_json(each.before),
            match=each.match,
        )
        for each in intent.rows
    )
    return Batch(
        id=intent.batch,
        lane=intent.lane,
        rows=tuple(rows),
        call=Call(intent.method, intent.path, _body(intent), intent.headers),
        idempotency_key=intent.idempotency_key,
        sent_at=datetime.fromisoformat(intent.sent_at),
    )


def _body(intent: _Intent) -> bytes:
    if intent.body is not None:
        return intent.body.encode()
    return bytes(intent.json) if intent.body_base64 is None else base64.b64decode(intent.body_base64)


def _without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}


def _write_all(file: int, line: bytes) -> None:
    while line:
        line = line[os.write(file, line) :]
