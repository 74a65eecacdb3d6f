"""Made-up jobs for the artifact tests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features

from frond.artifacts import ImageResult, JobInfo, write_image, write_job
from frond.contracts.jobs import Artifact, ImageOutcome, ImageStatus, ModelRef, WindowCounts
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import Georeference, ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.masks import Polygons
from frond.merge import Detections

MODEL = ModelRef(name="palms", digest="ab" * 32, version="3")
MANIFEST = ModelManifest.model_validate(
    {
        "name": "palms", "version": "3", "classes": ["palm", 'date "palm"'],
        "decoder": {"name": "centerpoint"}, "input": {"size": 256}, "margin": 32,
    }
)  # fmt: skip
JOB = JobInfo("survey-7", MODEL, MANIFEST)

UTM = Georeference(
    kind="affine", crs="EPSG:32633", transform=(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)
)
ROTATED = Georeference(
    kind="affine", crs="EPSG:32633", transform=(0.4, 0.3, 500_000.0, 0.3, -0.4, 5_000_000.0)
)
NOWHERE = Georeference()
FIJI = Georeference(
    kind="affine", crs="EPSG:4326", transform=(1e-4, 0.0, 179.96, 0.0, -1e-4, -17.0)
)


def detections(n: int, seed: int = 0, side: float = 900.0) -> Detections:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, side, (n, 2))
    boxes = np.c_[corner, corner + rng.uniform(2, 40, (n, 2))]
    d = Detections.of(boxes, rng.random(n), rng.integers(0, 2, n), rng.integers(0, 9, n))
    return d.sorted()


def image(
    name: str,
    found: Detections,
    geo: Georeference = UTM,
    *,
    size: tuple[int, int] = (1000, 1000),
    skipped: int = 0,
) -> ImageResult:
    image_id = name.encode().hex()[:32].ljust(32, "0")
    grid = WindowGrid(width=size[0], height=size[1], size=256, margin=32)
    counts = np.bincount(found.classes, minlength=2)
    outcome = ImageOutcome(
        job_id=JOB.job_id, image_id=image_id, image=f"s3://b/{name}", name=name,
        status=ImageStatus.COMPLETED,
        windows=WindowCounts(total=grid.count, done=grid.count - skipped, skipped=skipped),
        detections={c: int(k) for c, k in zip(MANIFEST.classes, counts, strict=True) if k},
        width=size[0], height=size[1], crs=geo.crs, checksum="etag-1",
    )  # fmt: skip
    plan = ImagePlan(
        job_id=JOB.job_id, image_id=image_id, image=outcome.image, name=name,
        source=RasterSource(
            uri=outcome.image, etag="etag-1", size=10, bands=(1, 2, 3), dtype="uint8",
            width=size[0], height=size[1],
        ),
        georeference=geo, gsd_m=0.5, grid=grid, model=MODEL, chunks=1,
    )  # fmt: skip
    return ImageResult(outcome, plan, found)


def failure(name: str) -> ImageResult:
    return ImageResult(
        ImageOutcome(
            job_id=JOB.job_id, image_id=name.encode().hex()[:32].ljust(32, "0"),
            image=f"s3://b/{name}", name=name, status=ImageStatus.FAILED,
            reason=Reason.NOT_A_RASTER, detail="These bytes are no raster.",
        )
    )  # fmt: skip


class Files(dict[str, bytes]):
    """Sinks in memory: a file is there once its block has ended well."""

    @contextmanager
    def open(self, name: str, media_type: str) -> Iterator[io.BytesIO]:
        sink = io.BytesIO()
        yield sink
        self[name] = sink.getvalue()


def job_files(results: list[ImageResult], job: JobInfo = JOB) -> tuple[Files, list[Artifact]]:
    files = Files()
    made = write_job(results, [r.outcome for r in results], job, files.open, "s3://b/{}".format)
    return files, made


def image_files(result: ImageResult, job: JobInfo = JOB) -> Files:
    files = Files()
    write_image(result, job, files.open, "s3://b/{}".format, bucket="b")
    return files


Mask = npt.NDArray[np.bool_]
SEGMENTATION = JobInfo(JOB.job_id, JOB.model, MANIFEST.model_copy(update={"task": "segmentation"}))


def regions_of(classes: npt.NDArray[np.uint8], factor: int = 1) -> tuple[Polygons, list[Mask]]:
    """The 4-connected regions of a class raster (0: none), and the pixels of each.

    ``factor`` puts them that many times further from the origin: a raster of larger pixels.
    """
    shapes = rasterio.features.shapes(classes, mask=classes > 0, connectivity=4)
    points: list[Any] = []
    rings, polygons, values = [0], [0], []
    masks = []
    for geometry, value in shapes:
        for ring in geometry["coordinates"]:
            points += ring
            rings.append(len(points))
        polygons.append(len(rings) - 1)
        values.append(int(value) - 1)
        masks.append(rasterio.features.rasterize([geometry], out_shape=classes.shape).astype(bool))
    found = Polygons(
        points=np.array(points, np.float64).reshape(-1, 2) * factor,
        rings=np.array(rings), polygons=np.array(polygons),
        classes=np.array(values, np.int32),
        scores=np.linspace(0.5, 0.9, len(values)).astype(np.float32),
        areas=np.array([float(m.sum()) for m in masks]) * factor**2,
    )  # fmt: skip
    return found, masks


def blobs(seed: int, side: int = 60, share: float = 0.55) -> npt.NDArray[np.uint8]:
    """Two classes in ragged regions, many with holes and holes in those."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((side // 3, side // 3)) < share, np.ones((3, 3))).astype(bool)
    classes = np.where(rng.random((side, side)) < 0.03, ~coarse, coarse).astype(np.uint8)
    classes[:, side // 2 :] *= 2
    return classes


def segmented(
    name: str, found: Polygons, geo: Georeference = UTM, *, size: tuple[int, int] = (60, 60)
) -> ImageResult:
    d = Detections.of(found.boxes, found.scores, found.classes)
    return replace(image(name, d, geo, size=size), polygons=found)
