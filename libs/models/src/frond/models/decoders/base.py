"""What all decoders share: the protocol, thresholds, checks of outputs, and the last steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.jobs import Thresholds
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.contracts.reasons import Reason
from frond.models.nms import nms, total_order

Outputs = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]

MAX_CANDIDATES: Final = 30_000
"""Boxes of a window above the score, before NMS: as many as Ultralytics takes (``max_nms``)."""
# scores may leave [0, 1] by the rounding of a float16 graph
_SLACK: Final = 2e-3


@dataclass(frozen=True, slots=True)
class WindowDetections:
    """What a model saw in one window, in total order: score descending, then class and box.

    Attributes:
        boxes: float32 [n, 4]: x0, y0, x1, y1 in window pixels, (0, 0) the upper left corner of the
            first pixel; with area, finite, may reach beyond the window.
        scores: float32 [n], 0…1.
        classes: int32 [n], index into the manifest's classes.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class WindowPlanes:
    """What a model makes of each pixel of one window.

    Attributes:
        planes: uint8 [C + 1, size, size]: probabilities of the manifest's classes, 255 for 1, and
            their ``rival``: 0 where the pixel means nothing, which no decoder knows; else the
            background's probability, at least 1, or 1 where the model has no background.
    """

    planes: NDArray[np.uint8]


WindowResult = WindowDetections | WindowPlanes
"""What a decoder gives for a window: boxes for detection, planes for segmentation."""


class Decoder(Protocol):
    """Reads one family of graphs.

    Attributes:
        name: as ``decoder.name`` of a manifest.
        task: of the models that it reads, and thereby the type of its results.
        params: the parameters it takes.
        roles: of the outputs that it reads; by these names, or by those that ``params.outputs`` gives
            them. A graph's only output may have any name.
        per_image: whether the graph takes one image a run, and its outputs have no batch axis.
    """

    name: str
    task: str
    params: frozenset[str]
    roles: tuple[str, ...]
    per_image: bool

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> Sequence[WindowResult]:
        """The result of each window of a batch, all of the task's type.

        Raises:
            ModelRejected: BAD_MODEL: outputs that are missing, of another shape, or not finite.
        """
        ...


def detections_of(found: Sequence[WindowResult]) -> list[WindowDetections]:
    """The results of a detection model as such."""
    boxes = [one for one in found if isinstance(one, WindowDetections)]
    if len(boxes) != len(found):
        raise TypeError("these are no results of a detection model")
    return boxes


def planes_of(found: Sequence[WindowResult]) -> list[WindowPlanes]:
    """The results of a segmentation model as such."""
    planes = [one for one in found if isinstance(one, WindowPlanes)]
    if len(planes) != len(found):
        raise TypeError("these are no results of a segmentation model")
    return planes


def effective_thresholds(manifest: ModelManifest, over: Thresholds | None) -> ModelThresholds:
    """The model's thresholds, with those that a job overrides."""
    if over is None:
        return manifest.thresholds
    return manifest.thresholds.model_copy(update=over.model_dump(exclude_none=True))


def bad(manifest: ModelManifest, detail: str) -> ModelRejected:
    """A rejection that names the model."""
    return ModelRejected(Reason.BAD_MODEL, f"The model {manifest.name}: {detail}")


def output(outputs: Outputs, role: str, manifest: ModelManifest, *, alone: bool = False) -> Floats:
    """The output that plays a role, as float32.

    ``params.outputs`` maps roles to the graph's names; without it the role is the name.

    Args:
        alone: take the graph's only output, whatever its name.
    """
    names = _names(manifest)
    name = str(names.get(role, role))
    if name not in outputs and alone and role not in names and len(outputs) == 1:
        name = next(iter(outputs))
    if name not in outputs:
        raise _lacks(manifest, name, outputs)
    return finite(outputs[name], name, manifest)


def names_read(decoder: Decoder, manifest: ModelManifest, given: Sequence[str]) -> Sequence[str]:
    """Of a graph's outputs those that the decoder reads; what else it gives is nobody's concern.

    Raises:
        ModelRejected: BAD_MODEL: one of them is not there.
    """
    if len(given) == 1:
        return given
    names = _names(manifest)
    read = list(dict.fromkeys(str(names.get(role, role)) for role in decoder.roles))
    for name in read:
        if name not in given:
            raise _lacks(manifest, name, given)
    return read


def class_scores(outputs: Outputs, manifest: ModelManifest, activation: str) -> Floats:
    """The output of a model that gives nothing but scores, before the activation that is left.

    Raises:
        ModelRejected: BAD_MODEL: as :func:`output`, or it holds whole numbers, of which an activation
            would make scores that mean nothing.
    """
    scores = output(outputs, "scores", manifest, alone=True)
    given = [v for v in outputs.values() if v.shape == scores.shape]
    if activation != "none" and given and all(v.dtype.kind in "iu" for v in given):
        raise bad(
            manifest,
            f"the output {shape_words(scores)} holds whole numbers: the number of the best class, after an "
            f"argmax, of which {activation} makes nothing. Export the scores of all classes.",
        )
    return scores


def _names(manifest: ModelManifest) -> dict[str, Any]:
    """The graph's names of roles that have others there."""
    names = manifest.decoder.params.get("outputs") or {}
    if not isinstance(names, dict):
        raise bad(manifest, "decoder.params.outputs must map roles to output names.")
    return names


def _lacks(manifest: ModelManifest, name: str, given: Iterable[str]) -> ModelRejected:
    return bad(
        manifest,
        f"the decoder {manifest.decoder.name} needs an output {name!r}; the graph has "
        f"{', '.join(sorted(given)) or 'none'}. Name it in decoder.params.outputs.",
    )


def finite(values: NDArray[Any], name: str, manifest: ModelManifest) -> Floats:
    """The values as float32; rejected when any is NaN or infinite."""
    if values.dtype.kind not in "fiu":
        raise bad(manifest, f"the output {name!r} holds {values.dtype}, not numbers.")
    asked = values.astype(np.float32, copy=False)
    if not np.isfinite(asked).all():
        raise bad(
            manifest,
            f"the output {name!r} holds NaN or infinite values. "
            "Check its normalisation and how it was exported.",
        )
    return asked


def check_probability(values: Floats, what: str, manifest: ModelManifest) -> Floats:
    """Values clipped to 0…1; rejected when they are plainly no probabilities."""
    if values.size and (values.min() < -_SLACK or values.max() > 1 + _SLACK):
        raise bad(
            manifest,
            f"{what} reach from {values.min():.3g} to {values.max():.3g}, not from 0 to 1: "
            "they look like logits. Export the model with its last activation.",
        )
    clipped: Floats = np.clip(values, 0.0, 1.0)
    return clipped


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e⁻ˣ), without overflow."""
    y: Floats = (0.5 * (np.tanh(0.5 * x) + 1.0)).astype(np.float32)
    return y


def from_centres(xywh: Floats) -> Floats:
    """[n, 4] of centre and size to corners."""
    half = xywh[:, 2:] / 2
    return np.concatenate([xywh[:, :2] - half, xywh[:, :2] + half], axis=1)


def select(
    boxes: Floats,
    scores: Floats,
    classes: NDArray[Any],
    manifest: ModelManifest,
    thresholds: ModelThresholds,
    *,
    suppress: bool,
) -> WindowDetections:
    """The last steps of every decoder: threshold, order, NMS by class, the manifest's cap.

    Args:
        boxes: [n, 4] corners; those without area are dropped.
        suppress: whether NMS is left to us.

    Raises:
        RasterRejected: TOO_MANY: more boxes than NMS takes.
    """
    with_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    keep = np.flatnonzero((scores >= thresholds.score) & with_area)
    # no box overlaps another by more than all of it
    suppress = suppress and thresholds.nms_iou < 1
    # an object has ten of them or more: the best so many would be some objects' doubles, and leave
    # out others whole
    if suppress and len(keep) > MAX_CANDIDATES:
        raise RasterRejected(
            Reason.TOO_MANY,
            f"The model gives {len(keep)} boxes above the score in one window of this image, before "
            f"those of one object are told from each other; at most {MAX_CANDIDATES} are taken. Ask "
            "for a higher score, or see whether model and image fit each other.",
        )
    boxes, scores, classes = boxes[keep], scores[keep], classes[keep]
    order = total_order(boxes, scores, classes)
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    if suppress:
        kept = nms(boxes, classes, thresholds.nms_iou, manifest.max_detections)
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
    top = slice(manifest.max_detections)
    return WindowDetections(
        np.ascontiguousarray(boxes[top], dtype=np.float32),
        np.ascontiguousarray(scores[top], dtype=np.float32),
        np.ascontiguousarray(classes[top], dtype=np.int32),
    )


def check_classes(classes: NDArray[Any], manifest: ModelManifest) -> NDArray[Any]:
    """Class indices; rejected when the manifest has no such class."""
    unknown = classes[(classes < 0) | (classes >= len(manifest.classes))]
    if unknown.size:
        raise bad(
            manifest,
            f"it found class {int(unknown[0])} (from 0), but model.yaml lists "
            f"{len(manifest.classes)} classes.",
        )
    return classes


def shape_words(values: NDArray[Any]) -> str:
    """A shape as people write it: 1×84×8400."""
    return "×".join(str(n) for n in values.shape)
