"""The demo's picture: some of its scenes with what was found in them, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.windows import Window

from frond.client.demo.compare import Found, Match
from frond.client.demo.rasters import Planted

SHOWN: Final = (
    "02-borneo-nodata.tif", "04-java-16-bit.tif", "05-java-rotated.tif", "09-cameroon-alpha.tif",
    "11-ucayali-nan.tif", "18-sabah-large.tif",
)  # fmt: skip
PANEL: Final = (640, 480)
GAP: Final = 22
HEAD: Final = 118
CAPTION: Final = 54
_OVER: Final = 2

_PAPER: Final = (247, 246, 241)
_INK: Final = (28, 32, 30)
_DIM: Final = (108, 114, 108)
_HIT: Final = (64, 224, 255)
_FALSE: Final = (255, 138, 0)
_MISSED: Final = (255, 45, 150)
_VOID: Final = np.array((226, 224, 214), np.uint8)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Panel:
    """One scene of the picture."""

    planted: Planted
    found: Found
    match: Match


def contact_sheet(
    panels: Sequence[Panel], title: str, subtitle: str, failed: Sequence[tuple[str, str]]
) -> Image.Image:
    """Six scenes in two rows, a title, a legend, and the failed images with why they failed."""
    columns = 3
    rows = -(-len(panels) // columns)
    foot = 34 + 26 * max(1, len(failed))
    width = GAP + columns * (PANEL[0] + GAP)
    height = HEAD + rows * (PANEL[1] + CAPTION + GAP) + foot + GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 20), title, _INK, _font(34))
    pen.text((GAP, 66), subtitle, _DIM, _font(19))
    _legend(pen, width)
    for k, panel in enumerate(panels):
        x = GAP + (k % columns) * (PANEL[0] + GAP)
        y = HEAD + (k // columns) * (PANEL[1] + CAPTION + GAP)
        sheet.paste(_picture(panel), (x, y))
        name, about = _caption(panel)
        pen.text((x, y + PANEL[1] + 6), name, _INK, _font(18))
        pen.text((x, y + PANEL[1] + 29), about, _DIM, _font(15))
    y = height - foot - GAP // 2
    pen.line([(GAP, y), (width - GAP, y)], (205, 203, 194), 2)
    pen.text(
        (GAP, y + 10), "Failed, and told so:" if failed else "No image failed.", _INK, _font(17)
    )
    for k, (name, why) in enumerate(failed):
        pen.text((GAP + 190, y + 10 + 26 * k), name, (176, 32, 32), _font(17))
        pen.text((GAP + 350, y + 10 + 26 * k), _cut(pen, why, width - GAP - 380), _DIM, _font(17))
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Write the picture as PNG."""
    sheet.save(path, optimize=True)


def _legend(pen: ImageDraw.ImageDraw, width: int) -> None:
    entries = (
        (_HIT, "found, with its score"),
        (_FALSE, "found where none is"),
        (_MISSED, "missed"),
    )
    x = width - GAP
    for colour, told in reversed(entries):
        x -= int(pen.textlength(told, _font(17)))
        pen.text((x, 34), told, _INK, _font(17))
        x -= 32
        pen.rectangle([x, 35, x + 20, 55], fill=(70, 84, 62), outline=colour, width=3)
        x -= 26


def _caption(panel: Panel) -> tuple[str, str]:
    scene, matched = panel.planted.scene, panel.match
    rotated = f", turned {scene.rotation:g}°" if scene.rotation else ""
    edge = {
        "nodata": ", nodata 0", "alpha": ", alpha band", "nan": ", NaN outside", "mask": ", mask",
    }.get(scene.edge, "")  # fmt: skip
    about = f"{scene.crs}, {scene.dtype}, {scene.gsd * 100:.0f} cm a pixel{edge}{rotated}"
    return f"{scene.name}: {matched.hits} of {len(matched.planted)} planted palms", about


def _picture(panel: Panel) -> Image.Image:
    scene = panel.planted.scene
    # as much as fills the panel at about three quarters of its resolution
    wide = min(scene.width, PANEL[0] * 4 // 3)
    high = min(scene.height, wide * PANEL[1] // PANEL[0])
    wide = min(wide, high * PANEL[0] // PANEL[1])
    # the middle, or where the edge of the flown area is seen
    across, down = (0.2, 0.6) if scene.edge else (0.5, 0.5)
    x0, y0 = int((scene.width - wide) * across), int((scene.height - high) * down)
    pixels = _pixels(panel.planted.path, Window(x0, y0, wide, high))
    k = PANEL[0] * _OVER / wide
    big = Image.fromarray(pixels).resize(
        (PANEL[0] * _OVER, PANEL[1] * _OVER), Image.Resampling.LANCZOS
    )
    pen = ImageDraw.Draw(big, "RGBA")
    for i, box in enumerate(panel.found.boxes):
        if not panel.match.counted[i]:
            continue
        colour = _HIT if panel.match.found[i] else _FALSE
        x, y, _, _ = _draw_box(pen, (box - (x0, y0, x0, y0)) * k, colour)
        if x > 0 and y > 0:
            told = f"{panel.found.scores[i]:.2f}"
            size = pen.textbbox((x, y), told, _font(20))
            pen.rectangle([x, y, size[2] + 4, size[3] + 3], fill=(12, 20, 18, 170))
            pen.text((x + 3, y), told, (*colour, 255), _font(20))
    for place, box in zip(panel.match.planted.tolist(), panel.planted.boxes, strict=True):
        if place < 0:
            _draw_box(pen, (box - (x0, y0, x0, y0)) * k, _MISSED)
    return big.resize(PANEL, Image.Resampling.LANCZOS)


def _draw_box(
    pen: ImageDraw.ImageDraw, box: NDArray[np.float64], colour: tuple[int, int, int]
) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in box)
    pen.rectangle([x0, y0, x1, y1], outline=(*colour, 235), width=4)
    return x0, y0, x1, y1


def _pixels(path: Path, window: Window) -> NDArray[np.uint8]:
    """RGB for the eye: stretched over the scene where it is not uint8; pale where there is none."""
    with rasterio.open(path) as source:
        data = source.read((1, 2, 3), window=window).astype(np.float32)
        valid = source.dataset_mask(window=window) > 0
        kind = source.dtypes[0]
    valid &= np.isfinite(data).all(axis=0)
    if kind != "uint8" and valid.any():
        low, high = np.percentile(data[:, valid], (0.5, 99.5))
        data = (data - low) / max(high - low, 1e-6) * 255
    out = np.clip(np.nan_to_num(data), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.where(valid[..., None], np.moveaxis(out, 0, 2), _VOID))


def _cut(pen: ImageDraw.ImageDraw, text: str, width: float) -> str:
    while pen.textlength(text, _font(17)) > width and len(text) > 4:
        text = text[: len(text) * 9 // 10].rstrip() + "…"
    return text


_FONTS: dict[int, Font] = {}


def _font(size: int) -> Font:
    if size not in _FONTS:
        _FONTS[size] = ImageFont.load_default(size)
    return _FONTS[size]


def chosen(
    planted: Sequence[Planted], found: Mapping[str, Found], matches: Mapping[str, Match]
) -> list[Panel]:
    """The scenes that are shown, where they have results."""
    by_name = {p.scene.name: p for p in planted}
    return [Panel(by_name[n], found[n], matches[n]) for n in SHOWN if n in found and n in matches]
