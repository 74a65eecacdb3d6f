"""``summary.json``: the job in figures: totals, classes, notes, each failure, each image.

``area_km2`` of an image is its outline's area on the WGS 84 ellipsoid. ``searched_km2`` leaves out
the share of its windows that were skipped as nodata. A density is the count of detections in
georeferenced images ÷ their searched area; where images overlap, both count twice.

Of a segmentation each class has the area of its regions: ``area_pixels`` of all images, and ``area_km2``
of the georeferenced ones, each region's share of its image's pixels as that share of its area.

``notes`` counts the images that have a note, whatever figures are in it: where these differ from image
to image, ``note`` has … in their place. ``example`` is the first of the images by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from frond.artifacts.common import ImageResult, JobInfo, JsonList, Sink, Spool, encoded, text
from frond.artifacts.geometry import area_km2
from frond.contracts.jobs import WindowCounts
from frond.merge.table import SCORE_STEPS

BINS: Final = 20
MOST_NOTES: Final = 100
_FIGURES: Final = re.compile(r"-?\d+([.,]\d+)*(e[+-]?\d+)?")


@dataclass
class _Class:
    count: int = 0
    on_the_map: int = 0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    pixels: float = 0.0
    area: float = 0.0


class Summary:
    """Writes ``summary.json``. Memory: the classes, and so many different notes; images and failures
    are spooled."""

    def __init__(self, sink: Sink, job: JobInfo) -> None:
        self._sink = sink
        self._job = job
        self._spools = (Spool(), Spool())
        self._images, self._failures = (JsonList(s) for s in self._spools)
        self._classes = {name: _Class() for name in job.classes}
        self._completed = self._failed = self._detections = 0
        self._windows = WindowCounts()
        self._area = self._searched = 0.0
        # by what they say: how many images have each, in which words all do, and the first's name
        self._notes: dict[str, tuple[int, str, str]] = {}

    def add(self, result: ImageResult) -> None:
        outcome = result.outcome
        self._windows = self._windows + outcome.windows
        row: dict[str, Any] = {
            "image_id": outcome.image_id,
            "name": outcome.name,
            "uri": outcome.image,
            "status": outcome.status.value,
            "reason": outcome.reason.value if outcome.reason else None,
            "detail": outcome.detail,
            "windows": outcome.windows.model_dump(),
            "detections": outcome.detections,
        }
        if not result.completed:
            self._failed += 1
            self._failures.add([text({k: row[k] for k in ("name", "uri", "reason", "detail")})])
            self._images.add([text(row)])
            return
        self._completed += 1
        area = searched = None
        if result.plan is not None:
            area = area_km2(result.plan.georeference, *result.size)
            if area is not None:
                searched = _digits(area * _share_searched(outcome.windows))
                self._area += area
                self._searched += searched
        self._count(result, area)
        notes = result.plan.notes if result.plan else ()
        self._note(notes, outcome.name)
        row |= {
            "width": result.size[0],
            "height": result.size[1],
            "crs": outcome.crs,
            "checksum": outcome.checksum,
            "plan_digest": result.traced["plan_digest"],
            "area_km2": area,
            "searched_km2": searched,
            "notes": list(notes),
        }
        self._images.add([text(row)])

    def _note(self, notes: Sequence[str], name: str) -> None:
        # the same but for its figures, which are each image's own, is the same
        here: dict[str, str] = {}
        for note in notes:
            kind = _FIGURES.sub("…", note)
            here[kind] = _both(kind, note, here.get(kind, note))
        for kind, note in here.items():
            count, said, example = self._notes.get(kind, (0, note, name))
            if count or len(self._notes) < MOST_NOTES:
                self._notes[kind] = count + 1, _both(kind, note, said), min(example, name)

    def _count(self, result: ImageResult, area: float | None) -> None:
        self._detections += len(result.detections)
        width, height = result.size
        for _, part, regions in result.slices():
            steps = np.rint(part.scores.astype(np.float64) * SCORE_STEPS).astype(np.int64)
            bins = np.minimum(steps * BINS // SCORE_STEPS, BINS - 1)
            for index in np.unique(part.classes).tolist():
                here = part.classes == index
                c = self._classes.setdefault(self._job.class_name(index), _Class())
                c.count += int(here.sum())
                c.on_the_map += int(here.sum()) if area is not None else 0
                c.histogram += np.bincount(bins[here], minlength=BINS)
                if regions is not None:
                    pixels = float(regions.areas[here].sum())
                    c.pixels += pixels
                    c.area += pixels / (width * height) * area if area is not None else 0.0

    def finish(self) -> None:
        head = {
            **self._job.describe(),
            "thresholds": self._job.thresholds.model_dump(),
            "images_total": self._completed + self._failed,
            "images_completed": self._completed,
            "images_failed": self._failed,
            "windows": self._windows.model_dump(),
            "detections": self._detections,
            "area_km2": _digits(self._area),
            "searched_km2": _digits(self._searched),
            "score_histogram_edges": [i / BINS for i in range(BINS + 1)],
            "classes": [
                {
                    "id": i,
                    "name": name,
                    "count": c.count,
                    "density_per_km2": self._density(c),
                    **self._covered(c),
                    "score_histogram": c.histogram.tolist(),
                }
                for i, (name, c) in enumerate(self._classes.items(), start=1)
            ],
            "notes": [
                {"note": note, "images": count, "example": example}
                for count, note, example in sorted(
                    self._notes.values(), key=lambda n: (-n[0], n[1])
                )
            ],
        }
        self._sink.write(encoded(text(head)[:-1] + ',"failures":['))
        self._spools[1].copy_to(self._sink)
        self._sink.write(b'],"images":[')
        self._spools[0].copy_to(self._sink)
        self._sink.write(b"]}\n")

    def _covered(self, c: _Class) -> dict[str, float | None]:
        manifest = self._job.manifest
        if manifest is None or manifest.task != "segmentation":
            return {}
        area = _digits(c.area) if self._area > 0 else None
        return {"area_pixels": _digits(c.pixels), "area_km2": area}

    def _density(self, c: _Class) -> float | None:
        return _digits(c.on_the_map / self._searched) if self._searched > 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for spool in self._spools:
            spool.__exit__(kind, error, trace)


def _both(kind: str, one: str, other: str) -> str:
    """What holds of two notes of a kind: figures of one alone do not."""
    return one if one == other else kind


def _share_searched(windows: WindowCounts) -> float:
    return 1.0 - windows.skipped / windows.total if windows.total else 1.0


def _digits(value: float) -> float:
    return float(f"{value:.10g}")
