"""Drawn ironwork: straight bars that meet in stars, as crowns do, and are none.

The trusses of a bridge were what an earlier version took for palms; pylons, glass houses' frames and
the seams of roofs look alike from above, and the palm-free imagery holds too few of them.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from frond.training.palm.augment import Pixels

_SPACING = (22.0, 90.0)
_BAR = (1.0, 7.0)
# no crown is as grey as that, whatever the light
_TINT = 18


def ironwork(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """``pixels`` (uint8 [height, width, 3]) under two to four families of parallel bars.

    All families run through the points of one grid, so that they meet there; in half of the cases
    a plate sits on each.
    """
    height, width = pixels.shape[:2]
    out = Image.fromarray(pixels)
    draw = ImageDraw.Draw(out)
    angle, skew = rng.uniform(0, math.pi), rng.uniform(1.0, 2.1)
    one, two = rng.uniform(*_SPACING, 2)
    a = np.array([math.cos(angle), math.sin(angle)]) * one
    b = np.array([math.cos(angle + skew), math.sin(angle + skew)]) * two
    start = rng.uniform(0, 1, 2) * (width, height)
    grey = rng.uniform(10, 250)
    colour = tuple(int(v) for v in np.clip(grey + rng.uniform(-_TINT, _TINT, 3), 0, 255))
    bar = rng.uniform(*_BAR)
    # along each of these, through every point of the grid
    ways = [a, b, a + b, a - b]
    chosen = ways[:2] + [w for w in ways[2:] if rng.uniform() < 0.6]
    reach = math.ceil(1.5 * (height + width) / float(min(one, two) * math.sin(skew)))
    # a strip of them, as a bridge is, or all over
    broad = int(rng.integers(1, 5)) if rng.uniform() < 0.5 else reach
    across = np.arange(-broad, broad + 1)
    along = np.arange(-reach, reach + 1)
    points = start + across[:, None, None] * a + along[None, :, None] * b
    near = (
        (points > -2 * max(one, two)) & (points < np.array([width, height]) + 2 * max(one, two))
    ).all(axis=-1)
    plate = bar * rng.uniform(0.8, 1.8) if rng.uniform() < 0.5 else 0.0
    inside = points[near]
    for way in chosen:
        thick = max(1, round(bar * rng.uniform(0.6, 1.0)))
        for p in inside:
            draw.line([tuple(p), tuple(p + way)], fill=colour, width=thick)
    if plate:
        for x, y in inside:
            draw.ellipse([x - plate, y - plate, x + plate, y + plate], fill=colour)
    return np.asarray(out)
