"""NMS against its textbook form."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.models import nms as nms_module
from frond.models.decoders.base import MAX_CANDIDATES
from frond.models.nms import nms, total_order


def textbook(boxes: np.ndarray, classes: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for i in range(len(boxes)):
        for k in kept:
            if classes[i] != classes[k]:
                continue
            w = min(boxes[i][2], boxes[k][2]) - max(boxes[i][0], boxes[k][0])
            h = min(boxes[i][3], boxes[k][3]) - max(boxes[i][1], boxes[k][1])
            shared = max(w, 0) * max(h, 0)
            area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[k]))
            if shared > iou * (area - shared):
                break
        else:
            kept.append(i)
    return kept


box = st.tuples(
    st.integers(0, 40), st.integers(0, 40), st.integers(1, 25), st.integers(1, 25),
    st.integers(0, 2), st.integers(0, 4),
)  # fmt: skip


@given(st.lists(box, max_size=40), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), st.randoms())
def test_nms_is_the_textbook_one_and_a_function_of_the_set(
    rows: list[tuple[int, ...]], iou: float, random: object
) -> None:
    """The same boxes stay as in the quadratic loop, in whatever order they came."""

    def run(given_rows: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
        a = np.array(given_rows, np.float32).reshape(-1, 6)
        boxes = np.concatenate([a[:, :2], a[:, :2] + a[:, 2:4]], axis=1)
        order = total_order(boxes, a[:, 5], a[:, 4])
        return boxes[order], a[order, 4]

    boxes, classes = run(rows)
    kept = nms(boxes, classes, iou)
    assert kept.tolist() == textbook(boxes, classes, iou)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    boxes2, classes2 = run(shuffled)
    assert boxes[kept].tobytes() == boxes2[nms(boxes2, classes2, iou)].tobytes()


@given(st.lists(box, max_size=40), st.sampled_from([0.0, 0.3, 0.7]), st.integers(1, 9))
def test_the_same_boxes_stay_whatever_is_settled_at_a_time(
    rows: list[tuple[int, ...]], iou: float, block: int
) -> None:
    """Rows are settled a block at a time, for memory's sake: that changes nothing."""
    a = np.array(rows, np.float32).reshape(-1, 6)
    boxes = np.concatenate([a[:, :2], a[:, :2] + a[:, 2:4]], axis=1)
    order = total_order(boxes, a[:, 5], a[:, 4])
    boxes, classes = boxes[order], a[order, 4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms_module, "_BLOCK", block)
        assert nms(boxes, classes, iou).tolist() == textbook(boxes, classes, iou)
        for most in (1, 5, 100):
            assert nms(boxes, classes, iou, most).tolist() == textbook(boxes, classes, iou)[:most]


def test_boxes_on_one_spot_are_not_held_in_pairs() -> None:
    """As many as NMS is ever given, all over one another: memory is a block's, not that of all pairs."""
    rng = np.random.default_rng(0)
    boxes = np.array([100.0, 100, 140, 140]) + rng.uniform(-2, 2, (MAX_CANDIDATES, 4))
    tracemalloc.start()
    try:
        assert len(nms(boxes, np.zeros(len(boxes)), 0.5)) == 1
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
