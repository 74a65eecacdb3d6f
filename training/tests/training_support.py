"""Labelled pictures, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from frond.client.scenes import palm_scene


def labelled_palms(folder: Path, images: int = 2, *, first: int = 0) -> None:
    """``train`` and ``val``: drawn palms in COCO's format, and in each one image without any."""
    for split, seed in (("train", 100 + first), ("val", 200 + first)):
        here = folder / split
        here.mkdir(parents=True)
        entries, notes = [], []
        for n in range(images + 1):
            pixels, boxes = palm_scene(160, 200, 5 if n < images else 0, seed + n, 0.28)
            Image.fromarray(pixels).save(here / f"{n}.png")
            entries.append({"id": n, "file_name": f"{n}.png", "width": 200, "height": 160})
            notes += [
                {"id": len(notes) + k, "image_id": n, "category_id": 1,
                 "bbox": [*b[:2], b[2] - b[0], b[3] - b[1]]}
                for k, b in enumerate(np.asarray(boxes).tolist())
            ]  # fmt: skip
        told = {
            "images": entries, "annotations": notes, "categories": [{"id": 1, "name": "palm"}],
        }  # fmt: skip
        (here / "labels.json").write_text(json.dumps(told))


SMALL = {
    "name": "palm-detector", "steps": 6, "batch": 2, "rate": 0.002, "scenes": 2, "full": False,
    "validate_every": 3, "checkpoint_every": 2, "threads": 1, "validation_megapixels": 0.05, "judged_scenes": 2, "reference_megapixels": 0.2,
}  # fmt: skip
