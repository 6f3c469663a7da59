"""When records are looked at again, and what has come into a CRM since: every change is listed once.

How changes are listed is the CRM modules' knowledge, what follows for a row `writing`'s.
"""

import threading
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Recheck:
    """When records are looked at again before they are changed: once the last look is older than `after`.

    Of a record that was edited since, nothing is written, or with `keeps_rest` all that was not edited.
    """

    looked_at: datetime
    after: timedelta
    keeps_rest: bool = False

    def is_due(self, now: datetime) -> bool:
        """Tell whether what is known of the records is too old to write on it."""
        return now - self.looked_at > self.after


class Arrived:
    """The keys of records made or changed since a look, asked for again once they are older than `after`."""

    def __init__(self, looked_at: datetime, after: timedelta) -> None:
        self._seen_at = looked_at
        self._after = after
        self._keys: set[Hashable] = set()
        self._lock = threading.Lock()

    def keys(
        self,
        read: Callable[[datetime], Collection[Hashable] | None],
        now: Callable[[], datetime],
        *,
        at_once: bool,
    ) -> Collection[Hashable] | None:
        """Give the keys, with `at_once` as of now; None where they cannot be read."""
        with self._lock:
            asked_at = now()
            if at_once or asked_at - self._seen_at > self._after:
                found = read(self._seen_at)
                if found is None:
                    return None
                self._keys.update(found)
                self._seen_at = asked_at
            return self._keys
