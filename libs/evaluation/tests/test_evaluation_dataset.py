"""COCO files of all kinds: what counts as what, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import coco, finds_of, picture

from frond.contracts.errors import UserError
from frond.evaluation import load
from frond.evaluation.matching import by_centre, by_overlap, scene

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


@pytest.mark.parametrize("masks", [False, True])
def test_crowd_regions_are_told_and_are_not_all(folder: Path, masks: bool) -> None:
    """Tools write whole masks as crowds: what is not judged is told, and nothing is judged by nothing."""
    shape = {"size": [200, 320], "counts": [0, 2048, 61952]}
    crowd = {"bbox": [1, 2, 30, 40], "segmentation": shape, "iscrowd": 1}
    coco(folder, {"a.png": [crowd, crowd]}, categories=CLASSES)
    told = refused(folder, masks=masks)
    assert "2 labels, and iscrowd is 1" in told and "set iscrowd to 0" in told
    coco(folder, {"a.png": [crowd, crowd | {"iscrowd": 0}], "b.png": []}, categories=CLASSES)
    (note,) = load(folder, CLASSES, masks=masks).notes
    assert note.startswith("1 label with iscrowd 1, ")


def test_images_without_labels_are_judged_beside_crowd_regions(folder: Path) -> None:
    """A set without palms, for false finds, may have a region to leave out. Of pixels it says nothing."""
    shape = {"size": [200, 320], "counts": [0, 2048, 61952]}
    crowd = {"bbox": [1, 2, 30, 40], "segmentation": shape, "iscrowd": 1}
    coco(folder, {"a.png": [crowd], "b.png": []}, categories=CLASSES)
    found = load(folder, CLASSES)
    assert found.notes[0].startswith("1 label with iscrowd 1, ")
    assert [i.labels.crowd.tolist() for i in found.images] == [[True], []]
    assert "1 label, and iscrowd is 1" in refused(folder, masks=True)
    coco(folder, {"a.png": [crowd], "b.png": [crowd]}, categories=CLASSES)
    assert "2 labels, and iscrowd is 1" in refused(folder)


@pytest.mark.parametrize(
    ("flag", "crowd"),
    [("0", False), ("false", False), ("False", False), ("", False), (None, False), (0.0, False),
     (False, False), ("1", True), ("true", True), (True, True), (1.0, True)],
)  # fmt: skip
def test_a_crowd_flag_may_be_text(folder: Path, flag: Any, crowd: bool) -> None:
    """Numbers that a tool wrote as text mean what they say."""
    coco(
        folder,
        {"a.png": [{"bbox": [1, 2, 3, 4], "iscrowd": flag}], "b.png": []},
        categories=CLASSES,
    )
    found = load(folder, CLASSES)
    assert found.images[0].labels.crowd.tolist() == [crowd]
    assert bool(found.notes) is crowd


def test_a_mapping_that_leads_to_no_label_is_refused(folder: Path) -> None:
    """What is asked has been misread: how many labels each category has is told. Without --map, images
    that have other labels alone may be meant; so may images without any."""
    crowns = [{"bbox": [1, 2, 3, 4], "category_id": 1}]
    coco(folder, {"a.png": crowns * 3}, categories=("0", "crown"))
    assert "has 0 (3 labels), crown (none). Map" in refused(folder, renamed={"crown": "palm"})
    assert len(load(folder, CLASSES, renamed={"0": "palm"}).images[0].labels) == 3
    assert "which has 0 (3 labels), crown (none), is" in refused(folder)
    assert "they have 0 (3 labels), crown (none)." in refused(folder, renamed={"palm": "palm"})
    coco(folder, {"a.png": []}, categories=("0", "crown"))
    assert load(folder, CLASSES, renamed={"crown": "palm"}).judged == (0,)
    coco(folder, {"a.png": crowns}, categories=("oak", "palm"))
    assert load(folder, CLASSES).judged == (0,)


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


@pytest.mark.parametrize(
    "far", [2_000_001, 1e17, 1e300, 10**400], ids=lambda n: f"{len(str(int(n)))} digits"
)
def test_numbers_beyond_any_image_are_unusable(folder: Path, far: Any) -> None:
    """Boxes, polygons and run lengths there are left out and counted, like others."""
    places = [[far, 1, 5, 5], [-far, 1, 5, 5], [1, 1, far, far]]
    rings = [[[1, 1, far, 1, 5, 5]], {"size": [far, 1], "counts": [0, far]}]
    coco(folder, {"a.png": [*({"bbox": b} for b in places), (3, 3)]}, categories=CLASSES)
    found = load(folder, CLASSES)
    assert found.images[0].labels.boxes.tolist() == [[3, 3, 19, 19]]
    assert "3 labels without a bbox" in found.notes[0]
    coco(folder, {"a.png": [{"segmentation": s} for s in rings]}, categories=CLASSES)
    assert "2 labels without a segmentation" in load(folder, CLASSES, masks=True).notes[0]


def test_labels_as_far_as_they_may_be_can_be_judged(folder: Path) -> None:
    """The smallest and the largest in every corner: the index over them takes all."""
    far, near = 2e6, (16, 16)
    boxes = [[x, y, s, t] for x in (-far, 3, far) for y in (-far, 3, far)
             for s, t in ((1e-300, 1e-300), (far, far), near)]  # fmt: skip
    coco(folder, {"a.png": [{"bbox": b} for b in boxes]}, categories=CLASSES)
    labels = load(folder, CLASSES).images[0].labels
    assert len(labels) == len(boxes)
    on = scene(finds_of([(3, 3, 19, 19)], [0.9]), labels, 320, 200)
    assert by_overlap(on, 0.5).label.tolist() == by_centre(on).label.tolist()
    tiny = [{"bbox": [x, x, 1e-300, 1e-300]} for x in (-far, far)]
    coco(folder, {"a.png": tiny}, categories=CLASSES)
    labels = load(folder, CLASSES).images[0].labels
    on = scene(finds_of([(3, 3, 19, 19)], [0.9]), labels, 320, 200)
    assert by_overlap(on, 0.5).label.tolist() == by_centre(on).label.tolist() == [-1]


@pytest.mark.parametrize(
    "box", [[10, 10, 20], {"x": 1}, [None] * 4, "abcd", [0, 0, 1e17, 1e17], [0, 0, 10**400, 1], 7]
)
def test_masks_need_no_box(folder: Path, box: Any) -> None:
    """Whatever ``bbox`` is, the shape counts."""
    one = {"bbox": box, "segmentation": [[0, 0, 10, 0, 10, 10]]}
    coco(folder, {"a.png": [one, one | {"bbox": [1, 2, 3, 4]}]}, categories=CLASSES)
    found = load(folder, CLASSES, masks=True)
    assert found.images[0].labels.boxes.tolist() == [[0, 0, 0, 0], [1, 2, 4, 6]]
    assert "segmentation" not in str(found.notes)


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
