"""Labels, finds and labelled pictures, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frond.evaluation import Labels
from frond.merge import Detections
from frond.models.testing import MAGENTA

Box = tuple[float, float, float, float]


def labels_of(
    boxes: Sequence[Box], classes: Sequence[int] | int = 0, crowd: Sequence[bool] | bool = False
) -> Labels:
    n = len(boxes)
    return Labels(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.broadcast_to(np.array(classes, np.int32), (n,)).copy(),
        np.broadcast_to(np.array(crowd, np.bool_), (n,)).copy(),
        (None,) * n,
    )


def finds_of(
    boxes: Sequence[Box], scores: Sequence[float], classes: Sequence[int] | int = 0
) -> Detections:
    return Detections.of(np.array(boxes).reshape(-1, 4), scores, classes).sorted()


def picture(
    path: Path, places: Sequence[tuple[int, int]], size: tuple[int, int] = (320, 200)
) -> None:
    """Grey noise with magenta squares of 16 pixels, which ``blob_model`` finds exactly."""
    rng = np.random.default_rng(len(places))
    pixels = rng.integers(60, 110, (size[1], size[0], 3)).astype(np.uint8)
    for x, y in places:
        pixels[y : y + 16, x : x + 16] = MAGENTA
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def coco(
    folder: Path,
    images: dict[str, Sequence[Any]],
    *,
    size: tuple[int, int] = (320, 200),
    categories: Sequence[str] = ("blob",),
    **more: Any,
) -> Path:
    """``labels.json``: file name → squares of 16 pixels by their corners, or whole annotations."""
    annotations: list[dict[str, Any]] = []
    for n, places in enumerate(images.values()):
        for place in places:
            told = place if isinstance(place, dict) else {"bbox": [*place, 16, 16]}
            base = {"id": len(annotations) + 1, "image_id": n, "category_id": 1, "iscrowd": 0}
            annotations.append(base | told)
    told = {
        "images": [
            {"id": n, "file_name": name, "width": size[0], "height": size[1]}
            for n, name in enumerate(images)
        ],
        "categories": [{"id": n, "name": c} for n, c in enumerate(categories, 1)],
        "annotations": annotations,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(told | more))
    return folder
