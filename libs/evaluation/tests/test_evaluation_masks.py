"""Pixels: labels painted by bands, counted by hand, run lengths as pycocotools reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from rasterio.features import rasterize

from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.evaluation import Labels, segmentation
from frond.evaluation.evaluate import rounded
from frond.evaluation.runs import are_sound, unpacked
from frond.evaluation.segmentation import Painter, SegmentationFigures
from frond.masks.blend import Band


def plan_of(width: int, height: int, scale: float = 1.0) -> ImagePlan:
    return ImagePlan(
        job_id="j", image_id="a" * 32, image="i", name="i",
        source=RasterSource(uri="i", etag="", size=1, bands=(1,), dtype="uint8",
                            width=width, height=height),
        grid=WindowGrid(width=round(width * scale), height=round(height * scale), size=32, margin=4,
                        scale=scale),
        model=ModelRef(name="m", digest="0" * 64), chunks=1,
    )  # fmt: skip


def shapes(*told: Any, classes: Any = 0, crowd: Any = False) -> Labels:
    n = len(told)
    return Labels(
        np.zeros((n, 4)), np.broadcast_to(np.array(classes, np.int32), (n,)),
        np.broadcast_to(np.array(crowd), (n,)), told,
    )  # fmt: skip


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def band(values: Any, y0: int = 0) -> Band:
    values = np.array(values, np.uint8)
    return Band(y0, values, values)


def test_figures_by_hand() -> None:
    """Counts, IoU and Dice of six pixels; nodata and crowds do not count."""
    labels = shapes(
        square(0, 0, 2, 1), square(2, 0, 4, 1), square(7, 0, 8, 1), classes=[0, 1, 0],
        crowd=[False, False, True],
    )  # fmt: skip
    figures = SegmentationFigures(("roof", "road"), (0, 1))
    painter = Painter(labels, plan_of(8, 1))
    assert painter.rows(0, 1).tolist() == [[1, 1, 2, 2, 0, 0, 0, 255]]
    figures.add(band([[1, 0, 1, 2, 0, 1, 255, 2]]), painter)
    told = rounded(figures.figures())
    assert told["confusion"] == {
        "names": ["roof", "road", "background"],
        "labels_by_finds": [[1, 0, 1], [1, 1, 0], [1, 0, 1]],
    }
    roof, road = told["classes"]["roof"], told["classes"]["road"]
    # roof: 2 labelled, 3 found, 1 both
    assert roof == {"iou": 0.25, "dice": 0.4, "labelled_pixels": 2, "found_pixels": 3}
    assert road == {"iou": 0.5, "dice": 0.666667, "labelled_pixels": 2, "found_pixels": 1}
    assert told["overall"] == {"iou": 0.375, "dice": 0.533333, "pixels": 6, "pixel_accuracy": 0.5}


def test_what_cannot_be_judged_is_background() -> None:
    """A class that no label has is no error of the other's pixels, and has no figures."""
    figures = SegmentationFigures(("roof", "road"), (0,))
    figures.add(band([[1, 2]]), Painter(shapes(square(0, 0, 1, 1)), plan_of(2, 1)))
    told = figures.figures()
    assert list(told["classes"]) == ["roof"]
    assert told["overall"]["iou"] == told["overall"]["pixel_accuracy"] == 1


def test_the_smaller_label_is_on_top() -> None:
    """In whatever order they come."""
    for order in (slice(None), slice(None, None, -1)):
        both = [square(0, 0, 4, 4), square(1, 1, 3, 3)][order]
        painter = Painter(shapes(*both, classes=[0, 1][order]), plan_of(4, 4))
        assert painter.rows(0, 4)[1].tolist() == [1, 2, 2, 1]


def test_labels_are_scaled_to_the_grid() -> None:
    """At half the resolution a square of 8 covers 4 pixels, as polygon and as run lengths."""
    mask = np.zeros((16, 24), np.uint8)
    mask[4:12, 8:16] = 1
    runs = coco_mask.encode(np.asfortranarray(mask))
    told = {"size": runs["size"], "counts": runs["counts"].decode()}
    for shape in (square(8, 4, 16, 12), told):
        painted = Painter(shapes(shape), plan_of(24, 16, 0.5)).rows(0, 8)
        assert painted.shape == (8, 12)
        assert (painted[2:6, 4:8] == 1).all()
        assert painted.sum() == 16


bitmaps = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))


@settings(max_examples=60, deadline=None)
@given(bitmaps, st.integers(1, 9))
def test_run_lengths_are_read_as_pycocotools_reads_them(drawn: Any, step: int) -> None:
    """Compressed or not, in bands of any height: the bitmap that went in."""
    height, width, seed = drawn
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    runs = coco_mask.encode(np.asfortranarray(mask))
    text = runs["counts"].decode()
    assert are_sound({"size": [height, width], "counts": text}) == mask.any()
    assert not are_sound({"size": [height + 1, width], "counts": text})
    for counts in (text, unpacked(text)):
        painter = Painter(
            shapes({"size": [height, width], "counts": counts}), plan_of(width, height)
        )
        bands = [painter.rows(y, min(y + step, height)) for y in range(0, height, step)]
        assert (np.concatenate(bands) == mask).all()


def test_unsound_run_lengths() -> None:
    """What cannot be run lengths is none."""
    for told in (
        {}, {"size": [2, 2]}, {"size": [2, 2], "counts": [1, -1, 4]}, {"size": [2], "counts": [0, 2]},
        {"size": [2, 2], "counts": "\x00é"}, {"size": [2, 2], "counts": [True, 3]},
        {"size": [2, 2], "counts": [4]},
    ):  # fmt: skip
        assert not are_sound(told)
    assert are_sound({"size": [2, 2], "counts": [1, 3]})


def test_a_polygon_without_area_paints_little() -> None:
    """A line or a point is no error."""
    for ring in ([1, 1, 1, 1, 1, 1], [0, 0, 3, 3, 0, 0]):
        assert Painter(shapes([ring]), plan_of(4, 4)).rows(0, 4).sum() <= 4


@pytest.mark.parametrize("step", [1, 3, 16])
def test_polygons_do_not_depend_on_the_bands(step: int) -> None:
    """Slanted edges and two parts: the same pixels in one go and row by row."""
    parts = [[1.5, 0.2, 14.3, 5.1, 3.2, 15.8], [10.0, 8.0, 15.0, 9.5, 12.2, 14.9]]
    painter = Painter(shapes(parts), plan_of(16, 16))
    whole = painter.rows(0, 16)
    assert 60 < whole.sum() < 120
    assert (
        np.concatenate([painter.rows(y, min(y + step, 16)) for y in range(0, 16, step)]) == whole
    ).all()


def run_lengths(mask: Any) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [int(n) for n in runs["size"]], "counts": runs["counts"].decode()}


def one_by_one(labels: Labels, plan: ImagePlan, y0: int, y1: int) -> Any:
    """Each label over all of the band: bitmaps and GDAL, and no thought of where it lies."""
    scale, width = plan.grid.scale, plan.grid.width
    out = np.zeros((y1 - y0, width), np.uint8)
    painted = []
    for told, kind, crowd in zip(labels.shapes, labels.classes, labels.crowd, strict=True):
        here = np.zeros_like(out)
        if isinstance(told, dict):
            runs = unpacked(told["counts"])
            mask = np.repeat(np.arange(len(runs)) % 2, runs).reshape(told["size"][::-1]).T
            area = float(mask.sum()) * scale**2
            x, y = (((np.arange(*b) + 0.5) / scale).astype(int) for b in ((0, width), (y0, y1)))
            here = mask[y.clip(0, mask.shape[0] - 1)][:, x.clip(0, mask.shape[1] - 1)]
        else:
            points = [np.array(r).reshape(-1, 2) * scale for r in told]
            area = sum(abs(segmentation._signed_area(p)) for p in points)
            for p in points:
                ring = [tuple(q) for q in [*(p - (0, y0)), p[0] - (0, y0)]]
                rasterize([({"type": "Polygon", "coordinates": [ring]}, 1)], out=here)
        painted.append((bool(crowd), -area, 255 if crowd else int(kind) + 1, here))
    for _, _, value, here in sorted(painted, key=lambda p: p[:2]):
        out[here == 1] = value
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.37, 1.9]), st.sampled_from([3, 20, 99]))
def test_labels_are_painted_as_one_by_one(seed: int, scale: float, step: int) -> None:
    """Polygons and run lengths through each other, in bands of any height: the same bytes."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(20, 120, 2).tolist()
    told: list[Any] = []
    for _ in range(rng.integers(2, 12)):
        corner = rng.uniform(-10, 110, 2)
        if rng.random() < 0.5:
            rings = rng.uniform(-5, 40, (rng.integers(1, 3), rng.integers(3, 8), 2)) + corner
            told.append([r.ravel().tolist() for r in rings])
            continue
        mask = np.zeros((height, width), np.uint8)
        x, y = rng.integers(0, width), rng.integers(0, height)
        mask[y : y + 30, x : x + 30] = rng.random() < 0.9
        told.append(run_lengths(mask * (rng.random(mask.shape) < rng.choice([0.2, 1.1]))))
    n = len(told)
    labels = shapes(*told, classes=rng.integers(0, 200, n), crowd=rng.random(n) < 0.1)
    plan = plan_of(width, height, scale)
    painter = Painter(labels, plan)
    for y in range(0, plan.grid.height, step):
        end = min(y + step, plan.grid.height)
        assert (painter.rows(y, end) == one_by_one(labels, plan, y, end)).all()


def test_labels_cost_nothing_where_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is painted in the bands that it reaches, and polygons in one go."""
    calls: list[str] = []

    def counted(of: Any, name: str) -> None:
        real = getattr(of, name)

        def call(*given: Any, **named: Any) -> Any:
            calls.append(name)
            return real(*given, **named)

        monkeypatch.setattr(of, name, call)

    counted(segmentation, "rasterize")
    counted(np, "searchsorted")
    corners = [(x, y) for y in range(2, 160, 16) for x in range(2, 80, 16)]
    masks = []
    for x, y in corners:
        masks.append(np.zeros((160, 80), np.uint8))
        masks[-1][y : y + 10, x : x + 10] = 1
    for told, expected in (
        ([square(x, y, x + 10, y + 10) for x, y in corners], ["rasterize"] * 10),
        ([run_lengths(m) for m in masks], ["searchsorted"] * 50),
    ):
        painter = Painter(shapes(*told), plan_of(80, 160))
        calls.clear()
        assert sum(int(painter.rows(y, y + 16).sum()) for y in range(0, 160, 16)) == 5000
        assert calls == expected


def test_a_run_over_the_end_of_a_column() -> None:
    """It is at the bottom of one and at the top of the next, in bands of one row."""
    painter = Painter(shapes({"size": [4, 3], "counts": [2, 3, 7]}), plan_of(3, 4))
    rows = [painter.rows(y, y + 1)[0].tolist() for y in range(4)]
    assert rows == [[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]]
