"""What was found against what was planted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

METRES_A_DEGREE: Final = 111_320.0


@dataclass(frozen=True)
class Found:
    """One image's detections: boxes [n, 4] x0, y0, x1, y1 in pixels, scores [n].

    ``numbers`` are the detections' own within their image, which GeoJSON's features carry as well.
    """

    boxes: Floats
    scores: Floats
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """One image, compared.

    Attributes:
        planted: for each planted box the index of its detection, or -1.
        found: for each detection whether it is right; what lies on an ignored crown counts neither
            way and is masked out in ``counted``.
    """

    planted: NDArray[np.int64]
    found: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @property
    def hits(self) -> int:
        return int((self.planted >= 0).sum())


def found_by_name(coco: Mapping[str, Any]) -> dict[str, Found]:
    """Detections of each image of a COCO dataset."""
    names = {i["id"]: i["file_name"] for i in coco["images"]}
    boxes: dict[str, list[list[float]]] = {n: [] for n in names.values()}
    scores: dict[str, list[float]] = {n: [] for n in names.values()}
    numbers: dict[str, list[int]] = {n: [] for n in names.values()}
    for a in coco["annotations"]:
        name = names[a["image_id"]]
        x, y, w, h = a["bbox"]
        boxes[name].append([x, y, x + w, y + h])
        scores[name].append(a["score"])
        numbers[name].append(a["frond"]["detection"])
    return {
        n: Found(
            np.array(b, dtype=np.float64).reshape(-1, 4), np.array(scores[n]), tuple(numbers[n])
        )
        for n, b in boxes.items()
    }


def match(planted: Floats, ignored: Floats, found: Found) -> Match:
    """Pair detections with planted boxes, the best score first, each with the nearest free one.

    A detection is right when its centre is within half a crown of a planted centre: the rule of the
    model card.
    """
    order = np.argsort(-found.scores, kind="stable")
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    wanted, reach = _centres(planted)
    aside, aside_reach = _centres(ignored)
    partner = np.full(len(planted), -1, dtype=np.int64)
    right = np.zeros(len(found.boxes), dtype=bool)
    counted = np.ones(len(found.boxes), dtype=bool)
    for i in order.tolist():
        far = np.hypot(*(wanted - centres[i]).T)
        far = np.where((partner < 0) & (far <= reach), far, np.inf)
        if len(far) and np.isfinite(far.min()):
            partner[int(far.argmin())] = i
            right[i] = True
        elif len(aside):
            # the visible part of a cut crown may lie well off its centre
            counted[i] = not bool((np.hypot(*(aside - centres[i]).T) <= 2 * aside_reach).any())
    return Match(partner, right, counted)


def _centres(boxes: Floats) -> tuple[Floats, Floats]:
    side = (boxes[:, 2:] - boxes[:, :2]).mean(axis=1)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, side / 2


@dataclass(frozen=True)
class Score:
    """Sums over images."""

    planted: int
    hits: int
    found: int

    @property
    def recall(self) -> float:
        return self.hits / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        return self.hits / self.found if self.found else 1.0


def score(matches: Sequence[Match]) -> Score:
    """Recall and precision over all images; detections on ignored crowns are left out."""
    return Score(
        planted=sum(len(m.planted) for m in matches),
        hits=sum(m.hits for m in matches),
        found=sum(int(m.counted.sum()) for m in matches),
    )


def map_offsets(
    features: Mapping[int, Mapping[str, Any]], found: Found, matched: Match, centres: Floats
) -> list[float]:
    """Metres on the ground between planted centres and those of their GeoJSON features.

    Args:
        features: one image's, by the number of their detection.
        centres: [n, 2] longitude and latitude of the planted boxes.
    """
    out = []
    for planted, index in enumerate(matched.planted.tolist()):
        feature = features.get(found.numbers[index]) if index >= 0 else None
        if feature is None or feature["geometry"] is None:
            continue
        ring = np.array(feature["geometry"]["coordinates"][0][:4])
        lon, lat = ring.mean(axis=0)
        east = (lon - centres[planted, 0]) * METRES_A_DEGREE * math.cos(math.radians(lat))
        north = (lat - centres[planted, 1]) * 110_574.0
        out.append(math.hypot(east, north))
    return out


def features_by_name(geojson: Mapping[str, Any]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """A GeoJSON file's features by image, then by the number of their detection."""
    out: dict[str, dict[int, Mapping[str, Any]]] = {}
    for feature in geojson["features"]:
        told = feature["properties"]
        number = int(str(told["detection"]).rpartition("/")[2])
        out.setdefault(told["image"], {})[number] = feature
    return out
