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


def test_parts_of_two_scenes_are_refused(root: Path, tmp_path: Path) -> None:
    """A part far smaller than the rest must not cut the whole row to its size in silence."""
    for kind in ("images", "masks"):
        path = root / f"landcover/dubai/a/{kind}/image_part_005.png"
        Image.open(path).crop((0, 0, 80, 40)).save(path)
    with pytest.raises(UserError, match="heights of its parts go from 40 to 64 pixels"):
        data.prepare(settings(root), tmp_path / "prepared")


def test_a_mask_is_its_images_by_number(root: Path, tmp_path: Path) -> None:
    """Nine files, but not the nine: every later image would be given its neighbour's mask."""
    images = root / "landcover/dubai/a/images"
    (images / "image_part_003.png").rename(images / "image_part_010.png")
    with pytest.raises(UserError, match="holds no image_part_003, but image_part_004"):
        data.prepare(settings(root), tmp_path / "prepared")


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_scene_that_lacks_a_half_is_refused(root: Path, tmp_path: Path, kind: str) -> None:
    """Images without masks are told, not left out in silence; masks without images likewise."""
    for path in (root / "landcover/dubai/a" / kind).iterdir():
        path.unlink()
    (root / "landcover/dubai/a" / kind).rmdir()
    with pytest.raises(UserError, match=f"{kind} holds 0 parts"):
        data.prepare(settings(root), tmp_path / "prepared")


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("left", [0.0, 0.3, 0.6])
def test_a_damaged_file_is_named(root: Path, tmp_path: Path, kind: str, left: float) -> None:
    """Cut short anywhere, it is told in a sentence that says which one it is."""
    path = root / f"landcover/dubai/a/{kind}/image_part_005.png"
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(UserError, match=f"{kind}/image_part_005.png cannot be read as an image"):
        data.prepare(settings(root), tmp_path / "prepared")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("validation", ("b", "b"), "named twice"),
        ("test", ("c", "c"), "named twice"),
        ("zoom", (0.5, float("inf")), "zoom"),
        ("weights", (-1, 1, 1, 1, 1), "weights are above 0"),
        ("widths", (0, 8, 8, 8), "1 or more"),
        ("decoder", (8, 8, 8, 0), "1 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(field: str, value: object, words: str) -> None:
    """Before anything is prepared: a scene named twice would fail only after the training."""
    with pytest.raises(ValueError, match=words):
        settings(Path(), **{field: value})


def test_patience_is_with_somebody() -> None:
    """Without validation scenes every score is 0, and training would soon be given up as no better."""
    with pytest.raises(ValueError, match="patience needs"):
        settings(Path(), validation=(), patience=3)
    assert settings(Path(), validation=()).patience == 0


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
