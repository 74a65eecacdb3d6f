"""From a raster and a model to a plan: scale, radiometry, windows, chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import numpy as np

from frond.contracts.errors import RasterRejected
from frond.contracts.events import ChunkPlanned
from frond.contracts.ids import chunk_id
from frond.contracts.jobs import ModelRef, Shadow, Thresholds
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import (
    MOST_WINDOWS_AN_IMAGE,
    ImagePlan,
    Radiometry,
    RasterSource,
    WindowGrid,
)
from frond.contracts.reasons import Reason
from frond.raster.damage import check_blocks, check_pixels
from frond.raster.gdal import gdal_errors
from frond.raster.inspect import BandChoice, RasterInfo, choose_bands
from frond.raster.limits import Limits
from frond.raster.looks import Detector, estimated_gsd, grid_at, windows_at
from frond.raster.open import Dataset
from frond.raster.sampling import (
    Samples,
    radiometry_of,
    sample,
    sample_windows,
    stretch_note,
)
from frond.raster.scale import COARSEST, FINEST
from frond.raster.skip import empty_windows, pack_bitmap, running_blocks, unpack_bitmap
from frond.raster.validity import Palette, Validity, palette_of, validity_of

CHUNK_MB: Final = 24
"""MiB of a chunk's windows, as bytes of the model's bands: 32 of 512² in three. A reader hands them
over and a worker holds some chunks at a time, so that this decides how much memory both need."""
WINDOWS_PER_CHUNK: Final = 128
"""At most, however small they are: a chunk is what workers share out."""
_READ_MORE: Final = 8
"""A chunk reads at most so many times as much of the raster as it gives the model."""
_FILLED: Final = 0.9
"""Of the batches that a manifest fixes, a chunk's windows are to fill so much."""
_SAME: Final = 0.02
_COCO_PIXELS: Final = 1 << 32
"""From so many on, the places of pixels are no numbers of pycocotools any more."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Whose plan it is, and with what.

    Attributes:
        image: the image's URI as its sender gave it.
        uri, etag, size: the object that windows will be read from: the image, or its COG.
        checksum: ETag of the image itself.
        windows_per_chunk, chunk_mb: at most; one window, and a batch of the manifest, may be more
            than so many MiB.
        gsd_m: ground metres a pixel, as whoever sent the image says; goes before the raster's own.
    """

    job_id: str
    image_id: str
    image: str
    name: str
    uri: str
    etag: str
    size: int
    model: ModelRef
    manifest: ModelManifest
    thresholds: Thresholds = field(default_factory=Thresholds)
    shadow: Shadow | None = None
    job_size: int | None = None
    checksum: str | None = None
    windows_per_chunk: int = WINDOWS_PER_CHUNK
    chunk_mb: int = CHUNK_MB
    limits: Limits = field(default_factory=Limits)
    gsd_m: float | None = None


def lacks_scale(info: RasterInfo, request: PlanRequest) -> bool:
    """Whether the plan depends on an estimate of the scale, which takes the model itself.

    A model on a server is not asked: what it answers later may be another version's.
    """
    model = request.manifest
    known = info.gsd is not None or request.gsd_m is not None
    return not known and model.object_px is not None and model.server is None


def plan_image(
    dataset: Dataset, info: RasterInfo, request: PlanRequest, detector: Detector | None = None
) -> ImagePlan:
    """Plan an image's windows. The same raster, model and settings give the same plan.

    Args:
        detector: runs the model where the plan :func:`lacks_scale`; None: the raster's own pixels
            are taken as they are then.

    Raises:
        RasterRejected: the raster does not fit the model or the limits, or is damaged.
        StoreUnavailable: the store could not be asked.
    """
    manifest, limits = request.manifest, request.limits
    choice = choose_bands(info, manifest.bands)
    notes = [*info.notes, *choice.notes]
    read_bands = (1,) if choice.palette else choice.bands
    with gdal_errors(reading=False):
        palette = palette_of(dataset) if choice.palette else None
    validity = validity_of(info, read_bands, palette)
    check_blocks(dataset, info, request.size)
    source = RasterSource(
        uri=request.uri,
        etag=request.etag,
        size=request.size,
        bands=choice.bands,
        dtype=info.dtype,
        width=info.width,
        height=info.height,
        palette=choice.palette,
    )
    samples: Samples | None = None
    told_at: int | None = None
    gsd = request.gsd_m or info.gsd
    gsd_source: Literal["given", "estimated"] | None = "given" if request.gsd_m else None
    if detector is not None and lacks_scale(info, request):
        samples = _samples(dataset, info, read_bands, validity)
        radiometry = _radiometry(samples, info, choice, palette)
        told_at = len(notes)
        seen = source.model_copy(update={"radiometry": radiometry})
        gsd = estimated_gsd(dataset, seen, manifest, detector, limits.max_windows)
        if gsd is not None:
            gsd_source = "estimated"
            notes.append(f"ground sampling distance estimated from what is seen: {gsd:g} m")
    if manifest.task == "segmentation" and info.pixels >= _COCO_PIXELS:
        notes.append(
            f"pycocotools counts pixels in 32 bits and this image has {info.pixels}: it puts masks of coco.json "
            "and coco-results.json in wrong places; detections.geojson, detections.parquet and classes.tif "
            "have them right"
        )
    scale = _scale(gsd, manifest.gsd_m, notes)
    count, most = (
        windows_at(source, manifest, scale),
        min(limits.max_windows, MOST_WINDOWS_AN_IMAGE),
    )
    if count > most:
        raise RasterRejected(
            Reason.TOO_MANY,
            f"The image would be {count} windows of {manifest.input.size} pixels; at most "
            f"{most} are taken. Cut it into parts.",
        )
    grid = grid_at(source, manifest, scale)
    windows = _windows_per_chunk(grid, source, request)
    # one chunk is read at once, and tells of damage as well
    if grid.count > windows and info.pixels <= limits.verify_pixels:
        check_pixels(dataset, info, read_bands)
    empty = empty_windows(dataset, info, grid, read_bands, validity)
    if samples is None:
        samples = _samples(dataset, info, read_bands, validity)
    if samples is not None and samples.few:
        samples = sample_windows(dataset, info, read_bands, validity, grid, empty, samples)
    radiometry = _radiometry(samples, info, choice, palette)
    told_at = len(notes) if told_at is None else told_at
    notes[told_at:told_at] = _told(samples, info, choice, radiometry, empty_only=bool(empty.all()))
    return ImagePlan(
        job_id=request.job_id,
        image_id=request.image_id,
        image=request.image,
        name=request.name,
        job_size=request.job_size,
        checksum=request.checksum or request.etag,
        source=source.model_copy(update={"radiometry": radiometry}),
        georeference=info.georeference,
        gsd_m=gsd,
        gsd_source=gsd_source,
        grid=grid,
        model=request.model,
        thresholds=request.thresholds,
        shadow=request.shadow,
        windows_per_chunk=windows,
        skipped=pack_bitmap(empty),
        windows_skipped=int(empty.sum()),
        chunks=sum(1 for _ in running_blocks(grid, windows, empty)),
        notes=tuple(notes),
    )


def _windows_per_chunk(grid: WindowGrid, source: RasterSource, request: PlanRequest) -> int:
    room, bands = request.chunk_mb << 20, len(source.bands)
    seen = grid.size**2 * bands
    # windows of a finer raster than the model's hold more of it than of what the model sees
    read = (grid.size / grid.scale) ** 2 * bands * np.dtype(source.dtype).itemsize
    fit = max(1, int(min(room / seen, _READ_MORE * room / read)))
    batch = request.manifest.input.batch or 1
    least, most = max(fit, batch), request.windows_per_chunk

    def filled(windows: int) -> float:
        # blocks are rectangles: they may hold fewer than they are asked for
        block = len(next(grid.blocks(windows)))
        return block / (-(-block // batch) * batch)

    enough = (n for n in range(least, 4 * least) if n >= most or filled(n) >= _FILLED)
    return min(most, next(enough, least))


def _samples(
    dataset: Dataset, info: RasterInfo, read_bands: tuple[int, ...], validity: Validity
) -> Samples | None:
    """None: nothing of the radiometry depends on the samples."""
    if info.dtype == "uint8" and validity.always and (info.bits == 8 or info.palette):
        return None
    return sample(dataset, info, read_bands, validity)


def _radiometry(
    samples: Samples | None, info: RasterInfo, choice: BandChoice, palette: Palette | None
) -> Radiometry:
    if samples is None:
        return Radiometry()
    bits = 8 if info.palette else info.bits
    radiometry = radiometry_of(samples, info.dtype, palette, bits=bits)
    if palette is None:
        return radiometry
    # the bands of an expanded palette are chosen among red, green and blue
    return Radiometry(fill=tuple(radiometry.fill[b - 1] for b in choice.bands))


def _told(
    samples: Samples | None,
    info: RasterInfo,
    choice: BandChoice,
    radiometry: Radiometry,
    *,
    empty_only: bool,
) -> list[str]:
    """What a user should know of the samples and of what they become."""
    told: list[str] = []
    if samples is None:
        return told
    if samples.graded_alpha:
        told.append(
            f"band {info.alpha} is tagged as alpha but is graded as near infrared is: where it is 0 "
            "nothing is looked for; if it is no alpha channel, say so in the file: "
            f"gdal_edit.py -colorinterp_{info.alpha} undefined"
        )
    if radiometry.mode == "stretch" and info.dtype != "uint8":
        if len(samples.values):
            told.append(stretch_note(radiometry, samples, info.dtype, choice.bands))
        elif not empty_only:
            told.append(
                f"all {info.dtype} samples that were looked at are nodata, transparent or NaN, so that "
                "there is nothing to stretch the image by: expect nothing; see with gdalinfo whether its "
                "nodata value is right (gdal_edit.py -unsetnodata takes it away)"
            )
    return told


def _scale(raster: float | None, model: float | None, notes: list[str]) -> float:
    if model is None:
        return 1.0
    if raster is None:
        notes.append("ground sampling distance not known: windows at the raster's own resolution")
        return 1.0
    scale = raster / model
    if abs(scale - 1) <= _SAME:
        return 1.0
    if scale > COARSEST:
        notes.append(
            f"pixels of {raster:.3g} m are too coarse for a model of {model:.3g} m: "
            "windows at the raster's own resolution, expect little"
        )
        return 1.0
    if scale < FINEST:
        notes.append(f"pixels of {raster:.3g} m are seen at 1/{round(1 / FINEST)} of their number")
        return FINEST
    return float(f"{scale:.9g}")


def chunks_of(
    plan: ImagePlan, planned_at: datetime | None = None, planning_s: float | None = None
) -> Iterator[ChunkPlanned]:
    """The plan's chunks, in order; skipped windows left out, ordinals from 0 without gaps.

    Args:
        planning_s: how long planning took, in seconds, where it has just been done.
    """
    skipped = unpack_bitmap(plan.skipped, plan.grid.count)
    plan_digest = plan.plan_digest
    blocks = running_blocks(plan.grid, plan.windows_per_chunk, skipped)
    for ordinal, windows in enumerate(blocks):
        yield ChunkPlanned(
            job_id=plan.job_id,
            image_id=plan.image_id,
            image=plan.image,
            name=plan.name,
            plan_digest=plan_digest,
            chunk_id=chunk_id(plan.image_id, plan_digest, ordinal),
            ordinal=ordinal,
            chunks=plan.chunks,
            windows=tuple(windows),
            windows_total=plan.grid.count,
            windows_skipped=plan.windows_skipped,
            source=plan.source,
            grid=plan.grid,
            model=plan.model,
            thresholds=plan.thresholds,
            shadow=plan.shadow,
            job_size=plan.job_size,
            planned_at=planned_at,
            planning_s=planning_s if ordinal == 0 else None,
        )
