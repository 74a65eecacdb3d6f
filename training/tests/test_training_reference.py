"""What the training data looked like: of tiles as they are, whatever a model finds in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from frond.models import load_manifest
from frond.models.testing import MAGENTA, blob_model
from frond.training.reference import refer


def test_tiles_are_seen_at_their_own_scale(tmp_path: Path) -> None:
    """They are at the model's; finds of another size than ``object_px`` do not say otherwise."""
    tile = np.full((300, 400, 3), 90, np.uint8)
    for x in range(20, 380, 40):
        for y in range(20, 280, 40):
            tile[y : y + 16, x : x + 16] = MAGENTA
    folder = blob_model(tmp_path / "m", size=128, margin=16, gsd_m=0.5)
    refer(folder, [tile])
    known = load_manifest(folder).reference
    with (folder / "model.yaml").open("a") as file:
        file.write("object_px: 24\n")
    refer(folder, [tile])
    assert load_manifest(folder).reference == known
