"""Made-up records of the measuring server: serialised rows, what was touched, what stayed in its place."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

BASE = datetime(2026, 1, 1, tzinfo=UTC)  # no untouched record is newer
_SPREAD = 500_000  # minutes before that over which the stamps of untouched records are spread
_FIRST = "Ada Grace Linus Mira Noor Olga Pavel Quim Rosa Sven Tara Uwe".split()
_LAST = "Berg Costa Diaz Ek Fox Gomez Haas Ito Jansen Kim Lopez Moreau".split()


@dataclass(frozen=True, slots=True)
class Kind:
    """One list: how a record of it is written, and its name in the change feed."""

    write: Callable[[int, int, str], str]
    feed: str = ""


def _relm_contact(number: int, score: int, stamp: str) -> str:
    first, last = _FIRST[number % 12], _LAST[number // 12 % 12]
    return (
        f'{{"id":"con_{number:08d}","object":"contact","email":"{first.lower()}.{number}@example.com",'
        f'"first_name":"{first}","last_name":"{last}","phone":"+49 30 {number % 9_000_000:07d}",'
        f'"company_id":"com_{number // 7:07d}",'
        f'"metadata":{{"lead_score":{score},"city":"Town {number % 97}"}},'
        f'"created_at":"2025-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:{number % 60:02d}:00Z",'
        f'"updated_at":"{stamp}"}}'
    )


def _relm_deal(number: int, score: int, stamp: str) -> str:
    return (
        f'{{"id":"dea_{number:08d}","object":"deal","title":"Deal {number}","value_cents":{number * 100},'
        f'"currency":"EUR","stage":"{("lead", "offer", "won", "lost")[score % 4]}","close_date":"2026-03-01",'
        f'"company_id":"com_{number // 7:07d}","primary_contact_id":"con_{number:08d}","metadata":{{}},'
        f'"created_at":"2025-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:{number % 60:02d}:00Z",'
        f'"updated_at":"{stamp}"}}'
    )


def _relm_other(number: int, score: int, stamp: str) -> str:
    return (
        f'{{"id":"oth_{number:08d}","object":"other","metadata":{{"lead_score":{score}}},'
        f'"created_at":"2025-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:{number % 60:02d}:00Z",'
        f'"updated_at":"{stamp}"}}'
    )


def _rally_contact(number: int, score: int, stamp: str) -> str:
    first, last = _FIRST[number % 12], _LAST[number // 12 % 12]
    return (
        f'{{"id":"{number:08d}","tenantId":"t1","firstName":"{first}","lastName":"{last}",'
        f'"email":"{first.lower()}.{number}@example.com","phone":"+49 30 {number % 9_000_000:07d}",'
        f'"title":"Engineer","companyId":"{number // 7:07d}","leadScore":{score},"isUnsubscribed":false,'
        f'"createdAt":"2025-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:{number % 60:02d}:00Z",'
        f'"updatedAt":"{stamp}"}}'
    )


KINDS = {
    "/v1/contacts": Kind(_relm_contact),
    "/v1/companies": Kind(_relm_other),
    "/v1/deals": Kind(_relm_deal),
    "/v1/activities": Kind(_relm_other),
    "/v1/associations": Kind(_relm_other),
    "/v1/schema/fields": Kind(_relm_other),
    "/contacts": Kind(_rally_contact, "contact"),
    "/companies": Kind(_rally_contact, "company"),
    "/deals": Kind(_rally_contact, "deal"),
    "/activities": Kind(_rally_contact, "activity"),
}


class Rows:
    """The rows of one list in the order in which it is served."""

    def __init__(self, kind: Kind, records: int) -> None:
        self.kind = kind
        self.touched: dict[int, datetime] = {}
        self.seq: dict[int, int] = {}
        self.scores = [number % 101 for number in range(records)]
        self.ids = [_id_of(self._write(number)) for number in range(records)]
        self.rows = [self._write(number).encode() for number in range(records)]
        self._moved: set[bytes] = set()
        self._windows: dict[str, Sequence[bytes]] = {}
        self._created = records

    def _write(self, number: int) -> str:
        moment = self.touched.get(number, BASE - timedelta(minutes=number % _SPREAD))
        return self.kind.write(number, self.scores[number], f"{moment:%Y-%m-%dT%H:%M:%SZ}")

    def since(self, moment: str | None) -> Sequence[bytes]:
        """Give the rows changed since a moment; the list is made once, not for every page."""
        if moment is None:
            return self.rows
        if moment not in self._windows:
            self._windows[moment] = self._since(moment)
        return self._windows[moment]

    def _since(self, moment: str) -> Sequence[bytes]:
        since = datetime.fromisoformat(moment)
        if since <= BASE - timedelta(minutes=_SPREAD):
            return self.rows
        if self._moved:
            return [row for row in self.rows if _stamp_of(row) >= since]
        newest = int((BASE - since) / timedelta(minutes=1)) + 1 if since <= BASE else 0
        places = {place for at in range(newest) for place in range(at, len(self.rows), _SPREAD)}
        found = (self.rows[place] for place in sorted(places | self.touched.keys()))
        return [row for row in found if _stamp_of(row) >= since]

    def touch(self, number: int) -> None:
        """Change the score of so many records, spread over the list, now."""
        now = datetime.now(UTC).replace(microsecond=0)
        self._windows.clear()
        stride = max(1, len(self.rows) // number) if number else 1
        for place in range(0, number * stride, stride):
            self.scores[place] += 1
            self.touched[place] = now
            self.seq[place] = len(self.seq) + 1
            self.rows[place] = self._write(place).encode()

    def mutate(self, rng: random.Random) -> None:
        """Delete a random row, or put a new one into a random place."""
        self._windows.clear()
        place = rng.randrange(len(self.rows))
        if rng.random() < 0.5:
            self._moved.add(self.rows.pop(place))
            return
        self.scores.append(0)
        row = self._write(self._created).encode()
        self._created += 1
        self.rows.insert(place, row)
        self._moved.add(row)

    def settled(self) -> list[str]:
        """List the ids of the rows that stood in the list all the time."""
        return [_id_of(row.decode()) for row in self.rows if row not in self._moved]

    def facts(self) -> dict[str, Any]:
        """Give what a copy of the list must come to: rows, distinct ids and the sum of the scores."""
        return {"rows": len(self.rows), "ids": len(set(self.ids)), "sum": sum(self.scores)}


def _id_of(row: str) -> str:
    return row[7 : row.index('"', 7)]


def _stamp_of(row: bytes) -> datetime:
    return datetime.fromisoformat(row[-22:-2].decode())
