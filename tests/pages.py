"""The page of `roundtrip report`, taken apart: its tags, its sections, their titles, tables and drawings."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

_EMPTY = {"meta", "br"}


@dataclass
class Part:
    """One section: what it says, and its tables as rows of cells, heads first."""

    title: str = ""
    text: str = ""
    drawings: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)

    def row(self, name: str) -> list[str]:
        """Give the cells after the name of the row of that name."""
        found = [row for table in self.tables.values() for row in table if row[0] == name]
        return found[0][1:]


class Parsed(HTMLParser):
    """A page as its readers' programs see it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.source = page.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self.parts: dict[str, Part] = {}
        self._open: list[str] = []
        self._part = Part()
        self._table: list[list[str]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        found = dict(attributes)
        self.tags.append((tag, found))
        if tag == "section" and found.get("id"):
            self._part = self.parts.setdefault(found["id"], Part())
        elif tag == "svg":
            self._part.drawings.append(found["aria-label"])
        elif tag == "table":
            self._table = []
        elif tag == "tr":
            self._table.append([])
        elif tag in {"th", "td"}:
            self._table[-1].append("")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} is closed where it is not open"
        if tag == "section":
            self._part = Part()

    def handle_data(self, data: str) -> None:
        here = self._open[-1] if self._open else ""
        if here == "style":
            self.style += data
            return
        data = readable(data)
        self.text += data
        self._part.text += data
        if here == "h2":
            self._part.title += data
        elif here == "caption":
            self._part.tables[data] = self._table
        elif "td" in self._open or here == "th":
            self._table[-1][-1] += data


def readable(text: str) -> str:
    """Put common spaces where the page keeps words together."""
    return text.replace("\N{NO-BREAK SPACE}", " ")
