"""How good the exported model is: read through ONNX Runtime, judged by ``frond.evaluation``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from frond.evaluation import Labels
from frond.evaluation.detection import DetectionFigures
from frond.evaluation.predict import Found
from frond.merge import Detections
from frond.training.config import Config
from frond.training.palm.card import metrics_of, write_card, write_manifest
from frond.training.palm.data import (
    Part,
    Tile,
    declared,
    judged_scenes,
    load,
    rescaled,
    settings,
    shrunk,
    spaced,
    thinned,
)
from frond.training.palm.detect import (
    LOWEST,
    WINDOW,
    Array,
    Predict,
    cut_off,
    detect,
    detect_whole,
    onnx_predictor,
)
from frond.training.palm.images import Boxes
from frond.training.palm.sources import ENLARGE_12AJ
from frond.training.reference import refer

BORDER: Final = 25
# half a crown and a little: nearer the edge a crown is cut, and Kalimantan's labels leave it out
WIDE_BORDER: Final = 35
_FROM, _BELOW = 0.1, 0.8
_TIMED: Final = 25

FoundIn = tuple[Part, list[Array]]


class Outline(NamedTuple):
    """Of a tile, what its finds are held against: its pixels need not be kept."""

    height: int
    width: int
    boxes: Boxes

    @classmethod
    def of(cls, tile: Tile) -> Outline:
        return cls(tile.pixels.shape[0], tile.pixels.shape[1], tile.boxes)


def evaluate(
    config: Config, prepared: Path, folder: Path
) -> tuple[dict[str, float], dict[str, Any]]:
    """Judge the model in ``folder``, and write what comes of it into its card and manifest.

    Its threshold is the one that is best on the validation parts; its reference is of the tiles that
    it was trained on.
    """
    mine, gsd_m = declared(settings(config), prepared)
    told = figures(
        prepared,
        onnx_predictor(folder / "model.onnx"),
        None,
        scenes=mine.judged_scenes,
        full=mine.full,
    )
    write_manifest(folder, mine, told, gsd_m)
    if mine.reference_megapixels:
        shown = thinned(load(prepared, "train"), mine.reference_megapixels)
        refer(folder, (t.pixels for p in shown for t in p.tiles))
    write_card(folder, mine, told, gsd_m)
    return metrics_of(told), told


def figures(
    prepared: Path, predict: Predict, bar: float | None, *, scenes: int, full: bool = True
) -> dict[str, Any]:
    """All figures. Palm-free imagery has a say in the threshold."""
    parts = load(prepared, "val")
    uncut = [(p, [detect_whole(predict, t.pixels) for t in p.tiles]) for p in parts]
    palms = [(p, [_cut(t, f) for t, f in zip(p.tiles, seen, strict=True)]) for p, seen in uncut]
    free = _found(load(prepared, "val-background"), predict)
    if bar is None:
        bar, _ = chosen_threshold([*palms, *free])
    drawn = judged_scenes(scenes)
    ((_, seen),) = _found([drawn], predict)
    each = [
        judged(Part("", [t]), [f], bar, 0)["f1"] for t, f in zip(drawn.tiles, seen, strict=True)
    ]
    result: dict[str, Any] = {
        "threshold": bar,
        "palms": {p.name: judged(p, f, bar, BORDER) for p, f in palms},
        f"palms, {WIDE_BORDER} px border": {
            p.name: judged(p, f, bar, WIDE_BORDER) for p, f in palms
        },
        "palms, boxes not cut off": {p.name: judged(p, f, bar, BORDER) for p, f in uncut},
        "palms, edge crowns counted": {p.name: judged(p, f, bar, 0) for p, f in palms},
        "false per megapixel": {p.name: false_per_megapixel(p, f, bar) for p, f in free},
        "drawn scenes": {
            **judged(drawn, seen, bar, 0),
            "mean_f1": round(float(np.mean(each)), 4),
            "lowest_f1": round(float(np.min(each)), 4),
        },
    }
    for part, found in palms:
        if part.name == "12aj":
            labelled = judged(shrunk(part, 1 / ENLARGE_12AJ), found, bar, BORDER)
            result["ap50, 12aj as labelled"] = labelled["ap50"]
            close = [(Outline.of(t), detect(predict, t.pixels)) for t in spaced(part)]
            result["palms, by spacing"] = {part.name: judged_in(close, bar, BORDER)}
    if full:
        result["milliseconds a window"] = _milliseconds(predict)
        tests = _found(load(prepared, "test-background"), predict)
        result["false per megapixel, test"] = {
            p.name: false_per_megapixel(p, f, bar) for p, f in tests
        }
        off = {}
        for part, _ in palms:
            for k in (0.5, 0.7, 1.4, 2.0):
                seen_off = [(Outline.of(t), detect(predict, t.pixels)) for t in rescaled(part, k)]
                off[f"{part.name} ×{k}"] = judged_in(seen_off, bar, round(BORDER * k))
        result["scale off"] = off
    return result


def judged(part: Part, found: Sequence[Array], bar: float, border: int) -> dict[str, float]:
    """Centre-match F1, precision, recall and count error at ``bar``; AP50 over all scores."""
    return judged_in(_outlined(part, found), bar, border)


def judged_in(found: Sequence[tuple[Outline, Array]], bar: float, border: int) -> dict[str, float]:
    """As :func:`judged`, of a part's tiles with what was found in each."""
    told = _figures([found], bar, border)["overall"]
    named = {**told["centre"], "count_error": told["count_error"], "ap50": told["ap50"]}
    # of nothing found, or nothing there to find, nothing can be said
    return {k: round(v or 0.0, 4) for k, v in named.items()}


def chosen_threshold(found: Sequence[FoundIn]) -> tuple[float, float]:
    """The bar with the best F1 over all these parts, and that F1; the lowest bar of several."""
    every = [_outlined(part, seen) for part, seen in found]
    rows = [r for r in _figures(every, 0.5, BORDER)["sweep"] if _FROM <= r["score"] < _BELOW]
    best = max(rows, key=lambda r: (r["centre"]["f1"] or 0.0, -r["score"]))
    return float(best["score"]), float(best["centre"]["f1"] or 0.0)


def false_per_megapixel(part: Part, found: Sequence[Array], bar: float) -> float:
    """Of imagery without a palm."""
    area = sum(t.pixels.shape[0] * t.pixels.shape[1] for t in part.tiles) / 1e6
    return float(round(sum(int((f[:, 4] >= bar).sum()) for f in found) / area, 3))


def _outlined(part: Part, found: Sequence[Array]) -> list[tuple[Outline, Array]]:
    return list(zip(map(Outline.of, part.tiles), found, strict=True))


def _figures(
    found: Iterable[Sequence[tuple[Outline, Array]]], bar: float, border: int
) -> dict[str, Any]:
    """Of parts, tile by tile."""
    every = DetectionFigures(("palm",), (0,), bar, LOWEST)
    for part in found:
        # a part without labels has no labels to be unsure of
        edge = border if any(len(t.boxes) for t, _ in part) else 0
        for tile, rows in part:
            finds = Detections.of(rows[:, :4], rows[:, 4], 0)
            plain = finds.take(rows[:, 4] >= bar)
            labels = _labels(tile.boxes)
            every.add(Found(plain, finds), labels, tile.width, tile.height, edge_pixels=edge)
    return every.figures()


def _labels(given: Boxes) -> Labels:
    n = len(given)
    boxes = given.astype(np.float64)
    return Labels(boxes, np.zeros(n, np.int32), np.zeros(n, np.bool_), (None,) * n)


def _found(parts: Sequence[Part], predict: Predict) -> list[FoundIn]:
    return [(p, [detect(predict, t.pixels) for t in p.tiles]) for p in parts]


def _cut(tile: Tile, found: Array) -> Array:
    return cut_off(found, *tile.pixels.shape[:2])


def _milliseconds(predict: Predict) -> float:
    """The fastest of 25 single windows: the run least disturbed by the machine's other work."""
    window = np.random.default_rng(0).integers(0, 256, (1, WINDOW, WINDOW, 3), dtype=np.uint8)
    times = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        predict(window)
        times.append(time.perf_counter() - began)
    return round(1000 * min(times), 1)
