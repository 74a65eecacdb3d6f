from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from frond.contracts.errors import RasterRejected
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest, ServerSpec
from frond.contracts.plan import ImagePlan, WindowGrid
from frond.contracts.reasons import Reason
from frond.raster import PlanRequest, inspect, lacks_scale, open_raster, plan_image
from frond.raster.limits import Limits
from frond.raster.looks import LOOKS, spread
from frond.raster.reader import Layout

Make = Callable[..., Path]
OBJECT = 12.0


@dataclass(frozen=True)
class Found:
    boxes: NDArray[np.float32]


class Squares:
    """A model that finds bright squares on a lattice, of 6 to 24 pixels a side."""

    layout: Layout = "HWC"

    def __init__(self) -> None:
        self.seen: list[NDArray[Any]] = []

    def detect(self, windows: Sequence[NDArray[Any]]) -> list[Found]:
        self.seen += windows
        return [self._in(w[:, :, 0] > 150) for w in windows]

    def _in(self, bright: NDArray[np.bool_]) -> Found:
        cols, rows = _runs(bright.any(axis=0)), _runs(bright.any(axis=1))
        boxes = [(x0, y0, x1, y1) for x0, x1 in cols for y0, y1 in rows]
        kept = [b for b in boxes if all(6 <= side <= 24 for side in (b[2] - b[0], b[3] - b[1]))]
        return Found(np.array(kept, np.float32).reshape(-1, 4))


class Noisy(Squares):
    """One that finds more than is taken wherever the squares are small."""

    def _in(self, bright: NDArray[np.bool_]) -> Found:
        found = super()._in(bright)
        if len(found.boxes) > 8:
            raise RasterRejected(Reason.TOO_MANY, "too many")
        return found


def _runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def squares(side: int, length: int = 900) -> NDArray[np.uint8]:
    """Squares of a side, twice as far apart."""
    on = (np.arange(length) % (2 * side)) < side
    pattern = np.where(on[:, None] & on[None, :], 230, 40).astype(np.uint8)
    return np.stack([pattern] * 3)


def plan(path: Path, model: ModelManifest, detector: Squares | None, **more: Any) -> ImagePlan:
    with open_raster(str(path)) as dataset:
        info = inspect(dataset)
        request = PlanRequest(
            job_id="j", image_id="1" * 32, image="s3://b/k", name="k", uri=str(path), etag="e",
            size=path.stat().st_size, model=ModelRef(name="m", digest="0" * 64), manifest=model,
            **more,
        )  # fmt: skip
        return plan_image(dataset, info, request, detector)


@pytest.fixture
def model(manifest: Any) -> ModelManifest:
    told: ModelManifest = manifest(gsd_m=0.2, object_px=OBJECT)
    return told


@pytest.mark.parametrize("side", [4, 6, 12, 24, 60])
def test_a_raster_without_a_scale_is_given_one(
    make_raster: Make, model: ModelManifest, side: int
) -> None:
    """By the size of what is found in it; its windows are as of one that says so."""
    path = make_raster(squares(side), crs=None, transform=None)
    told = plan(path, model, Squares())
    assert told.grid.scale == pytest.approx(OBJECT / side, rel=0.1)
    assert told.gsd_source == "estimated"
    assert told.gsd_m == pytest.approx(0.2 * told.grid.scale, rel=1e-3)
    assert any("estimated" in n for n in told.notes)
    declared = plan(path, model, None, gsd_m=told.gsd_m)
    assert declared.gsd_source == "given"
    assert (declared.grid, declared.plan_digest) == (told.grid, told.plan_digest)


def test_the_same_raster_is_given_the_same_scale(make_raster: Make, model: ModelManifest) -> None:
    path = make_raster(squares(7, 3000), crs=None, transform=None)
    one, other = plan(path, model, Squares()), plan(path, model, Squares())
    assert one == other
    assert one.gsd_source == "estimated"


def test_only_a_few_windows_are_looked_at(make_raster: Make, model: ModelManifest) -> None:
    """However large the raster, and however little there is in it."""
    flat = np.full((3, 4000, 4000), 40, np.uint8)
    flat[:, ::50, ::50] = 60
    eyes = Squares()
    told = plan(make_raster(flat, crs=None, transform=None), model, eyes)
    assert (told.grid.scale, told.gsd_m, told.gsd_source) == (1.0, None, None)
    assert any("not known" in n for n in told.notes)
    assert 0 < len(eyes.seen) <= LOOKS * 6


def test_a_raster_that_says_its_scale_is_not_looked_at(
    make_raster: Make, model: ModelManifest
) -> None:
    eyes = Squares()
    told = plan(make_raster(squares(12)), model, eyes)
    assert told.gsd_m == pytest.approx(0.5, rel=0.01)
    assert told.gsd_source is None
    assert not eyes.seen


def test_windows_without_data_are_passed_over(make_raster: Make, model: ModelManifest) -> None:
    """What lies in one corner of a raster of nodata tells the scale all the same."""
    pixels = np.zeros((3, 3000, 3000), np.uint8)
    pixels[:, :1500, :1500] = squares(24, 1500)
    eyes = Squares()
    told = plan(make_raster(pixels, crs=None, transform=None, nodata=0), model, eyes)
    assert told.grid.scale == pytest.approx(0.5, rel=0.1)
    assert all(w.min() != w.max() for w in eyes.seen)


def test_no_estimate_makes_an_image_too_large(make_raster: Make, model: ModelManifest) -> None:
    """Where the windows at a scale would be too many, it is not looked at: the raster is taken as
    it is, and not refused for what nobody said of it."""
    path = make_raster(squares(4), crs=None, transform=None)
    finer = plan(path, model, Squares())
    assert finer.grid.scale == pytest.approx(3, rel=0.1)
    plain = plan(path, model, None)
    taken = plan(path, model, Squares(), limits=Limits(max_windows=plain.grid.count))
    assert (taken.grid, taken.gsd_m, taken.gsd_source) == (plain.grid, None, None)


def test_a_grid_that_cannot_be_made_is_not_looked_at(
    make_raster: Make, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large raster and a model of small windows: no more of them than a plan can name."""
    monkeypatch.setattr("frond.contracts.plan.MOST_WINDOWS_AN_IMAGE", 200)
    small = manifest(gsd_m=0.2, object_px=OBJECT)
    told = plan(
        make_raster(squares(60), crs=None, transform=None), small, Squares(),
        limits=Limits(max_windows=150),
    )  # fmt: skip
    assert told.grid.scale == pytest.approx(0.2, rel=0.1)


def test_whose_scale_is_asked_for(make_raster: Make, manifest: Any) -> None:
    """That of a raster without one, by a model that tells how large its objects are and is here."""
    with open_raster(str(make_raster(squares(12), crs=None, transform=None))) as dataset:
        without = inspect(dataset)
    with open_raster(str(make_raster(squares(12), "g.tif"))) as dataset:
        with_gsd = inspect(dataset)

    def request(given: float | None = None, **said: Any) -> PlanRequest:
        return PlanRequest(
            job_id="j", image_id="1" * 32, image="s3://b/k", name="k", uri="s3://b/k", etag="e",
            size=1, model=ModelRef(name="m", digest="0" * 64), manifest=manifest(**said), gsd_m=given,
        )  # fmt: skip

    sized = {"gsd_m": 0.2, "object_px": OBJECT}
    served = ServerSpec(url="http://h:1", model="m")
    assert lacks_scale(without, request(**sized))
    assert not lacks_scale(with_gsd, request(**sized))
    assert not lacks_scale(without, request(0.1, **sized))
    assert not lacks_scale(without, request(gsd_m=0.2))
    assert not lacks_scale(without, request(**sized, server=served))


@settings(deadline=None)
@given(st.integers(1, 40_000), st.integers(1, 40_000), st.integers(1, 60))
def test_windows_are_spread(width: int, height: int, most: int) -> None:
    """As many as there are or were asked for, each once, and not all on one side of a large grid."""
    grid = WindowGrid(width=width, height=height, size=128, margin=16)
    told = list(spread(grid, most))
    assert len(told) == len(set(told)) == min(most, grid.count)
    assert all(0 <= i < grid.count for i in told)
    if min(grid.cols, grid.rows) >= 4 and most >= 8:
        first = told[:8]
        cols, rows = (
            {i % grid.cols * 2 // grid.cols for i in first},
            {i // grid.cols * 2 // grid.rows for i in first},
        )
        assert cols == rows == {0, 1}


def test_a_zoom_at_which_too_much_is_found_is_not_the_scale(
    make_raster: Make, model: ModelManifest
) -> None:
    """What fails an image that is run so does not fail the look at it."""
    path = make_raster(squares(24), crs=None, transform=None)
    assert plan(path, model, Noisy()).grid.count
