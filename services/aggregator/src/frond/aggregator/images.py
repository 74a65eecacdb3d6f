"""The image stage's decisions: a chunk's event in, the next state and what to do out.

The state is a set: one bit a chunk. Any order and any number of copies of the same events lead to
the same state, and losing the state loses nothing that the object store does not know.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final, NamedTuple

from pydantic import BaseModel

from frond.contracts.events import ChunkDetected
from frond.contracts.jobs import ImageOutcome, ImageStatus, Timings, WindowCounts
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason


class Next(Enum):
    """What follows from an event."""

    WAIT = auto()
    """Chunks are missing still."""
    FINISH = auto()
    """Every chunk is there: merge, write, tell."""
    IGNORE = auto()
    """The event belongs to no plan of this image that counts."""
    ASK = auto()
    """The event's plan is not the one we know, or too large to be believed: what is stored?"""


class Stored(NamedTuple):
    """What the store says of an image's plan: its digest, and how many chunks it has."""

    plan: str
    chunks: int


NOTHING: Final = Stored("", 0)
"""No plan is stored."""

_BELIEVED: Final = 100_000
"""A plan of more chunks is looked up first: its bitmap is as long as an event says it is."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """What is known of an image that is not finished.

    Attributes:
        plan: digest of the plan that counts.
        chunks: how many the plan has.
        seen: bitmap of chunks that are done or failed; bit n is ordinal n.
        failed: bitmap of those in which windows failed.
        timings: summed over the chunks seen, each counted once.
    """

    plan: str
    chunks: int
    seen: int = 0
    failed: int = 0
    timings: Timings = field(default_factory=Timings)

    @property
    def whole(self) -> bool:
        """Whether every chunk is there."""
        return self.seen.bit_count() == self.chunks

    def to_bytes(self) -> bytes:
        """The table's value."""
        size = (self.chunks + 7) // 8
        return json.dumps(
            {
                "plan": self.plan,
                "chunks": self.chunks,
                "seen": _pack(self.seen, size),
                "failed": _pack(self.failed, size) if self.failed else "",
                "timings": self.timings.model_dump(exclude_defaults=True),
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> ImageState:
        """Read :meth:`to_bytes` back."""
        data = json.loads(raw)
        return cls(
            plan=data["plan"],
            chunks=data["chunks"],
            seen=_unpack(data["seen"]),
            failed=_unpack(data["failed"]),
            timings=Timings.model_validate(data["timings"]),
        )


def _pack(bits: int, size: int) -> str:
    return base64.b64encode(bits.to_bytes(size, "little")).decode()


def _unpack(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "little")


@dataclass(frozen=True, slots=True)
class Decision:
    """The state to keep, and what to do. The state is None only where none was known."""

    state: ImageState | None
    next: Next


def apply(state: ImageState | None, event: ChunkDetected, stored: Stored | None = None) -> Decision:
    """Take a chunk's event into the ledger.

    Args:
        state: what is known; None for an image never heard of.
        stored: what is stored of the image's plan, where a former answer was ``ASK``.
    """
    said = Stored(event.plan_digest, event.chunks)
    if not 0 <= event.ordinal < event.chunks:
        return Decision(state, Next.IGNORE)
    if state is None and event.chunks <= _BELIEVED:
        state = ImageState(*said)
    elif state is None or said != (state.plan, state.chunks):
        if stored is None:
            return Decision(state, Next.ASK)
        if said != stored:
            return Decision(state, Next.IGNORE)
        state = ImageState(*said)
    bit = 1 << event.ordinal
    if not state.seen & bit:
        state = replace(state, seen=state.seen | bit, timings=state.timings + event.timings)
    if has_failed(event):
        state = replace(state, failed=state.failed | bit)
    return Decision(state, Next.FINISH if state.whole else Next.WAIT)


def has_failed(event: ChunkDetected) -> bool:
    """Whether windows of this chunk failed."""
    return event.result is None or event.windows.failed > 0


def is_dismissed(event: ChunkDetected) -> bool:
    """Whether this chunk was not run because its job was cancelled."""
    return event.result is None and event.reason is Reason.DISMISSED


class ChunkFailure(BaseModel):
    """What is stored of a chunk in which windows failed, beside the results of the others.

    With it the store alone tells when an image is whole.
    """

    ordinal: int
    failed: int
    whole: bool
    reason: Reason
    detail: str

    @classmethod
    def of(cls, event: ChunkDetected) -> ChunkFailure:
        """The record of a failed chunk's event."""
        return cls(
            ordinal=event.ordinal,
            failed=event.windows.failed or event.windows.total or 1,
            whole=event.result is None,
            reason=event.reason or Reason.INFERENCE_FAILED,
            detail=event.detail or "The model could not be run on a part of this image.",
        )


def failed_outcome(plan: ImagePlan, failures: list[ChunkFailure]) -> ImageOutcome:
    """The outcome of an image of which windows failed; the first chunk's reason stands for all."""
    first = min(failures, key=lambda f: f.ordinal)
    failed = min(sum(f.failed for f in failures), plan.grid.count - plan.windows_skipped)
    return _outcome(plan, ImageStatus.FAILED, failed).model_copy(
        update={"reason": first.reason, "detail": first.detail}
    )


def completed_outcome(plan: ImagePlan, detections: dict[str, int]) -> ImageOutcome:
    """The outcome of an image all of whose windows were run or skipped."""
    ordered = {name: detections[name] for name in sorted(detections) if detections[name]}
    return _outcome(plan, ImageStatus.COMPLETED, 0).model_copy(update={"detections": ordered})


def rejected_outcome(
    job_id: str,
    image_id: str,
    image: str,
    name: str,
    reason: Reason,
    detail: str,
    plan: ImagePlan | None,
) -> ImageOutcome:
    """The outcome of an image that was turned down, before or after it was planned."""
    if plan is None:
        outcome = ImageOutcome(
            job_id=job_id, image_id=image_id, image=image, name=name, status=ImageStatus.FAILED
        )
    else:
        outcome = _outcome(plan, ImageStatus.FAILED, plan.grid.count - plan.windows_skipped)
    return outcome.model_copy(update={"reason": reason, "detail": detail})


def _outcome(plan: ImagePlan, status: ImageStatus, failed: int) -> ImageOutcome:
    total, skipped = plan.grid.count, plan.windows_skipped
    return ImageOutcome(
        job_id=plan.job_id,
        image_id=plan.image_id,
        image=plan.image,
        name=plan.name,
        status=status,
        windows=WindowCounts(
            total=total, done=total - skipped - failed, skipped=skipped, failed=failed
        ),
        width=plan.source.width,
        height=plan.source.height,
        crs=plan.georeference.crs,
        checksum=plan.image_checksum,
    )
