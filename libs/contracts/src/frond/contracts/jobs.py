"""Jobs: what was asked for, where it stands, how it ended."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from frond.contracts.ids import JOB_ID_PATTERN
from frond.contracts.reasons import Reason

MOST_FIGURE: Final = 1 << 31
"""The most that is counted of one image or chunk. Sums over a job fit into 63 bits."""
MOST_SECONDS: Final = 1e9
"""The most that one stage of one chunk takes: three decades."""


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_aware)]
"""A time; UTC where its sender names no zone."""
Figure = Annotated[int, Field(ge=0, le=MOST_FIGURE)]
Sum = Annotated[int, Field(ge=0, lt=1 << 62)]


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


NO_SHADOW: Final = "none"
"""What a sender writes who wants no shadow, whatever stands in the registry."""


class ShadowWish(Contract):
    """Another version that is to run beside a job's own, on a share of the windows."""

    model: str = Field(min_length=1, max_length=2048, description="name, name@alias or name@digest")
    share: float = Field(default=0.1, gt=0, le=1, description="of the windows, chosen by hash")

    @field_validator("share", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        # pydantic would take true for 1
        if isinstance(value, bool):
            raise ValueError("a share is a number above 0, at most 1")
        return value


class Shadow(Contract):
    """The same, pinned: what it finds is kept apart, and is no part of any result."""

    model: ModelRef
    share: float = Field(gt=0, le=1)


class JobSpec(Contract):
    """What a job is: stored once at ``jobs/{job}/job.json``; the first writer wins."""

    job_id: str = Field(pattern=JOB_ID_PATTERN)
    model: ModelRef = Field(description="pinned: resolved once, when the job began")
    thresholds: Thresholds = Thresholds()
    webhook_url: str | None = None
    email: str | None = None
    tenant: str | None = None
    by_key: bool = Field(
        default=False, description="a tenant's key began it, by REST: messages must name the tenant"
    )
    retry_of: str | None = Field(
        default=None, description="the ended job whose failed images this one runs again"
    )
    created: Moment | None = None
    shadow: Shadow | None = Field(
        default=None, description="pinned with the model: runs beside it on a share of the windows"
    )


class WindowCounts(Contract):
    """total = done + skipped + failed, once the image is finished."""

    total: Sum = 0
    done: Sum = 0
    skipped: Sum = 0
    failed: Sum = 0

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


def of_one(counts: WindowCounts) -> WindowCounts:
    """The counts, if they can be those of one image. Raises ValueError."""
    if max(counts.total, counts.done, counts.skipped, counts.failed) > MOST_FIGURE:
        raise ValueError("more windows than an image can have")
    return counts


def of_one_chunk(timings: Timings) -> Timings:
    """The timings, if they can be those of one chunk. Raises ValueError."""
    return _shorter(timings, MOST_SECONDS)


def of_one_image(timings: Timings) -> Timings:
    """The timings, if they can be the sum over an image's chunks. Raises ValueError."""
    return _shorter(timings, MOST_SECONDS * MOST_FIGURE)


def _shorter(timings: Timings, most: float) -> Timings:
    if any(abs(getattr(timings, k)) > most for k in Timings.model_fields):
        raise ValueError("longer than anything takes")
    return timings


class ImageOutcome(Contract):
    """How one image ended: stored at ``images/{image}/outcome.json``."""

    job_id: str
    image_id: str
    image: str = Field(description="the image's URI")
    name: str = Field(description="as its sender called it")
    status: ImageStatus
    reason: Reason | None = None
    detail: str | None = None
    windows: Annotated[WindowCounts, AfterValidator(of_one)] = WindowCounts()
    detections: dict[str, Figure] = Field(default_factory=dict, description="count by class name")
    width: Figure = 0
    height: Figure = 0
    crs: str | None = Field(default=None, description="EPSG:n or WKT; None when there is none")
    checksum: str | None = Field(default=None, description="ETag or SHA-256 of the raster")


class Artifact(Contract):
    """One file among a job's results."""

    name: str
    uri: str
    media_type: str
    size: Sum
    sha256: str


class ImageFailure(Contract):
    """A failed image, as the completed event lists it."""

    name: str
    image: str
    reason: Reason
    detail: str


class ImageCounts(Contract):
    """expected is None until the job is sealed; at the end expected = completed + failed."""

    expected: Sum | None = None
    completed: Sum = 0
    failed: Sum = 0
