"""The page of `roundtrip report`: one HTML file that needs nothing but itself.

Every text goes through Jinja's escaping, and its control characters are made visible before. The page's
security policy allows nothing but its own style: no script, no picture, no address.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pipelines.render import clean
from pipelines.reporting.charts import PAPER_PX, PHONE_PX, Chart, svg
from pipelines.reporting.sections import Section, Tile


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page says."""

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    warnings: Sequence[str]
    sections: Sequence[Section]
    footer: str


def render(page: Page) -> str:
    """Write the page as HTML."""
    import jinja2
    from markupsafe import Markup

    def drawn(chart: Chart) -> list[tuple[str, Any]]:
        widths = {"desk": chart.width_px, "phone": PHONE_PX}
        if chart.width_px > PAPER_PX:
            widths = {"desk screen": chart.width_px, "paper": PAPER_PX, "phone": PHONE_PX}
        return [(screen, Markup(svg(chart, width))) for screen, width in widths.items()]  # noqa: S704  (drawn here)

    style = _read("page.css")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(_read("page.html"))
    return template.render(
        page=page,
        drawn=drawn,
        style=Markup(style),  # noqa: S704  (our own file)
        policy=_policy(style),
        color_class=lambda color: color.removeprefix("var(--").removesuffix(")"),
    )


def _shown(value: Any) -> Any:
    """Make control characters of a text visible; what is HTML already has none."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else clean(value)


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _read(name: str) -> str:
    return resources.files("pipelines.reporting").joinpath(name).read_text(encoding="utf-8")
