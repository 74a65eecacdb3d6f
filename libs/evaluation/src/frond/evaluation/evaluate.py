"""A model judged on labelled images, one image after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from frond.contracts.errors import RasterRejected, UserError
from frond.contracts.reasons import Reason
from frond.evaluation.dataset import Dataset, LabelledImage, load
from frond.evaluation.detection import DetectionFigures
from frond.evaluation.predict import OnWindows, Predictor
from frond.evaluation.segmentation import Painter, SegmentationFigures
from frond.models import load_manifest

_DIGITS: Final = 6
_PACKAGES: Final = ("frond-evaluation", "numpy", "onnxruntime", "pycocotools", "rasterio")

OnProgress = Callable[[float, int], None]
"""Told how many images are done, in parts too, of how many."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to judge.

    Attributes:
        score: in place of the model's own threshold.
        iou: from which a find is a label, by overlap.
        edge_band: what is this near to an image's edge does not count, in shares of a label's side.
        renamed: category → class, where their names differ.
        images: what file names are relative to; by default the labels' folder.
        threads: of the model; 0: one for each core.
    """

    score: float | None = None
    iou: float = 0.5
    edge_band: float = 0.0
    renamed: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    threads: int = 0


def evaluate(
    model: Path,
    dataset: Path,
    options: Options | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """All figures of a model folder on a COCO dataset: the same input gives the same figures.

    An image that cannot be read, or is not the one that was labelled, is left out and listed.

    Raises:
        UserError: the model cannot be run, the labels cannot be used, no image could be judged.
    """
    options = options or Options()
    for name, share in (("threshold", options.score), ("IoU", options.iou)):
        if share is not None and not 0 <= share <= 1:
            raise _bad(f"A {name} of {share:g} is not between 0 and 1.")
    if not options.edge_band >= 0 or options.edge_band > 100:
        raise _bad(f"An edge band of {options.edge_band:g} labels' sides is not between 0 and 100.")
    manifest = load_manifest(model)
    if manifest.task == "classification":
        raise _bad(
            f"{manifest.name} says what whole windows are, and labels are of objects or pixels: only "
            "models of task detection and segmentation can be judged."
        )
    masks = manifest.task == "segmentation"
    labelled = load(
        dataset, manifest.classes, images=options.images, renamed=options.renamed, masks=masks
    )
    predictor = Predictor(model, score=options.score, threads=options.threads)
    judge = _Masks(predictor, labelled) if masks else _Boxes(predictor, labelled, options)
    left_out, pixels = [], 0
    for n, image in enumerate(labelled.images):
        try:
            pixels += judge.image(image, _told(on_progress, n, len(labelled.images)))
        except RasterRejected as e:
            left_out.append({"image": image.name, "reason": e.reason.value, "detail": e.detail})
        if on_progress:
            on_progress(n + 1, len(labelled.images))
    judged = len(labelled.images) - len(left_out)
    if not judged:
        first = left_out[0]
        raise _bad(
            f"None of the {len(left_out)} images could be judged. The first, {first['image']}: "
            f"{first['detail']}"
        )
    told: dict[str, Any] = rounded({
        "task": manifest.task,
        "model": {
            "name": manifest.name, "version": manifest.version, "digest": predictor.digest,
            "classes": list(manifest.classes),
        },
        "dataset": {
            "file": labelled.file.name, "digest": labelled.digest(),
            "categories": dict(labelled.categories), "images": judged, "megapixels": pixels / 1e6,
        },
        "settings": {
            "score": predictor.thresholds.score,
            "merge_iou": predictor.thresholds.merge_iou, "nms_iou": predictor.thresholds.nms_iou,
        } | ({} if masks else {
            "iou": options.iou, "edge_band": options.edge_band, "floor": predictor.floor,
        }),
        "versions": {p: _version(p) for p in _PACKAGES},
        "providers": list(predictor.session.providers),
        "left_out": left_out,
        "notes": list(labelled.notes),
        "figures": judge.figures(),
    })  # fmt: skip
    return told


class _Boxes:
    def __init__(self, predictor: Predictor, labelled: Dataset, options: Options) -> None:
        self._predictor = predictor
        self._figures = DetectionFigures(
            predictor.manifest.classes, labelled.judged, predictor.thresholds.score,
            predictor.floor, iou=options.iou, edge_band=options.edge_band,
        )  # fmt: skip
        self.figures = self._figures.figures

    def image(self, image: LabelledImage, on_windows: OnWindows) -> int:
        plan = self._predictor.plan(image)
        found = self._predictor.detections(plan, on_windows)
        width, height = plan.source.width, plan.source.height
        self._figures.add(found, image.labels, width, height)
        return width * height


class _Masks:
    def __init__(self, predictor: Predictor, labelled: Dataset) -> None:
        self._predictor = predictor
        self._figures = SegmentationFigures(predictor.manifest.classes, labelled.judged)
        self.figures = self._figures.figures

    def image(self, image: LabelledImage, on_windows: OnWindows) -> int:
        plan = self._predictor.plan(image)
        size = [plan.source.height, plan.source.width]
        if any(isinstance(s, dict) and s["size"] != size for s in image.labels.shapes):
            raise RasterRejected(
                Reason.BAD_REQUEST,
                f"It has {size[1]}×{size[0]} pixels, and run lengths of its labels are of another size.",
            )
        painter = Painter(image.labels, plan)
        # the windows are all read before the first band is there: a broken image adds nothing
        for band in self._predictor.bands(plan, on_windows):
            self._figures.add(band, painter)
        return plan.source.width * plan.source.height


def rounded(value: Any) -> Any:
    """Numbers to six digits behind the point, all the way down."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


def _told(on_progress: OnProgress | None, done: int, images: int) -> OnWindows:
    def windows(n: int, of: int) -> None:
        if on_progress:
            on_progress(done + n / max(of, 1), images)

    return windows


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _bad(detail: str) -> UserError:
    return UserError(Reason.BAD_REQUEST, detail)
