"""Models whose training data is told in a line."""

from __future__ import annotations

from frond.contracts.drift import LEVELS, PARTS, SCORE_BINS
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest, Reference


def ref(number: int) -> ModelRef:
    return ModelRef(name=f"model-{number}", digest=f"{number:064x}", version="1")


def manifest(
    value: int | None = None, score: int | None = None, *, with_finds: int | None = None,
    bands: tuple[int, ...] = (1,),
) -> ModelManifest:  # fmt: skip
    """Of bands whose pixels all had this value, and whose scores were all in this bin; of its 500
    windows so many had finds."""
    reference = None
    if value is not None:
        bins, scores = [0] * LEVELS, [0] * SCORE_BINS
        bins[value] = PARTS
        if score is not None:
            scores[score] = PARTS
        reference = Reference(
            bands=(tuple(bins),) * len(bands), scores=tuple(scores) if score is not None else (), images=3,
            windows=500, pixels=500 * 4096, found=900, windows_with_finds=with_finds,
        )  # fmt: skip
    return ModelManifest(
        name="planted", decoder=DecoderSpec(name="yolo"), classes=("palm",), bands=bands,
        input=InputSpec(size=64), margin=8, reference=reference,
    )  # fmt: skip
