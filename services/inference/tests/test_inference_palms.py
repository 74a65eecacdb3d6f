"""The shipped palm detector, through the same road as a request."""

from __future__ import annotations

import io
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from frond.client.scenes import palm_scene
from frond.contracts.jobs import ModelRef
from frond.inference.decoding import decode
from frond.inference.pipeline import Runner
from frond.inference.predict import predict
from frond.models import folder_digest
from frond.models.session import ModelSession
from frond.raster import Limits

MODEL = Path(__file__).parents[3] / "models" / "palm-detector"


@pytest.mark.skipif(not (MODEL / "model.onnx").exists(), reason="the model is not trained yet")
def test_the_shipped_model_finds_drawn_palms() -> None:
    """Nine of ten planted palms are found, and no more than one in ten is invented.

    Drawn scenes are a part of its training, so this is a test of the road, not of the model.
    """
    pixels, truth = palm_scene(900, 1100, 40, seed=4242)
    body = io.BytesIO()
    np.save(body, pixels)
    session = ModelSession(MODEL, batch=1)
    ref = ModelRef(name=session.manifest.name, digest=folder_digest(MODEL))
    answer = predict(
        body.getvalue(), ref, session, Runner(), Limits(), decode=decode, most=1000, stop=Event()
    )
    found = np.array([d.bbox for d in answer.detections]).reshape(-1, 4)
    middles = found[:, :2] + found[:, 2:] / 2
    centres = (truth[:, :2] + truth[:, 2:]) / 2
    near = np.hypot(*(middles[:, None] - centres[None]).transpose(2, 0, 1)) < 15
    assert near.any(axis=0).mean() >= 0.9
    assert near.any(axis=1).mean() >= 0.9
    assert len(found) == pytest.approx(len(truth), rel=0.15)
