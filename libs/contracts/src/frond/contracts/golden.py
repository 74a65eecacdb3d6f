"""One full example of each event: what is recorded under ``contracts/golden``.

A recorded file is never rewritten. When an event gains a field, add an example under a new label.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from frond.contracts.drift import BandCompared, Compared, DriftVerdict
from frond.contracts.events import (
    ChunkDetected,
    ChunkPlanned,
    DriftObserved,
    Event,
    ImageEmpty,
    ImageFinished,
    ImageRejected,
    ImageUploaded,
    JobCancelled,
    JobCompleted,
    JobSealed,
    JobStatusChanged,
    TrainingRequested,
)  # fmt: skip
from frond.contracts.ids import chunk_id, image_id
from frond.contracts.jobs import (
    Artifact,
    ImageCounts,
    ImageFailure,
    ImageOutcome,
    ImageStatus,
    JobOutcome,
    JobStatus,
    ModelRef,
    Thresholds,
    Timings,
    WindowCounts,
)  # fmt: skip
from frond.contracts.plan import Radiometry, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.contracts.training import TrainingOverrides

_JOB: Final = "survey-7"
_URI: Final = "s3://frond/uploads/a/north.tif"
_IMAGE: Final = image_id(_JOB, _URI)
_PLAN: Final = "0123456789abcdef0123456789abcdef"
_CHUNK: Final = chunk_id(_IMAGE, _PLAN, 0)
_MODEL: Final = ModelRef(name="palm-detector", digest="ab" * 32, version="1.0.0")
_NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_SOURCE: Final = RasterSource(
    uri=_URI, etag="d41d8cd98f00b204e9800998ecf8427e", size=123456, bands=(1, 2, 3),
    dtype="uint16", width=2048, height=1024,
    radiometry=Radiometry(mode="stretch", low=(10.0, 11.0, 12.0), high=(900.0, 901.0, 902.0)),
)  # fmt: skip
_GRID: Final = WindowGrid(width=2048, height=1024, size=512, margin=64)
_ONE: Final = {"job_id": _JOB, "image_id": _IMAGE, "image": _URI, "name": "north.tif"}
_OUTCOME: Final = ImageOutcome(
    job_id=_JOB, image_id=_IMAGE, image=_URI, name="north.tif", status=ImageStatus.COMPLETED,
    windows=WindowCounts(total=15, done=14, skipped=1), detections={"palm": 12}, width=2048,
    height=1024, crs="EPSG:32650", checksum="d41d8cd98f00b204e9800998ecf8427e",
)  # fmt: skip

GOLDEN: Final[dict[str, Event]] = {
    "image-uploaded-tiny": ImageUploaded(job_id=_JOB, image="s3://bucket/key.tif", job_size=3),
    "image-uploaded-full": ImageUploaded(
        job_id=_JOB, image=_URI, job_size=3, name="north.tif", sha256="cd" * 32,
        model="palm-detector@production", thresholds=Thresholds(score=0.4),
        webhook_url="https://example.org/hook", email="gis@example.org", tenant="example",
    ),
    "job-sealed": JobSealed(job_id=_JOB, job_size=3),
    "job-cancelled": JobCancelled(job_id=_JOB),
    "chunk-planned": ChunkPlanned(
        job_id=_JOB, image_id=_IMAGE, image=_URI, name="north.tif", job_size=3,
        plan_digest=_PLAN, chunk_id=_CHUNK, ordinal=0, chunks=2, windows=(0, 1, 5, 6),
        windows_total=15, windows_skipped=1, source=_SOURCE, grid=_GRID, model=_MODEL,
        planned_at=_NOW,
    ),
    "chunk-detected": ChunkDetected(
        **_ONE, plan_digest=_PLAN, chunk_id=_CHUNK, ordinal=0, chunks=2,
        windows=WindowCounts(total=4, done=4), windows_total=15, windows_skipped=1,
        result=f"jobs/{_JOB}/images/{_IMAGE}/chunks/{_CHUNK}.arrow", detections=12,
        model=_MODEL, timings=Timings(wait=0.1, read=0.2, run=1.5, write=0.01),
    ),
    "chunk-failed": ChunkDetected(
        **_ONE, plan_digest=_PLAN, chunk_id=_CHUNK, ordinal=0, chunks=2,
        windows=WindowCounts(total=4, failed=4), windows_total=15, windows_skipped=1,
        model=_MODEL, reason=Reason.TRUNCATED, detail="Pixels are missing. Copy the file again.",
    ),
    "image-empty": ImageEmpty(**_ONE, plan_digest=_PLAN, windows_total=15, windows_skipped=15),
    "image-rejected": ImageRejected(
        **_ONE, reason=Reason.NOT_A_RASTER, detail="These bytes are no image. Send a GeoTIFF."
    ),
    "image-finished": ImageFinished(job_id=_JOB, outcome=_OUTCOME, job_size=3, model=_MODEL),
    "job-status": JobStatusChanged(
        job_id=_JOB, status=JobStatus.RUNNING, images=ImageCounts(expected=3, completed=1),
        windows=_OUTCOME.windows, detections={"palm": 12}, updated=_NOW,
    ),
    "job-completed": JobCompleted(
        job_id=_JOB, status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
        images=ImageCounts(expected=2, completed=1, failed=1), windows=_OUTCOME.windows,
        detections={"palm": 12},
        failures=(
            ImageFailure(name="a.tif", image="s3://frond/a.tif", reason=Reason.EMPTY_FILE,
                         detail="The file has no bytes. Export it again."),
        ),
        artifacts=(
            Artifact(name="coco.json", uri=f"s3://frond/jobs/{_JOB}/results/coco.json",
                     media_type="application/json", size=1234, sha256="ef" * 32),
        ),
        model=_MODEL, timings=Timings(run=1.5), started=_NOW, finished=_NOW,
    ),
    "drift-observed": DriftObserved(
        model=_MODEL, observer=_PLAN, started=_NOW, ended=_NOW, ended_by="time", windows=400,
        number=1, windows_run=1600, windows_scored=400, verdict=DriftVerdict.SHIFTING,
        bands=(
            BandCompared(band=1, live=(10, 20, 30, 40), reference=(25, 25, 25, 25), values=100, observed=400,
                         observed_reference=900,
                         ks=0.2, p=0.001, critical=0.1, psi=0.22, verdict=DriftVerdict.SHIFTING),
        ),
        scores=Compared(live=(0, 3, 5, 2), values=10), finds=Compared(live=(392, 8), values=400),
    ),
    "training-requested": TrainingRequested(
        training_id=_PLAN, model="palm-detector", recipe="palm-night", alias="staging",
        overrides=TrainingOverrides(minutes=30, steps=4000, seed=7), why="a new sensor",
        requested_by="key:0123456789abcdef", requested=_NOW,
    ),
}  # fmt: skip
