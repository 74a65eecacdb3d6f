"""Centre points: in which unit a graph gives sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model_graphs import heatmaps

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.models.decoders import WindowDetections, decoder_for, detections_of


def decoded(outputs: dict[str, Any], **params: Any) -> WindowDetections:
    manifest = ModelManifest.model_validate(
        {
            "name": "m", "margin": 8, "input": {"size": 64}, "classes": ["palm"],
            "decoder": {"name": "centerpoint", "params": params},
        }
    )  # fmt: skip
    decoder = decoder_for(manifest)
    (found,) = detections_of(decoder.decode(outputs, manifest, manifest.thresholds))
    return found


def test_sizes_may_be_in_cells() -> None:
    """As CenterNet gives them; a cell is the stride's pixels. Left out, they are pixels."""
    pixels = decoded(heatmaps(), sizes="pixels")
    assert len(pixels) == 2
    assert decoded(heatmaps()).boxes.tolist() == pixels.boxes.tolist()
    cells = heatmaps() | {"size": heatmaps()["size"] / 4}
    np.testing.assert_allclose(decoded(cells, sizes="cells").boxes, pixels.boxes, atol=1e-4)


def test_another_unit_is_refused() -> None:
    """In words that name what to write."""
    with pytest.raises(ModelRejected, match="pixels or cells"):
        decoded(heatmaps(), sizes="metres")
