"""SAHI: a DetectionModel around one InferenceSession, no pass over the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import rasterio
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction

from contenders.palm import Palm


class _Model(DetectionModel):
    def load_model(self) -> None:
        self.model = Palm(str(self.model_path))

    def perform_inference(self, image: np.ndarray) -> None:
        self._original_predictions = self.model.detect([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        self._original_predictions = self.model.detect(images)

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Any = None,
        full_shape_list: Any = None,
    ) -> None:
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=box, category_id=int(c), category_name="palm", score=float(s),
                    shift_amount=shift_amount_list[i], full_shape=full_shape_list[i],
                )
                for box, s, c in zip(
                    found.boxes.tolist(), found.scores, found.classes, strict=True
                )
            ]
            for i, found in enumerate(self._original_predictions)
        ]  # fmt: skip


def whole(path: str, model: str, batch: int) -> Callable[[], dict]:
    detector = _Model(model_path=model, confidence_threshold=0.3, device="cpu")
    manifest = detector.model.manifest
    overlap = 2 * manifest.margin / manifest.input.size

    def work() -> dict[str, object]:
        with rasterio.open(path) as dataset:
            image = np.ascontiguousarray(np.moveaxis(dataset.read(), 0, -1))
        result = get_sliced_prediction(
            image, detector, slice_height=manifest.input.size, slice_width=manifest.input.size,
            overlap_height_ratio=overlap, overlap_width_ratio=overlap, perform_standard_pred=False,
            postprocess_type="NMS", postprocess_match_metric="IOU",
            postprocess_match_threshold=manifest.thresholds.merge_iou, verbose=0, batch_size=batch,
        )  # fmt: skip
        return {"kept": len(result.object_prediction_list)}

    return work
