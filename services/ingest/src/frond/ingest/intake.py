"""Images into jobs: a claim on the name, a record in the store, then the event.

The record is the outbox: it is written before the event is sent, and a sweeper sends what was
recorded and never seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel

from frond.bus import Outgoing
from frond.contracts import keys, topics
from frond.contracts.errors import BrokerUnavailable, ObjectMissing
from frond.contracts.events import ImageUploaded
from frond.contracts.ids import image_id, parse_s3_uri
from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import metrics, places
from frond.ingest.context import Ingest, age
from frond.ingest.problems import Refused
from frond.runtime import crash_point, get_logger

if TYPE_CHECKING:
    from frond.ingest.rooms import Room

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE: Final = 24
LEASE_S: Final = 120.0
"""How old a claim is when whoever made it, and stored nothing, has certainly died."""
PROMPT_S: Final = LEASE_S / 4
"""Who records an image so soon after claiming its name need not look again whether the job was
sealed meanwhile: a sealer waits for young claims."""
SEALING_S: Final = 60.0
"""How old a mark of sealing is when whoever set it has certainly died."""
_CLAIM_BYTES: Final = 1 << 16  # a name has 500 characters, an address as many
_log = get_logger(__name__)


class File(BaseModel):
    """One image given to a job.

    ``mark`` identifies its bytes: ``sha256:…`` when they passed through here, else ``etag:…``.
    ``by`` are the attempts that hold its name, by spaces: whoever claimed it, and who joined.
    """

    name: str
    image: str
    mark: str
    size: int
    by: str = ""

    @property
    def sha256(self) -> str | None:
        kind, _, value = self.mark.partition(":")
        return value if kind == "sha256" else None


async def in_parallel(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: int = _AT_ONCE
) -> list[R]:
    """Results in the order of the items, some in flight at a time; the first error ends it."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(i)) for i in items]
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None
    return [t.result() for t in tasks]


def uploaded(spec: JobSpec, file: File, job_size: int | None = None) -> ImageUploaded:
    """The event that gives this file to its job."""
    return ImageUploaded(
        job_id=spec.job_id, image=file.image, name=file.name, sha256=file.sha256,
        job_size=job_size, model=f"{spec.model.name}@{spec.model.digest}",
        thresholds=spec.thresholds, webhook_url=spec.webhook_url, email=spec.email,
        tenant=spec.tenant,
    )  # fmt: skip


async def record(ingest: Ingest, events: Sequence[ImageUploaded], at_once: int = _AT_ONCE) -> None:
    """Write the outbox records of these events."""

    async def one(event: ImageUploaded) -> None:
        key = keys.job_input_record(event.job_id, event.image_id)
        body = event.model_dump_json(exclude_none=True).encode()
        await ingest.store.put(key, body, "application/json")
        crash_point("ingest.input-recorded")

    await in_parallel(events, one, at_once)
    crash_point("ingest.inputs-recorded")
    metrics.RECEIVED.inc(len(events))


async def publish(ingest: Ingest, events: Sequence[ImageUploaded], traceparent: str) -> None:
    """Send events whose records are written. If Kafka is away now, the sweeper sends them later."""
    try:
        async with asyncio.timeout(60):
            await ingest.producer.send(
                [Outgoing(topics.UPLOADED, e) for e in events], traceparent=traceparent
            )
        crash_point("ingest.uploads-sent")
    except (BrokerUnavailable, TimeoutError) as e:
        _log.warning("recorded, to be sent by the sweeper", events=len(events), error=repr(e))


def new_attempt() -> str:
    """What to call an attempt to claim names: no two are called the same."""
    return secrets.token_hex(8)


async def claim(
    ingest: Ingest, job_id: str, files: Sequence[File], room: Room, by: str | None = None
) -> list[File]:
    """Take names for these files. Returns the files that have the names, with the same bytes.

    ``by``: what to call this attempt; a file that is returned with it has its name from here alone.
    A name that another request took for the same bytes, and has not recorded, is held by both: it is
    free when both have given it back. ``room``: the places that are held for them; they are kept.

    Raises:
        Refused: CONFLICT: other bytes have one of the names, or another request is storing them.
            JOB_CLOSED, see :func:`require_place`. Then no name is taken.
    """
    by = by or new_attempt()
    mine = [f.model_copy(update={"by": by}) for f in files]

    async def attempt(file: File) -> File | Refused:
        # returned, so that no other claim is given up while it is being stored
        try:
            return await _win(ingest, job_id, file)
        except Refused as e:
            return e

    try:
        won: list[File] = []
        for outcome in await in_parallel(mine, attempt):
            if isinstance(outcome, Refused):
                raise outcome
            won.append(outcome)
        # only now: whoever seals the job from now on sees the claims
        await require_place(ingest, job_id, won, room)
        crash_point("ingest.name-claimed")
    except Refused:
        async with _taking_away(ingest, mine, room):
            await in_parallel(
                mine, lambda f: _take_away(ingest, job_id, f, room, lambda held: _without(held, by))
            )
        raise
    except BaseException:
        room.doubt(f.name for f in mine)
        raise
    room.keep(file.name for file in won)
    return won


async def require_place(ingest: Ingest, job_id: str, files: Sequence[File], room: Room) -> None:
    """Look again, once names are claimed, whether the job takes files that it has no record of.

    Raises:
        Refused: JOB_CLOSED: it was sealed, or is being sealed, or has its size without them.
    """
    # asked for after the names were claimed, once for all who have just claimed some
    closing, sealed = await ingest.together.ask(
        ("closing", job_id), partial(_closing, ingest, job_id)
    )
    size = None if sealed is None else int(sealed["job_size"])
    closing = closing or (sealed is not None and not sealed.get("declared"))
    if not closing and (size is None or not room.over(size)):
        return
    known = await in_parallel(files, lambda f: recorded(ingest, job_id, f))
    new = [file.name for file, is_known in zip(files, known, strict=True) if not is_known]
    if not new or (not closing and size is not None and room.fit(new, size)):
        return
    raise Refused(Reason.JOB_CLOSED, f"Job {job_id!r} was sealed and takes no more images.")


async def _closing(ingest: Ingest, job_id: str) -> tuple[bool, dict[str, Any] | None]:
    """Whether somebody is sealing the job just now, and its seal."""
    marks = [m async for m in ingest.store.list(places.sealing(job_id))]
    closing = any(age(m) < SEALING_S for m in marks)
    # after the marks: they are taken away when the job is sealed
    try:
        return closing, json.loads(await ingest.store.get(keys.job_sealed(job_id)))
    except ObjectMissing:
        return closing, None


async def recorded(ingest: Ingest, job_id: str, file: File) -> bool:
    """Whether the job has this image for good."""
    return await ingest.store.exists(keys.job_input_record(job_id, image_id(job_id, file.image)))


async def _win(ingest: Ingest, job_id: str, file: File) -> File:
    key = places.claim(job_id, file.name)
    body = file.model_dump_json().encode()
    while True:
        raw = await ingest.store.put_if_absent(key, body)
        if not raw:
            if await _take_free(ingest, key, body):
                return file
            continue
        winner = File.model_validate_json(raw)
        crash_point("ingest.claim-stored")
        if winner.by == file.by:
            return winner
        is_there = winner.image == file.image or await stored(ingest, winner)
        if winner.mark != file.mark or not is_there:
            break
        if await recorded(ingest, job_id, winner):
            return winner
        joint = await _join(ingest, job_id, file)
        if joint is not None:
            return joint
    if not is_there or not await stored(ingest, winner):
        with contextlib.suppress(ObjectMissing):
            held = await ingest.store.stat(key)
            if not held.size:
                # given back meanwhile
                return await _win(ingest, job_id, file)
            left = LEASE_S - age(held)
            if left > 0:
                raise Refused(
                    Reason.CONFLICT,
                    f"Another request is storing {file.name.strip()!r} in job {job_id!r}. "
                    f"If it has died, the name is free in {left:.0f} s.",
                    headers={"Retry-After": str(math.ceil(left))},
                )
            # whoever claimed it has died: nothing was published under this name
            if await ingest.store.replace(key, body, held.etag):
                return file
    raise Refused(
        Reason.CONFLICT,
        f"{file.name.strip()!r} is in job {job_id!r} already, with other bytes. Choose another name.",
    )


async def _take_free(ingest: Ingest, key: str, body: bytes) -> bool:
    """Claim a name that somebody gave back; False: it has changed since."""
    with contextlib.suppress(ObjectMissing):
        free = await ingest.store.stat(key)
        if not free.size and await ingest.store.replace(key, body, free.etag):
            crash_point("ingest.claim-stored")
            return True
    return False


async def _join(ingest: Ingest, job_id: str, file: File) -> File | None:
    """Hold a claim together with whoever made it, as if it were made now; None: it has changed."""
    key = places.claim(job_id, file.name)
    # not while somebody here takes it away
    async with ingest.counting:
        try:
            stat, raw = await ingest.store.head_bytes(key, _CLAIM_BYTES)
        except ObjectMissing:
            return None
        if not raw:
            return None
        held = File.model_validate_json(raw)
        joint = held.model_copy(update={"by": f"{held.by} {file.by}".strip()})
        if held.mark == file.mark and await ingest.store.replace(
            key, joint.model_dump_json().encode(), stat.etag
        ):
            return joint
    return None


def _without(held: File, by: str) -> File | None:
    """A claim that this attempt holds no more; None: nobody does."""
    others = [o for o in held.by.split() if o != by]
    return held.model_copy(update={"by": " ".join(others)}) if others or not held.by else None


async def release(ingest: Ingest, job_id: str, file: File, room: Room) -> None:
    """Give back a name whose bytes (those of ``file.mark``) will never come, and its place, which
    this request holds."""
    async with _taking_away(ingest, [file], room):
        await _take_away(ingest, job_id, file, room, lambda h: None if h.mark == file.mark else h)


@contextlib.asynccontextmanager
async def _taking_away(ingest: Ingest, files: Sequence[File], room: Room) -> AsyncIterator[None]:
    # one request at a time, and never while claims are counted: else one is given back twice
    try:
        async with ingest.counting:
            yield
    except BaseException:
        room.doubt(f.name for f in files)
        raise


async def _take_away(
    ingest: Ingest, job_id: str, file: File, room: Room, rest: Callable[[File], File | None]
) -> None:
    """Leave of a claim what ``rest`` says; None: nothing, and the name is free. What another process
    has made of it meanwhile stays."""
    key = places.claim(job_id, file.name)
    while True:
        try:
            stat, raw = await ingest.store.head_bytes(key, _CLAIM_BYTES)
        except ObjectMissing:
            return
        if not raw:
            return
        held = File.model_validate_json(raw)
        left = rest(held)
        if left == held:
            return
        body = b"" if left is None else left.model_dump_json().encode()
        if await ingest.store.replace(key, body, stat.etag):
            if left is None:
                room.give_back([file.name])
            return


async def stored(ingest: Ingest, file: File) -> bool:
    """Whether the object of a claim may be there: only our own bucket's are looked at."""
    bucket, key = parse_s3_uri(file.image)
    return bucket != ingest.store.bucket or await ingest.store.exists(key)


async def claimed(ingest: Ingest, job_id: str, name: str) -> File | None:
    """The file that has this name in the job, if one does."""
    try:
        raw = await ingest.store.get(places.claim(job_id, name))
    except ObjectMissing:
        return None
    return File.model_validate_json(raw) if raw else None


async def add(
    ingest: Ingest,
    spec: JobSpec,
    files: Sequence[File],
    traceparent: str,
    *,
    at_once: int = _AT_ONCE,
) -> None:
    """Record and publish claimed files of an open job."""
    events = [uploaded(spec, f) for f in files]
    await record(ingest, events, at_once)
    await publish(ingest, events, traceparent)
