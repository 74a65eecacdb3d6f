"""Drawn scenes: same arguments same arrays, boxes true, inside and apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.client.scenes import palm_scene


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    n=st.integers(0, 30),
    seed=st.integers(0, 2**31),
)
def test_boxes_lie_inside_and_scenes_repeat(height: int, width: int, n: int, seed: int) -> None:
    """Any size and seed gives boxes inside the scene, at most n, and the same bytes again."""
    pixels, boxes = palm_scene(height, width, n, seed)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert len(boxes) <= n
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    again, boxes_again = palm_scene(height, width, n, seed)
    assert np.array_equal(pixels, again)
    assert np.array_equal(boxes, boxes_again)


def test_every_palm_asked_for_is_drawn_and_apart() -> None:
    """Where there is room all palms stand, crowns of 8.5 m ± 15 %, no two on one spot."""
    _, boxes = palm_scene(768, 1024, 60, seed=3)
    assert len(boxes) == 60
    sides = boxes[:, 2:] - boxes[:, :2]
    assert 0.7 * 8.5 < float(sides.mean()) * 0.14 < 1.15 * 8.5
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 1e9 * np.eye(60)
    assert apart.min() > 0.8 * sides.mean()


def test_senseless_arguments_are_refused() -> None:
    """A scene without area, or a GSD that is no length, is a caller's error."""
    with pytest.raises(ValueError, match="positive"):
        palm_scene(0, 10, 1, 0)
    with pytest.raises(ValueError, match="positive"):
        palm_scene(10, 10, 1, 0, gsd_m=0.0)
