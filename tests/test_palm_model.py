"""The model that ships: loads, says what it is, finds drawn palms, stays silent on bare ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frond.client.scenes import palm_scene
from frond.models.session import ModelSession

FOLDER = Path(__file__).parents[1] / "models" / "palm-detector"


@pytest.fixture(scope="module")
def session() -> ModelSession:
    return ModelSession(FOLDER, providers=["CPUExecutionProvider"], threads=2)


def test_the_folder_is_small_and_carries_its_card(session: ModelSession) -> None:
    """Graph, manifest and card are there; the graph stays under 5 MB; licence and GSD are told."""
    assert (FOLDER / "model.onnx").stat().st_size < 5_000_000
    assert "Where it falls short" in (FOLDER / "MODEL_CARD.md").read_text()
    assert session.manifest.classes == ("palm",)
    assert session.manifest.gsd_m == pytest.approx(0.14)
    assert session.manifest.licence


def test_drawn_palms_are_found(session: ModelSession) -> None:
    """Over scenes of 5 to 40 palms the mean centre-match F1 is at least 0.95."""
    scores = []
    for k, n in enumerate((5, 12, 20, 30, 40)):
        pixels, truth = palm_scene(512, 512, n, seed=500 + k)
        found = session.detect([pixels])[0].boxes
        centres, planted = (found[:, :2] + found[:, 2:]) / 2, (truth[:, :2] + truth[:, 2:]) / 2
        far = np.linalg.norm(planted[:, None] - centres[None], axis=-1)
        near = far <= (truth[:, 2:] - truth[:, :2]).mean(axis=1)[:, None] / 2
        # crowns stand apart, so that a find lies near one of them at most
        hits = int(near.any(axis=1).sum())
        scores.append(2 * hits / (len(found) + len(truth)))
    assert np.mean(scores) >= 0.95


def test_bare_ground_stays_bare(session: ModelSession) -> None:
    """Scenes without palms, bushes and tracks in them, give next to nothing."""
    windows = [palm_scene(512, 512, 0, seed=700 + k)[0] for k in range(4)]
    assert sum(len(found) for found in session.detect(windows)) <= 2
