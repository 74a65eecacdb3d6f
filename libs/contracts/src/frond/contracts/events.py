"""The events.

Every event's ``ce_id`` is made from what it says happened (``natural_key``), so an event that is
sent twice has one id.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from frond.contracts.drift import (
    MOST_BANDS,
    MOST_COUNTED,
    BandCompared,
    Compared,
    DriftBounds,
    DriftVerdict,
)
from frond.contracts.ids import JOB_ID_PATTERN, event_id, image_id, parse_s3_uri
from frond.contracts.jobs import (
    MOST_SECONDS,
    Artifact,
    Contract,
    Figure,
    ImageCounts,
    ImageFailure,
    ImageOutcome,
    JobOutcome,
    JobStatus,
    ModelRef,
    Moment,
    Shadow,
    ShadowWish,
    Sum,
    Thresholds,
    Timings,
    WindowCounts,
    of_one,
    of_one_chunk,
    of_one_image,
)  # fmt: skip
from frond.contracts.plan import RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.contracts.training import TrainingRequest

MOST_IMAGES: Final = 10_000_000
"""Images a job, at the very most; services have lower limits of their own."""
MOST_CHUNKS: Final = 2_000_000
"""Chunks an image, at the very most: a bitmap of them must stay small."""
MOST_WINDOWS: Final = 1024
"""Windows a chunk, at the very most: they are read together."""

_ID: Final = re.compile(r"[0-9a-f]{32}")
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, Field(max_length=1024)]
"""What a sender called an image. With this bound no event outgrows a Kafka message."""


def _no_truth_value(value: object) -> object:
    # pydantic would take true for 1
    if isinstance(value, bool):
        raise ValueError("a job's size is a number of images")
    return value


JobSize = Annotated[int, Field(ge=1, le=MOST_IMAGES), BeforeValidator(_no_truth_value)]
Short = Annotated[str, Field(max_length=2048)]


class Event(Contract):
    """Base of all events."""

    TYPE: ClassVar[str]

    def natural_key(self) -> tuple[str, ...]:
        """What makes this event itself: equal keys are the same event."""
        return (self.subject,)

    @property
    def subject(self) -> str:
        """What it is about: the job's id, the model's digest, or the training run's id."""
        raise NotImplementedError

    @property
    def event_id(self) -> str:
        return event_id(self.TYPE, *self.natural_key())

    def partition_key(self) -> str:
        """The Kafka key where the topic's table does not say otherwise."""
        return self.subject


class JobEvent(Event):
    """Base of the events of a job: all but those of drift and training."""

    job_id: str = Field(pattern=JOB_ID_PATTERN)

    @property
    def subject(self) -> str:
        return self.job_id


class ImageUploaded(JobEvent):
    """An image is in the object store and belongs to a job.

    The smallest legal message is ``{"job_id": "survey-7", "image": "s3://bucket/key.tif"}``;
    without ``job_size`` the job stays open until a JobSealed.
    """

    TYPE: ClassVar[str] = "frond.image.uploaded.v1"

    image: str = Field(description="s3://bucket/key of the raster")
    job_size: JobSize | None = Field(
        default=None, description="how many images the job has; the first to say it wins"
    )
    name: Name | None = Field(default=None, description="what to call it in results")
    sha256: Short | None = Field(
        default=None, description="of the raster, as its sender says; carried, not checked"
    )
    model: Short | None = Field(
        default=None, description="name, name@alias or name@digest; None: the default model"
    )
    thresholds: Thresholds = Thresholds()
    webhook_url: Short | None = None
    email: Short | None = None
    tenant: Short | None = None
    shadow: ShadowWish | Literal["none"] | None = Field(
        default=None,
        description="a version that runs beside the job's, as the first image of the job says; "
        "none: no shadow; None: the one that stands in the registry, for jobs of production",
    )

    @field_validator("thresholds", mode="before", json_schema_input_type=Thresholds | None)
    @classmethod
    def _null_is_left_out(cls, value: object) -> object:
        # many serializers write null for what is not set; every other optional field takes it
        return Thresholds() if value is None else value

    @field_validator(
        "name", "sha256", "model", "webhook_url", "email", "tenant", "shadow", mode="before"
    )
    @classmethod
    def _empty_is_left_out(cls, value: object) -> object:
        # languages whose texts are empty where they are not set write them so
        return None if value == "" else value

    @field_validator("image")
    @classmethod
    def _is_an_object(cls, value: str) -> str:
        try:
            parse_s3_uri(value)
        except Exception as e:
            raise ValueError(str(e)) from None
        return value

    @property
    def image_id(self) -> str:
        return image_id(self.job_id, self.image)

    def natural_key(self) -> tuple[str, ...]:
        return (self.job_id, self.image)

    def partition_key(self) -> str:
        return self.image_id


class JobSealed(JobEvent):
    """The job has exactly this many images; none will be added."""

    TYPE: ClassVar[str] = "frond.job.sealed.v1"

    job_size: Annotated[int, Field(ge=0, le=MOST_IMAGES), BeforeValidator(_no_truth_value)] = Field(
        validation_alias=AliasChoices("job_size", "size")
    )


class JobCancelled(JobEvent):
    """Stop working on this job; it ends as ``dismissed``."""

    TYPE: ClassVar[str] = "frond.job.cancelled.v1"


class ChunkPlanned(JobEvent):
    """A chunk of windows to run a model on. Carries the plan, never pixels."""

    TYPE: ClassVar[str] = "frond.chunk.planned.v1"

    image_id: Id
    image: Short
    name: Name
    plan_digest: Id
    chunk_id: Id
    ordinal: int = Field(ge=0, lt=MOST_CHUNKS)
    chunks: int = Field(
        ge=1, le=MOST_CHUNKS, description="how many chunks with windows the image has"
    )
    windows: tuple[int, ...] = Field(
        min_length=1, max_length=MOST_WINDOWS, description="indices in the grid, ascending"
    )
    windows_total: Figure = Field(description="of the whole image")
    windows_skipped: Figure = Field(description="of the whole image")
    source: RasterSource
    grid: WindowGrid
    model: ModelRef
    thresholds: Thresholds = Thresholds()
    job_size: JobSize | None = None
    planned_at: Moment | None = None
    shadow: Shadow | None = Field(
        default=None, description="to be run on its share of these windows, too, and kept apart"
    )
    planning_s: float | None = Field(
        default=None, ge=0, le=MOST_SECONDS,
        description="how long planning the image took; told with its first chunk, once",
    )  # fmt: skip

    def natural_key(self) -> tuple[str, ...]:
        return (self.chunk_id,)

    def partition_key(self) -> str:
        return self.chunk_id


class _ImageEvent(JobEvent):
    image_id: Id
    image: Short
    name: Name
    job_size: JobSize | None = None

    def partition_key(self) -> str:
        return self.image_id


class ChunkDetected(_ImageEvent):
    """A chunk is done: its result object is in the store."""

    TYPE: ClassVar[str] = "frond.chunk.detected.v1"

    plan_digest: Id
    chunk_id: Id
    ordinal: int = Field(ge=0, lt=MOST_CHUNKS)
    chunks: int = Field(ge=1, le=MOST_CHUNKS)
    windows: Annotated[WindowCounts, AfterValidator(of_one)] = Field(
        description="of this chunk: total = done + failed"
    )
    windows_total: Figure = Field(description="of the whole image")
    windows_skipped: Figure = Field(description="of the whole image")
    result: str | None = Field(default=None, description="object key; None if the chunk failed")
    detections: Figure = 0
    model: ModelRef
    reason: Reason | None = Field(default=None, description="why windows failed, when any did")
    detail: str | None = None
    timings: Annotated[Timings, AfterValidator(of_one_chunk)] = Timings()

    def natural_key(self) -> tuple[str, ...]:
        return (self.chunk_id,)


class ImageEmpty(_ImageEvent):
    """The image was planned and has no window to run: everything is nodata."""

    TYPE: ClassVar[str] = "frond.image.empty.v1"

    plan_digest: Id
    windows_total: Figure
    windows_skipped: Figure

    def natural_key(self) -> tuple[str, ...]:
        return (self.image_id, self.plan_digest)


class ImageRejected(_ImageEvent):
    """The image cannot be processed; the job goes on without it."""

    TYPE: ClassVar[str] = "frond.image.rejected.v1"

    reason: Reason
    detail: str

    def natural_key(self) -> tuple[str, ...]:
        return (self.image_id,)


class ImageFinished(JobEvent):
    """An image's outcome: its merged detections are in the store, or it failed."""

    TYPE: ClassVar[str] = "frond.image.finished.v1"

    outcome: ImageOutcome
    job_size: JobSize | None = None
    model: ModelRef | None = None
    timings: Annotated[Timings, AfterValidator(of_one_image)] = Timings()

    @model_validator(mode="after")
    def _of_one_job(self) -> ImageFinished:
        # the ledger keeps ids as 16 bytes each
        if not _ID.fullmatch(self.outcome.image_id):
            raise ValueError("outcome.image_id has not 32 hex digits")
        if self.outcome.job_id != self.job_id:
            raise ValueError("outcome.job_id is another job's")
        return self

    def natural_key(self) -> tuple[str, ...]:
        return (self.outcome.image_id,)


class JobStatusChanged(JobEvent):
    """A snapshot of a job; the newest one counts."""

    TYPE: ClassVar[str] = "frond.job.status.v1"

    status: JobStatus
    images: ImageCounts = ImageCounts()
    windows: WindowCounts = WindowCounts()
    detections: dict[str, Sum] = Field(default_factory=dict)
    updated: Moment

    def natural_key(self) -> tuple[str, ...]:
        return (self.job_id, self.updated.isoformat())


class JobCompleted(JobEvent):
    """A job has ended; everything a subscriber needs is in here or linked from here."""

    TYPE: ClassVar[str] = "frond.job.completed.v1"

    status: JobStatus
    outcome: JobOutcome
    images: ImageCounts
    windows: WindowCounts
    detections: dict[str, Sum] = Field(description="count by class name")
    failures: tuple[ImageFailure, ...] = Field(
        default=(), description="at most 100; all of them are in summary.json"
    )
    artifacts: tuple[Artifact, ...] = ()
    model: ModelRef | None = Field(default=None, description="None if no image was ever accepted")
    retry_of: str | None = Field(
        default=None, description="the ended job whose failed images this one ran again"
    )
    timings: Timings = Field(
        default=Timings(),
        description="summed over all workers; left out where none were measured",
        # whoever closes a job from its objects alone has measured nothing, not zero seconds
        exclude_if=lambda timings: timings == Timings(),
    )
    started: Moment | None = None
    finished: Moment | None = None

    @model_validator(mode="after")
    def _ledger_closes(self) -> JobCompleted:
        if self.outcome is not JobOutcome.DISMISSED:
            if self.images.expected != self.images.completed + self.images.failed:
                raise ValueError("images expected ≠ completed + failed")
            if (self.outcome is JobOutcome.COMPLETED) != (self.images.failed == 0):
                raise ValueError("the outcome does not say whether images failed")
        return self


class DriftObserved(Event):
    """How one process's live windows of one model compare with its training data, over a period.

    Counts of several events of one model add up: each window is in at most one of them, unless it
    was run twice.
    """

    TYPE: ClassVar[str] = "frond.drift.observed.v1"

    model: ModelRef
    observer: Id = Field(description="the process that saw these windows, from start to end")
    started: Moment
    ended: Moment
    ended_by: Literal["time", "windows", "stop", "room"] = Field(
        description="its time is over, it has its windows, the process ended, or other models took its place"
    )
    windows: Figure = Field(description="that were looked at, chosen by hash")
    number: Figure = Field(
        default=0,
        description="of the process's periods, from 1: clocks are set back, numbers are not",
    )
    windows_run: Figure = Field(
        description="of the chunks that were counted: all windows, looked at or not; chunks that came "
        "too fast are in neither number"
    )
    windows_scored: Figure = Field(
        default=0, description="of those looked at: whose scores were counted"
    )
    bands: tuple[BandCompared, ...] = Field(default=(), max_length=MOST_BANDS)
    scores: Compared | None = None
    finds: Compared | None = Field(
        default=None,
        description="windows without a find, and with one or more: a model that has gone blind has no "
        "scores to compare",
    )
    bounds: DriftBounds = DriftBounds()
    verdict: DriftVerdict = Field(description="the most serious one of bands, scores and finds")

    @model_validator(mode="after")
    def _counts_add_up(self) -> DriftObserved:
        for one in (*self.bands, self.scores, self.finds):
            if one is not None and max(sum(one.live), sum(one.reference or ())) > MOST_COUNTED:
                raise ValueError(f"a histogram holds more than {MOST_COUNTED} values")
        return self

    @property
    def subject(self) -> str:
        return self.model.digest

    def natural_key(self) -> tuple[str, ...]:
        return (self.model.digest, self.observer, str(self.number), self.started.isoformat())


class TrainingRequested(TrainingRequest, Event):
    """Somebody, or drift, asks for a model to be trained. Its run is in the store by then."""

    TYPE: ClassVar[str] = "frond.training.requested.v1"

    @property
    def subject(self) -> str:
        return self.training_id
