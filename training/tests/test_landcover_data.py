"""Scenes of the land cover model: parts put together, colours as numbers, held out whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from landcover_scenes import BLACK, COLOURS, GREY, drawn, write
from PIL import Image

from frond.contracts.errors import UserError
from frond.training.landcover import data
from frond.training.landcover.config import BACKGROUND, IGNORED, Settings
from frond.training.prepared import Store


def settings(root: Path, **more: object) -> Settings:
    told = {"data": root, "validation": ("b",), "test": ("c",), **more}
    return Settings.model_validate(told)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for k, name in enumerate("abc"):
        write(drawn(name, k), tmp_path / "data")
    return tmp_path / "data"


def test_a_scene_comes_back_whole(root: Path, tmp_path: Path) -> None:
    """Nine parts give the scene that was cut, pixel for pixel, and its counts by class."""
    data.prepare(settings(root), tmp_path / "prepared")
    store = Store(tmp_path / "prepared")
    found = data.scenes(store)
    assert list(found) == ["a", "b", "c"]
    for k, name in enumerate("abc"):
        want = drawn(name, k)
        np.testing.assert_array_equal(found[name].pixels, want.pixels)
        np.testing.assert_array_equal(found[name].labels, want.labels)
        told = store.about["scenes"][name]
        assert told["pixels"] == [int((want.labels == n).sum()) for n in range(5)]
        assert told["ignored"] == 2 * 240


def test_parts_that_differ_by_a_pixel_still_fit() -> None:
    """Upstream cut some scenes into parts a pixel longer than others."""
    parts = [np.full((4 + n % 2, 3 + n // 8, 3), n, np.uint8) for n in range(9)]
    whole = data.together(parts)
    assert whole.shape == (12, 9, 3)
    assert whole[0, 0, 0] == 0
    assert whole[-1, -1, 0] == 8


def test_masks_are_read_by_their_true_colours(tmp_path: Path) -> None:
    """The four classes, land and unlabelled as background, black as what does not count."""
    row = np.array([*COLOURS, GREY, BLACK], np.uint8)[None]
    Image.fromarray(row).save(tmp_path / "mask.png")
    told = data.decoded(tmp_path / "mask.png")
    assert told.tolist() == [[0, 1, 2, 3, BACKGROUND, BACKGROUND, IGNORED]]


def test_an_unknown_colour_is_refused(tmp_path: Path) -> None:
    """classes.json of the set names other colours: a mask in those must not pass as land."""
    Image.fromarray(np.full((2, 2, 3), (60, 16, 153), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="of no class"):
        data.decoded(tmp_path / "mask.png")


def test_a_mask_of_another_size_is_refused(root: Path, tmp_path: Path) -> None:
    """Labels that do not lie on their image would teach nonsense."""
    mask = root / "landcover/dubai/a/masks/image_part_005.png"
    Image.open(mask).crop((0, 0, 40, 40)).save(mask)
    with pytest.raises(UserError, match="part 5: the mask has another size"):
        data.prepare(settings(root), tmp_path / "prepared")


def test_prepared_once(root: Path, tmp_path: Path) -> None:
    """The same sources give the same digest, other ones another; who is held out plays no part."""
    first = data.prepare(settings(root), tmp_path / "prepared")
    made = (tmp_path / "prepared" / "manifest.json").stat().st_mtime_ns
    assert data.prepare(settings(root, validation=("a",)), tmp_path / "prepared") == first
    assert (tmp_path / "prepared" / "manifest.json").stat().st_mtime_ns == made
    mask = root / "landcover/dubai/a/masks/image_part_001.png"
    Image.fromarray(np.full((64, 80, 3), GREY, np.uint8)).save(mask)
    assert data.prepare(settings(root), tmp_path / "prepared") != first


def test_scenes_are_held_out_whole(root: Path, tmp_path: Path) -> None:
    """What is learnt from is what is neither validation nor test; a scene's name must exist."""
    config = settings(root)
    data.prepare(config, tmp_path / "prepared")
    found = data.scenes(Store(tmp_path / "prepared"))
    learnt, judged = data.split(config, found)
    assert [s.name for s in learnt] == ["a"]
    assert [s.name for s in judged] == ["b"]
    with pytest.raises(UserError, match="no scene tile9"):
        data.split(settings(root, test=("tile9",)), found)
    with pytest.raises(UserError, match="none is left"):
        data.split(settings(root, validation=("a", "b")), found)
    with pytest.raises(ValueError, match="among validation and test"):
        settings(root, test=("b",))


def test_there_is_no_data(tmp_path: Path) -> None:
    """An empty folder is told in a sentence."""
    with pytest.raises(UserError, match="nothing to train on"):
        data.prepare(settings(tmp_path), tmp_path / "prepared")
