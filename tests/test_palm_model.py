"""The model that ships: loads, says what it is, finds drawn palms, stays silent on bare ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from frond.client.scenes import palm_scene
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.models.session import ModelSession
from frond.raster import PlanRequest, inspect, open_raster, plan_image

FOLDER = Path(__file__).parents[1] / "models" / "palm-detector"


@pytest.fixture(scope="module")
def session() -> ModelSession:
    return ModelSession(FOLDER, providers=["CPUExecutionProvider"], threads=2, batch=1)


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


@pytest.mark.parametrize("gsd", [0.07, 0.14, 0.28])
def test_the_scale_of_drawn_palms_is_estimated(
    session: ModelSession, tmp_path: Path, gsd: float
) -> None:
    """A scene that does not say its scale is planned within a fifth of it, half or twice as fine."""
    plan = plan_of(
        tmp_path, session, palm_scene(900, 900, round(60 * (gsd / 0.14) ** 2), 600, gsd)[0]
    )
    assert plan.gsd_source == "estimated"
    assert plan.gsd_m == pytest.approx(gsd, rel=0.2)
    assert plan.grid.scale == pytest.approx(plan.gsd_m / 0.14, rel=0.03)


def test_the_scale_of_bare_ground_is_not(session: ModelSession, tmp_path: Path) -> None:
    """Nothing that is found there tells it: pixels are taken as they are."""
    plan = plan_of(tmp_path, session, palm_scene(700, 700, 0, seed=700)[0])
    assert (plan.gsd_m, plan.gsd_source, plan.grid.scale) == (None, None, 1.0)


def plan_of(folder: Path, session: ModelSession, pixels: NDArray[np.uint8]) -> ImagePlan:
    """As ``frond evaluate`` plans an image, and a job."""
    path = folder / "scene.png"
    Image.fromarray(pixels).save(path)
    request = PlanRequest(
        job_id="j", image_id="1" * 32, image=path.name, name=path.name, uri=str(path), etag="",
        size=path.stat().st_size, model=ModelRef(name="palm-detector", digest="0" * 64),
        manifest=session.manifest,
    )  # fmt: skip
    with open_raster(str(path)) as dataset:
        return plan_image(dataset, inspect(dataset), request, session)


def test_bare_ground_stays_bare(session: ModelSession) -> None:
    """Scenes without palms, bushes and tracks in them, give next to nothing."""
    windows = [palm_scene(512, 512, 0, seed=700 + k)[0] for k in range(4)]
    assert sum(len(found) for found in session.detect(windows)) <= 2
