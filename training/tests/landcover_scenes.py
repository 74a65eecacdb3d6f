"""Small scenes as the Dubai set stores them: nine parts each, masks in its colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.training.landcover.config import IGNORED
from frond.training.landcover.data import Scene

COLOURS = np.array(
    [(60, 16, 152), (110, 193, 228), (226, 169, 41), (254, 221, 58), (132, 41, 246)], np.uint8
)
GREY, BLACK = (155, 155, 155), (0, 0, 0)


def drawn(name: str, seed: int, height: int = 192, width: int = 240) -> Scene:
    """Patches of 24 pixels of random classes; red tells the class: 50 × its number."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 5, (height // 24, width // 24))
    labels = np.kron(coarse, np.ones((24, 24), int)).astype(np.uint8)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[..., 0] = labels * 50
    labels[:2] = IGNORED
    return Scene(name, pixels, labels)


def write(scene: Scene, root: Path) -> Path:
    """Cut a scene into three by three parts under ``root/landcover/dubai``."""
    place = root / "landcover" / "dubai" / scene.name
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    colours: NDArray[np.uint8] = np.zeros((256, 3), np.uint8)
    colours[:5] = COLOURS
    height, width = scene.labels.shape
    for n in range(9):
        rows = slice(n // 3 * (height // 3), (n // 3 + 1) * (height // 3))
        columns = slice(n % 3 * (width // 3), (n % 3 + 1) * (width // 3))
        # PNG in place of the set's JPEG: what comes back can be compared exactly
        Image.fromarray(scene.pixels[rows, columns]).save(
            place / "images" / f"image_part_00{n + 1}.png"
        )
        Image.fromarray(colours[scene.labels[rows, columns]]).save(
            place / "masks" / f"image_part_00{n + 1}.png"
        )
    return place
