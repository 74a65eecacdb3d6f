"""What of a decoder's rows is found: nothing whole goes missing without a word."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from frond.contracts.errors import RasterRejected
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.contracts.reasons import Reason
from frond.models.decoders.base import MAX_CANDIDATES, WindowDetections, select

THRESHOLDS = ModelThresholds(score=0.25, nms_iou=0.5)


def manifest(**more: int) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": "m", "task": "detection", "decoder": {"name": "yolo"}, "classes": ["tree"],
            "input": {"size": 640}, **more,
        }
    )  # fmt: skip


def field(objects: int, rows: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Objects of 12² that stand apart, each seen by so many rows, the surest objects first."""
    side = int(np.ceil(np.sqrt(objects)))
    at = np.stack(np.divmod(np.arange(objects), side), axis=1)[:, ::-1] * 20.0
    shift = np.random.default_rng(0).uniform(-0.5, 0.5, (objects, rows, 2))
    corner = (at[:, None] + shift).reshape(-1, 2)
    boxes = np.concatenate([corner, corner + 12], axis=1).astype(np.float32)
    score = np.linspace(0.9, 0.3, objects)[:, None] - np.linspace(0, 0.04, rows)
    return boxes, score.reshape(-1).astype(np.float32)


def found(objects: int, rows: int, **more: int) -> WindowDetections:
    boxes, scores = field(objects, rows)
    none = np.zeros(len(boxes), np.int32)
    return select(boxes, scores, none, manifest(**more), THRESHOLDS, suppress=True)


@pytest.mark.parametrize(
    ("objects", "rows", "most"), [(600, 10, None), (280, 12, 300), (90, 10, 100), (1500, 1, None)]
)
def test_each_object_is_found_however_many_rows_tell_of_the_others(
    objects: int, rows: int, most: int | None
) -> None:
    """A YOLO gives ten rows an object: what is cut before NMS would be whole objects."""
    assert len(found(objects, rows, **({"max_detections": most} if most else {}))) == objects


def test_a_manifest_that_says_so_gets_the_best() -> None:
    """max_detections is the model's: its best so many."""
    few = found(50, 4, max_detections=20)
    assert few.scores.tolist() == found(50, 4).scores[:20].tolist()


def test_more_boxes_than_nms_takes_are_an_error() -> None:
    """The best so many would look whole and not be."""
    boxes, scores = field(1 + MAX_CANDIDATES // 10, 10)
    none = np.zeros(len(boxes), np.int32)
    with pytest.raises(RasterRejected, match="higher score") as e:
        select(boxes, scores, none, manifest(), THRESHOLDS, suppress=True)
    assert e.value.reason is Reason.TOO_MANY
    # where nothing is suppressed there is nothing to take fewer for
    every = select(boxes, scores, none, manifest(), THRESHOLDS, suppress=False)
    assert len(every) == len(boxes)
