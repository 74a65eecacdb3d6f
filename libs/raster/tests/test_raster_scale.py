from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.raster.scale import (
    COARSEST,
    FINEST,
    LEAST,
    MOST_LOOKS,
    ZOOMS,
    Sizes,
    rounded,
    search,
    typical,
)

OBJECT = 60.0
objects = st.floats(4, 400)
many = st.lists(st.floats(1, 1000), max_size=60).map(np.array)


class Model:
    """Finds what is half to twice as large as its objects, and tells sizes as they are."""

    def __init__(self, sizes: Sizes, object_px: float) -> None:
        self.sizes = sizes
        self.object_px = object_px
        self.zooms: list[float] = []

    def at(self, zoom: float) -> Sizes:
        self.zooms.append(zoom)
        sizes = self.sizes * zoom
        return sizes[(sizes >= self.object_px / 2) & (sizes <= 2 * self.object_px)]

    def scale(self) -> float | None:
        asking = search(self.object_px)
        try:
            zoom = next(asking)
            while True:
                zoom = asking.send(self.at(zoom))
        except StopIteration as told:
            found: float | None = told.value
            return found


@settings(deadline=None)
@given(st.floats(math.log2(1 / 7), math.log2(7)), objects, st.integers(LEAST, 80), st.integers(0))
def test_the_scale_of_objects_that_differ_a_little_is_told(
    octaves: float, object_px: float, count: int, seed: int
) -> None:
    """Within five per cent, whatever the scale between a seventh and seven times."""
    spread = np.random.default_rng(seed).uniform(0.97, 1.03, count)
    true = 2.0**octaves
    found = Model(spread * object_px / true, object_px).scale()
    assert found is not None
    assert found == pytest.approx(true, rel=0.05)


@settings(deadline=None)
@given(st.integers(0, LEAST - 1), st.floats(1, 500))
def test_few_finds_tell_nothing(count: int, size: float) -> None:
    assert Model(np.full(count, size), OBJECT).scale() is None


@settings(deadline=None)
@given(st.lists(many, min_size=MOST_LOOKS, max_size=MOST_LOOKS), objects)
def test_any_finds_end_in_a_bounded_scale_or_none(finds: list[Sizes], object_px: float) -> None:
    """Never more than so many looks, at zooms within bounds; a scale is within them, too."""
    asking = search(object_px)
    zooms, told = [next(asking)], None
    try:
        for sizes in finds:
            zooms.append(asking.send(sizes))
    except StopIteration as end:
        told = end.value
    else:
        pytest.fail(f"more than {MOST_LOOKS} looks")
    assert len(zooms) <= MOST_LOOKS
    assert told is None or rounded(FINEST) <= told <= rounded(COARSEST)
    assert all(FINEST <= z <= COARSEST for z in zooms)


@settings(deadline=None)
@given(many, objects, st.randoms())
def test_the_order_of_finds_says_nothing(sizes: Sizes, object_px: float, rng: object) -> None:
    turned = np.array(sorted(sizes, key=lambda _: rng.random()))  # type: ignore[attr-defined]
    assert typical(turned, object_px) == typical(sizes, object_px)


@settings(deadline=None)
@given(many, objects)
def test_a_typical_size_is_shared_by_most(sizes: Sizes, object_px: float) -> None:
    size = typical(sizes, object_px)
    if size is not None:
        alike = ((sizes > size / 1.51) & (sizes < size * 1.51)).sum()
        assert alike >= max(LEAST, 0.66 * len(sizes))
        assert object_px / 2 <= size <= object_px * 2


def test_a_scale_at_the_bound_is_not_told() -> None:
    """Rounded as metres, it would be beyond what a plan takes, and the pixels read as they are."""
    scale = Model(np.full(20, OBJECT / COARSEST), OBJECT).scale()
    assert scale is None or scale < COARSEST
    below = Model(np.full(20, OBJECT / 7.5), OBJECT).scale()
    assert below == pytest.approx(7.5, rel=0.02)


def test_finds_of_two_sizes_tell_nothing() -> None:
    """Neither of two kinds of things that are equally many is the one that was meant."""
    assert typical(np.array([32.0] * 20 + [110.0] * 20), OBJECT) is None
    assert typical(np.array([32.0] * 20 + [400.0] * 20), OBJECT) is None


def test_an_image_at_the_models_scale_takes_one_look() -> None:
    model = Model(np.full(20, OBJECT * 1.03), OBJECT)
    assert model.scale() == pytest.approx(1 / 1.03, rel=0.02)
    assert model.zooms == [1.0]


def test_an_image_of_nothing_takes_one_look_a_zoom() -> None:
    model = Model(np.zeros(0), OBJECT)
    assert model.scale() is None
    assert model.zooms == list(ZOOMS)


@settings(deadline=None)
@given(st.floats(FINEST, COARSEST))
def test_arithmetics_last_bits_change_no_scale(scale: float) -> None:
    """A step is two per cent; what is rounded stays."""
    step = rounded(scale)
    assert abs(math.log2(step / scale)) <= 1 / 64 + 1e-9
    assert rounded(step) == step == rounded(step * (1 + 1e-7))
