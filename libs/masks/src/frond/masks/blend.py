"""Windows' planes blended over their overlaps: integers only, each window read once.

Every window weighs its pixels by a ramp that rises from its edges, but not from the image's. What
comes out is a function of the *set* of windows. Held at a time are the windows of one neighbourhood
and the rows of those above that still reach down: memory grows with the image's width alone, by the
height of an overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from frond.contracts.classraster import MOST_CLASSES
from frond.contracts.plan import WindowGrid
from frond.masks.codec import Planes

UNCLASSIFIED: Final = 0
"""Value of a pixel that means something and is of no class."""
NODATA: Final = MOST_CLASSES + 1
"""Value of a pixel that means nothing in every window that sees it."""

SCORE_STEPS: Final = 1_000_000
# two windows' ramps add up to at most 256 · 255 then, which 16 bits hold
_STEEPEST: Final = 255

Weights = npt.NDArray[np.uint64]
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a pixel is of a class.

    Attributes:
        classes: how many there are; a window has one plane more.
        score: the least blended probability, in steps of 10⁻⁶.
        background: whether the last plane is a background that the class must beat as well.
    """

    classes: int
    score: int
    background: bool


class Band(NamedTuple):
    """Whole rows of the image, from row ``y0`` on.

    ``values``: uint8, class index + 1, :data:`UNCLASSIFIED` or :data:`NODATA`. ``confidence``:
    uint8, the blended probability × 255 of the best class.
    """

    y0: int
    values: Planes
    confidence: Planes


class _Segment(NamedTuple):
    """A stretch of an axis that the same windows see, and each one's weights there.

    One window alone weighs 1.
    """

    start: int
    stop: int
    seen: tuple[int, ...]
    weights: tuple[Weights | None, ...]


def blended(grid: WindowGrid, planes: Callable[[int], Planes | None], rule: Rule) -> Iterator[Band]:
    """The whole image, band by band from the top.

    Args:
        planes: a window's planes, None where the window was skipped; asked once a window, by rows.

    Raises:
        ValueError: planes are not of the window's shape.
    """
    rows = _axis(grid.height, grid.rows, grid)
    cols = _axis(grid.width, grid.cols, grid)
    held: dict[tuple[int, int], tuple[int, Planes]] = {}
    for r, (band, segments) in enumerate(rows):
        height = band[1] - band[0]
        values = np.empty((height, grid.width), np.uint8)
        confidence = np.empty((height, grid.width), np.uint8)
        for c, (_, across) in enumerate(cols):
            index = r * grid.cols + c
            found = planes(index)
            if found is not None:
                place = grid.window(index)
                if found.shape != (rule.classes + 1, place.height, place.width):
                    raise ValueError(f"window {index} has planes of shape {found.shape}")
                held[r, c] = band[0], found
            for down in segments:
                for right in across:
                    part = (
                        slice(down.start - band[0], down.stop - band[0]),
                        slice(right.start, right.stop),
                    )
                    values[part], confidence[part] = _piece(down, right, held, cols, rule)
            _forget(held, r, c, band[1], rows, cols)
        yield Band(band[0], values, confidence)
        # before the next ones are there
        del values, confidence


def _forget(
    held: dict[tuple[int, int], tuple[int, Planes]],
    r: int,
    c: int,
    below: int,
    rows: Any,
    cols: Any,
) -> None:
    """Let go of what no later piece reads: whole windows, and their rows above the next band."""
    more = c + 1 < len(cols)
    reaching = cols[c + 1][1][0].seen if more else ()
    wanted = rows[r + 1][1][0].seen if r + 1 < len(rows) else ()
    for row, col in [(r, col) for col in cols[c][1][0].seen] if more else list(held):
        if (row, col) not in held or col in reaching:
            continue
        y0, planes = held[row, col]
        if row not in wanted:
            del held[row, col]
        elif y0 < below:
            held[row, col] = below, planes[:, below - y0 :].copy()


def _axis(
    length: int, count: int, grid: WindowGrid
) -> list[tuple[tuple[int, int], list[_Segment]]]:
    """For each window of an axis: the stretch from its start to the next one's, and its segments."""
    size = min(grid.size, length)
    starts = [min(i * grid.stride, length - size) for i in range(count)]
    found = []
    first = 0
    for i, start in enumerate(starts):
        stop = starts[i + 1] if i + 1 < count else length
        while starts[first] + size <= start:
            first += 1
        ends = sorted({min(starts[k] + size, stop) for k in range(first, i + 1)})
        segments = []
        at = start
        for end in ends:
            seen = tuple(k for k in range(first, i + 1) if starts[k] + size >= end)
            weights = tuple(
                _ramp(k, at - starts[k], end - starts[k], size, count, 2 * grid.margin)
                if len(seen) > 1
                else None
                for k in seen
            )
            segments.append(_Segment(at, end, seen, weights))
            at = end
        found.append(((start, stop), segments))
    return found


def _ramp(i: int, start: int, stop: int, size: int, count: int, over: int) -> Weights:
    """A window's weights at its own pixels [start, stop): from 1 at an edge to full."""
    at = np.arange(start, stop, dtype=np.int64)
    top = max(1, min(over, _STEEPEST))
    weight = np.full(len(at), top, np.int64)
    for inside, ramped in ((at, i > 0), (size - 1 - at, i < count - 1)):
        if ramped and over:
            weight = np.minimum(weight, 1 + inside * top // over)
    return weight.astype(np.uint64)


def _piece(
    down: _Segment,
    right: _Segment,
    held: dict[tuple[int, int], tuple[int, Planes]],
    cols: Any,
    rule: Rule,
) -> tuple[Planes, Planes]:
    """Values and confidence of a rectangle that the same windows see."""
    views = []
    for row, tall in zip(down.seen, down.weights, strict=True):
        for col, wide in zip(right.seen, right.weights, strict=True):
            if (row, col) not in held:
                continue
            y0, planes = held[row, col]
            x0 = cols[col][0][0]
            part = planes[:, down.start - y0 : down.stop - y0, right.start - x0 : right.stop - x0]
            views.append((part, tall, wide))
    shape = down.stop - down.start, right.stop - right.start
    if not views:
        return np.full(shape, NODATA, np.uint8), np.zeros(shape, np.uint8)
    if len(views) == 1:
        return _decide(views[0][0], _valid(views[0][0]), rule)
    total = _total(down.weights) * _total(right.weights)
    # half of it is added before the division that rounds
    most = 255 * total + total // 2
    dtype = next(t for t in (np.uint16, np.uint32, np.uint64) if most <= np.iinfo(t).max)
    sums = np.zeros((rule.classes + rule.background, *shape), dtype)
    whole: Numbers = np.zeros((1, 1), dtype)
    one = np.empty(shape, dtype)
    for part, tall, wide in views:
        weight = _outer(tall, wide, dtype)
        for plane, added in zip(part, sums, strict=False):
            np.multiply(plane, weight, out=one)
            added += one
        valid = _valid(part)
        whole = whole + (weight if valid is None else valid * weight)
    return _decide(sums, whole, rule)


def _valid(part: Planes) -> Numbers | None:
    """Where the pixels mean something; None: everywhere."""
    rival = part[-1]
    return None if rival.all() else rival != 0


def _total(weights: tuple[Weights | None, ...]) -> int:
    """The most that the weights add up to anywhere."""
    there = [w for w in weights if w is not None]
    return int(np.sum(there, axis=0).max()) if there else 1


def _outer(tall: Weights | None, wide: Weights | None, dtype: Any) -> Numbers:
    down = np.ones((1, 1), dtype) if tall is None else tall.astype(dtype)[:, None]
    return down if wide is None else down * wide.astype(dtype)[None, :]


def _decide(sums: Numbers, whole: Numbers | None, rule: Rule) -> tuple[Planes, Planes]:
    """The class of each pixel, from weighted sums and the sum of the weights that counted.

    Args:
        sums: [C or more, h, w]; the background is plane C.
        whole: [h, w] or what spreads to it; None: 1 everywhere.
    """
    best = sums[0].copy()
    values = np.ones(best.shape, np.uint8)
    higher = np.empty(best.shape, np.bool_)
    for c in range(1, rule.classes):
        np.greater(sums[c], best, out=higher)
        np.copyto(values, c + 1, where=higher)
        np.maximum(best, sums[c], out=best)
    nothing: Numbers | None = None
    if whole is None:
        whole = np.ones((1, 1), best.dtype)
    elif whole.dtype == np.bool_:
        nothing, whole = ~whole, np.ones((1, 1), best.dtype)
    elif not whole.all():
        nothing = whole == 0
        whole = np.maximum(whole, 1)
    if (whole == whole.flat[0]).all():
        # the division below is several times faster by one number
        whole = whole.flat[0]
    bar = -(-(np.asarray(whole, np.int64) * (rule.score * 255)) // SCORE_STEPS)
    values *= best >= bar.astype(best.dtype)
    if rule.background:
        values *= best > sums[rule.classes]
    if np.ndim(whole) or whole != 1:
        best += whole // 2
        best //= whole
    if nothing is not None:
        np.copyto(values, NODATA, where=nothing)
    return values, best.astype(np.uint8)
