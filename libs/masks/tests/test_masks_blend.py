"""Blending, held against a plain sum over whole images and against the laws of a set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks_support import certain, cut

from frond.contracts.plan import WindowGrid
from frond.masks.blend import NODATA, SCORE_STEPS, Rule, blended
from frond.masks.codec import Planes


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    """Any overlap, windows larger than the image, and the last ones shifted inwards."""
    size = draw(st.integers(8, 24))
    margin = draw(st.integers(0, (size - 1) // 2))
    if size - 2 * margin < 2:
        margin = 0
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    return WindowGrid(width=width, height=height, size=size, margin=margin)


def whole(grid: WindowGrid, planes: Any, rule: Rule) -> tuple[Planes, Planes]:
    bands = list(blended(grid, planes, rule))
    assert [b.y0 for b in bands] == np.cumsum([0, *(len(b.values) for b in bands)])[:-1].tolist()
    return np.concatenate([b.values for b in bands]), np.concatenate([b.confidence for b in bands])


def reference(grid: WindowGrid, planes: Any, rule: Rule, order: list[int]) -> tuple[Planes, Planes]:
    """Every window added to arrays of the whole image, in any order, in big integers."""
    sums = np.zeros((rule.classes + 1, grid.height, grid.width), object)
    total = np.zeros((grid.height, grid.width), object)
    for index in order:
        found = planes(index)
        if found is None:
            continue
        box = grid.window(index)
        row, col = divmod(index, grid.cols)
        tall = ramp(row, grid.rows, box.height, grid.margin)
        wide = ramp(col, grid.cols, box.width, grid.margin)
        weight = (tall[:, None] * wide[None, :]).astype(object)
        place = slice(box.y0, box.y1), slice(box.x0, box.x1)
        sums[(slice(None), *place)] += weight * found.astype(object)
        total[place] += weight * (found[-1] != 0).astype(object)
    values = np.zeros(total.shape, np.uint8)
    confidence = np.zeros(total.shape, np.uint8)
    for y, x in np.ndindex(total.shape):
        den = total[y, x]
        if den == 0:
            values[y, x] = NODATA
            continue
        votes = [sums[c, y, x] for c in range(rule.classes)]
        best = max(votes)
        good = best * SCORE_STEPS >= rule.score * 255 * den
        if rule.background:
            good = good and best > sums[rule.classes, y, x]
        values[y, x] = votes.index(best) + 1 if good else 0
        confidence[y, x] = (2 * best + den) // (2 * den)
    return values, confidence


def ramp(i: int, count: int, length: int, margin: int) -> np.ndarray[Any, Any]:
    at, over = np.arange(length), 2 * margin
    weight = np.full(length, max(over, 1))
    if i > 0 and over:
        weight = np.minimum(weight, at + 1)
    if i < count - 1 and over:
        weight = np.minimum(weight, length - at)
    return weight


def noise(grid: WindowGrid, classes: int, seed: int, skipped: float, holes: float) -> Any:
    """Windows that say anything, do not agree, and of which some pixels mean nothing."""

    def planes(index: int) -> Planes | None:
        rng = np.random.default_rng((seed, index))
        if rng.random() < skipped:
            return None
        box = grid.window(index)
        found = rng.integers(0, 256, (classes + 1, box.height, box.width), np.uint8)
        # coarse, so that there are ties
        found = found // 64 * 64
        found[-1] = np.maximum(found[-1], 1)
        found[:, rng.random((box.height, box.width)) < holes] = 0
        return found

    return planes


shares = st.sampled_from([0.0, 0.0, 0.3, 0.9])


@settings(max_examples=80, deadline=None)
@given(grids(), st.integers(1, 4), st.integers(0, 10**9), st.booleans(), st.integers(0, SCORE_STEPS), shares, shares)  # fmt: skip
def test_it_is_the_plain_sum_in_any_order(
    grid: WindowGrid, classes: int, seed: int, background: bool, score: int, skipped: float, holes: float
) -> None:  # fmt: skip
    """Bands, pieces and narrow integers change time and memory only; nor does any order matter."""
    rule = Rule(classes, score, background)
    planes = noise(grid, classes, seed, skipped, holes)
    order = np.random.default_rng(seed).permutation(grid.count).tolist()
    values, confidence = whole(grid, planes, rule)
    wanted, sure = reference(grid, planes, rule, order)
    np.testing.assert_array_equal(values, wanted)
    mine = (values != 0) & (values != NODATA)
    np.testing.assert_array_equal(confidence[mine], sure[mine])


@settings(max_examples=100, deadline=None)
@given(grids(), st.integers(1, 5), st.integers(0, 10**9))
def test_windows_that_agree_give_back_the_mask(grid: WindowGrid, classes: int, seed: int) -> None:
    """A mask cut into windows is that mask again, nodata and unclassified pixels too."""
    rng = np.random.default_rng(seed)
    mask = rng.choice([NODATA, *range(classes + 1)], (grid.height, grid.width)).astype(np.uint8)
    values, _ = whole(grid, cut(certain(mask, classes), grid), Rule(classes, 500_000, False))
    np.testing.assert_array_equal(values, mask)


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(1, 3), st.integers(0, 10**9), st.booleans(), shares, shares)
def test_nodata_is_where_every_window_says_so(
    grid: WindowGrid, classes: int, seed: int, background: bool, skipped: float, holes: float
) -> None:
    """A pixel that means something in one window is classified or unclassified, never nodata."""
    planes = noise(grid, classes, seed, skipped, holes)
    valid = np.zeros((grid.height, grid.width), np.bool_)
    for index in range(grid.count):
        box, found = grid.window(index), planes(index)
        if found is not None:
            valid[box.y0 : box.y1, box.x0 : box.x1] |= found[-1] != 0
    values, _ = whole(grid, planes, Rule(classes, 0, background))
    np.testing.assert_array_equal(values == NODATA, ~valid)
    if not background:
        assert (values[valid] > 0).all()


def test_each_window_is_asked_for_once_and_by_rows() -> None:
    """What is slow, reading a window, is done once; the order lets files be read on and on."""
    grid = WindowGrid(width=300, height=200, size=32, margin=6)
    asked = []

    def planes(index: int) -> Planes:
        asked.append(index)
        box = grid.window(index)
        return np.ones((2, box.height, box.width), np.uint8)

    whole(grid, planes, Rule(1, 0, False))
    assert asked == list(range(grid.count))


def test_a_seam_is_a_ramp() -> None:
    """Across an overlap the one window's word fades into the other's, without a step."""
    grid = WindowGrid(width=112, height=64, size=64, margin=8)

    def planes(index: int) -> Planes:
        box = grid.window(index)
        return np.full((2, box.height, box.width), 200 if index == 0 else 40, np.uint8)

    _, confidence = whole(grid, planes, Rule(1, 0, False))
    row = confidence[30].astype(int)
    assert row[0] == 200
    assert row[-1] == 40
    steps = np.diff(row)
    assert steps.max() <= 0
    assert steps.min() >= -10


def test_wide_margins_do_not_overflow() -> None:
    """Hundreds of windows over one pixel, all of them sure: still sure."""
    grid = WindowGrid(width=700, height=40, size=512, margin=250)
    full = np.full((2, 40, 700), 255, np.uint8)
    values, confidence = whole(grid, cut(full, grid), Rule(1, SCORE_STEPS, False))
    assert (values == 1).all()
    assert (confidence == 255).all()


def test_the_sum_that_is_rounded_fits_its_type() -> None:
    """Weights that sum to 257 just fit 16 bits with 255 each, and no longer with a half more."""
    grid = WindowGrid(width=199, height=199, size=128, margin=57)
    full = np.full((2, 199, 199), 255, np.uint8)
    _, confidence = whole(grid, cut(full, grid), Rule(1, SCORE_STEPS, False))
    assert (confidence == 255).all()


def test_planes_of_another_shape_are_refused() -> None:
    """A window of the wrong size is no window of this grid."""
    grid = WindowGrid(width=64, height=64, size=64, margin=8)
    with pytest.raises(ValueError, match="shape"):
        whole(grid, lambda _: np.zeros((3, 64, 63), np.uint8), Rule(2, 0, False))
