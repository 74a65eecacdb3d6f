"""Training crops of the land cover model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from landcover_scenes import drawn

from frond.training.landcover.config import IGNORED, Settings
from frond.training.landcover.crops import Sampler, cut


def test_the_same_seed_and_step_give_the_same_batch() -> None:
    """In any order, by any sampler; another step gives another batch."""
    config = Settings(batch=3, crop=64)
    scenes = [drawn("a", 1), drawn("b", 2)]
    first, again = Sampler(scenes, config), Sampler(scenes, config)
    want = first.batch(7, 5)
    again.batch(7, 4)
    got = again.batch(7, 5)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)
    assert want[0].shape == (3, 64, 64, 3)
    assert want[1].shape == (3, 64, 64)
    assert (want[0] != first.batch(7, 6)[0]).any()
    assert (want[0] != first.batch(8, 5)[0]).any()


def test_a_plain_crop_is_a_piece_of_the_scene() -> None:
    """Unturned and unscaled, pixels and labels are those of the scene."""
    scene = drawn("a", 1)
    pixels, labels = cut(scene, 100, 90, 64, 1.0, 0.0, False)
    np.testing.assert_array_equal(pixels, scene.pixels[58:122, 68:132])
    np.testing.assert_array_equal(labels, scene.labels[58:122, 68:132])


@pytest.mark.parametrize("zoom", [0.5, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("angle", [0.0, math.pi / 2, 0.7, 4.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_labels_stay_on_their_pixels(zoom: float, angle: float, mirrored: bool) -> None:
    """Red tells the class of a drawn scene; it still does after turning, scaling and mirroring."""
    scene = drawn("a", 3)
    pixels, labels = cut(scene, 120, 100, 64, zoom, angle, mirrored)
    there = labels != IGNORED
    assert there.mean() > 0.9
    right = np.rint(pixels[..., 0] / 50) == labels
    # between patches red is a mixture: half a zoomed pixel on either side, two of them
    assert right[there].mean() > 1 - 4 / (24 * zoom)


def test_beyond_the_scene_is_black_and_ignored() -> None:
    """What is not there teaches nothing."""
    scene = drawn("a", 1)
    pixels, labels = cut(scene, 0, 96, 64, 1.0, 0.0, False)
    assert (labels[:, :32] == IGNORED).all()
    assert not pixels[:, :31].any()
    np.testing.assert_array_equal(labels[:, 32:], scene.labels[64:128, :32])


def test_rare_classes_are_seen() -> None:
    """A class of a hundredth of the scene is in far more of the crops."""
    scene = drawn("a", 1, 960, 960)
    scene.labels[:] = 4
    scene.labels[480:576, 480:576] = 0
    seen = {}
    for rare in (0.0, 1.0):
        sampler = Sampler([scene], Settings(batch=8, crop=64, rare=rare, zoom=(1, 1)))
        labels = np.concatenate([sampler.batch(7, k)[1] for k in range(8)])
        seen[rare] = float((labels == 0).any((1, 2)).mean())
    assert seen[0.0] < 0.3
    assert seen[1.0] > 0.9
