"""Which decoder reads a graph's outputs: told by their number, names, shapes and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from frond.models.decoders.base import shape_words
from frond.models.family import (
    Family,
    Seen,
    count,
    named,
    only_peaks,
    plain,
    reach,
    renamed,
    unit_boxes,
)
from frond.models.folder import bad_model
from frond.models.graph import Output, Told
from frond.models.refusals import refuse_look_alikes, refuse_unfinished

_STRIDES: Final = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64), (16, 32))
_MOST_ROWS: Final = 2000
_MOST_CHANNELS: Final = 256
_BACKGROUND: Final = ("background", "_background", "__background__", "no object", "other")


def recognise(outputs: Sequence[Output], size: int, told: Told, rows: int = 1) -> Family:
    """The family of graphs whose outputs look like these, for one window of ``size``.

    Args:
        rows: how many windows the graph was given at once, where it takes several.

    Raises:
        ModelRejected: BAD_MODEL: no decoder reads such outputs.
    """
    kind = told.kind.lower()
    if kind in ("segment", "pose", "obb") or kind.startswith(("regress", "superres")):
        raise bad_model(
            f"{told.by} calls this a model for {told.kind!r}, which no decoder reads. Frond runs "
            "boxes, semantic masks and classes of whole windows: export a model of that kind."
        )
    seen = Seen(outputs, size, told, rows)
    by_names: tuple[Callable[[Seen], Family | None], ...] = (
        _torchvision,
        _heatmaps,
        _named_queries,
    )
    by_shapes: tuple[Callable[[Seen], Family | None], ...] = (
        _queries, _end_to_end, _yolo, _planes, _labels,
    )  # fmt: skip
    for rule in by_names:
        if (found := rule(seen)) is not None:
            return found
    refuse_look_alikes(seen)
    for rule in by_shapes:
        if (found := rule(seen)) is not None:
            return found
    there = ", ".join(str(o) for o in outputs)
    raise bad_model(
        f"No decoder reads these outputs: {there}. Frond reads YOLO heads, DETR, torchvision's "
        "detectors, centre-point heatmaps, class scores for each pixel (N×K×h×w, h and w the "
        "window's size or a whole fraction of it) and for each window (N×K). Export the model with "
        "one of them, or write a decoder (libs/models/README.md)."
    )


def _torchvision(seen: Seen) -> Family | None:
    outputs = seen.outputs
    roles = named(outputs, {"boxes": ("box",), "labels": ("label",), "scores": ("score",)})
    if roles is None:
        boxes = [o for o in outputs if o.first.ndim == 2 and o.shape[1] == 4]
        labels = [o for o in outputs if o.first.ndim == 1 and o.first.dtype.kind in "iu"]
        scores = [o for o in outputs if o.first.ndim == 1 and o.first.dtype.kind == "f"]
        if not (len(boxes) == len(labels) == len(scores) == 1):
            return None
        roles = {"boxes": boxes[0], "labels": labels[0], "scores": scores[0]}
    shapes = [roles[r].first.ndim for r in ("boxes", "labels", "scores")]
    if shapes != [2, 1, 1] or roles["boxes"].shape[1] != 4:
        return None
    masks = [o.name for o in outputs if o.first.ndim == 4]
    return Family(
        "torchvision",
        "boxes K×4, labels and scores of one image: torchvision (Faster R-CNN, RetinaNet, FCOS)"
        + (f"; boxes are kept, masks of single objects ({masks[0]}) are not" if masks else ""),
        params={"label_offset": 1, **renamed(roles)},
        doubts={"label_offset": "torchvision's own models begin at 1, 0 is their background"},
        at_least=max(1, *(int(v.max()) if v.size else 1 for v in roles["labels"].runs)),
        score=0.5,
    )


def _heatmaps(seen: Seen) -> Family | None:
    outputs, size = seen.outputs, seen.size
    maps = [o for o in outputs if o.first.ndim == 4 and 0 < o.shape[3] < size]
    maps = [o for o in maps if o.shape[2:] == maps[0].shape[2:]]
    if len(maps) < 3:
        return None
    heats, sizes, shifts = ("heat", "hm", "centre", "center"), ("size", "wh", "dim"), ("off", "reg")
    roles = named(maps, {"heatmap": heats, "size": sizes, "offset": shifts})
    doubts = {}
    if roles is None:
        doubts["outputs"] = "told by their values alone: see which is which"
        pairs = sorted((o for o in maps if o.shape[1] == 2), key=reach)
        heat = [o for o in maps if o.within(0, 1) and o not in pairs[-2:]]
        if len(pairs) < 2 or not heat:
            return None
        roles = {"heatmap": heat[0], "size": pairs[-1], "offset": pairs[-2]}
    if roles["size"].shape[1] != 2 or roles["offset"].shape[1] != 2:
        return None
    heat_map = roles["heatmap"].first
    done = only_peaks(heat_map[0])
    params: dict[str, Any] = {"stride": plain(size / heat_map.shape[3]), "peaks_suppressed": done}
    if roles["size"].name.lower().endswith("wh"):
        params["sizes"] = "cells"
        doubts["sizes"] = "CenterNet and MMDetection, whose name this is, give cells, not pixels"
    doubts["peaks_suppressed"] = (
        "neighbours of peaks were 0 on a sample" if done else "peaks had neighbours on a sample"
    )
    return Family(
        "centerpoint",
        f"a heatmap, sizes and offsets over cells of {size / heat_map.shape[3]:g} pixels: "
        "centre points (CenterNet)",
        params=params | renamed(roles),
        doubts=doubts,
        classes=heat_map.shape[1],
        score=0.4,
    )


def _named_queries(seen: Seen) -> Family | None:
    rows = [o for o in seen.outputs if o.first.ndim == 3]
    roles = named(rows, {"logits": ("logit",), "pred_boxes": ("box",)})
    return _detr(seen, roles) if roles is not None else None


def _queries(seen: Seen) -> Family | None:
    rows = [o for o in seen.outputs if o.first.ndim == 3]
    boxes = [o for o in rows if o.shape[2] == 4 and o.within(0, 1)]
    if not boxes:
        return None
    same = [o for o in rows if o is not boxes[0] and o.shape[:2] == boxes[0].shape[:2]]
    if not same:
        return None
    logits = min(same, key=lambda o: o.shape[2])
    return _detr(seen, {"logits": logits, "pred_boxes": boxes[0]})


def _detr(seen: Seen, roles: dict[str, Output]) -> Family | None:
    told = seen.told
    logits, boxes_ = roles["logits"], roles["pred_boxes"]
    if boxes_.shape[2] != 4 or logits.shape[:2] != boxes_.shape[:2]:
        return None
    queries, channels = logits.shape[1:]
    known = len(told.classes)
    if logits.within(0, 1):
        how, doubt = "none", "the values were 0…1 on a sample: probabilities already"
    elif (known and channels == known + 1) or (not known and queries <= 100):
        how = "softmax"
        doubt = f"{queries} queries as of DETR, the last class “no object”; RT-DETR: sigmoid"
    else:
        how = "sigmoid"
        doubt = (
            f"{queries} queries as of RT-DETR; softmax for DETR, whose last class is “no object”"
        )
    return Family(
        "detr",
        f"{queries} queries with {channels} logits and a box each: DETR, RT-DETR",
        params={"activation": how} | renamed(roles),
        doubts={"activation": doubt},
        classes=channels - (how == "softmax"),
        scaling="imagenet" if how == "softmax" else "unit",
        score=0.5,
    )


def _anchors(size: int) -> tuple[set[int], set[int]]:
    """How many cells the usual strides have in a window, and three times that."""
    cells = {sum((size // s) ** 2 for s in strides) for strides in _STRIDES}
    return cells, {3 * n for n in cells}


def _end_to_end(seen: Seen) -> Family | None:
    outputs = seen.outputs
    cells, threefold = _anchors(seen.size)
    # there may be no rows, where nothing is found and their number is free
    heads = [o for o in outputs if o.first.ndim == 3 and o.shape[2] == 6]
    heads = [o for o in heads if o.shape[1] not in threefold | cells and _ends_in_classes(o)]
    if not heads:
        return None
    head = heads[0]
    used = [v[0][v[0][:, 4] > 0] for v in head.runs]
    # rows that are not used may be 0
    shares = any(len(v) for v in used) and all(unit_boxes(v) for v in used if len(v))
    params: dict[str, Any] = {"boxes": "centres"} if shares else {}
    if len(outputs) > 1:
        params["outputs"] = {"output": head.name}
    return Family(
        "yolo-end2end",
        f"{shape_words(head.first)}: "
        + (
            "box in shares of the window, score and class: RT-DETR"
            if shares
            else "corners, score and class: YOLO v10, 26, or NMS in the graph"
        ),
        params=params,
        doubts={"boxes": "shares of the window, from the centre, as Ultralytics exports RT-DETR"},
        at_least=max(1, *(int(v[:, 5].max()) + 1 if len(v) else 1 for v in used)),
    )


def _yolo(seen: Seen) -> Family | None:
    outputs, size, told = seen.outputs, seen.size, seen.told
    rows = [o for o in outputs if o.first.ndim == 3 and min(o.shape[1:]) >= 5]
    if not rows or any(n <= 1 for n in rows[0].shape[1:]):
        return None
    head = rows[0]
    if head.shape[1] == head.shape[2] and size % head.shape[1] == 0:
        if any(_is_planes(o, size, x) for o in outputs for x in ("NCHW", "NHWC")):
            return None
        raise bad_model(
            f"The output {head} has a value for each pixel and no axis of classes. Export it as "
            "N×1×h×w for one class, or with the scores of all classes, N×K×h×w."
        )
    if any(o.first.ndim == 4 and o.shape[1] == 32 and o.shape[2] * 4 == size for o in outputs):
        raise bad_model(
            "This looks like YOLO for instance masks, which no decoder reads. Export the detection "
            "model, or a semantic one."
        )
    chosen = {"outputs": {"output": head.name}} if len(outputs) > 1 else {}
    a, b = head.shape[1:]
    words = shape_words(head.first)
    cells, threefold = _anchors(size)
    known = len(told.classes)

    def raw(version: str, classes: int, doubt: str = "") -> Family:
        what = "an objectness and " if version == "v5" else ""
        age = "v5 to v7" if version == "v5" else "v8, v9, v11"
        return Family(
            "yolo",
            f"{words}: a box, {what}{count(classes, 'class score')} for each anchor: YOLO {age}",
            params={"version": version} | chosen,
            doubts={"version": doubt} if doubt else {},
            classes=classes,
        )

    if b in cells | threefold or a in cells | threefold:
        refuse_unfinished(head, rows_last=b in cells | threefold)
    if b in cells and a >= 5:
        return raw("v8", a - 4)
    if a in threefold and b >= 6:
        return raw("v5", b - 5)
    if a in cells:
        objectness = bool(known) and b == known + 5
        if objectness or b in (5, known + 4):
            return raw("v5" if objectness else "v8", b - 4 - objectness)
        return raw("v5", b - 5, "as of YOLOX and v6; v8 where there is no objectness")
    if len(outputs) == 1 and a <= _MOST_ROWS and all(unit_boxes(v) for v in head.runs):
        return Family(
            "detr",
            f"{words}: boxes as shares of the window, {count(b - 4, 'score')} each: RT-DETR"
            # seldom are there more classes than queries
            + (f"; or a YOLO, {count(a - 4, 'class score')} for each anchor" if a < b else ""),
            classes=b - 4,
            score=0.5,
        )
    unusual = f"the number of rows is unusual for windows of {size}"
    if a < b:
        return raw("v8", a - 4, f"{unusual}; v5 where there is an objectness")
    return raw("v5", b - 5, f"{unusual}; v8 where there is no objectness") if b >= 6 else None


def _planes(seen: Seen) -> Family | None:
    outputs, size, told = seen.outputs, seen.size, seen.told
    # a mask that was cut off already may stand before the scores that it was made of
    for o in sorted(outputs, key=lambda o: o.first.dtype.kind != "f"):
        layout = next((x for x in ("NCHW", "NHWC") if _is_planes(o, size, x)), None)
        if layout is not None:
            break
    else:
        _refuse_odd_planes(outputs, size)
        return None
    axis = 1 if layout == "NCHW" else 3
    channels = o.shape[axis]
    sums = [v.sum(axis=axis) for v in o.runs]
    shares = channels > 1 and all(np.allclose(s, 1, atol=1e-2) for s in sums)
    if o.within(0, 1):
        how, doubt = "none", "the values were 0…1 on a sample: probabilities already"
    elif channels == 1:
        how, doubt = "sigmoid", "the values left 0…1 on a sample: logits of one class"
    else:
        how, doubt = "softmax", "the values left 0…1 on a sample; sigmoid where classes may overlap"
    params: dict[str, Any] = {"activation": how}
    doubts = {"activation": doubt}
    skipped = None
    if len(told.classes) == channels:
        empty = (n for n, c in enumerate(told.classes) if c.lower() in _BACKGROUND)
        skipped = next(empty, None)
        if skipped is not None:
            doubts["background"] = f"the graph's metadata name this channel {told.classes[skipped]}"
    elif shares or how == "softmax":
        skipped = 0
        doubts["background"] = "the usual channel; leave it out where each channel is a class"
    if skipped is not None:
        params["background"] = skipped
    if layout == "NHWC":
        params["layout"] = layout
    if len(outputs) > 1:
        params["outputs"] = {"scores": o.name}
        doubts["outputs"] = f"the first of {', '.join(x.name for x in outputs)} that can be one"
    return Family(
        "semantic",
        f"{shape_words(o.first)}: {count(channels, 'score')} for each pixel: semantic masks",
        task="segmentation",
        params=params,
        doubts=doubts,
        classes=channels - (skipped is not None),
        skipped=skipped,
        scaling="unit" if told.by == "Deepness" else "imagenet",
        score=0.5,
    )


def _labels(seen: Seen) -> Family | None:
    outputs, told = seen.outputs, seen.told
    o = outputs[0]
    if len(outputs) != 1 or o.first.ndim != 2:
        return None
    channels = o.shape[1]
    if o.within(0, 1):
        how, doubt = "none", "the values were 0…1 on a sample: probabilities already"
    elif channels == 1:
        how, doubt = "sigmoid", "one class: its logit"
    else:
        how, doubt = "softmax", "one class a window; sigmoid where a window may have several"
    return Family(
        "tile-classification",
        f"{shape_words(o.first)}: {count(channels, 'score')} for each window",
        task="classification",
        params={"activation": how},
        doubts={"activation": doubt},
        classes=channels,
        scaling="unit" if told.by else "imagenet",
        score=0.5,
    )


def _ends_in_classes(head: Output) -> bool:
    """Whether rows end in a score and a whole number, as NMS leaves them."""
    scores = Output(head.name, tuple(v[..., 4] for v in head.runs))
    return scores.within(0, 1) and all(
        bool((v[..., 5] == np.rint(v[..., 5])).all()) for v in head.runs
    )


def _is_planes(o: Output, size: int, layout: str) -> bool:
    if o.first.ndim != 4:
        return False
    h, w, c = (2, 3, 1) if layout == "NCHW" else (1, 2, 3)
    high, wide, channels = (o.shape[k] for k in (h, w, c))
    return high == wide > 0 and size % high == 0 and high > 1 and 1 <= channels <= _MOST_CHANNELS


def _refuse_odd_planes(outputs: Sequence[Output], size: int) -> None:
    for o in outputs:
        if o.first.ndim == 4 and 1 < o.shape[2] == o.shape[3] < size and o.shape[1] > 1:
            raise bad_model(
                f"The output {o} does not lie on a window of {size}×{size}: scores for pixels need h "
                "and w of the window, or a whole fraction of it. Pad or resize it in the graph."
            )
