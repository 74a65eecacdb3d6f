"""All events by type, and which topic carries which."""

from __future__ import annotations

from typing import Any, Final

from frond.contracts import topics
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
)
from frond.contracts.topics import Topic

EVENTS: Final[dict[str, type[Event]]] = {
    cls.TYPE: cls
    for cls in (
        ImageUploaded, JobSealed, JobCancelled, ChunkPlanned, ChunkDetected, ImageEmpty,
        ImageRejected, ImageFinished, JobStatusChanged, JobCompleted, DriftObserved,
        TrainingRequested,
    )
}  # fmt: skip

CARRIES: Final[dict[str, tuple[type[Event], ...]]] = {
    topics.UPLOADED.name: (ImageUploaded, JobSealed, JobCancelled),
    topics.TILED.name: (ChunkPlanned,),
    topics.DETECTED.name: (ChunkDetected, ImageEmpty, ImageRejected, JobSealed, JobCancelled),
    topics.IMAGED.name: (ImageFinished, JobSealed, JobCancelled),
    topics.STATUS.name: (JobStatusChanged,),
    topics.COMPLETED.name: (JobCompleted,),
    topics.DRIFT.name: (DriftObserved,),
    topics.TRAINING.name: (TrainingRequested,),
    topics.DEADLETTER.name: (),
}


def bare_type(topic: Topic, value: dict[str, Any]) -> type[Event] | None:
    """The type of a message that came without headers: only the ingest topic takes those.

    None where the value is neither an image nor a seal.
    """
    if topic is not topics.UPLOADED:
        return None
    if value.get("image") is not None:
        return ImageUploaded
    sizes = (value.get("job_size"), value.get("size"))
    return None if sizes == (None, None) else JobSealed


def structured_data(value: dict[str, Any]) -> dict[str, Any] | None:
    """What a CloudEvent in structured mode carries; None for any other value."""
    data = value.get("data")
    is_one = isinstance(value.get("specversion"), str) and "type" in value
    return data if is_one and isinstance(data, dict) else None
