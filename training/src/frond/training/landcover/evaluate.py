"""How good the exported model is: on whole held-out scenes, by what ``frond evaluate`` does."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from PIL import Image

from frond.evaluation import Options
from frond.evaluation import evaluate as judge
from frond.training.config import Config
from frond.training.landcover.card import metrics_of, write_card, write_manifest
from frond.training.landcover.config import CLASSES, IGNORED, INPUT, WINDOW, Settings, settings
from frond.training.landcover.data import Bytes, Scene, scenes, split
from frond.training.prepared import Store
from frond.training.reference import refer

THRESHOLDS: Final = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Of five channels the highest is at least 0.2: there, the highest alone decides."""
_SCALES: Final = (0.5, 2.0)
_PIECE: Final = 1024
_TIMED: Final = 15


def evaluate(
    config: Config, prepared: Path, folder: Path
) -> tuple[dict[str, float], dict[str, Any]]:
    """Judge the model in ``folder``, and write what comes of it into its card and manifest.

    The manifest's reference is of the scenes that it was trained on.
    """
    mine = settings(config)
    found = scenes(Store(prepared))
    told = figures(mine, found, folder)
    write_manifest(folder, mine, told)
    learnt, _ = split(mine, found)
    refer(folder, pieces(learnt, mine.reference_megapixels))
    write_card(folder, mine, told)
    return metrics_of(told), told


def figures(config: Settings, found: dict[str, Scene], folder: Path) -> dict[str, Any]:
    """All figures. The threshold is the validation scenes' best; the test has no say in anything."""
    with tempfile.TemporaryDirectory(prefix="landcover-") as made:
        places = {n: write_coco([found[n]], Path(made) / n) for n in config.held_out}
        tried = {
            bar: float(np.mean([_iou(folder, places[n], bar) for n in config.validation]))
            for bar in (THRESHOLDS if config.validation else (THRESHOLDS[0],))
        }
        # the lowest of several that are as good
        bar = max(tried, key=lambda b: (round(tried[b], 4), -b))
        off = {}
        for name in config.validation:
            for k in _SCALES:
                other = write_coco([scaled(found[name], k)], Path(made) / f"{name}x{k:g}")
                off[f"{name} ×{k:g}"] = _judged(folder, other, bar)
        return {
            "threshold": bar,
            "validation by threshold": {f"{b:g}": round(v, 4) for b, v in tried.items()},
            "scenes": {n: _judged(folder, p, bar) for n, p in places.items()},
            "scale off": off,
            "milliseconds a window": _milliseconds(folder / "model.onnx"),
        }


def pieces(learnt: list[Scene], megapixels: float) -> list[Bytes]:
    """Every nth square of the scenes, so that all together have about so many pixels."""
    every = max(1, round(sum(s.labels.size for s in learnt) / 1e6 / megapixels))
    return [
        scene.pixels[top : top + _PIECE, left : left + _PIECE]
        for scene in learnt
        for n, (top, left) in enumerate(
            (top, left)
            for top in range(0, scene.labels.shape[0], _PIECE)
            for left in range(0, scene.labels.shape[1], _PIECE)
        )
        if n % every == 0
    ]


def write_coco(given: list[Scene], folder: Path) -> Path:
    """Scenes as a folder that ``frond evaluate`` takes: PNG images, labels in run lengths.

    One label a class and scene; pixels that do not count are a crowd's.
    """
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for n, scene in enumerate(given, 1):
        height, width = scene.labels.shape
        Image.fromarray(scene.pixels).save(folder / f"{scene.name}.png", compress_level=1)
        images.append({"id": n, "file_name": f"{scene.name}.png", "width": width, "height": height})
        for value, name in [*enumerate(CLASSES), (IGNORED, "crowd")]:
            mask = scene.labels == value
            if not mask.any():
                continue
            annotations.append({
                "id": len(annotations) + 1, "image_id": n,
                "category_id": 1 if name == "crowd" else value + 1,
                "iscrowd": int(name == "crowd"), "area": int(mask.sum()),
                "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
            })  # fmt: skip
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    told = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "labels.json").write_text(json.dumps(told))
    return folder


def run_lengths(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Down the columns, zeros first, as COCO counts."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def scaled(scene: Scene, k: float) -> Scene:
    """The scene as a sensor of another GSD, whose raster does not say so, would give it."""
    height, width = (round(n * k) for n in scene.labels.shape)

    def resized(array: Bytes, how: Image.Resampling) -> Bytes:
        return np.asarray(Image.fromarray(array).resize((width, height), how))

    return Scene(
        scene.name,
        resized(scene.pixels, Image.Resampling.BOX if k < 1 else Image.Resampling.BICUBIC),
        resized(scene.labels, Image.Resampling.NEAREST),
    )


def _judged(folder: Path, dataset: Path, bar: float) -> dict[str, Any]:
    told = judge(folder, dataset, Options(score=bar, threads=2))
    figures: dict[str, Any] = told["figures"]
    return figures


def _iou(folder: Path, dataset: Path, bar: float) -> float:
    return float(_judged(folder, dataset, bar)["overall"]["iou"] or 0.0)


def _milliseconds(graph: Path) -> float:
    """The fastest of several single windows: the run least disturbed by the machine's other work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    window = np.random.default_rng(0).integers(0, 256, (1, WINDOW, WINDOW, 3), dtype=np.uint8)
    times = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        session.run(None, {INPUT: window})
        times.append(time.perf_counter() - began)
    return round(1000 * min(times), 1)
