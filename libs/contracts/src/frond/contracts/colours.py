"""The colours of classes: the same in class rasters and in pictures of them."""

from __future__ import annotations

import colorsys
from typing import Final

Rgb = tuple[int, int, int]

_GOLDEN: Final = 0.6180339887498949


def class_colour(index: int) -> Rgb:
    """A class's, by its place in ``model.yaml``, from 0; 0…255 each. As far from the others' as colours
    come, and the first ones the same whatever follows."""
    hue, saturation = (0.33 + index * _GOLDEN) % 1.0, 0.55 + 0.4 * (index % 2)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
