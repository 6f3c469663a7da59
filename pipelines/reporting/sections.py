"""What the page of `roundtrip report` is made of: tiles, and sections with charts beside their tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.reporting.charts import HALF_PX, Chart


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells as a reader sees them; columns from `first_number` on are numbers, set to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    first_number: int = 1
    states: Mapping[str, str] = field(default_factory=dict)  # a cell's text and the colour of its mark


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the page's head, with the lines that explain it."""

    name: str
    figure: str
    lines: Sequence[str] = ()
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One question and its answer; `title` says what one sees, `note` how it was counted.

    A section without charts and tables is its title and note alone: what would be an empty chart is said.
    A `folded` table is long, and lies behind a line to click; it is printed all the same.
    """

    anchor: str
    topic: str
    title: str
    note: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()

    @property
    def is_small(self) -> bool:
        """Tell whether the charts are small ones that stand side by side."""
        return len(self.charts) > 1

    @property
    def is_beside(self) -> bool:
        """Tell whether the table stands beside its one chart, where there is room."""
        return len(self.charts) == 1 and self.charts[0].width_px <= HALF_PX and len(self.tables) == 1
