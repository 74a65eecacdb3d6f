"""Outlines of regions of pixels: their corners, found by neighbourhoods of 2 × 2, and the rings that
the corners make up.

A corner's kind says where its two edges go, which is all that linking needs: on one row of one
region, corners pair up in their order, and so they do on one column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

RIGHTWARDS: Final = 4
"""Kind bit: the horizontal edge goes right from the corner, else left."""
DOWNWARDS: Final = 2
"""Kind bit: the vertical edge goes down from the corner, else up."""
CONVEX: Final = 1
"""Kind bit: one of the four pixels is the region's, else three are."""

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def corners(rows: Bytes) -> tuple[Ints, Bytes, Ints]:
    """Every corner between these rows, of every run of equal values but 0.

    Args:
        rows: [h, w], the first and last column 0.

    Returns:
        Place: index in the flattened rows of the pixel to the upper left of the corner. Kind. Owner:
        index of a pixel of the region whose corner it is.
    """
    flat, wide = rows.reshape(-1), rows.shape[1]
    across = flat[1:] != flat[:-1]
    down = flat[wide:] != flat[:-wide]
    inner = len(down) - 1
    # no outline turns where both rows, or both columns, agree
    turns = across[:inner] | across[wide : wide + inner]
    turns &= down[:inner] | down[1:]
    at = np.flatnonzero(turns)
    pixel = [flat[at + step] for step in (0, 1, wide, wide + 1)]
    top, bottom = pixel[0] == pixel[1], pixel[2] == pixel[3]
    left, right = pixel[0] == pixel[2], pixel[1] == pixel[3]
    places, kinds, owners = [], [], []
    for n, (beside, above) in enumerate(
        ((top, left), (top, right), (bottom, left), (bottom, right))
    ):
        # the edges go towards the side on which the pixel lies
        kind = (RIGHTWARDS if n & 1 else 0) | (DOWNWARDS if n & 2 else 0)
        step = (0, 1, wide, wide + 1)
        alone = ~beside & ~above
        lone = alone & (pixel[n] != 0)
        places.append(at[lone])
        kinds.append(np.full(len(places[-1]), kind | CONVEX, np.uint8))
        owners.append(places[-1] + step[n])
        # the other three are one region
        others = [pixel[k] for k in range(4) if k != n]
        three = alone & (others[0] == others[1]) & (others[1] == others[2]) & (others[0] != 0)
        places.append(at[three])
        kinds.append(np.full(len(places[-1]), kind, np.uint8))
        owners.append(places[-1] + step[3 - n])
    return np.concatenate(places), np.concatenate(kinds), np.concatenate(owners)


class Outlines(NamedTuple):
    """Consecutive regions' rings: corners of all rings one after the other, each ring closed."""

    x: Ints
    y: Ints
    rings: Ints
    """Offsets into x and y."""
    polygons: Ints
    """Offsets into rings."""


def outlines(
    keys: npt.NDArray[np.uint64], bits: tuple[int, int, int], batch: int = 1 << 18
) -> Iterator[Outlines]:
    """Sorted corners as rings, some regions at a time (about ``batch`` corners; at least one).

    Of each region the exterior comes first, clockwise as seen with y downwards, then its holes, the
    other way round; each starts at its first corner by rows.
    """
    below = np.uint64(64 - bits[0])
    start = 0
    while start < len(keys):
        stop = len(keys)
        if start + batch < stop:
            # to where the region at the batch's end ends
            region = int(keys[start + batch] >> below)
            first = int(np.searchsorted(keys, np.uint64(region << int(below))))
            stop = first
            if first <= start:
                after = (region + 1) << int(below)
                found = np.searchsorted(keys, np.uint64(after)) if after < 1 << 64 else len(keys)
                stop = int(found)
        yield _rings(keys[start:stop], bits)
        start = stop


def _rings(keys: npt.NDArray[np.uint64], bits: tuple[int, int, int]) -> Outlines:
    _, y_bits, x_bits = bits
    kind = (keys & np.uint64(7)).astype(np.uint8)
    at = keys >> np.uint64(3)
    x = (at & np.uint64((1 << x_bits) - 1)).astype(np.int64)
    y = ((at >> np.uint64(x_bits)) & np.uint64((1 << y_bits) - 1)).astype(np.int64)
    region = (at >> np.uint64(x_bits + y_bits)).astype(np.int64)
    # where a region meets itself across a corner, what lies between is two holes that touch, or a
    # hole that touches the outside: the rings turn there, instead of crossing into each other
    twice = np.flatnonzero(at[1:] == at[:-1])
    for both in (twice, twice + 1):
        kind[both] = (kind[both] ^ DOWNWARDS) & ~np.uint8(CONVEX)
    rightwards, downwards = (kind & RIGHTWARDS) != 0, (kind & DOWNWARDS) != 0
    convex = (kind & CONVEX) != 0
    n = len(keys)
    along = np.arange(n, dtype=np.int64) ^ 1
    order = np.lexsort((downwards, y, x, region))
    partner = np.empty(n, np.int64)
    partner[order[::2]] = order[1::2]
    partner[order[1::2]] = order[::2]
    del order
    # with the region to the right of the way
    following = np.where((rightwards == downwards) == convex, along, partner)
    walk, rings = _walk(following)
    polygons = np.flatnonzero(np.diff(region[walk[rings[:-1]]], prepend=-1))
    return Outlines(x[walk], y[walk], rings, np.append(polygons, len(rings) - 1))


def _walk(following: Ints) -> tuple[Ints, Ints]:
    """The cycles of a permutation, each from its lowest member on and back to it; and offsets."""
    n = len(following)
    # each turns at least four times
    walk = np.empty(n + n // 4, np.int64)
    seen = bytearray(n)
    # one at a time, numbers come out of a memoryview twice as fast as out of an array
    after, path = following.data, walk.data
    ends = [0]
    k = 0
    for start in range(n):
        if seen[start]:
            continue
        at = start
        while not seen[at]:
            seen[at] = 1
            path[k] = at
            k += 1
            at = after[at]
        path[k] = start
        k += 1
        ends.append(k)
    return walk[:k], np.array(ends, np.int64)
