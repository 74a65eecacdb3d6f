"""Which decoder a manifest gets, and what it is refused for."""

from __future__ import annotations

from typing import Any

import pytest

from frond.contracts.errors import ModelRejected
from frond.contracts.jobs import Thresholds
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders import DECODERS, decoder_for, effective_thresholds


def manifest_of(decoder: str, task: str = "detection", **params: Any) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": "m", "task": task, "classes": ["a", "b"], "input": {"size": 256},
            "decoder": {"name": decoder, "params": params}, "thresholds": {"score": 0.3},
        }
    )  # fmt: skip


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_a_decoder_for_another_task_is_refused(decoder: str) -> None:
    """The sentence tells both, and which decoders there are for the task."""
    task = DECODERS[decoder].task
    assert decoder_for(manifest_of(decoder, task)).name == decoder
    other = "detection" if task == "segmentation" else "segmentation"
    fitting = "centerpoint, detr" if other == "detection" else "semantic"
    with pytest.raises(ModelRejected, match=f"is for {task}.*is {other}.*{fitting}"):
        decoder_for(manifest_of(decoder, other))


def test_unknown_decoders_and_parameters_are_named() -> None:
    """The sentence lists what there is."""
    names = "centerpoint, detr, semantic, tile-classification, torchvision, yolo, yolo-end2end"
    with pytest.raises(ModelRejected, match=names):
        decoder_for(manifest_of("semantics"))
    with pytest.raises(ModelRejected, match="peaks_don"):
        decoder_for(manifest_of("centerpoint", peaks_don=True))


def test_a_job_overrides_thresholds_one_by_one() -> None:
    """None leaves the model's own."""
    manifest = manifest_of("yolo")
    assert effective_thresholds(manifest, None) == manifest.thresholds
    over = effective_thresholds(manifest, Thresholds(score=0.0))
    assert over == ModelThresholds(score=0.0, nms_iou=0.5, merge_iou=0.5)
