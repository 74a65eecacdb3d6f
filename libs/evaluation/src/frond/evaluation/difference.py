"""What two versions found, as GeoJSON (RFC 7946, like the artifacts): by whom each thing was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frond.artifacts.common import Sink, scores_of, text
from frond.artifacts.geojson import FeatureCollection, decimals, geometry_texts
from frond.artifacts.geometry import lonlat_rings, wide_rings
from frond.contracts.plan import ImagePlan
from frond.evaluation.agreement import WindowCompared
from frond.raster import has_lonlat


class DiffGeoJson(FeatureCollection):
    """Writes features as they come.

    Args:
        about: what the file says of itself.
    """

    def __init__(self, sink: Sink, about: Mapping[str, Any], classes: Sequence[str]) -> None:
        super().__init__(sink, about)
        self._classes = tuple(classes)

    def image(self, plan: ImagePlan) -> None:
        """An image that was compared: one without longitude and latitude gives no features."""
        if not has_lonlat(plan.georeference):
            self.without_lonlat(plan.image_id, plan.name)

    def finds(self, plan: ImagePlan, window: int, told: WindowCompared) -> None:
        """A window's finds: those of both with the job's model's box."""
        ours, theirs = told.production, told.shadow
        scores, others = scores_of(ours).tolist(), scores_of(theirs).tolist()
        rows: list[tuple[NDArray[np.float64], dict[str, Any]]] = []
        for k, f, iou in told.pairs:
            rows.append((ours.boxes[k], {
                "found_by": "both", "class": self._classes[ours.classes[k]],
                "class_shadow": self._classes[theirs.classes[f]], "score": scores[k],
                "score_shadow": others[f], "iou": round(iou, 6),
            }))  # fmt: skip
        for k in told.only_production:
            rows.append((ours.boxes[k], {
                "found_by": "production", "class": self._classes[ours.classes[k]],
                "score": scores[k],
            }))  # fmt: skip
        for f in told.only_shadow:
            rows.append((theirs.boxes[f], {
                "found_by": "shadow", "class": self._classes[theirs.classes[f]],
                "score_shadow": others[f],
            }))  # fmt: skip
        self._add(plan, window, rows)

    def window(self, plan: ImagePlan, window: int, disagrees: float) -> None:
        """A window's core, and the share of its pixels that the two do not agree on."""
        core = np.array(plan.grid.core(window), np.float64) / plan.grid.scale
        self._add(plan, window, [(core, {"disagrees": round(disagrees, 6)})])

    def _add(
        self, plan: ImagePlan, window: int, rows: list[tuple[NDArray[np.float64], dict[str, Any]]]
    ) -> None:
        if not rows:
            return
        boxes = np.stack([box for box, _ in rows])
        rings = lonlat_rings(plan.georeference, boxes)
        if rings is None:
            return
        digits = decimals(plan.georeference, plan.source.width, plan.source.height)
        texts = geometry_texts(rings, digits, wide_rings(plan.georeference, boxes))
        where = {"window": window, "image": plan.name, "image_id": plan.image_id}
        self.features([
            f'{{"type":"Feature","geometry":{geometry},"properties":{text(said | where)}}}'
            for geometry, (_, said) in zip(texts, rows, strict=True)
        ])  # fmt: skip
