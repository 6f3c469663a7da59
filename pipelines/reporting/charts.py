"""The charts of the page: Vega-Lite specifications, drawn to SVG here and now.

The page so needs no script at all: what a reader gets is still, prints as sharp as text and takes its
colours from the page's own (`var(--…)`), in the light as in the dark. Each chart is drawn for a
desk, for a phone and, where it is wide, for paper, because letters must not shrink with the drawing.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from pipelines.render import clean

WIDE_PX, PAPER_PX, HALF_PX, PHONE_PX = 1070, 690, 600, 320
_SVG = "http://www.w3.org/2000/svg"

Spec = dict[str, Any]

_CONFIG: Spec = {
    "font": "Arial",  # for measuring: the page sets its own, which is about as wide
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "labelFontSize": 12,
        "titleColor": "var(--soft)",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelLimit": 190,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--line)"},
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing; `name` is read to those who cannot see it, `legend` are (name, colour) in order."""

    name: str
    draw: Callable[[int], Spec] = field(repr=False)
    width_px: int = HALF_PX
    title: str = ""
    legend: Sequence[tuple[str, str]] = ()


def svg(chart: Chart, width_px: int) -> str:
    """Draw a chart at a width; what hovering shows is what the mark's description says."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(
        {"config": _CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}, **chart.draw(width_px)},
        allowed_base_urls=[],
    )
    root = ET.fromstring(drawn)  # noqa: S314  (made by the library just now)
    for element in list(root.iter()):
        _tell_on_hovering(element)
    root.set("role", "img")
    root.set("aria-label", clean(chart.name))
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def _tell_on_hovering(element: ET.Element) -> None:
    described = element.attrib.pop("aria-label", None)
    is_mark = element.attrib.pop("aria-roledescription", "") not in {"axis", "legend", "title", ""}
    element.attrib.pop("role", None)
    element.attrib.pop("aria-hidden", None)
    if described and is_mark and len(element) == 0:
        ET.SubElement(element, f"{{{_SVG}}}title").text = described


# -- kinds of charts -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, or one part of a bar: where, how long, what is written at its end, in which colour."""

    name: str
    value: float
    label: str = ""
    color: str = "var(--s1)"
    kind: str = ""


def bars(name: str, parts: Sequence[Bar], *, unit: str, **kept: Any) -> Chart:
    """Compare names by horizontal bars, in the order given; parts of one name stand end to end."""
    ends: dict[str, float] = {}
    values = []
    for part in parts:
        start = ends.get(part.name, 0.0)
        ends[part.name] = start + part.value
        values.append(_bar_row(part, unit) | {"start": start, "end": ends[part.name]})
    scale = _Scale(max(ends.values(), default=0), parts)

    def draw(width_px: int) -> Spec:
        return _named_bars(
            width_px, values, scale, step_px=28, bar={"mark": {"type": "bar", "height": {"band": 0.72}}}
        )

    return Chart(name, draw, **kept)


def grouped(name: str, parts: Sequence[Bar], *, unit: str, **kept: Any) -> Chart:
    """Compare names by several bars each, one below the other, each with its label."""
    values = [_bar_row(part, unit) | {"start": 0.0, "end": part.value} for part in parts]
    scale = _Scale(max((part.value for part in parts), default=0), parts)
    kinds = list(dict.fromkeys(part.kind for part in parts))

    def draw(width_px: int) -> Spec:
        spec = _named_bars(
            width_px, values, scale, step_px=28 if len(kinds) == 1 else 20, bar={"mark": "bar"}
        )
        spec["height"]["for"] = "offset"
        spec["encoding"]["y"]["scale"] = {"paddingInner": 0.28}
        spec["encoding"]["yOffset"] = {"field": "kind", "type": "nominal", "sort": kinds}
        return spec

    return Chart(name, draw, **kept)


class _Scale:
    """How far an axis of bars reaches, so that the labels at their ends have room."""

    def __init__(self, longest: float, parts: Sequence[Bar]) -> None:
        self._longest = longest or 1.0
        self._label_px = 12 + 7 * max((len(part.label) for part in parts), default=0)

    def domain(self, width_px: int) -> list[float]:
        plot_px = width_px - _name_px(width_px) - 10
        return [0, self._longest * plot_px / max(plot_px - self._label_px, plot_px / 3)]


def _named_bars(width_px: int, values: Sequence[Spec], scale: _Scale, *, step_px: int, bar: Spec) -> Spec:
    x = {"type": "quantitative", "axis": None, "scale": {"domain": scale.domain(width_px), "nice": False}}
    y = {
        "field": "name",
        "type": "nominal",
        "sort": list(dict.fromkeys(value["name"] for value in values)),
        "axis": {
            "title": None,
            "ticks": False,
            "domain": False,
            "labelColor": "var(--ink)",
            "labelPadding": 6,
            "labelLimit": _name_px(width_px),
        },
    }
    drawn = {
        "x": {"field": "start", **x},
        "x2": {"field": "end"},
        "color": {"field": "color", "type": "nominal", "scale": None},
        "description": {"field": "described"},
    }
    label = {
        "mark": {"type": "text", "align": "left", "dx": 5, "aria": False},
        "transform": [{"filter": "datum.label != ''"}],
        "encoding": {"x": {"field": "end", **x}, "text": {"field": "label"}},
    }
    return {
        "width": width_px,
        "height": {"step": step_px},
        "data": {"values": list(values)},
        "encoding": {"y": y},
        "layer": [{**bar, "encoding": drawn}, label],
    }


def _name_px(width_px: int) -> int:
    return 120 if width_px < 400 else 190


def _bar_row(part: Bar, unit: str) -> Spec:
    of = f"{part.name}, {part.kind}" if part.kind else part.name
    return {
        "name": clean(part.name),
        "kind": part.kind,
        "label": part.label,
        "color": part.color,
        "described": clean(f"{of}: {part.value:,.10g} {unit}"),
    }


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a chart over time, from `start` up to `end`; below the line where `value` is negative."""

    start: date
    end: date
    value: float
    described: str
    color: str = "var(--s1)"


def columns(name: str, parts: Sequence[Column], *, unit: str, **kept: Any) -> Chart:
    """Show amounts over time by columns; parts of one time stand on top of each other in the order given."""
    tops: dict[tuple[date, bool], float] = {}
    values = []
    for part in parts:
        place = (part.start, part.value < 0)
        foot = tops.get(place, 0.0)
        tops[place] = foot + part.value
        values.append(
            {
                "from": _milliseconds(part.start),
                "to": _milliseconds(part.end),
                "foot": foot,
                "top": tops[place],
                "color": part.color,
                "described": clean(part.described),
            }
        )
    first, last = min(part.start for part in parts), max(part.end for part in parts)
    steps = (last - first) / (parts[0].end - parts[0].start)

    def draw(width_px: int) -> Spec:
        time_axis = {
            "title": None,
            "format": "%b %Y",
            "grid": False,
            "tickCount": {"interval": "month", "step": _month_step(parts, width_px)},
        }
        x = {"field": "from", "type": "temporal", "scale": {"type": "utc"}, "axis": time_axis}
        return _columns_spec(width_px, values, x, unit, gap_px=_gap_px(width_px / steps))

    return Chart(name, draw, **kept)


def _gap_px(column_px: float) -> int:
    """Leave a gap between columns that is no more than a part of them."""
    return 3 if column_px > 16 else 1 if column_px > 4 else 0


def _month_step(parts: Sequence[Column], width_px: int) -> int:
    """Count the months from one label to the next, so that labels do not touch."""
    days = (max(part.end for part in parts) - min(part.start for part in parts)).days
    room = max(1, width_px // 90)
    return next((step for step in (1, 2, 3, 6, 12, 24) if days / 30.4 / step <= room), 60)


def _columns_spec(width_px: int, values: Sequence[Spec], x: Spec, unit: str, *, gap_px: int) -> Spec:
    return {
        "width": width_px,
        "height": 190 if width_px < 400 else 250,
        "data": {"values": list(values)},
        "mark": {"type": "rect", "x2Offset": -gap_px},
        "encoding": {
            "x": x,
            "x2": {"field": "to"},
            "y": {"field": "foot", "type": "quantitative", "axis": _count_axis(unit, values)},
            "y2": {"field": "top"},
            "color": {"field": "color", "type": "nominal", "scale": None},
            "description": {"field": "described"},
        },
    }


def _count_axis(unit: str, values: Sequence[Spec]) -> Spec:
    tops = [value["top"] for value in values]
    span = max(*tops, 0) - min(*tops, 0)
    return {
        "title": unit,
        "titleAlign": "left",
        "titleAngle": 0,
        "titleX": 0,
        "titleY": -10,
        "titleAnchor": "start",
        "domain": False,
        "ticks": False,
        "tickCount": max(1, min(5, int(span))),  # counts have no halves
        "labelExpr": "format(abs(datum.value), ',')",
    }


def histogram(name: str, steps: Sequence[tuple[float, float, int]], *, unit: str, of: str) -> Chart:
    """Show how values spread: (from, to, count) for each step."""
    values = [
        {
            "from": low,
            "to": high,
            "foot": 0,
            "top": count,
            "color": "var(--s1)",
            "described": f"{low:g} to {high:g}: {count:,} {unit}",
        }
        for low, high, count in steps
    ]
    x = {
        "field": "from",
        "type": "quantitative",
        "scale": {"domain": [steps[0][0], steps[-1][1]], "nice": False},
        "axis": {"title": of, "grid": False, "tickCount": 5},
    }
    return Chart(name, lambda width_px: _columns_spec(width_px, values, x, unit, gap_px=1))


def _milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def next_month(start: date) -> date:
    """Give the first day of the month after."""
    return date(start.year + start.month // 12, start.month % 12 + 1, 1)
