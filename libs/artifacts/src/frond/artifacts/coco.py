"""COCO: ``coco.json`` (a dataset) and ``coco-results.json`` (what ``loadRes`` takes).

Both hold completed images only; failed ones are in ``summary.json``. Images are numbered from 1 in
the order of (name, image id), annotations from 1 in the order of images and detections, categories
from 1 in the order of the model's classes. Members beyond COCO's own sit under ``frond``.

A region is a polygon where it has no hole and run lengths (RLE) where it has some; in the results
list always RLE and no box, since ``loadRes`` takes a mask's area from RLE alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from frond.artifacts.common import (
    ImageResult,
    JobInfo,
    JsonList,
    Sink,
    Spool,
    blocks,
    encoded,
    scores_of,
    text,
)
from frond.artifacts.rle import run_lengths
from frond.contracts.jobs import ImageOutcome, ImageStatus
from frond.masks.table import Polygons
from frond.merge import Detections


def shared_names(outcomes: Iterable[ImageOutcome]) -> frozenset[str]:
    """The names that several completed images have.

    Args:
        outcomes: in the order of (name, image id).
    """
    names = (o.name for o in outcomes if o.status is ImageStatus.COMPLETED)
    return frozenset(a for a, b in pairwise(names) if a == b)


class CocoDataset:
    """Writes ``coco.json``. The images come last: they are known only when all were seen.

    Args:
        shared: names that several images have: their ``file_name`` is bucket and key, since most
            tools know an image by it.
    """

    def __init__(self, sink: Sink, job: JobInfo, shared: frozenset[str] = frozenset()) -> None:
        self._sink = sink
        self._shared = shared
        self._spool = Spool()
        self._images = JsonList(self._spool)
        self._annotations = JsonList(sink)
        self._image = 0
        self._annotation = 0
        head = {
            "info": {
                "description": f"Detections of job {job.job_id}",
                "version": job.model.version if job.model else "",
                "frond": job.describe(),
            },
            "licenses": [],
            "categories": [
                {"id": i, "name": name, "supercategory": ""}
                for i, name in enumerate(job.classes, start=1)
            ],
        }
        sink.write(encoded(text(head)[:-1] + ',"annotations":['))

    def add(self, result: ImageResult) -> None:
        if not result.completed:
            return
        self._image += 1
        self._images.add([text(_image(self._image, result, self._shared))])
        for first, part, regions in result.slices():
            if regions is None:
                self._annotations.add(self._texts(part, first))
            else:
                self._annotations.add(self._region_texts(part, regions, first, result.size))

    def _texts(self, d: Detections, first: int) -> list[str]:
        start = self._annotation + 1
        self._annotation += len(d)
        side = d.boxes[:, 2:] - d.boxes[:, :2]
        columns = zip(
            range(start, start + len(d)),
            range(first, first + len(d)),
            (d.classes + 1).tolist(),
            *(map(repr, d.boxes[:, k].tolist()) for k in range(4)),
            *(map(repr, side[:, k].tolist()) for k in range(2)),
            (side[:, 0] * side[:, 1]).tolist(),
            scores_of(d).tolist(),
            d.windows.tolist(),
            strict=True,
        )
        image = self._image
        return [
            f'{{"id":{i},"image_id":{image},"category_id":{c},"bbox":[{x0},{y0},{w},{h}],'
            f'"area":{area!r},"segmentation":[[{x0},{y0},{x1},{y0},{x1},{y1},{x0},{y1}]],'
            f'"iscrowd":0,"score":{score!r},"frond":{{"detection":{n},"window":{window}}}}}'
            for i, n, c, x0, y0, x1, y1, w, h, area, score, window in columns
        ]

    def _region_texts(
        self, d: Detections, regions: Polygons, first: int, size: tuple[int, int]
    ) -> list[str]:
        start = self._annotation + 1
        self._annotation += len(d)
        boxes = np.column_stack([d.boxes[:, :2], d.boxes[:, 2:] - d.boxes[:, :2]])
        columns = zip(
            range(start, start + len(d)), range(first, first + len(d)),
            (d.classes + 1).tolist(), boxes.tolist(), regions.areas.tolist(),
            _segmentations(regions, size), scores_of(d).tolist(), d.windows.tolist(), strict=True,
        )  # fmt: skip
        image = self._image
        return [
            f'{{"id":{i},"image_id":{image},"category_id":{c},"bbox":{text(box)},"area":{area!r},'
            f'"segmentation":{shape},"iscrowd":0,"score":{score!r},'
            f'"frond":{{"detection":{n},"window":{window}}}}}'
            for i, n, c, box, area, shape, score, window in columns
        ]

    def finish(self) -> None:
        self._sink.write(b'],"images":[')
        self._spool.copy_to(self._sink)
        self._sink.write(b"]}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.__exit__(kind, error, trace)


class CocoResults:
    """Writes ``coco-results.json``: the bare list, its image ids those of ``coco.json``."""

    def __init__(self, sink: Sink, job: JobInfo) -> None:
        del job
        self._sink = sink
        self._list = JsonList(sink)
        self._image = 0
        sink.write(b"[")

    def add(self, result: ImageResult) -> None:
        if not result.completed:
            return
        self._image += 1
        for _, part, regions in result.slices():
            if regions is not None:
                self._list.add(self._region_texts(part, regions, result.size))
                continue
            boxes = np.column_stack([part.boxes[:, :2], part.boxes[:, 2:] - part.boxes[:, :2]])
            rows = zip(
                (part.classes + 1).tolist(), boxes.tolist(), scores_of(part).tolist(), strict=True
            )
            self._list.add(
                [
                    f'{{"image_id":{self._image},"category_id":{c},"bbox":{box},"score":{s!r}}}'
                    for c, box, s in rows
                ]
            )

    def _region_texts(self, d: Detections, regions: Polygons, size: tuple[int, int]) -> list[str]:
        rows = zip(
            (d.classes + 1).tolist(), _rle_texts(regions, size), scores_of(d).tolist(), strict=True
        )
        return [
            f'{{"image_id":{self._image},"category_id":{c},"segmentation":{rle},"score":{s!r}}}'
            for c, rle, s in rows
        ]

    def finish(self) -> None:
        self._sink.write(b"]\n")


def _segmentations(regions: Polygons, size: tuple[int, int]) -> list[str]:
    """Each region as COCO's ``segmentation`` of an annotation."""
    begins, points = regions.rings[regions.polygons].tolist(), regions.points
    texts = [
        # open, as is the custom in COCO
        "[[" + ",".join(_numbers(part) for part in blocks(points[a : b - 1])) + "]]"
        for a, b in pairwise(begins)
    ]
    rles = _rle_texts(_only(regions, regions.has_holes), size)
    for k, rle in zip(np.flatnonzero(regions.has_holes).tolist(), rles, strict=True):
        texts[k] = rle
    return texts


def _numbers(points: npt.NDArray[np.float64]) -> str:
    return ",".join(map(repr, points.ravel().tolist()))


def _only(regions: Polygons, chosen: npt.NDArray[np.bool_]) -> Polygons:
    rings = np.repeat(chosen, np.diff(regions.polygons))
    points = np.repeat(rings, np.diff(regions.rings))
    return Polygons(
        points=regions.points[points],
        rings=np.append(0, np.cumsum(np.diff(regions.rings)[rings])),
        polygons=np.append(0, np.cumsum(np.diff(regions.polygons)[chosen])),
        classes=regions.classes[chosen],
        scores=regions.scores[chosen],
        areas=regions.areas[chosen],
    )


def _rle_texts(regions: Polygons, size: tuple[int, int]) -> list[str]:
    width, height = size
    head = f'{{"size":[{height},{width}],"counts":'
    return [f"{head}{text(counts)}}}" for counts in run_lengths(regions, width, height)]


def _image(number: int, result: ImageResult, shared: frozenset[str]) -> dict[str, Any]:
    outcome, plan = result.outcome, result.plan
    width, height = result.size
    geo = plan.georeference if plan else None
    return {
        "id": number,
        "file_name": outcome.image.removeprefix("s3://")
        if outcome.name in shared
        else outcome.name,
        "width": width,
        "height": height,
        "frond": {
            "image_id": outcome.image_id,
            "uri": outcome.image,
            "checksum": outcome.checksum,
            "crs": geo.crs if geo else outcome.crs,
            "georeference": geo.kind if geo else None,
            "geotransform": list(geo.transform) if geo and geo.transform else None,
            "gsd_m": plan.gsd_m if plan else None,
            **({"gsd_source": plan.gsd_source} if plan and plan.gsd_source else {}),
            "plan_digest": plan.plan_digest if plan else None,
            "notes": list(plan.notes) if plan else [],
        },
    }
