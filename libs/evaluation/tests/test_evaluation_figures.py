"""Figures of boxes, worked out by hand; average precision as pycocotools alone gives it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from evaluation_support import finds_of, labels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frond.evaluation.detection import DetectionFigures
from frond.evaluation.evaluate import rounded
from frond.evaluation.matching import by_centre, by_overlap, scene
from frond.evaluation.precision import AveragePrecision, _groups
from frond.evaluation.predict import Found

SIDE = 400
THIRD, THIRDS = 0.333333, 0.666667


def judged(
    *images: tuple[Any, Any], classes: tuple[str, ...] = ("palm",), **options: Any
) -> dict[str, Any]:
    figures = DetectionFigures(classes, range(len(classes)), 0.5, 0.05, **options)
    for finds, labels in images:
        plain = finds.take(finds.scores >= 0.5)
        figures.add(Found(plain, finds), labels, SIDE, SIDE)
    return rounded(figures.figures())


def test_figures_by_hand() -> None:
    """Two of three labels found, one of them badly placed, one find of nothing."""
    labels = labels_of([(0, 0, 20, 20), (100, 0, 120, 20), (200, 0, 220, 20)])
    # the second: 20 × 20 shifted by 8: IoU 240 / 560 = 0.43, centre 8 of at most 10 away
    finds = finds_of(
        [(0, 0, 20, 20), (108, 0, 128, 20), (300, 300, 320, 320), (200, 0, 220, 20)],
        [0.9, 0.8, 0.7, 0.3],
    )
    told = judged((finds, labels))
    whole = told["overall"]
    assert (whole["labels"], whole["finds"], whole["count_error"]) == (3, 3, 0.0)
    assert whole["centre"] == {"precision": THIRDS, "recall": THIRDS, "f1": THIRDS}
    assert whole["overlap"] == {"precision": THIRD, "recall": THIRD, "f1": THIRD}
    # by IoU: right, wrong, wrong, right of 3: precision 1 up to recall ⅓, ½ up to ⅔, then 0
    expected = (34 * 1 + 33 * 0.5) / 101
    assert told["classes"]["palm"]["ap50"] == pytest.approx(expected, abs=1e-6)
    assert told["confusion"]["labels_by_finds"] == [[1, 2], [2, 0]]
    assert told["count_error_an_image"] == 0
    at = {row["score"]: row for row in told["sweep"]}
    assert at[0.3]["centre"] == {"precision": 0.75, "recall": 1.0, "f1": 0.857143}
    assert at[0.31]["centre"]["recall"] == THIRDS
    assert at[0.85]["centre"] == {"precision": 1.0, "recall": THIRD, "f1": 0.5}
    assert told["best"]["centre"] == {"score": 0.05, "f1": 0.857143}


def test_iou_decides_what_matches() -> None:
    """The bar of the overlap is the caller's."""
    shifted = (finds_of([(8, 0, 28, 20)], [0.9]), labels_of([(0, 0, 20, 20)]))
    assert judged(shifted, iou=0.42)["overall"]["overlap"]["f1"] == 1
    assert judged(shifted, iou=0.44)["overall"]["overlap"]["f1"] == 0


def test_two_finds_of_one_label() -> None:
    """The better one is right, the other wrong; which of them has the higher score decides."""
    on = scene(
        finds_of([(0, 0, 20, 20), (2, 0, 22, 20)], [0.6, 0.9]),
        labels_of([(0, 0, 20, 20)]), SIDE, SIDE,
    )  # fmt: skip
    assert by_overlap(on, 0.5).label.tolist() == [0, -1]
    assert by_centre(on).label.tolist() == [0, -1]
    assert by_overlap(on, 0.5).counts.tolist() == [True, True]


def test_a_find_takes_the_best_label() -> None:
    """Of two that it could be: the one that it covers more of, or lies nearer to."""
    on = scene(
        finds_of([(3, 0, 23, 20), (0, 0, 20, 20)], [0.9, 0.8]),
        labels_of([(0, 0, 20, 20), (4, 0, 24, 20)]), SIDE, SIDE,
    )  # fmt: skip
    assert by_overlap(on, 0.5).label.tolist() == [1, 0]
    assert by_centre(on).label.tolist() == [1, 0]


def test_a_label_that_was_found_is_not_confused() -> None:
    """A second find over it, of another class, is of the background."""
    finds = finds_of([(0, 0, 20, 20), (0, 0, 20, 20)], [0.9, 0.8], [0, 1])
    told = judged((finds, labels_of([(0, 0, 20, 20)])), classes=("palm", "shrub"))
    assert told["confusion"]["labels_by_finds"] == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_classes_are_confused() -> None:
    """A label found as another class is missed, found wrongly, and shows where it went."""
    labels = labels_of([(0, 0, 20, 20), (100, 0, 120, 20)], [0, 1])
    finds = finds_of([(0, 0, 20, 20), (100, 0, 120, 20)], [0.9, 0.8], [1, 1])
    told = judged((finds, labels), classes=("palm", "shrub"))
    assert told["confusion"]["labels_by_finds"] == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert told["classes"]["palm"]["overlap"]["recall"] == 0
    assert told["classes"]["shrub"]["overlap"]["precision"] == 0.5
    assert told["overall"]["ap50"] == pytest.approx((0 + 0.5) / 2)


def test_crowds_neither_help_nor_harm() -> None:
    """What lies in a crowd region is nobody's mistake; the region is no label to be found."""
    labels = labels_of([(0, 0, 100, 100), (200, 0, 220, 20)], 0, [True, False])
    finds = finds_of([(10, 10, 30, 30), (200, 0, 220, 20)], [0.9, 0.8])
    told = judged((finds, labels))
    assert (told["overall"]["labels"], told["overall"]["finds"]) == (1, 1)
    assert told["overall"]["overlap"]["f1"] == told["overall"]["ap50"] == 1
    assert told["confusion"]["labels_by_finds"] == [[1, 0], [0, 0]]
    assert judged((finds, labels_of([(200, 0, 220, 20)])))["overall"]["overlap"]["precision"] == 0.5


def test_edge_band() -> None:
    """Cut at the edge: left out, found or not; by default it counts."""
    labels = labels_of([(0, 0, 20, 20), (100, 100, 120, 120)])
    finds = finds_of([(100, 100, 120, 120), (388, 200, 400, 220)], [0.9, 0.8])
    assert judged((finds, labels))["overall"]["centre"]["f1"] == 0.5
    told = judged((finds, labels), edge_band=0.6)
    assert told["overall"]["centre"]["f1"] == told["overall"]["ap50"] == 1
    assert (told["overall"]["labels"], told["overall"]["finds"]) == (1, 1)
    # the median side is 20: centres 10 from the edge are beyond a band of 0.4, 6 are not
    told = judged((finds, labels), edge_band=0.4)
    assert (told["overall"]["labels"], told["overall"]["finds"]) == (2, 1)


def test_finds_without_labels() -> None:
    """On images without labels: finds a megapixel; no F1 where there is nothing to find."""
    empty = labels_of([])
    told = judged((finds_of([(0, 0, 20, 20)], [0.9]), empty), (finds_of([], []), empty))
    assert told["without_labels"] == {
        "images": 2, "megapixels": 0.32, "finds": 1, "finds_a_megapixel": 3.125,
    }  # fmt: skip
    assert told["overall"]["ap50"] is None
    assert told["overall"]["centre"] == {"precision": 0.0, "recall": None, "f1": None}
    assert told["best"] == {"centre": None, "overlap": None}


boxes = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(4, 30), st.integers(4, 30)).map(
        lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
    ),
    max_size=12,
)
images = st.lists(
    st.tuples(boxes, boxes, st.randoms(use_true_random=False)), min_size=1, max_size=4
)


def made(found: Any, labelled: Any, rng: Any, classes: int = 2) -> tuple[Any, Any]:
    # no two scores are equal: then order would decide
    scores = rng.sample(range(50, 1000), len(found))
    kinds = [rng.randrange(classes) for _ in found]
    crowd = [rng.random() < 0.2 for _ in labelled]
    return (
        finds_of(found, [s / 1000 for s in scores], kinds),
        labels_of(labelled, [rng.randrange(classes) for _ in labelled], crowd),
    )


@settings(max_examples=40, deadline=None)
@given(boxes)
def test_perfect_finds_are_perfect(labelled: Any) -> None:
    """Whatever is labelled, found as it is: 1.0 throughout, and no error of the count."""
    labelled = sorted(set(labelled))
    n = len(labelled)
    told = judged((finds_of(labelled, np.linspace(0.6, 0.9, n)), labels_of(labelled)))
    expected = 1.0 if n else None
    assert told["overall"]["ap50"] == told["overall"]["ap50_95"] == expected
    assert told["overall"]["overlap"]["f1"] == expected
    assert told["overall"]["count_error"] == (0 if n else None)
    assert told["confusion"]["labels_by_finds"] == [[n, 0], [0, 0]]


@settings(max_examples=25, deadline=None)
@given(images)
def test_figures_do_not_depend_on_the_order_of_images(many: Any) -> None:
    """The same images the other way round: the same figures."""
    every = []
    for n, (found, labelled, rng) in enumerate(many):
        finds, labels = made(found, labelled, rng)
        scores = np.round(finds.scores.astype(float), 3) + n * 1e-4
        every.append((finds_of(finds.boxes, scores, finds.classes), labels))
    classes = ("palm", "shrub")
    assert judged(*every, classes=classes) == judged(*every[::-1], classes=classes)


def as_pycocotools_alone(every: Any, classes: int = 2) -> None:
    """Our AP is that of pycocotools, which gets each image whole."""
    ours = AveragePrecision(classes)
    truth: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": [
        {"id": k, "name": str(k)} for k in range(classes)]}  # fmt: skip
    results = []
    for n, (finds, labels) in enumerate(every):
        # a score of one image must not be another's, see above
        finds = finds_of(finds.boxes, finds.scores.astype(float) * 0.9 + n * 1e-5, finds.classes)
        ours.add(scene(finds, labels, SIDE, SIDE))
        truth["images"].append({"id": n})
        for box, kind, crowd in zip(labels.boxes, labels.classes, labels.crowd, strict=True):
            w, h = (box[2:] - box[:2]).tolist()
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": n, "category_id": int(kind),
                 "bbox": [*box[:2].tolist(), w, h], "area": w * h, "iscrowd": int(crowd)}
            )  # fmt: skip
        for box, score, kind in zip(finds.boxes, finds.scores, finds.classes, strict=True):
            w, h = (box[2:] - box[:2]).tolist()
            results.append({"image_id": n, "category_id": int(kind), "score": float(score),
                            "bbox": [*box[:2].tolist(), w, h]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        if not results or not truth["annotations"]:
            return
        theirs = COCOeval(gt, gt.loadRes(results), "bbox")
        theirs.params.maxDets = [10_000]
        theirs.params.areaRng, theirs.params.areaRngLbl = [[0, 1e10]], ["all"]
        theirs.evaluate()
        theirs.accumulate()
    precision = theirs.eval["precision"]
    for k, told in enumerate(ours.figures()):
        expected = precision[0, :, k].mean(), precision[:, :, k].mean()
        if expected[0] < 0:
            assert told == {"ap50": None, "ap50_95": None}
        else:
            assert (told["ap50"], told["ap50_95"]) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(images)
def test_average_precision_is_that_of_pycocotools(many: Any) -> None:
    """In groups of what may match, over all images: as pycocotools has it in one go, crowds too."""
    as_pycocotools_alone([made(*image) for image in many])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.4]))
def test_average_precision_where_all_overlaps(seed: int, crowds: float) -> None:
    """Many groups of a scene in which everything touches something: still that of pycocotools."""
    rng = np.random.default_rng(seed)

    def some(n: int, most: int) -> Any:
        corners = rng.integers(0, 120, (n, 2)).astype(float)
        return np.concatenate([corners, corners + rng.integers(10, most, (n, 2))], axis=1)

    labelled = np.concatenate([some(40, 40), some(4, 100)])
    found = np.concatenate([labelled + rng.uniform(-4, 4, labelled.shape), some(40, 40)])
    labels = labels_of(labelled, 0, rng.random(44) < crowds)
    finds = finds_of(found, rng.permutation(84) / 100 + 0.05)
    as_pycocotools_alone([(finds, labels)], classes=1)


@pytest.mark.parametrize("crowded", [False, True])
def test_groups_stay_small_where_all_overlaps(crowded: bool) -> None:
    """A closed plantation, and one in a crowd region: each palm is compared with few others."""
    corners = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) * 55.0
    labelled = np.concatenate([corners, corners + 60], axis=1)
    finds = finds_of(labelled + 1, np.linspace(0.1, 0.9, 400))
    if crowded:
        labelled = np.concatenate([labelled, [[0, 0, 1200, 1200]]])
    labels = labels_of(labelled, 0, [False] * 400 + [True] * crowded)
    every = np.arange(len(labels))
    groups = _groups(scene(finds, labels, 1200, 1200), np.arange(400), every)
    assert max(len(f) + len(k) for f, k in groups) <= 20
    assert sorted(np.concatenate([f for f, _ in groups]).tolist()) == list(range(400))


def test_an_edge_band_in_pixels() -> None:
    """Its width counts as told, in place of a share of the labels: also where there are none."""
    labels = labels_of([(0, 0, 20, 20), (100, 100, 120, 120)])
    finds = finds_of([(100, 100, 120, 120), (380, 380, 400, 400)], [0.9, 0.8])
    figures = DetectionFigures(("palm",), (0,), 0.5, 0.05, edge_band=9)
    figures.add(Found(finds, finds), labels, SIDE, SIDE, edge_pixels=11)
    told = figures.figures()["overall"]
    assert (told["labels"], told["finds"], told["centre"]["f1"]) == (1, 1, 1)
    figures.add(Found(finds, finds), labels_of([]), SIDE, SIDE, edge_pixels=11)
    assert figures.figures()["without_labels"]["finds"] == 2
