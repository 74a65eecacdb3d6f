"""Regions and outlines, held against GDAL's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rasterio.features
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.masks import polygons
from frond.masks.blend import NODATA, Band
from frond.masks.outlines import outlines
from frond.masks.polygons import Regions, Tracer

Raster = np.ndarray[Any, Any]


def gdal(values: Raster, min_area: int) -> list[Any]:
    """Class, first pixel, pixels, and each ring as the set of its corners."""
    found = []
    shapes = rasterio.features.shapes(
        values, mask=(values != 0) & (values != NODATA), connectivity=4
    )
    for shape, value in shapes:
        burnt = rasterio.features.rasterize([(shape, 1)], out_shape=values.shape)
        area = int(burnt.sum())
        if area >= min_area:
            y, x = np.argwhere(burnt)[0]
            rings = [frozenset(r) for r in shape["coordinates"]]
            found.append((int(value) - 1, int(y), int(x), area, rings[0], set(rings[1:])))
    return sorted(found, key=lambda f: f[:3])


def traced(values: Raster, min_area: int, **more: Any) -> Regions:
    tracer = Tracer(values.shape[1], values.shape[0], min_area, **more)
    # a band is whatever number of rows
    for y in range(0, len(values), 7):
        part = values[y : y + 7]
        tracer.add(Band(y, part, np.full(part.shape, 100, np.uint8)))
    return tracer.finish()


def rings_of(regions: Regions, batch: int = 1 << 19) -> list[list[Raster]]:
    """Each region's rings."""
    found = []
    for part in outlines(regions.keys, regions.bits, batch):
        points = np.stack([part.x, part.y], axis=1)
        rings = [points[a:b] for a, b in zip(part.rings, part.rings[1:], strict=False)]
        found += [rings[a:b] for a, b in zip(part.polygons, part.polygons[1:], strict=False)]
    return found


def area(ring: Raster) -> float:
    x, y = ring[:, 0].astype(float), ring[:, 1].astype(float)
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@st.composite
def rasters(draw: st.DrawFn) -> Raster:
    rng = np.random.default_rng(draw(st.integers(0, 10**9)))
    shape = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    kinds = draw(st.sampled_from([[0, 1], [0, 1, 1], [0, 1, 1, 1, 2, NODATA], [1], [1, 2, 3]]))
    coarse = draw(st.integers(1, 3))
    values = rng.choice(kinds, [-(-s // coarse) for s in shape]).astype(np.uint8)
    return values.repeat(coarse, 0).repeat(coarse, 1)[: shape[0], : shape[1]]


@settings(max_examples=300, deadline=None)
@given(rasters(), st.integers(1, 6), st.integers(1, 9), st.integers(1, 60))
def test_they_are_gdals(values: Raster, min_area: int, strip: int, batch: int) -> None:
    """The same regions with the same rings, in whatever strips and batches."""
    before = polygons._STRIP_PIXELS
    polygons._STRIP_PIXELS = strip * values.shape[1]
    try:
        regions = traced(values, min_area)
    finally:
        polygons._STRIP_PIXELS = before
    rings = rings_of(regions, batch)
    mine = [
        (
            int(c), int(r[0][0][1]), int(r[0][0][0]), int(n),
            frozenset(map(tuple, r[0])), {frozenset(map(tuple, q)) for q in r[1:]},
        )
        for c, n, r in zip(regions.classes, regions.pixels, rings, strict=True)
    ]  # fmt: skip
    assert mine == gdal(values, min_area)
    np.testing.assert_array_equal(regions.confidence, regions.pixels * 100)


@settings(max_examples=100, deadline=None)
@given(rasters())
def test_areas_are_pixel_counts(values: Raster) -> None:
    """By the shoelace, exteriors less holes; each class's regions are all of its pixels."""
    regions = traced(values, 1)
    for pixels, rings in zip(regions.pixels, rings_of(regions), strict=True):
        assert area(rings[0]) > 0
        assert all(area(r) < 0 for r in rings[1:])
        assert sum(map(area, rings)) == pixels
        assert all((r[0] == r[-1]).all() for r in rings)
    for c in range(3):
        assert regions.pixels[regions.classes == c].sum() == (values == c + 1).sum()


def test_a_hole_that_touches_the_outside_is_a_hole() -> None:
    """Rings may touch at a corner; none crosses itself there."""
    values = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], np.uint8)
    regions = traced(values, 1)
    (rings,) = rings_of(regions)
    assert len(rings) == 3
    for ring in rings:
        assert len({tuple(p) for p in ring[:-1].tolist()}) == len(ring) - 1


def test_specks_cost_no_memory() -> None:
    """What is smaller than the least area is dropped as rows go by, a chessboard of it too."""
    values = (np.indices((600, 500)).sum(axis=0) % 2).astype(np.uint8)
    assert len(traced(values, 2, most_corners=4)) == 0


def test_too_many_corners_are_refused() -> None:
    """Outlines beyond the limit reject the image, with a sentence that says what to do."""
    values = np.zeros((40, 40), np.uint8)
    values[::2, ::2] = 1
    assert len(traced(values, 1, most_corners=1600)) == 400
    with pytest.raises(RasterRejected, match="min_area") as e:
        traced(values, 1, most_corners=1599)
    assert e.value.reason is Reason.TOO_MANY


def test_one_region_has_a_limit_of_its_own() -> None:
    """A comb of 4·20 corners beside a square of 4: what counts is the larger one."""
    values = np.zeros((30, 50), np.uint8)
    values[0, :41] = 1
    values[1:9, 0:41:2] = 1
    values[20:25, 0:5] = 1
    most = max(len(shell) - 1 for shell, *_ in rings_of(traced(values, 1)))
    assert most > 60
    assert len(traced(values, 1, most_corners_a_region=most)) == 2
    with pytest.raises(RasterRejected, match="one region") as e:
        traced(values, 1, most_corners_a_region=most - 1)
    assert e.value.reason is Reason.TOO_MANY


def test_an_image_without_a_region() -> None:
    """Nothing, nodata, and a single pixel."""
    for value in (0, NODATA):
        regions = traced(np.full((9, 5), value, np.uint8), 1)
        assert len(regions) == 0
        assert rings_of(regions) == []
    assert len(traced(np.ones((1, 1), np.uint8), 1)) == 1
