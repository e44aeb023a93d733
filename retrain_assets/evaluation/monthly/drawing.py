"""Matplotlib figures as inline SVG that follows the page's colours, the same bytes every time."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib is given colours that nobody uses; the page says what each is, in light and in dark.
INK, FAINT, LINE = "#0a000a", "#0a000b", "#0a000c"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004")
_STYLES = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    LINE: "var(--line)",
    **{color: f"var(--series-{place})" for place, color in enumerate(SERIES, 1)},
}
_BOX = re.compile(r'viewBox="0 0 (?P<width>[\d.]+) (?P<height>[\d.]+)"')
_COLOR = re.compile(r"var\(--([\w-]+)\)")
_NAMED_COLOR = re.compile(r"--([\w-]+): (#[0-9a-f]{6})")
_ZOOM = 1.6  # pixels a point
_SMALL = 8.5
_HEAD = re.compile(r"^.*?(?=<svg)|<defs>\s*<style.*?</defs>|<metadata>.*?</metadata>", re.S)
_IDLE = re.compile(r"<!--.*?-->\s*|(?<=\n)\s+", re.S)
_TAG = re.compile(r"<[^>]+>")
_SIZE = re.compile(r'(<svg [^>]*?) width="[^"]*"| height="[^"]*pt"')
_IDS = re.compile(r'((?: id=")|(?:"#)|(?:url\(#))')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_FONT = re.compile(r"font: ([0-9.]+)px [^;\"]*")


@dataclass(frozen=True)
class Picture:
    """An SVG to stand in a page.

    title: its name. text: what it shows, for who cannot see it. note: how to read it.
    """

    svg: str
    title: str
    text: str
    note: str = ""


def series(place: int) -> str:
    """Colour of the model family at a place; there are four, then they begin again."""
    return SERIES[place % len(SERIES)]


def blank(width: float, height: float, margins: tuple[float, float, float, float]) -> Figure:
    """An empty figure. width, height, margins (left, bottom, right, top): in inches."""
    from matplotlib.figure import Figure

    left, bottom, right, top = margins
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width,
        bottom=bottom / height,
        right=1 - right / width,
        top=1 - top / height,
        wspace=0.45,
    )
    return figure


def plain(axes: Axes, *, size: float = _SMALL) -> None:
    """Axes without a frame, with a faint grid, in the page's colours. size: of the text."""
    axes.set_facecolor("none")
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(LINE)
    axes.tick_params(colors=FAINT, labelsize=size, length=0)
    axes.grid(True, color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(FAINT)
        label.set_fontsize(size)


def picture(figure: Figure, *, id: str, title: str, text: str, note: str = "") -> Picture:
    """A figure as SVG for a page; see `Picture`. id: unique on the page."""
    from html import escape

    import matplotlib as mpl

    drawn = io.StringIO()
    # Text stays text, and the names of clips and markers come from the figure's own.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": id}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    svg = _HEAD.sub("", drawn.getvalue())
    svg = _SIZE.sub(r"\1", svg)
    svg = _IDS.sub(rf"\g<1>{id}-", svg)
    svg = _IDLE.sub("", svg)
    svg = _TAG.sub(lambda tag: _DECIMALS.sub(r"\1", tag[0]), svg)
    svg = _FONT.sub(r"font-size: \1px", svg)
    for color, style in _STYLES.items():
        svg = svg.replace(color, style)
    named = f'role="img" aria-labelledby="{id}-title {id}-text"'
    told = f'<title id="{id}-title">{escape(title)}</title>\n'
    told += f'<desc id="{id}-text">{escape(text)}</desc>'
    # The first tag is the SVG itself, which learns what it is called.
    svg = _TAG.sub(lambda tag: f"{tag[0][:-1]} {named}>\n{told}", svg, count=1)
    return Picture(svg.strip(), title, text, note)


def standing_alone(drawn: Picture) -> str:
    """The picture as an SVG file of its own: of a fixed size, on white, in light colours."""
    colors = _light_colors()
    svg = drawn.svg.replace("currentColor", colors["ink"])
    svg = _COLOR.sub(lambda name: colors[name[1]], svg)
    box = _BOX.search(svg)
    assert box is not None  # every figure has one
    size = " ".join(f'{n}="{_ZOOM * float(v):.0f}"' for n, v in box.groupdict().items())
    look = f"background: #fff; color: {colors['ink']}; font-family: system-ui, sans-serif"
    return svg.replace("<svg ", f'<svg {size} style="{look}" ', 1)


@cache
def _light_colors() -> dict[str, str]:
    """Colours by name as the page's style has them first, which is in light."""
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return dict(_NAMED_COLOR.findall(css.partition("}")[0]))
