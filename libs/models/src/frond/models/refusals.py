"""Outputs that look like a family's and are none: what they are, and what to export instead."""

from __future__ import annotations

from typing import Final

import numpy as np

from frond.models.family import Seen, count
from frond.models.folder import bad_model
from frond.models.graph import Output

_LEAST_CHANNELS: Final = 16
"""Of a detector's heads: three anchors with five numbers and a class have 18, and those without
anchors one for each class and as many for a box."""
_UNFINISHED: Final = 0.01
"""Of all boxes; where they are worked out none is, but for rounding."""


def refuse_look_alikes(seen: Seen) -> None:
    """Raise where a rule that goes by shapes would take these outputs for something else.

    Raises:
        ModelRejected: BAD_MODEL.
    """
    _rows_of_all_windows(seen)
    _after_nms(seen)
    _boxes_apart(seen)
    _heads_by_stride(seen)
    _masks_of_queries(seen)
    _class_numbers(seen)


def refuse_unfinished(head: Output, rows_last: bool) -> None:
    """Raise where a YOLO head's boxes are not worked out: sizes are below 0, as logarithms are.

    Args:
        rows_last: the head is [N, channels, anchors]; else [N, anchors, channels].

    Raises:
        ModelRejected: BAD_MODEL.
    """
    sizes = [v[:, 2:4] if rows_last else v[..., 2:4] for v in head.runs]
    if any(v.size and (v < 0).mean() > _UNFINISHED for v in sizes):
        raise bad_model(
            f"The output {head} has boxes whose widths and heights are below 0: they are not worked out "
            "to pixels yet. Export the model with that step in the graph: YOLOX does it with "
            "--decode_in_inference, YOLO v5 unless it is exported for training."
        )


def _rows_of_all_windows(seen: Seen) -> None:
    for o in seen.outputs:
        if (
            len(seen.outputs) == 1
            and o.first.ndim == 2
            and any(len(v) != seen.rows for v in o.runs)
        ):
            raise bad_model(
                f"The output {o} has {count(len(o.first), 'row')} for {count(seen.rows, 'window')}: one "
                "list of finds for all windows, as YOLO v7 gives with NMS in the graph. Export it "
                "without NMS: Frond does that."
            )


def _after_nms(seen: Seen) -> None:
    """Boxes [N, K, 4] and beside them scores, classes or both [N, K]."""
    for boxes in _three_axes(seen):
        flat = [o for o in seen.outputs if o.shape == boxes.shape[:2]]
        if boxes.shape[2] in (4, 5) and flat:
            raise bad_model(
                f"The outputs {boxes} and {', '.join(map(str, flat))} are finds after their selection "
                "or NMS, with an axis for the batch, which no decoder reads. Export the graph from "
                "before that step: raw YOLO heads, or a DETR's logits and pred_boxes. Or join them to "
                "one output N×K×6: x0, y0, x1, y1 in pixels of the window, score, class."
            )


def _boxes_apart(seen: Seen) -> None:
    """Boxes [N, A, 4], in pixels or offsets to anchors, or [N, A, 1, 4], and scores [N, A, C] or
    [N, C, A]."""
    for boxes in seen.outputs:
        usual = boxes.first.ndim == 3 and boxes.shape[2] == 4 and not boxes.within(0, 1)
        if not usual and boxes.shape[2:] != (1, 4):
            continue
        for scores in _three_axes(seen):
            # a whole head has its boxes' pixels in it, and may have them beside it once more
            whole = not scores.within(-seen.size / 2, seen.size / 2)
            if scores is boxes or whole or scores.shape[2] == 4:
                continue
            if boxes.shape[1] in scores.shape[1:]:
                raise bad_model(
                    f"Boxes and scores are two outputs, {boxes} and {scores}, as of YOLO-NAS, PP-YOLOE or "
                    "RetinaNet. Join them in the graph to one of N×A×(4+C): centre, width and height "
                    "in pixels of the window, then the scores after their sigmoid. The decoder yolo "
                    "reads that."
                )


def _heads_by_stride(seen: Seen) -> None:
    maps = [o for o in seen.outputs if o.first.ndim == 4 and o.shape[2] in (o.shape[1], o.shape[3])]
    sides = {o.shape[2] for o in maps}
    channels = {o.shape[1] if o.shape[2] == o.shape[3] else o.shape[3] for o in maps}
    if min(channels, default=0) < _LEAST_CHANNELS or len(seen.told.classes) in channels:
        return
    # masks that are trained at several depths begin at the window's size, or near to it
    if len(sides) > 1 and max(sides) * 4 < seen.size and not _three_axes(seen):
        raise bad_model(
            f"The outputs {', '.join(map(str, maps))} are a detector's heads, one for each stride, before "
            "their boxes are worked out. Export the whole model, with that last step. Where they are "
            "masks, export the finest alone."
        )


def _masks_of_queries(seen: Seen) -> None:
    rows = _three_axes(seen)
    if any(o.shape[2] == 4 for o in rows):
        return
    for masks in seen.outputs:
        classes = [o for o in rows if o.shape[:2] == masks.shape[:2]]
        if masks.first.ndim == 4 and classes:
            raise bad_model(
                f"The outputs {classes[0]} and {masks} are classes and masks of queries, as of MaskFormer and "
                "Mask2Former. Join them in the graph to scores of all classes for each pixel, "
                "N×K×h×w, as its semantic postprocessing does."
            )


def _class_numbers(seen: Seen) -> None:
    """After an argmax, which leaves no score to put a threshold on."""
    if len(seen.outputs) != 1:
        return
    (o,) = seen.outputs
    flags = o.first.dtype.kind == "b"
    alone = o.first.ndim == 4 and 1 in (o.shape[1], o.shape[3])
    if o.first.ndim == 2 and o.first.dtype.kind in "iub":
        alone, flags = True, True
    if alone and (flags or _whole_numbers(o)):
        raise bad_model(
            f"The output {o} holds whole numbers: the number of the best class, after an argmax, or "
            "what passed a threshold. Frond needs the scores of all classes: export the graph from "
            "before that step (N×K×h×w for pixels, N×K for windows)."
        )


def _whole_numbers(o: Output) -> bool:
    """Whether it has numbers beyond 0 and 1, and none with a fraction."""
    return not o.within(0, 1) and all(bool((v == np.rint(v)).all()) for v in o.runs)


def _three_axes(seen: Seen) -> list[Output]:
    return [o for o in seen.outputs if o.first.ndim == 3]
