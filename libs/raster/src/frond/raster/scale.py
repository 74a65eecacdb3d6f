"""Which scale an image has, told by the sizes of what a model finds in it at several zooms.

A model that was trained on objects of about ``object_px`` pixels finds those of half to twice that
size and tells their size well. Where enough finds of such a size agree, they say how far the zoom
is off. Nothing here reads a pixel or runs a model: zooms are asked for, sizes are given back.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Final

import numpy as np
from numpy.typing import NDArray

ZOOMS: Final = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125)
"""Where to begin, the likeliest first. They are an octave apart, and finds reach one either way."""
FINEST: Final = 1 / 16
COARSEST: Final = 8.0
"""Bounds of a scale that is asked for or answered: scaled pixels a raster pixel."""
LEAST: Final = 8
"""Finds that must agree before they are believed."""
MOST_LOOKS: Final = 4 * len(ZOOMS)
"""Zooms that are asked for, at the very most."""

_REACH: Final = 2.0
_ALIKE: Final = 1.5
_AGREE: Final = 2 / 3
_SETTLED: Final = 0.1
_ROUNDS: Final = MOST_LOOKS // len(ZOOMS)
_STEPS: Final = 32

Sizes = NDArray[np.float64]
Search = Generator[float, Sizes, float | None]


def search(object_px: float) -> Search:
    """Ask for zooms; to each, be sent the sizes of what is found there, in zoomed pixels.

    Returns (``StopIteration.value``) the scale at which objects have ``object_px`` pixels; None
    where too few finds agree. A function of what is sent, whatever the order of the sizes.
    """
    for begin in ZOOMS:
        zoom = begin
        for _ in range(_ROUNDS):
            size = typical((yield zoom), object_px)
            if size is None:
                break
            better = zoom * object_px / size
            # its bounds are others' too: what is told must not be rounded beyond them there
            if better < FINEST or rounded(better) >= COARSEST:
                break
            if abs(math.log2(better / zoom)) <= _SETTLED:
                return rounded(better)
            zoom = rounded(better)
    return None


def typical(sizes: Sizes, object_px: float) -> float | None:
    """The size that finds agree on; None where they are too few, or it is not to be believed.

    At least ``LEAST`` and two thirds of all finds must be within a factor of 1.5 of the median of
    those that are half to twice as large as ``object_px``.
    """
    known = sizes[(sizes >= object_px / _REACH) & (sizes <= object_px * _REACH)]
    if len(known) < LEAST:
        return None
    middle = float(np.median(known))
    alike = int(((sizes >= middle / _ALIKE) & (sizes <= middle * _ALIKE)).sum())
    return middle if alike >= max(LEAST, _AGREE * len(sizes)) else None


def rounded(scale: float) -> float:
    """The nearest 32nd of an octave: the last bits of a model's arithmetic must not change a plan."""
    return math.exp2(round(_STEPS * math.log2(scale)) / _STEPS)
