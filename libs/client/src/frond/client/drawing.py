"""What a model saw, drawn: windows side by side, with boxes, class colours and a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from frond.contracts.colours import Rgb, class_colour
from frond.contracts.modelspec import ModelManifest
from frond.models import WindowDetections, WindowPlanes, WindowResult
from frond.models.check import classes_of

PANEL: Final = 640
"""Largest side of a window in the picture; smaller ones keep their pixels."""

_GAP: Final = 12
_LINE: Final = 22
_LABELLED: Final = 60
_LEGEND: Final = 16
_ALPHA: Final = 0.45
_INK: Final = (28, 32, 30)
_PAPER: Final = (247, 246, 241)


def picture(
    windows: Sequence[NDArray[np.uint8]], results: Sequence[WindowResult], manifest: ModelManifest
) -> Image.Image:
    """One panel a window, two in a row, the classes' colours below.

    Args:
        windows: uint8 [size, size, bands]; the first three bands are shown, or the first as grey.
    """
    panels = [
        _panel(window, result, manifest) for window, result in zip(windows, results, strict=True)
    ]
    columns = min(2, len(panels))
    side = panels[0].width
    rows = -(-len(panels) // columns)
    named = manifest.classes[:_LEGEND]
    width = max(_GAP + columns * (side + _GAP), 240)
    height = _GAP + rows * (side + _GAP) + _LINE * (len(named) + 1)
    sheet = Image.new("RGB", (width, height), _PAPER)
    for n, panel in enumerate(panels):
        sheet.paste(
            panel, (_GAP + n % columns * (side + _GAP), _GAP + n // columns * (side + _GAP))
        )
    pen = ImageDraw.Draw(sheet)
    y = height - _LINE * (len(named) + 1)
    for n, name in enumerate(named):
        shade = class_colour(n) if manifest.task == "segmentation" else colour(n)
        pen.rectangle([_GAP, y + 4, _GAP + 14, y + 16], fill=shade)
        pen.text((_GAP + 22, y + 1), name, _INK, _font())
        y += _LINE
    hidden = len(manifest.classes) - len(named)
    last = (
        f"and {hidden} classes more" if hidden else f"score at least {manifest.thresholds.score:g}"
    )
    pen.text((_GAP, y + 1), last, _INK, _font())
    return sheet


def colour(index: int) -> Rgb:
    """That of a class's boxes: bright before any ground, far from its neighbours', the same each time."""
    red, green, blue = colorsys.hsv_to_rgb((0.52 + index * 0.381966) % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _panel(window: NDArray[np.uint8], result: WindowResult, manifest: ModelManifest) -> Image.Image:
    rgb = window[..., :3] if window.shape[2] >= 3 else np.repeat(window[..., :1], 3, axis=2)
    if isinstance(result, WindowPlanes):
        rgb = _tinted(rgb, classes_of(result.planes, manifest.thresholds.score))
    image = Image.fromarray(np.ascontiguousarray(rgb))
    scale = min(1.0, PANEL / image.width)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    if isinstance(result, WindowDetections):
        _boxes(ImageDraw.Draw(image), result, manifest, scale)
    return image


def _tinted(rgb: NDArray[np.uint8], classes: NDArray[np.intp]) -> NDArray[np.uint8]:
    shades = [class_colour(n) for n in range(int(classes.max(initial=0)))]
    painted = np.array(shades or [(0, 0, 0)])[np.maximum(classes - 1, 0)]
    mixed = rgb * (1 - _ALPHA) + painted * _ALPHA
    return np.where(classes[..., None] > 0, mixed, rgb).astype(np.uint8)


def _boxes(
    pen: ImageDraw.ImageDraw, found: WindowDetections, manifest: ModelManifest, scale: float
) -> None:
    # the best on top
    for n in reversed(range(len(found))):
        x0, y0, x1, y1 = (float(v) * scale for v in found.boxes[n])
        shade = colour(int(found.classes[n]))
        pen.rectangle([x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)], outline=shade, width=2)
        if len(found) <= _LABELLED:
            name = manifest.classes[int(found.classes[n])]
            # several classes of one window share its corner
            shift = n * 14 if manifest.task == "classification" else 0
            pen.text(
                (x0 + 4, y0 + 2 + shift), f"{name} {found.scores[n]:.2f}", shade, _font(12),
                stroke_width=1, stroke_fill=(0, 0, 0),
            )  # fmt: skip


def _font(size: int = 15) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
