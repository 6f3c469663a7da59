"""A sealed plan as a file: made by one run, read by people, carried out by another, perhaps elsewhere.

JSON lines: a header (format, sync, target, state, seal), one line per row, and a last line with the count and
the digest of all before it. A push of the file sends its rows as long as each is what would be planned now;
what is sent is always this machine's own plan, so a file that somebody edited sends nothing.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sources.core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.plan import Plan

FORMAT = "roundtrip plan"
VERSION = 1
_CHUNK = 20_000
_COLUMNS = ("key", "crm_id", "action", "match", "status", "reason", "fields", "before")


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One row of the file; the values stay the very text they were planned as."""

    key: str | None
    crm_id: str | None
    action: str | None
    match: str | None
    status: str
    reason: str | None
    fields: msgspec.Raw
    before: msgspec.Raw


class _Header(msgspec.Struct):
    format: str
    version: int
    sync: str
    target: dict[str, str]
    definition: Any
    made_at: datetime
    seal: str
    state: dict[str, Any]
    counts: dict[str, int]


class _Trailer(msgspec.Struct, forbid_unknown_fields=True):
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan file that is whole: its header and its rows."""

    path: Path
    header: _Header
    lines: list[_Line]


# -- writing -------------------------------------------------------------------------------------


def write(made: "Plan", path: Path) -> int:
    """Write a plan to a file that only its owner can read, and count its rows; an older one is replaced."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                rows = _write_lines(made, file.write)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror})",
            hint="Name a file in a folder that can be written.",
        ) from error
    return rows


def _write_lines(made: "Plan", put: Any) -> int:
    digest, rows = hashlib.sha256(), 0
    for line in _lines(made):
        digest.update(line)
        put(line)
        rows += 1
    put(_encoded({"rows": rows - 1, "sha256": digest.hexdigest()}))
    return rows - 1


def _lines(made: "Plan") -> Iterator[bytes]:
    yield _encoded(_header_of(made))
    # What was edited in the CRM stays as it is, and what both sides share is no news: neither is handed over.
    rows = made.con.execute(
        f"""
        select {", ".join(_COLUMNS)} from plan_rows
        where (status = 'planned' and seq <= ?) or status in ('rejected', 'skipped', 'conflict', 'unknown')
        order by status = 'planned' desc, seq
        """,
        [made.last_seq],
    )
    while chunk := rows.fetchmany(_CHUNK):
        for *names, fields, before in chunk:
            head = json.dumps(dict(zip(_COLUMNS, names, strict=False)), ensure_ascii=False)
            yield f'{head[:-1]}, "fields": {fields}, "before": {before}}}\n'.encode()


def _header_of(made: "Plan") -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "sync": made.sync.name,
        "target": target_of(made),
        "definition": definition_of(made),
        "made_at": datetime.now(UTC).isoformat(),
        "seal": made.seal,
        "state": {"looked_at": None if made.looked_at is None else made.looked_at.isoformat()},
        "counts": made.counts(),
    }


def target_of(made: "Plan") -> dict[str, str]:
    """Name where a plan's rows go, the workspace's address included."""
    connection = made.connection
    return {
        "connection": connection.name,
        "crm": connection.crm,
        "base_url": connection.base_url,
        "object": made.write.object,
    }


def definition_of(made: "Plan") -> Any:
    """Give the sync's settings as JSON has them; guards may differ between those who plan and who push."""
    kept = {name: each for name, each in asdict(made.sync).items() if name not in _GUARDS}
    return json.loads(json.dumps(kept, default=str))


_GUARDS = ("max_changes", "max_age", "recheck_after")


def _encoded(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


# -- reading -------------------------------------------------------------------------------------


def read(path: Path, sync: str) -> PlanFile:
    """Read a plan file; `ConfigError` where it is damaged, of another version, or of another sync."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    body, newline, last = data.rstrip(b"\n").rpartition(b"\n")
    header = _decoded(path, data.partition(b"\n")[0], _Header)
    if header.format != FORMAT or header.version != VERSION:
        raise _unfit(path, f"is not a plan of version {VERSION}")
    trailer = _decoded(path, last, _Trailer)
    if hashlib.sha256(body + newline).hexdigest() != trailer.sha256:
        raise _unfit(path, "is not as it was written: its digest differs")
    if header.sync != sync:
        raise _unfit(path, f"is a plan of {header.sync}, not of {sync}")
    lines = [_decoded(path, line, _Line) for line in body.split(b"\n")[1:]]
    if len(lines) != trailer.rows:
        raise _unfit(path, "is not as it was written: rows are missing")
    return PlanFile(path, header, lines)


def _decoded(path: Path, line: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unfit(path, "is no whole plan file") from error


def _unfit(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path.name} {why}; nothing was sent", hint="Make it anew: `roundtrip plan SYNC --out`."
    )
