"""Classes of whole windows: what becomes of scores, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.models.decoders import WindowDetections, decoder_for, detections_of


def decoded(scores: Any, classes: int = 3, **params: Any) -> list[WindowDetections]:
    manifest = ModelManifest.model_validate(
        {
            "name": "m", "task": "classification", "margin": 4, "input": {"size": 32},
            "decoder": {"name": "tile-classification", "params": params},
            "classes": [f"c{n}" for n in range(classes)], "thresholds": {"score": 0.4},
        }
    )  # fmt: skip
    outputs = {"y": np.asarray(scores, np.float32)}
    return detections_of(decoder_for(manifest).decode(outputs, manifest, manifest.thresholds))


def told(found: WindowDetections) -> list[tuple[int, float]]:
    return [(int(c), round(float(s), 3)) for c, s in zip(found.classes, found.scores, strict=True)]


def test_a_window_has_its_best_class_and_the_box_is_the_window() -> None:
    """One class a window where they share 1; none below the threshold."""
    first, second = decoded([[0.1, 0.5, 0.4], [0.3, 0.35, 0.35]])
    assert told(first) == [(1, 0.5)]
    assert first.boxes.tolist() == [[0, 0, 32, 32]]
    assert len(second) == 0


def test_softmax_and_sigmoid() -> None:
    """Softmax gives one class; with sigmoid a window may have several, best first."""
    logits = [[2.0, 1.0, -9.0]]
    (one,) = decoded(logits, activation="softmax")
    assert told(one) == [(0, 0.731)]
    (several,) = decoded(logits, activation="sigmoid")
    assert told(several) == [(0, 0.881), (1, 0.731)]


def test_windows_of_the_background_give_nothing() -> None:
    """Its channel is left out, and the other channels are the classes in order."""
    found = decoded([[0.1, 0.8, 0.1, 0.0], [0.2, 0.1, 0.1, 0.6]], background=1)
    assert [told(f) for f in found] == [[], [(2, 0.6)]]


@pytest.mark.parametrize(
    ("scores", "params", "words"),
    [
        ([[0.5, 0.5]], {}, "1×2; 3 classes need N×3"),
        ([[0.5, 0.5, 0]], {"background": 0}, "3 classes and a background need N×4"),
        ([[0.5, 0.5, 0]], {"background": 7}, "a channel from 0 to 3"),
        ([[3.0, 0.5, -4]], {}, "look like logits"),
        ([[3.0, 0.5, -4]], {"activation": "relu"}, "none, softmax or sigmoid"),
    ],
)
def test_what_does_not_fit_is_refused(scores: Any, params: Any, words: str) -> None:
    """In words that name what to change."""
    with pytest.raises(ModelRejected, match=words):
        decoded(scores, **params)


def test_softmax_over_one_class_is_refused() -> None:
    """It would be 1 everywhere."""
    with pytest.raises(ModelRejected, match="sigmoid"):
        decoded([[0.5]], classes=1, activation="softmax")
