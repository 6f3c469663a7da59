"""What is learnt while the rows of a refused batch are parted: which are bad, or that all of them are.

Pure bookkeeping; the requests are `writing`'s.
"""

import re
from collections.abc import Sequence

from sources.core.rows import Outcome, Row

_MOST_ALONE = (
    2  # rows refused alone for one reason, with nothing landed, before rows from elsewhere are tried
)
_MOST_NAMED = 4  # the same where the answers name the rows
_ENOUGH = 4  # rows refused alike that show the reason to lie in no single row
_TAKEN = frozenset({"created", "updated", "deleted", "unchanged"})
_DETAILS = re.compile(r"\S*[\d@]\S*|'[^']*'|\"[^\"]*\"")  # by which reasons differ from row to row


class Parting:
    """One refused batch on its way into parts; `tried` are the rows of which the outcome is known."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.tried: set[int] = set()
        self.overtaken: set[int] = set()
        self.reason = ""
        self._reasons: set[str] = set()
        self._alone = 0
        self._named = 0
        self._has_landed = False
        self._is_sampled = False

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """Take in what became of a request: rows that landed, or one that went alone."""
        self._has_landed = self._has_landed or any(each.verdict in _TAKEN for each in outcomes)
        if len(outcomes) == 1 and outcomes[0].verdict != "absent":
            self.tried.add(outcomes[0].seq)
            self._alone += outcomes[0].verdict == "rejected"
            self._note(outcomes)

    def named(self, outcomes: Sequence[Outcome]) -> None:
        """Take in which rows the refusal of a whole batch named."""
        self.tried.update(each.seq for each in outcomes)
        self._named += 1
        self._note(outcomes)

    def samples(self) -> list[Row]:
        """Give rows from elsewhere in the batch to be tried, once, where all so far were refused alike."""
        is_due = self._alone >= _MOST_ALONE or self._named >= _MOST_NAMED
        if self._is_sampled or not is_due or not self._is_alike():
            return []
        self._is_sampled = True
        chosen = {row.seq: row for row in (self.rows[-1], self.rows[len(self.rows) // 2])}
        return [row for row in chosen.values() if row.seq not in self.tried]

    def is_hopeless(self) -> bool:
        """Tell whether rows from all over the batch were refused for the same reason, and none landed."""
        return self._is_sampled and self._is_alike() and self._alone + self._named >= _ENOUGH

    def _is_alike(self) -> bool:
        return not self._has_landed and len(self._reasons) == 1

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        for each in outcomes:
            if each.verdict == "rejected":
                self.reason = each.reason or "no reason given"
                self._reasons.add(_DETAILS.sub("", self.reason))
