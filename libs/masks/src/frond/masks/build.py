"""From an image's stored chunks to its class raster and its polygons: files in, files out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa

from frond.contracts.classraster import check_room
from frond.contracts.errors import ModelRejected
from frond.contracts.ids import chunk_id
from frond.contracts.modelspec import MIN_AREA, ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.provenance import provenance
from frond.contracts.reasons import Reason
from frond.masks import table
from frond.masks.blend import NODATA, SCORE_STEPS, Rule, blended
from frond.masks.codec import MaskFile, Planes
from frond.masks.cog import ClassRaster
from frond.masks.outlines import Outlines, outlines
from frond.masks.polygons import MOST_CORNERS, Regions, Tracer
from frond.masks.table import SUBPIXEL, FloatArray, Polygons

CLASSES_FILE: Final = "classes.tif"
POLYGONS_FILE: Final = "polygons.arrow"

_OPEN_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Built:
    """What :func:`build` made.

    Attributes:
        classes: the class raster: a COG.
        polygons: an Arrow file (see :mod:`frond.masks.table`).
        regions: how many polygons.
        pixels: scaled pixels of each class.
        unclassified: scaled pixels that mean something and are of no class.
        nodata: scaled pixels that mean nothing.
    """

    classes: Path
    polygons: Path
    regions: int
    pixels: tuple[int, ...]
    unclassified: int
    nodata: int


def build(
    folder: Path, plan: ImagePlan, manifest: ModelManifest, *, most_corners: int = MOST_CORNERS
) -> Built:
    """Blend an image's windows, write its class raster and its polygons.

    Memory grows with the image's width and with the outlines that are kept, up to ``most_corners``.
    Blocking, and long: for a process of its own.

    Args:
        folder: holds the plan's chunks as ``<chunk_id>.arrow``; the results go there too.

    Raises:
        RasterRejected: TOO_MANY, the outlines have more corners than that.
        ModelRejected: the manifest is of no segmentation that could be blended.
        ValueError: a chunk is missing, damaged, or not of this plan.
    """
    grid, rule = plan.grid, rule_of(plan, manifest)
    counts = np.zeros(NODATA + 1, np.int64)
    tracer = Tracer(grid.width, grid.height, min_area_of(manifest), most_corners=most_corners)
    raster = folder / CLASSES_FILE
    with (
        Chunks(folder, plan) as chunks,
        ClassRaster(
            raster,
            grid.width,
            grid.height,
            manifest.classes,
            plan.georeference,
            grid.scale,
            provenance(plan),
        ) as out,
    ):
        for band in blended(grid, chunks.planes, rule):
            tracer.add(band)
            out.add(band.values)
            counts += np.bincount(band.values.reshape(-1), minlength=NODATA + 1)
            del band
        out.finish()
    regions = tracer.finish()
    polygons = folder / POLYGONS_FILE
    written = _write(polygons, regions, plan)
    return Built(
        raster, polygons, written, tuple(counts[1 : rule.classes + 1].tolist()),
        int(counts[0]), int(counts[NODATA]),
    )  # fmt: skip


def rule_of(plan: ImagePlan, manifest: ModelManifest) -> Rule:
    """When a pixel is of a class, by the model and the job.

    Raises:
        ModelRejected: there are more classes than a byte can name.
    """
    check_room(manifest)
    over = plan.thresholds.score
    score = manifest.thresholds.score if over is None else over
    background = manifest.decoder.params.get("background") is not None
    return Rule(len(manifest.classes), round(score * SCORE_STEPS), background)


def min_area_of(manifest: ModelManifest) -> int:
    """The least area of a region, in scaled pixels, that becomes a polygon.

    Raises:
        ModelRejected: the manifest names none that is a whole number from 0.
    """
    value = manifest.decoder.params.get("min_area", MIN_AREA)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"The model {manifest.name}: decoder.params.min_area is a number of pixels from 0.",
        )
    return max(1, value)


class Chunks:
    """A plan's chunk files, as windows.

    Raises:
        ValueError: one is missing or damaged, or they do not hold exactly the windows that the plan
            runs; also by :meth:`planes`.
    """

    def __init__(self, folder: Path, plan: ImagePlan) -> None:
        digest = plan.plan_digest
        self._paths = [
            folder / f"{chunk_id(plan.image_id, digest, n)}.arrow" for n in range(plan.chunks)
        ]
        self._open: OrderedDict[int, MaskFile] = OrderedDict()
        # of which chunk each window is; -1: of none
        self._chunk = np.full(plan.grid.count, -1, np.int32)
        held = 0
        for n, path in enumerate(self._paths):
            try:
                with MaskFile(path) as file:
                    windows = np.array(file.windows, np.int64)
            except FileNotFoundError as e:
                raise ValueError(f"chunk {n} of the plan is not there") from e
            if len(windows) and windows[-1] >= plan.grid.count:
                raise ValueError(f"chunk {n} holds windows beyond the plan's")
            if (self._chunk[windows] >= 0).any():
                raise ValueError(f"chunk {n} holds windows of another one")
            self._chunk[windows] = n
            held += len(windows)
        wanted = plan.grid.count - plan.windows_skipped
        if held != wanted:
            raise ValueError(f"the chunks hold {held} windows, and the plan runs {wanted}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def planes(self, window: int) -> Planes | None:
        """A window's planes; None where it was skipped."""
        n = int(self._chunk[window])
        if n < 0:
            return None
        file = self._open.pop(n, None) or MaskFile(self._paths[n])
        self._open[n] = file
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file.planes(window)


def _write(path: Path, regions: Regions, plan: ImagePlan) -> int:
    """The regions as polygons in raster pixels, some at a time; returns how many there are."""
    about = {"image_id": plan.image_id, **provenance(plan)}
    partial = path.with_name(path.name + ".partial")
    with pa.OSFile(str(partial), "wb") as sink:
        written = table.write(sink, _polygons(regions, plan), about)
    partial.replace(path)
    return written


def _polygons(regions: Regions, plan: ImagePlan) -> Iterator[Polygons]:
    start = 0
    mean = regions.confidence / (255.0 * np.maximum(regions.pixels, 1))
    scores = (np.rint(mean * SCORE_STEPS) / SCORE_STEPS).astype(np.float32)
    for part in outlines(regions.keys, regions.bits):
        stop = start + len(part.polygons) - 1
        points = _points(part, plan)
        found = Polygons(
            points=points,
            rings=part.rings,
            polygons=part.polygons,
            classes=regions.classes[start:stop].astype(np.int32),
            scores=scores[start:stop],
            areas=_areas(points, part),
        )
        # of the last scaled row and column less than a step of the lattice may lie in the raster
        yield found.where(found.areas > 0)
        start = stop


def _areas(points: FloatArray, part: Outlines) -> FloatArray:
    """Each polygon's area in raster pixels².

    By its rings, not by its scaled pixels: the last row and column of these reach beyond the raster
    where its sides are no multiple of them, and the rings do not.
    """
    # edges run along the axes: what lies left of each, with its sign
    left = np.append(points[1:, 0] * np.diff(points[:, 1]), 0.0)
    # from the last point of a ring no edge leads on
    left[part.rings[1:] - 1] = 0.0
    return np.add.reduceat(left, part.rings[part.polygons[:-1]])


def _points(part: Outlines, plan: ImagePlan) -> FloatArray:
    points = np.empty((len(part.x), 2))
    for k, (at, most) in enumerate(((part.x, plan.source.width), (part.y, plan.source.height))):
        points[:, k] = np.minimum(np.rint(at * (SUBPIXEL / plan.grid.scale)) / SUBPIXEL, most)
    return points
