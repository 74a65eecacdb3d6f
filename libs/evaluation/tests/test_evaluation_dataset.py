"""COCO files of all kinds: what counts as what, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import coco, picture

from frond.contracts.errors import UserError
from frond.evaluation import load

CLASSES = ("palm", "house")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "d" / name, [])
    return tmp_path / "d"


def refused(where: Path, **options: Any) -> str:
    with pytest.raises(UserError) as e:
        load(where, CLASSES, **options)
    return e.value.detail


def test_labels_by_name(folder: Path) -> None:
    """Categories are classes by name, whatever their ids and letters; images come in order."""
    coco(
        folder, {"b.png": [{"bbox": [1, 2, 3, 4], "category_id": 2}], "a.png": [(5, 6)]},
        categories=("House", "PALM "),
    )  # fmt: skip
    found = load(folder, CLASSES)
    assert [i.name for i in found.images] == ["a.png", "b.png"]
    assert found.images[1].labels.boxes.tolist() == [[1, 2, 4, 6]]
    assert [i.labels.classes.tolist() for i in found.images] == [[1], [0]]
    assert found.judged == (0, 1)
    assert found.notes == ()


def test_what_matches_nothing_is_said(folder: Path) -> None:
    """Categories without a class, classes without a category, and how to say which is which."""
    coco(folder, {"a.png": [(5, 6)], "b.png": []}, categories=("coconut", "palm", "oak"))
    found = load(folder, CLASSES)
    assert found.judged == (0,)
    assert [len(i.labels) for i in found.images] == [0, 0]
    # a category without labels needs no words
    assert len(found.notes) == 2
    assert "coconut" in found.notes[0] and "1 label left out" in found.notes[0]
    assert "house" in found.notes[1]
    found = load(folder, CLASSES, renamed={"coconut": "palm"})
    assert len(found.images[0].labels) == 1
    assert found.categories == {"coconut": "palm", "palm": "palm"}
    assert "no category 'elm'" in refused(folder, renamed={"elm": "palm"})
    assert "no class 'oak'" in refused(folder, renamed={"coconut": "oak"})


def test_nothing_in_common(folder: Path) -> None:
    """Labels of other things judge nothing; images without any label judge all classes."""
    coco(folder, {"a.png": [(5, 6)]}, categories=("oak",))
    assert "--map" in refused(folder)
    coco(folder, {"a.png": []}, categories=())
    assert load(folder, CLASSES).judged == (0, 1)


def test_unusable_labels_are_counted(folder: Path) -> None:
    """Without area, without a box, of an image that is not listed: left out, and said."""
    bad = [{"bbox": [1, 1, 0, 5]}, {"bbox": [1, 1, float("nan"), 2]}, {"bbox": None}, (3, 3)]
    coco(folder, {"a.png": [*bad, {"bbox": [1, 1, 2, 2], "image_id": 77}]}, categories=CLASSES)
    found = load(folder, CLASSES)
    assert len(found.images[0].labels) == 1
    assert "3 labels without a bbox" in found.notes[0]
    assert "1 label of images that are not listed" in found.notes[1]
    assert "4 labels without a segmentation" not in str(found.notes)
    assert "without a segmentation" in load(folder, CLASSES, masks=True).notes[0]


def test_bad_files_are_refused_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    """Each says what is wrong and what to do."""
    assert "There is no" in refused(tmp_path / "nowhere")
    assert "no .json file" in refused(folder)
    file = folder / "labels.json"
    file.write_bytes(b"\xff{")
    assert "is not JSON" in refused(file)
    file.write_text("[" * 100_000)
    assert "is not JSON" in refused(file)
    file.write_text('{"type": "FeatureCollection"}')
    assert "no list of images" in refused(file)
    file.write_text(json.dumps({"images": []}))
    assert "lists no images" in refused(file)
    file.write_text(json.dumps({"images": [{"id": 1}]}))
    assert "lacks id and file_name" in refused(file)
    file.write_text(json.dumps({"images": [], "annotations": [{"image_id": []}]}))
    assert "an entry of annotations" in refused(file)
    coco(folder, {"x.png": []})
    assert "--images" in refused(folder)
    assert len(load(coco(tmp_path / "l", {"a.png": []}), CLASSES, images=folder).images) == 1
    (folder / "more.json").write_text("{}")
    assert "labels.json, more.json" in refused(folder)


def test_an_id_that_means_two_things_is_refused(folder: Path) -> None:
    """Labels of one image were judged on another, and one class as another."""
    palm, house = {"id": 1, "name": "palm"}, {"id": 1, "name": "house"}
    one, other = {"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}
    file = folder / "labels.json"
    file.write_text(json.dumps({"images": [one, other], "categories": [palm]}))
    assert "lists image id 1 twice. Number the images anew" in refused(file)
    file.write_text(json.dumps({"images": [one, one], "categories": [palm]}))
    assert "lists a.png twice" in refused(file)
    file.write_text(json.dumps({"images": [one], "categories": [palm, house]}))
    assert "lists category id 1 twice, with different names" in refused(file)
    file.write_text(json.dumps({"images": [one], "categories": [palm, palm]}))
    assert load(file, CLASSES).categories == {"palm": "palm"}


def test_digest_is_of_labels_and_pixels(folder: Path) -> None:
    """Another label, another pixel, another digest; the same, the same."""
    coco(folder, {"a.png": [(5, 6)]}, categories=CLASSES)
    first = load(folder, CLASSES).digest()
    assert load(folder, CLASSES).digest() == first
    picture(folder / "a.png", [(20, 20)])
    second = load(folder, CLASSES).digest()
    coco(folder, {"a.png": [(5, 7)]}, categories=CLASSES)
    assert len({first, second, load(folder, CLASSES).digest()}) == 3
