"""Semantic segmentation: a class for each pixel (U-Net, DeepLab, SegFormer and their like)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from frond.contracts.modelspec import MIN_AREA, ModelManifest, ModelThresholds
from frond.models.decoders.base import (
    Floats,
    Outputs,
    WindowPlanes,
    bad,
    check_probability,
    class_scores,
    shape_words,
    sigmoid,
)

Activation = Literal["none", "softmax", "sigmoid"]
Layout = Literal["NCHW", "NHWC"]

"""Regions with fewer scaled pixels give no polygon, unless the manifest says otherwise."""

_FULL: Final = np.float32(255)


@dataclass(frozen=True, slots=True)
class SemanticParams:
    """What a manifest says to ``semantic``, checked.

    Attributes:
        activation: that is left to the decoder.
        background: the channel that is no class; None: each is one.
        min_area: scaled pixels; regions with less give no polygon.
        layout: of the output.
    """

    activation: Activation = "none"
    background: int | None = None
    min_area: int = MIN_AREA
    layout: Layout = "NCHW"


class Semantic:
    """One output [N, K, h, w]: a channel for each class in the manifest's order, and one for the
    background where ``background`` says which. h × w is the input size or a whole fraction of it;
    a smaller output is scaled up bilinearly before its activation (half-pixel centres, as
    ``interpolate(align_corners=False)``).

    Params: ``activation`` softmax, sigmoid or none (the default: the graph gives probabilities);
    ``background``, the number of its channel (from 0; default: there is none); ``min_area``, below
    which a region gives no polygon (scaled pixels, default 16); ``layout`` NCHW (default) or NHWC;
    ``outputs`` (role ``scores``).
    """

    name = "semantic"
    task = "segmentation"
    params = frozenset({"activation", "background", "min_area", "layout", "outputs"})
    roles: tuple[str, ...] = ("scores",)
    per_image = False

    def decode(
        self,
        outputs: Outputs,
        manifest: ModelManifest,
        thresholds: ModelThresholds,  # noqa: ARG002 # they count where windows are blended
    ) -> list[WindowPlanes]:
        said = params_of(manifest)
        scores = class_scores(outputs, manifest, said.activation)
        shape = shape_words(scores)
        if said.layout == "NHWC" and scores.ndim == 4:
            scores = scores.transpose(0, 3, 1, 2)
        _check_shape(scores, shape, manifest, said)
        return [_planes(one, manifest, said) for one in scores]


def params_of(manifest: ModelManifest) -> SemanticParams:
    """The manifest's parameters for ``semantic``.

    Raises:
        ModelRejected: BAD_MODEL: one is of another kind or out of range.
    """
    given = manifest.decoder.params
    activation = given.get("activation", "none")
    if activation not in get_args(Activation):
        raise bad(
            manifest,
            f"decoder.params.activation is {activation!r}; it may be none, softmax or sigmoid.",
        )
    layout = given.get("layout", "NCHW")
    if layout not in get_args(Layout):
        raise bad(manifest, f"decoder.params.layout is {layout!r}; it may be NCHW or NHWC.")
    background = given.get("background")
    channels = len(manifest.classes) + 1
    if background is not None and not (_whole(background) and 0 <= background < channels):
        raise bad(
            manifest,
            f"decoder.params.background is {background!r}; with {channels - 1} classes it is a "
            f"channel from 0 to {channels - 1}, or left out.",
        )
    min_area = given.get("min_area", MIN_AREA)
    if not (_whole(min_area) and min_area >= 0):
        raise bad(manifest, f"decoder.params.min_area is {min_area!r}, no whole number of pixels.")
    if activation == "softmax" and background is None and channels == 2:
        raise bad(
            manifest,
            "softmax over the channel of one class is 1 everywhere. Take activation sigmoid, or "
            "name the background's channel.",
        )
    return SemanticParams(activation, background, min_area, layout)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_shape(scores: Floats, shape: str, manifest: ModelManifest, said: SemanticParams) -> None:
    """Hold the output, channels second, against the manifest; ``shape`` is what it was called."""
    channels = len(manifest.classes) + (said.background is not None)
    size = manifest.input.size
    fits = (
        scores.ndim == 4
        and scores.shape[1] == channels
        and scores.shape[2] == scores.shape[3] > 0
        and size % scores.shape[2] == 0
    )
    if fits:
        return
    wanted = f"N×{channels}×h×w" if said.layout == "NCHW" else f"N×h×w×{channels}"
    background = "a background" if said.background is not None else "no background"
    raise bad(
        manifest,
        f"the output is {shape}; {len(manifest.classes)} classes and {background} need {wanted}, "
        f"h and w {size} or a whole fraction of it. See classes, and decoder.params.background "
        "and layout.",
    )


def _planes(scores: Floats, manifest: ModelManifest, said: SemanticParams) -> WindowPlanes:
    """One window's planes from its output [K, h, w]: temporary memory is one window's."""
    size = manifest.input.size
    planes = np.empty((len(manifest.classes) + 1, size, size), np.uint8)
    p = _activated(upsampled(scores, size), said.activation, manifest)
    others = [k for k in range(len(p)) if k != said.background]
    for plane, channel in zip(planes, others, strict=False):
        _quantise(p[channel], plane)
    if said.background is None:
        planes[-1] = 1
    else:
        _quantise(p[said.background], planes[-1])
        # 0 is kept for pixels that mean nothing
        np.maximum(planes[-1], 1, out=planes[-1])
    return WindowPlanes(planes)


def _activated(scores: Floats, activation: Activation, manifest: ModelManifest) -> Floats:
    if activation == "sigmoid":
        return sigmoid(scores)
    if activation == "softmax":
        raised = np.exp(scores - scores.max(axis=0))
        raised /= raised.sum(axis=0)
        softmax: Floats = raised
        return softmax
    return check_probability(scores, "scores", manifest)


def _quantise(p: Floats, out: NDArray[np.uint8]) -> None:
    """rint(p · 255), p from 0 to 1."""
    scaled = p * _FULL
    np.rint(scaled, out=scaled)
    out[...] = scaled


def upsampled(scores: Floats, size: int) -> Floats:
    """[K, h, h] to [K, size, size], bilinearly, pixels seen as areas; size is a multiple of h."""
    side = scores.shape[-1]
    if side == size:
        return scores
    place = (np.arange(size) + 0.5) * (side / size) - 0.5
    low = np.clip(np.floor(place), 0, side - 1).astype(np.intp)
    high = np.minimum(low + 1, side - 1)
    part = np.clip(place - low, 0, 1).astype(np.float32)
    rows = _between(scores[:, low], scores[:, high], part[:, None])
    return _between(rows[..., low], rows[..., high], part)


def _between(a: Floats, b: Floats, part: Floats) -> Floats:
    b -= a
    b *= part
    b += a
    return b
