"""Decoders: from a graph's outputs to boxes or planes, one file each."""

from __future__ import annotations

from typing import Final

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.contracts.reasons import Reason
from frond.models.decoders.base import (
    Decoder,
    Outputs,
    WindowDetections,
    WindowPlanes,
    WindowResult,
    detections_of,
    effective_thresholds,
    names_read,
    planes_of,
)
from frond.models.decoders.centerpoint import CenterPoint
from frond.models.decoders.detr import Detr
from frond.models.decoders.semantic import Semantic
from frond.models.decoders.tile_classification import TileClassification
from frond.models.decoders.torchvision import Torchvision
from frond.models.decoders.yolo import Yolo
from frond.models.decoders.yolo_end2end import YoloEnd2End

__all__ = [
    "DECODERS",
    "Decoder",
    "Outputs",
    "WindowDetections",
    "WindowPlanes",
    "WindowResult",
    "decoder_for",
    "detections_of",
    "effective_thresholds",
    "names_read",
    "planes_of",
]

_ALL: Final[tuple[Decoder, ...]] = (
    CenterPoint(), Yolo(), YoloEnd2End(), Detr(), Torchvision(), Semantic(), TileClassification(),
)  # fmt: skip

DECODERS: Final = {d.name: d for d in _ALL}


def decoder_for(manifest: ModelManifest) -> Decoder:
    """The decoder that the manifest names.

    Raises:
        ModelRejected: BAD_MODEL: there is none of that name, it is for another task, or its
            parameters are not known.
    """
    found = DECODERS.get(manifest.decoder.name)
    if found is None:
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"model.yaml: there is no decoder {manifest.decoder.name!r}. "
            f"There are: {', '.join(sorted(DECODERS))}.",
        )
    if manifest.task != found.task:
        fitting = sorted(d.name for d in DECODERS.values() if d.task == manifest.task)
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"model.yaml: the decoder {found.name!r} is for {found.task}, the task is "
            f"{manifest.task}. For {manifest.task} there is: {', '.join(fitting) or 'none'}.",
        )
    unknown = sorted(set(manifest.decoder.params) - found.params)
    if unknown:
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"model.yaml: the decoder {found.name!r} has no parameter {unknown[0]!r}. "
            f"It takes: {', '.join(sorted(found.params))}.",
        )
    return found
