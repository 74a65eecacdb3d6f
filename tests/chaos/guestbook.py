"""What must have become of guests: jobs that no calm run can repeat byte for byte.

Each is in the journal, with all that may become of it, before the first byte of it is sent. At the
end each is held against that: its end, its images by name, its notices, and every object that it
left anywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from chaos import outside, verdict
from chaos.jobs import BUCKET
from chaos.outside import Copy
from chaos.rasters import SQUARES
from chaos.world import World
from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.jobs import ImageStatus, JobOutcome
from frond.contracts.reasons import Reason
from frond.store import ObjectStore

_ENDED_S: Final = 300.0
_NOTICED_S: Final = 60.0
_CLEARED_S: Final = 150.0
"""Longer than what dead requests left is kept (``FROND_ABANDONED_SECONDS``)."""
REPLAY: Final = "replay asked for"
"""In the journal before a job's webhook is asked for once more."""
_OF_IMAGES: Final = ("inputs", "images", "refused")
_OF_JOBS: Final = (
    "job.json", "sealed.json", "cancelled", "legend.json", "closing.json", "completed.json",
    "completed.headers.json", "notify.json", "upload.json", "listing.json", "names", "results",
    "deliveries",
)  # fmt: skip
"""What may lie with a job that has ended, besides."""


@dataclass(frozen=True)
class Wanted:
    """An image and what must become of it; in a cancelled job it may be missing, or dismissed.

    Attributes:
        reason: why it fails; None: it does not.
    """

    name: str
    reason: Reason | None = None
    squares: int = SQUARES


@dataclass(frozen=True)
class Guest:
    """A job, and all that may become of it.

    Attributes:
        kind: what it is for.
        outcomes: how it may end; whether it is cancelled in time can be a matter of chance.
        notices: how many webhooks, at least and at most, it and its replays make.
        deleted: nothing of it may be left but its tombstone.
        brought: keys of the objects that its client put there whole: a raster that it begins in
            parts, or puts into a form, is none until the job says so.
    """

    job_id: str
    kind: str
    images: tuple[Wanted, ...]
    outcomes: tuple[JobOutcome, ...]
    notices: tuple[int, int] = (0, 0)
    deleted: bool = False
    brought: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """What its completed event says of its images, unless it was cancelled."""
        failed = sum(w.reason is not None for w in self.images)
        size = len(self.images)
        return {"expected": size, "completed": size - failed, "failed": failed}


class Guestbook:
    """Remembers guests, on disk first, and judges them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.guests: dict[str, Guest] = {}
        self.taken: set[str] = set()

    async def expect(self, guest: Guest) -> None:
        """On disk when this returns: call it before the first byte of a submission."""
        note = self.world.oracle.note
        await asyncio.to_thread(note, "guest submitting", sync=True, guest=asdict(guest))
        self.guests[guest.job_id] = guest
        self.world.guests.add(guest.job_id)
        self.world.strangers += [f"jobs/{guest.job_id}/*", *guest.brought]
        if guest.deleted:
            self.world.strangers.append(f"{keys.DELETED}{guest.job_id}")

    async def acknowledge(self, job_id: str) -> None:
        """All of it was taken: from now on it must end."""
        note = self.world.oracle.note
        await asyncio.to_thread(note, "guest acknowledged", sync=True, job_id=job_id)
        if job_id not in self.taken:
            self.taken.add(job_id)
            self.world.figures.jobs += 1
            self.world.figures.images += len(self.guests[job_id].images)

    def was_noticed(self, job_id: str, times: int = 1) -> bool:
        """Whether the receiver has taken so many of a job's webhooks."""
        return sum(d.answered == "ok" for d in self.world.receiver.of(job_id)) >= times

    async def until(self, done: Callable[[], Awaitable[bool]], within: float) -> bool:
        """Whether it is so before the time is over; for what announces itself to nobody."""
        end = time.monotonic() + within
        while not await done():
            if time.monotonic() > end:
                return False
            await self.world.watch.any_change(0.5)
        return True

    # -- judging -----------------------------------------------------------------------------------

    async def ended(self) -> None:
        """Wait for the ends of all that were taken; one that does not come is a loss."""
        try:
            await self.world.watch.end_of(self.taken, _ENDED_S)
        except AssertionError as e:
            self.world.figures.lose(f"guests: {e}")

    async def check(self) -> None:
        """Everything about every guest that was taken; what is not so is lost or doubled."""
        if not self.guests:
            return
        await self.ended()
        copies = await outside.completed_copies(
            self.world.installation.stack.direct.kafka_bootstrap
        )
        store = self.world.installation.store()
        try:
            uploads: set[str] = set()
            # who had no answer may have been served all the same
            for job_id in sorted(self.taken | (self.guests.keys() & copies.keys())):
                guest, seen = self.guests[job_id], copies.get(job_id, [])
                event = self._event(guest, seen)
                if event is not None and not guest.deleted:
                    uploads |= await self._judge(store, guest, seen[0], event)
                await self._read_model(guest, event)
                await self._notices(guest)
            self.world.strangers += uploads
            await self._nothing_left(store, uploads)
        finally:
            store.close()

    def _event(self, guest: Guest, copies: list[Copy]) -> dict[str, Any] | None:
        """Its completed event, if it is one that it may have."""
        figures, job_id = self.world.figures, guest.job_id
        if not copies or copies[0].event is None:
            figures.lose(f"job {job_id} ({guest.kind}) has no completed event")
            return None
        verdict.one_ending(figures, job_id, copies)
        event = copies[0].event
        outcome, counts = JobOutcome(event["outcome"]), event["images"]
        due = verdict.ends_as(outcome, guest.counts())
        if outcome not in guest.outcomes or event["status"] != due:
            figures.lose(
                f"job {job_id} ({guest.kind}) ended {event['status']}, {outcome}; that must be {due}, "
                f"and may be {', '.join(guest.outcomes)}"
            )
        if outcome is not JobOutcome.DISMISSED and counts != guest.counts():
            figures.lose(f"job {job_id} ({guest.kind}) ended with {counts}, not {guest.counts()}")
        return event

    async def _judge(
        self, store: ObjectStore, guest: Guest, copy: Copy, event: dict[str, Any]
    ) -> set[str]:
        """Hold what is stored against what was sent and wanted; the keys of its images."""
        figures, job_id = self.world.figures, guest.job_id
        try:
            stored = await store.get(keys.job_completed(job_id))
            headers = await store.get(f"{keys.job_prefix(job_id)}completed.headers.json")
            summary = json.loads(await store.get(keys.result(job_id, "summary.json")))
            coco = json.loads(await store.get(keys.result(job_id, "coco.json")))
        except ObjectMissing as e:
            figures.lose(f"job {job_id} ({guest.kind}): {e}")
            return set()
        value = hashlib.sha256(stored).hexdigest()
        verdict.as_stored(figures, job_id, copy, value, outside.stored_headers(headers))
        told = summary["images"]
        done = sum(i["status"] == ImageStatus.COMPLETED for i in told)
        mine = {"completed": done, "failed": len(told) - done}
        if {k: event["images"][k] for k in mine} != mine:
            figures.lose(f"job {job_id}: its summary has {mine}, its event {event['images']}")
        for what in misfits(
            guest, event["outcome"], told, [i["file_name"] for i in coco["images"]]
        ):
            figures.lose(f"job {job_id} ({guest.kind}): {what}")
        await self._own_objects(store, guest, {i["image_id"] for i in told}, event["outcome"])
        here = f"s3://{BUCKET}/"
        return {i["uri"].removeprefix(here) for i in told}

    async def _own_objects(
        self, store: ObjectStore, guest: Guest, images: set[str], outcome: str
    ) -> None:
        """Whatever lies with the job is of an image that it has."""
        prefix = keys.job_prefix(guest.job_id)
        async for item in store.list(prefix):
            kind, _, rest = item.key.removeprefix(prefix).partition("/")
            if kind in _OF_IMAGES:
                # an image that was not waited for may have been worked on
                stray = rest.partition("/")[0].removesuffix(".json") not in images
                if stray and outcome != JobOutcome.DISMISSED:
                    self.world.figures.lose(f"orphan: {item.key}, of an image that the job has not")
            elif kind not in _OF_JOBS:
                # the mark of sealing, say, when nobody seals it any more
                self.world.figures.lose(f"orphan: {item.key}, left with a job that has ended")

    async def _read_model(self, guest: Guest, event: dict[str, Any] | None) -> None:
        """GET tells what the completed event tells; of a deleted job that there is none."""
        wrong = ""
        # one that was cancelled before it was sealed has no size
        sized = {**event, "images": {"expected": None, **event["images"]}} if event else {}

        async def right() -> bool:
            nonlocal wrong
            try:
                answer = await self.world.feeder.ask("GET", f"/jobs/{guest.job_id}")
            except AssertionError as e:
                wrong = str(e)
                return guest.deleted and " 404 " in wrong
            wrong = verdict.told_otherwise(answer.json(), sized) if event else ""
            return not wrong and not guest.deleted

        if not await self.until(right, _NOTICED_S):
            self.world.figures.lose(
                f"GET tells otherwise of job {guest.job_id} ({guest.kind}): {wrong or 'it is there'}"
            )

    async def _notices(self, guest: Guest) -> None:
        least, most = guest.notices

        async def all_there() -> bool:
            return self.was_noticed(guest.job_id, least)

        await self.until(all_there, _NOTICED_S)
        rounds: list[str] = []

        async def all_delivered() -> bool:
            answer = await self.world.feeder.ask("GET", f"/jobs/{guest.job_id}/webhooks")
            rounds[:] = [w["state"] for w in answer.json()["webhooks"]]
            return set(rounds) <= {"delivered"}

        if most and not guest.deleted:
            await self.until(all_delivered, _NOTICED_S)
        noted = self.world.oracle.noted
        # what is told of it as delivered must have come here
        verdict.notices(
            self.world.figures, guest.job_id, self.world.receiver.of(guest.job_id),
            asked=most > 0, least=max(least, rounds.count("delivered")),
            replays=replays_of(noted, guest.job_id, min(len(rounds), most) - 1),
            spans=verdict.causes(noted),
        )  # fmt: skip
        if not most or guest.deleted:
            return
        if not least <= len(rounds) <= most or set(rounds) - {"delivered"}:
            self.world.figures.lose(
                f"job {guest.job_id} ({guest.kind}) has webhooks {rounds}, not {least} to {most} "
                "that were delivered"
            )

    async def _nothing_left(self, store: ObjectStore, uploads: set[str]) -> None:
        """Of requests that died, nothing is left; of deleted jobs, their tombstones."""
        deleted = [g.job_id for g in self.guests.values() if g.deleted and g.job_id in self.taken]
        drive = self.world.installation.drive
        brought = {key for g in self.guests.values() for key in g.brought}
        left: list[str] = []

        async def nothing() -> bool:
            left[:] = [i.key async for i in store.list(keys.RECEIVING)]
            found = [i.key async for i in store.list(f"{keys.UPLOADS}u-")]
            for job_id in self.guests:
                found += [i.key async for i in store.list(f"{keys.UPLOADS}{job_id}/")]
            left.extend(k for k in found if k not in uploads | brought)
            for job_id in deleted:
                for prefix in (keys.job_prefix(job_id), f"{keys.UPLOADS}{job_id}/"):
                    left.extend([i.key async for i in store.list(prefix)])
            left.extend(await asyncio.to_thread(outside.unfinished_uploads, drive))
            stays = {keys.job_cancelled(job_id) for job_id in deleted}
            left[:] = [k for k in left if k not in stays]
            return not left

        await self.until(nothing, _CLEARED_S)
        for key in sorted(set(left)):
            self.world.figures.lose(f"orphan: {key}, left by a guest")
        for job_id in deleted:
            if not await store.exists(f"{keys.DELETED}{job_id}"):
                self.world.figures.lose(f"job {job_id} was deleted and has no tombstone")


def replays_of(noted: Iterable[Mapping[str, Any]], job_id: str, rounds: int) -> list[float]:
    """When so many further rounds of a job's webhook were asked for, at the earliest."""
    asked = [n["at"] for n in noted if n["what"] == REPLAY and n["job_id"] == job_id]
    # one that had no answer may have been asked for again and again, as a further one each time
    return [asked[min(i, len(asked) - 1)] for i in range(rounds)] if asked else []


def misfits(
    guest: Guest, outcome: str, told: Iterable[dict[str, Any]], drawn: Iterable[str]
) -> list[str]:
    """A line for each image that is not what it must be.

    Args:
        told: the images of ``summary.json``.
        drawn: the names in ``coco.json``.
    """
    wanted = {w.name: w for w in guest.images}
    told, drawings = list(told), Counter(drawn)
    seen = Counter(i["name"] for i in told)
    wrong = [
        f"{n} is in the summary {t} times" for n, t in seen.items() if t > 1 or n not in wanted
    ]
    cancelled = outcome == JobOutcome.DISMISSED
    if not cancelled:
        wrong += [f"{n} is not in the summary" for n in wanted if n not in seen]
    for image in (i for i in told if i["name"] in wanted):
        one = wanted[image["name"]]
        status, reason = image["status"], image["reason"]
        times = drawings.pop(one.name, 0)
        if cancelled and (status, reason) == (ImageStatus.FAILED, Reason.DISMISSED):
            due = 0
        elif one.reason is not None:
            due = 0
            if (status, reason) != (ImageStatus.FAILED, one.reason):
                wrong.append(f"{one.name} is {status} ({reason}), not failed ({one.reason})")
        else:
            due = 1
            squares = sum(image["detections"].values())
            if status != ImageStatus.COMPLETED or squares != one.squares:
                wrong.append(f"{one.name} is {status} ({reason}) with {squares} squares")
        if times != due:
            wrong.append(f"{one.name} is {times} times in coco.json")
    wrong += [f"{n} is in coco.json, and in no summary" for n in drawings if n not in seen]
    return wrong
