"""What a pull came to: its exit code, and each resource's part as programs get it."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.pulling.fetching import Reading
from sources.core.errors import AuthError, GuardError


@dataclass(slots=True)
class PullResult:
    """What a pull did; `exit_code` and `payload` are the command line's."""

    run_id: str | None
    readings: list[Reading] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """Give the exit code: 130 before 3 before 5 before 1."""
        if self.interrupted:
            return 130
        errors = [reading.error for reading in self.readings if reading.error]
        is_key_refused = any(isinstance(error, AuthError) and error.status == 401 for error in errors)
        if is_key_refused or any(map(self._may_nothing, {reading.connection for reading in self.readings})):
            return 3
        if any(isinstance(error, GuardError) for error in errors):
            return 5
        return 1 if errors else 0

    @property
    def looked(self) -> list[tuple[str, str]]:
        """List what was seen to its end; an operator's own window tells nothing of what lies outside."""
        return [
            (reading.connection, reading.resource.name)
            for reading in self.readings
            if reading.complete and reading.error is None and not reading.backfill
        ]

    def _may_nothing(self, connection: str) -> bool:
        """Tell whether a CRM refused all that was asked of it and is there."""
        asked = [each for each in self.readings if each.connection == connection and not each.absent]
        return bool(asked) and all(isinstance(each.error, AuthError) for each in asked)

    @property
    def status(self) -> str:
        """Name the run's end as the interface does."""
        return {0: "ok", 3: "refused", 5: "guarded", 130: "interrupted"}.get(self.exit_code, "failed")

    @property
    def error(self) -> str | None:
        """Give the first error's line."""
        return next((str(reading.error) for reading in self.readings if reading.error), None)

    def payload(self) -> dict[str, Any]:
        """Give the JSON keys of `roundtrip pull`."""
        return {"resources": [_entry(reading) for reading in self.readings]}


def _entry(reading: Reading) -> dict[str, Any]:
    mark = reading.state.watermark
    return {
        "connection": reading.connection,
        "resource": reading.resource.name,
        "status": _status(reading),
        "pages": reading.pages,
        "rows": reading.rows,
        "new": reading.new,
        "changed": reading.changed,
        "unchanged": reading.unchanged,
        "deleted": reading.deleted,
        "watermark": mark.isoformat() if mark else None,
        "error": str(reading.error) if reading.error else None,
        "strategy": reading.strategy,
        "counts": reading.counts | {"repairs": reading.repairs},
    }


def _status(reading: Reading) -> str:
    if isinstance(reading.error, GuardError):
        return "guarded"
    if isinstance(reading.error, AuthError):
        return "refused"
    if reading.error is not None:
        return "failed"
    if reading.absent:
        return "absent"
    return "ok" if reading.complete else "interrupted"
