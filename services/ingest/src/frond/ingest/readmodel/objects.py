"""What a job's objects say of it, as the events that once said the same. Reads the store only.

Nothing is held of a job but the ids of one image's chunks, and a page of images.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import (
    ChunkDetected,
    ImageEmpty,
    ImageFinished,
    ImageRejected,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobSealed,
)
from frond.contracts.ids import chunk_id
from frond.contracts.jobs import ImageOutcome, JobSpec, WindowCounts
from frond.contracts.plan import ImagePlan
from frond.ingest import intake
from frond.ingest.readmodel.apply import ImageRecorded
from frond.runtime import get_logger
from frond.store import Listed, ObjectStore

M = TypeVar("M", bound=BaseModel)
Dated = tuple[JobEvent, int]

PAGE: Final = 200
_log = get_logger(__name__)


class Head(NamedTuple):
    """A job but for its images.

    Attributes:
        created: ms since the epoch.
        events: its size, its cancellation, its end: those that are known.
    """

    job_id: str
    spec: JobSpec | None
    created: int
    events: tuple[Dated, ...]

    @property
    def ended(self) -> bool:
        return any(isinstance(e, JobCompleted) for e, _ in self.events)


@dataclass
class _Image:
    """What the names of an image's objects tell."""

    image_id: str
    at: int = 0
    planned: bool = False
    finished: bool = False
    chunks: set[str] = field(default_factory=set)

    def take(self, rest: str, found: Listed) -> None:
        self.at = max(self.at, _ms(found.last_modified))
        self.planned |= rest == "plan.json"
        self.finished |= rest == "outcome.json"
        if rest.startswith("chunks/") and rest.endswith(".arrow"):
            self.chunks.add(rest.removeprefix("chunks/").removesuffix(".arrow"))

    def settled(self) -> _Image:
        """All names of it were taken."""
        if self.finished:
            self.chunks.clear()
        return self


async def head(store: ObjectStore, job_id: str) -> Head | None:
    """What the store says of a job; None where it neither runs nor has ended."""
    completed = await _read(store, keys.job_completed(job_id), JobCompleted)
    opened = datetime.now(UTC)
    if completed is None:
        try:
            opened = (await store.stat(keys.open_marker(job_id))).last_modified or opened
        except ObjectMissing:
            return None
    spec = await _read(store, keys.job_spec(job_id), JobSpec)
    began = [m for m in (spec and spec.created, completed and completed.started) if m]
    if completed is not None and completed.finished is not None:
        opened = completed.finished
    created = _ms(min([*began, opened]))
    events: list[Dated] = []
    if (size := await _size(store, job_id)) is not None:
        events.append((JobSealed(job_id=job_id, job_size=size), created))
    if completed is not None:
        events.append((completed, _ms(completed.finished) or created))
    elif await store.exists(keys.job_cancelled(job_id)):
        events.append((JobCancelled(job_id=job_id), created))
    return Head(job_id, spec, created, tuple(events))


async def images(store: ObjectStore, job_id: str) -> AsyncIterator[list[Dated]]:
    """Events of images that were planned, finished or refused, a page at a time."""
    page: list[_Image] = []
    async for image in _listed(store, job_id):
        if image.finished:
            page.append(image)
        elif image.planned:
            async for some in _under_way(store, job_id, image):
                yield some
        if len(page) == PAGE:
            yield await _finished(store, job_id, page)
            page = []
    yield await _finished(store, job_id, page)
    async for refused in records(store, keys.job_refused(job_id)):
        yield await _records(store, refused, ImageRejected)


async def records(store: ObjectStore, prefix: str) -> AsyncIterator[list[Listed]]:
    """Pages of the records under a prefix, one an image, named by its id."""
    page: list[Listed] = []
    async for found in store.list(prefix):
        page.append(found)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def recorded(store: ObjectStore, some: Sequence[Listed]) -> list[Dated]:
    """Events of images that ingest has recorded: not known to be sent."""
    return await _records(store, some, ImageRecorded)


async def _listed(store: ObjectStore, job_id: str) -> AsyncIterator[_Image]:
    prefix = keys.images_prefix(job_id)
    image: _Image | None = None
    async for found in store.list(prefix):
        image_id, _, rest = found.key.removeprefix(prefix).partition("/")
        if image is None or image.image_id != image_id:
            if image is not None:
                yield image.settled()
            image = _Image(image_id)
        image.take(rest, found)
    if image is not None:
        yield image.settled()


async def _finished(store: ObjectStore, job_id: str, page: Sequence[_Image]) -> list[Dated]:
    async def one(image: _Image) -> Dated | None:
        key = keys.image_outcome(job_id, image.image_id)
        outcome = await _read(store, key, ImageOutcome)
        return (ImageFinished(job_id=job_id, outcome=outcome), image.at) if outcome else None

    return [d for d in await intake.in_parallel(page, one) if d is not None]


async def _under_way(store: ObjectStore, job_id: str, image: _Image) -> AsyncIterator[list[Dated]]:
    plan = await _read(store, keys.image_plan(job_id, image.image_id), ImagePlan)
    events = _progress(plan, image.chunks) if plan else iter(())
    while some := [(e, image.at) for e in itertools.islice(events, PAGE)]:
        yield some


def _progress(plan: ImagePlan, done: set[str]) -> Iterator[JobEvent]:
    """The chunks of a plan whose results are there; without one, that it is planned."""
    about = {
        "job_id": plan.job_id, "image_id": plan.image_id, "image": plan.image, "name": plan.name,
        "plan_digest": plan.plan_digest, "windows_total": plan.grid.count,
        "windows_skipped": plan.windows_skipped,
    }  # fmt: skip
    digest = plan.plan_digest
    # makes the image run, whether or not anything of it is done; it has no chunk that counts
    yield ImageEmpty.model_validate(about)
    if not done:
        return
    for ordinal, windows in enumerate(_sizes(plan)):
        name = chunk_id(plan.image_id, digest, ordinal)
        if name in done:
            counts = WindowCounts(total=windows, done=windows)
            yield ChunkDetected(
                **about, chunk_id=name, ordinal=ordinal, chunks=plan.chunks, windows=counts,
                model=plan.model,
            )  # fmt: skip


def _sizes(plan: ImagePlan) -> Iterator[int]:
    """How many windows each chunk has, by ordinal: blocks of nothing but skipped windows are none."""
    bits = zlib.decompress(base64.b64decode(plan.skipped)) if plan.skipped else b""
    for block in plan.grid.blocks(plan.windows_per_chunk):
        left = sum(not (bits and bits[i >> 3] >> (i & 7) & 1) for i in block)
        if left:
            yield left


async def _records(store: ObjectStore, some: Sequence[Listed], kind: type[M]) -> list[Dated]:
    async def one(found: Listed) -> Dated | None:
        event = await _read(store, found.key, kind)
        return (event, _ms(found.last_modified)) if isinstance(event, JobEvent) else None

    return [d for d in await intake.in_parallel(some, one) if d is not None]


async def _size(store: ObjectStore, job_id: str) -> int | None:
    try:
        return int(json.loads(await store.get(keys.job_sealed(job_id)))["job_size"])
    except ObjectMissing:
        return None
    except (ValueError, KeyError, TypeError) as e:
        _log.error("a job's size cannot be read", job_id=job_id, error=repr(e))
        return None


async def _read(store: ObjectStore, key: str, kind: type[M]) -> M | None:
    """An object; None where there is none, or where it cannot be read: then the rest is told."""
    try:
        return kind.model_validate_json(await store.get(key))
    except ObjectMissing:
        return None
    except ValidationError as e:
        _log.error("an object is left out of the read model", key=key, error=str(e)[:500])
        return None


def _ms(moment: datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment else 0


__all__ = ["PAGE", "Dated", "Head", "head", "images", "recorded", "records"]
