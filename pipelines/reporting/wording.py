"""How numbers, amounts, dates and spans read on the page of `roundtrip report`."""

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

NOTHING = "–"
_GAP = "\N{NO-BREAK SPACE}"
_SHORT = ((Decimal("999.5e9"), "T", 12), (Decimal("999.5e6"), "bn", 9), (Decimal("999.5e3"), "M", 6))


def whole(count: int) -> str:
    """Write a count: `12,345`."""
    return f"{count:,}"


def capital(text: str) -> str:
    """Write a text with a capital letter first, and the rest as it is."""
    return text[:1].upper() + text[1:]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun: `1 deal`, `2 deals`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def amount(value: Decimal | None) -> str:
    """Write an amount of money short enough to compare: `950`, `12,300`, `1.24 M`, `9.12 bn`."""
    if value is None:
        return NOTHING
    for limit, name, power in _SHORT:
        if abs(value) >= limit:
            return f"{value / Decimal(10) ** power:,.2f}{_GAP}{name}"
    return f"{value:,.0f}"


def money(value: Decimal | None, currency: str) -> str:
    """Write an amount with its currency, which may be unknown."""
    return f"{amount(value)}{_GAP}{currency}" if value is not None else NOTHING


def share(part: int, of: int) -> str:
    """Write a share as a percentage."""
    return f"{100 * part / of:.0f}{_GAP}%" if of else NOTHING


def days(value: float | None) -> str:
    """Write a span in days."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def span(seconds: float | None) -> str:
    """Write a span in the largest unit that tells enough: `45 s`, `12 min`, `5 h`, `3 days`."""
    if seconds is None:
        return NOTHING
    if seconds < 90:
        return f"{seconds:.0f}{_GAP}s" if seconds >= 10 else f"{seconds:.1f}{_GAP}s"
    if seconds < 5400:
        return f"{seconds / 60:.0f}{_GAP}min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f}{_GAP}h"
    return f"{seconds / 86_400:,.0f}{_GAP}days"


def day(value: date | datetime | None) -> str:
    """Write a day, `21 Nov 2026`, with spaces at which no line breaks."""
    return f"{value.day}{_GAP}{value:%b}{_GAP}{value:%Y}" if value else NOTHING


def minute(value: datetime | None) -> str:
    """Write a moment to the minute, in UTC as all times here."""
    return f"{day(value)},{_GAP}{value:%H:%M}" if value else NOTHING


def month(value: date) -> str:
    """Write a month: `Nov 2026`."""
    return f"{value:%b}{_GAP}{value:%Y}"


def joined(words: Iterable[Any]) -> str:
    """Write a list: `a, b and c`."""
    *first, last = [str(word) for word in words] or [""]
    return f"{', '.join(first)} and {last}" if first else last
