"""Polygons as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.plan import WindowGrid
from frond.masks import Polygons
from frond.masks.table import from_ipc, to_ipc

COLUMNS = ("points", "rings", "polygons", "classes", "scores", "areas")


def drawn(seed: int, n: int) -> Polygons:
    """n polygons of squares, some with holes."""
    rng = np.random.default_rng(seed)
    points: list[Any] = []
    rings, polygons = [0], [0]
    for _ in range(n):
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.integers(0, 4000, 2) / 256
            side = rng.integers(1, 500) / 256
            points += [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
            rings.append(len(points))
        polygons.append(len(rings) - 1)
    return Polygons(
        points=np.array(points, float).reshape(-1, 2),
        rings=np.array(rings),
        polygons=np.array(polygons),
        classes=rng.integers(0, 5, n).astype(np.int32),
        scores=rng.random(n).astype(np.float32),
        areas=rng.random(n),
    )


def assert_same(one: Polygons, other: Polygons) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_what_is_written_is_read(seed: int, n: int, start: int, stop: int) -> None:
    """Rows come back, the same bytes twice, and rows taken out of others as well."""
    polygons = drawn(seed, n)
    for rows in (polygons, polygons.take(slice(start, stop))):
        data = to_ipc(rows, {"b": "1", "a": "2"})
        assert data == to_ipc(rows, {"a": "2", "b": "1"})
        back, about = from_ipc(data)
        assert_same(back, rows)
        assert about == {"a": "2", "b": "1"}
    part = polygons.take(slice(start, stop))
    assert len(part) == len(range(n)[start:stop])
    for k in range(len(part)):
        np.testing.assert_array_equal(part.exterior(k), polygons.exterior(start + k))
        assert len(part.holes(k)) == len(polygons.holes(start + k)) == len(part.holes(k))


def test_rows_are_taken_by_a_mask() -> None:
    """Each with its rings and holes, as when it is taken alone."""
    polygons = drawn(7, 9)
    keep = np.array([n % 3 != 1 for n in range(9)])
    kept = polygons.where(keep)
    for row, n in enumerate(np.flatnonzero(keep)):
        assert_same(kept.take(slice(row, row + 1)), polygons.take(slice(n, n + 1)))
    assert len(kept) == keep.sum()
    assert polygons.where(np.ones(9, bool)) is polygons
    assert_same(polygons.where(np.zeros(9, bool)), Polygons.empty())


def test_boxes_are_around_the_points() -> None:
    """Also of a polygon whose rings are many, and of none."""
    polygons = drawn(4, 7)
    for k, box in enumerate(polygons.boxes):
        points = np.concatenate([polygons.exterior(k), *polygons.holes(k)])
        assert box.tolist() == [*points.min(axis=0), *points.max(axis=0)]
        assert polygons.has_holes[k] == bool(polygons.holes(k))
    assert Polygons.empty().boxes.shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 200), st.sampled_from([0.5, 1.0, 0.37]), st.integers(0, 8)
)
def test_a_region_is_of_the_window_whose_core_holds_its_first_pixel(
    width: int, height: int, scale: float, margin: int
) -> None:
    """Also where windows are shifted inwards, and raster pixels are not the grid's."""
    grid = WindowGrid(width=width, height=height, size=32, margin=margin, scale=scale)
    rng = np.random.default_rng(width)
    at = np.stack([rng.integers(0, width, 20), rng.integers(0, height, 20)], axis=1)
    corner = np.rint(at / scale * 256) / 256
    ring = corner[:, None] + np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])[None]
    polygons = Polygons(
        points=ring.reshape(-1, 2).astype(float), rings=np.arange(0, 101, 5),
        polygons=np.arange(21), classes=np.zeros(20, np.int32),
        scores=np.zeros(20, np.float32), areas=np.ones(20),
    )  # fmt: skip
    for (x, y), window in zip(at, polygons.windows(grid), strict=True):
        core = grid.core(int(window))
        assert core.x0 <= x < core.x1
        assert core.y0 <= y < core.y1


def test_columns_that_do_not_fit_are_refused() -> None:
    """Offsets and columns belong together."""
    sound = {name: getattr(drawn(1, 3), name) for name in COLUMNS}
    for name in COLUMNS:
        with pytest.raises(ValueError):
            Polygons(**{**sound, name: sound[name][:-1]})


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 8))
def test_damage_is_a_value_error_or_no_harm(seed: int, flips: int) -> None:
    """Flipped bytes never raise anything else; what is read can be used."""
    data = bytearray(to_ipc(drawn(1, 4), {"a": "b"}))
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(data), flips):
        data[at] ^= int(rng.integers(1, 256))
    try:
        polygons, _ = from_ipc(bytes(data))
    except ValueError:
        return
    assert polygons.boxes.shape == (len(polygons), 4)


def test_what_is_no_ring_is_refused() -> None:
    """Open rings and places that are no numbers do not pass for polygons."""
    polygons = drawn(1, 3)
    for value in (np.nan, -1.0):
        points = polygons.points.copy()
        points[0] = value
        wrong = Polygons(points, *(getattr(polygons, name) for name in COLUMNS[1:]))
        with pytest.raises(ValueError, match="polygons"):
            from_ipc(to_ipc(wrong))
