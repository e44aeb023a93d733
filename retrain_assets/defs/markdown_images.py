"""Pictures for the pages of the assets, inline in Markdown so that no server is needed."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrain_assets.evaluation.monthly.drawing import Picture


def inline(figure: Figure, name: str) -> str:
    """A figure as a Markdown image that carries its own SVG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    return markdown_image(picture.getvalue(), name)


def embedded(drawn: Picture) -> str:
    """A picture of the monthly report as a Markdown image, with what it shows in words."""
    from retrain_assets.evaluation.monthly.drawing import standing_alone

    words = ". ".join(part for part in (drawn.text, drawn.note) if part)
    return f"{markdown_image(standing_alone(drawn).encode(), drawn.title)}\n\n{words}"


def markdown_image(svg: bytes, name: str) -> str:
    """An SVG as a Markdown image that carries it."""
    return f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})"
