"""Jobs: what was asked for, where it stands, how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, field_validator

from frond.contracts.ids import JOB_ID_PATTERN
from frond.contracts.reasons import Reason


class Contract(BaseModel):
    """Base of all contract types: immutable; unknown fields of newer versions are ignored.

    JSON has no infinity and no NaN: what took them in could not be read back.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class JobStatus(StrEnum):
    """A job's status, named as in OGC API – Processes."""

    ACCEPTED = "accepted"
    """Known; no image is done yet."""
    RUNNING = "running"
    SUCCESSFUL = "successful"
    """Ended; see ``outcome`` for whether every image completed."""
    FAILED = "failed"
    """Ended; not one image completed."""
    DISMISSED = "dismissed"
    """Cancelled."""

    @property
    def final(self) -> bool:
        return self in (JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.DISMISSED)


class JobOutcome(StrEnum):
    """How a job ended: never ``completed`` with a hole in it."""

    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    DISMISSED = "dismissed"


class ImageStatus(StrEnum):
    """Where an image stands; the last two are final."""

    UPLOADED = "uploaded"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class ModelRef(Contract):
    """One immutable model version."""

    name: str
    digest: str = Field(description="SHA-256 over the model folder, 64 hex digits")
    version: str = Field(default="", description="the label its author gave it")


class Thresholds(Contract):
    """What overrides the model's own thresholds; None leaves the model's."""

    score: float | None = Field(default=None, ge=0, le=1)
    nms_iou: float | None = Field(default=None, ge=0, le=1)
    merge_iou: float | None = Field(default=None, ge=0, le=1)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        # pydantic would take true for 1
        if isinstance(value, bool):
            raise ValueError("a threshold is a number from 0 to 1")
        return value


class JobSpec(Contract):
    """What a job is: stored once at ``jobs/{job}/job.json``; the first writer wins."""

    job_id: str = Field(pattern=JOB_ID_PATTERN)
    model: ModelRef = Field(description="pinned: resolved once, when the job began")
    thresholds: Thresholds = Thresholds()
    webhook_url: str | None = None
    email: str | None = None
    tenant: str | None = None
    retry_of: str | None = Field(
        default=None, description="the ended job whose failed images this one runs again"
    )
    created: datetime | None = None


class WindowCounts(Contract):
    """total = done + skipped + failed, once the image is finished."""

    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: WindowCounts) -> WindowCounts:
        return WindowCounts(
            total=self.total + other.total,
            done=self.done + other.done,
            skipped=self.skipped + other.skipped,
            failed=self.failed + other.failed,
        )


class Timings(Contract):
    """Seconds spent, by stage. Wall-clock measurements: never part of an artifact's bytes."""

    wait: float = 0.0
    read: float = 0.0
    preprocess: float = 0.0
    run: float = 0.0
    decode: float = 0.0
    write: float = 0.0
    plan: float = 0.0
    merge: float = 0.0

    def __add__(self, other: Timings) -> Timings:
        return Timings(**{k: getattr(self, k) + getattr(other, k) for k in type(self).model_fields})


class ImageOutcome(Contract):
    """How one image ended: stored at ``images/{image}/outcome.json``."""

    job_id: str
    image_id: str
    image: str = Field(description="the image's URI")
    name: str = Field(description="as its sender called it")
    status: ImageStatus
    reason: Reason | None = None
    detail: str | None = None
    windows: WindowCounts = WindowCounts()
    detections: dict[str, int] = Field(default_factory=dict, description="count by class name")
    width: int = 0
    height: int = 0
    crs: str | None = Field(default=None, description="EPSG:n or WKT; None when there is none")
    checksum: str | None = Field(default=None, description="ETag or SHA-256 of the raster")


class Artifact(Contract):
    """One file among a job's results."""

    name: str
    uri: str
    media_type: str
    size: int
    sha256: str


class ImageFailure(Contract):
    """A failed image, as the completed event lists it."""

    name: str
    image: str
    reason: Reason
    detail: str


class ImageCounts(Contract):
    """expected is None until the job is sealed; at the end expected = completed + failed."""

    expected: int | None = None
    completed: int = 0
    failed: int = 0
