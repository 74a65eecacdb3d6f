"""Model folders, registry, preprocessing, ONNX sessions and decoders.

``frond.models.session`` needs ONNX Runtime and is imported by those who run models; the rest does
not.
"""

from frond.models.aliases import Alias, Move
from frond.models.decoders import (
    Decoder,
    WindowDetections,
    WindowPlanes,
    WindowResult,
    decoder_for,
    detections_of,
    effective_thresholds,
    planes_of,
)
from frond.models.folder import (
    MANIFEST_FILE,
    MODEL_FILE,
    folder_digest,
    load_manifest,
    parse_manifest,
)
from frond.models.registry import DEFAULT_ALIAS, ModelListing, Registry

__all__ = [
    "DEFAULT_ALIAS",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "Alias",
    "Decoder",
    "ModelListing",
    "Move",
    "Registry",
    "WindowDetections",
    "WindowPlanes",
    "WindowResult",
    "decoder_for",
    "detections_of",
    "effective_thresholds",
    "folder_digest",
    "load_manifest",
    "parse_manifest",
    "planes_of",
]
