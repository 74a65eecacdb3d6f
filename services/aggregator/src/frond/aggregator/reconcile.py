"""Ledgers that stand still are driven again, from the objects alone.

A job stands still when nothing of it was written for a while *and* every event that was on the
topics when we last looked has been handled since: then whatever is missing was lost, and not
merely waiting behind other work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from pydantic import ValidationError

from frond.aggregator import metrics
from frond.aggregator.closing import Closing
from frond.aggregator.imaging import Imaging
from frond.aggregator.survey import Survey, survey
from frond.bus import EventProducer, Outgoing
from frond.bus.offsets import Ends, Offsets, behind
from frond.contracts import keys, topics
from frond.contracts.errors import BrokerUnavailable, ObjectMissing, Outage, StoreUnavailable
from frond.contracts.events import Event, ImageRejected, ImageUploaded
from frond.contracts.jobs import Timings
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic
from frond.raster.planning import chunks_of
from frond.runtime import ServiceSettings, crash_point, get_logger
from frond.store import ObjectStore

# who reads what: an event is handled when its reader has committed past it
_READERS: Final[dict[str, tuple[Topic, ...]]] = {
    "tiler": (topics.UPLOADED,),
    "inference": (topics.TILED,),
    "aggregator": (topics.DETECTED, topics.IMAGED),
}
_LONGEST_S: Final = 3600.0
# what an outage keeps back goes on soon after its end, and what it does not is not sent again each minute
_LONGEST_AWAY_S: Final = 600.0
_BATCH: Final = 500
# so many times what was sent again was handled, and nothing came of it
_DRIVES: Final = 5
# so many images, or jobs, in a row that an outage keeps back: it is not their own objects that do not answer
_AWAY: Final = 3
_FRUITLESS: Final = (
    "This image was tried several times and no result came back. Its operator finds why in the "
    "logs and among the dead letters. Sending the image again is worth a try."
)
_log = get_logger(__name__)
E = TypeVar("E", ImageUploaded, ImageRejected)


@dataclass
class _Look:
    """What a job looked like."""

    fingerprint: tuple[int, datetime | None]
    ends: Ends
    due: float
    pause: float
    drives: int = 0


class Reconciler:
    """Looks at the open jobs that this worker owns.

    Args:
        owns: whether a job is this worker's: each is exactly one's, so that what stands still is
            driven once. Two that believe to own a job do no harm.
        idle_s: for how many seconds this worker has seen no event of a job.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        store: ObjectStore,
        producer: EventProducer,
        imaging: Imaging,
        closing: Closing,
        offsets: Offsets,
        *,
        stall_s: float,
        owns: Callable[[str], bool],
        idle_s: Callable[[str], float],
    ) -> None:
        self.settings = settings
        self.store = store
        self.producer = producer
        self.imaging = imaging
        self.closing = closing
        self.offsets = offsets
        self.stall_s = stall_s
        self.owns = owns
        self.idle_s = idle_s
        self._looks: dict[str, _Look] = {}

    async def run(self, every_s: float) -> None:
        """Look, for ever. Outages and errors of one round are logged and the next one comes."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.round()
            except (StoreUnavailable, BrokerUnavailable) as e:
                _log.warning("open jobs could not be looked at", error=str(e))
            except Exception as e:
                _log.error("looking at open jobs failed", exc_info=e)

    async def round(self) -> None:
        """Look at each open job once."""
        mine: set[str] = set()
        count = 0
        async for item in self.store.list(keys.OPEN):
            count += 1
            job_id = item.key.removeprefix(keys.OPEN)
            if self.owns(job_id):
                mine.add(job_id)
        metrics.OPEN_JOBS.set(count)
        for job_id in [j for j in self._looks if j not in mine]:
            del self._looks[job_id]
        outage: Outage | None = None
        away = 0
        for job_id in sorted(mine):
            if self.idle_s(job_id) < self.stall_s:
                self._looks.pop(job_id, None)
                continue
            # one that keeps back a single job, as a full disk here does, is no reason to look at no other
            try:
                await self._look(job_id)
                away = 0
            except Outage as e:
                outage, away = e, away + 1
                if away == _AWAY:
                    break
        if outage is not None:
            raise outage

    async def _look(self, job_id: str) -> None:
        before = self._looks.get(job_id)
        began = time.monotonic()
        # before all its objects are listed: a job may wait its turn for hours, and so may hundreds
        if before is not None and (began < before.due or await self._waiting(before.ends)):
            return
        ends = await self._ends()
        found = await survey(job_id, self.store.list(keys.job_prefix(job_id)))
        # a long listing must not become all that is done
        pause = max(self.stall_s, 10 * (time.monotonic() - began))
        if before is None or before.fingerprint != found.fingerprint:
            self._looks[job_id] = _Look(found.fingerprint, ends, time.monotonic() + pause, pause)
            return
        again = min(before.pause * 2, _LONGEST_S)
        drives = before.drives + 1
        look = _Look(found.fingerprint, ends, time.monotonic() + again, again, drives)
        # an error counts, as what comes to nothing does
        self._looks[job_id] = look
        outage = await self._driven(job_id, found, give_up=drives > _DRIVES)
        if outage is not None:
            # what was kept back was not tried
            look.drives = before.drives
            look.pause = min(again, max(self.stall_s, _LONGEST_AWAY_S))
            look.due = time.monotonic() + look.pause
        # what was sent now must be handled before it counts as fruitless
        look.ends = await self._ends()
        if outage is not None:
            raise outage

    async def _driven(self, job_id: str, found: Survey, *, give_up: bool) -> Outage | None:
        """:meth:`drive`, and the outage that kept anything of the job back."""
        try:
            await self.drive(job_id, found, give_up=give_up)
        except Outage as e:
            return e
        return None

    async def _ends(self) -> Ends:
        return await self.offsets.ends(t for ts in _READERS.values() for t in ts)

    async def _waiting(self, ends: Ends) -> bool:
        """Whether an event that was there at the former look has not been handled."""
        for service, read in _READERS.items():
            done = await self.offsets.done(self.settings.group(service), read)
            if behind({p: n for p, n in ends.items() if p in done}, done):
                return True
        return False

    async def drive(self, job_id: str, found: Survey, *, give_up: bool = False) -> None:
        """Repeat whatever a job that stands still is waiting for.

        Args:
            give_up: let the images that nothing comes of fail instead, so that the ledger closes.

        Raises:
            Outage: it kept some of it back; all else was repeated, unless everything is away.
        """
        _log.warning(
            "a job stands still and is driven again", job_id=job_id, finished=len(found.finished),
            planned=len(found.planned), unplanned=len(found.inputs),
        )  # fmt: skip
        if found.completed:
            metrics.redriven("completed")
            await self.closing.deliver(job_id)
            return
        size = await self.closing.stored_size(job_id)
        if found.cancelled or (size is not None and len(found.finished) >= size):
            metrics.redriven("job")
            await self.closing.close(
                job_id, found.finished, size=size, cancelled=found.cancelled, timings=Timings()
            )
            return
        whole: list[str] = []

        async def planned(image_id: str) -> None:
            if await self._chunks_again(job_id, image_id, found.planned[image_id], give_up):
                whole.append(image_id)

        # what others can go on with is sent before anything is written: a store that is full answers
        outage = await self._each(
            job_id,
            [
                *((i, partial(self._refused_again, job_id, i)) for i in found.refused),
                *((i, partial(self._upload_again, job_id, i, give_up)) for i in found.inputs),
                *((i, partial(planned, i)) for i in found.planned),
            ],
        )
        kept_back = await self._each(
            job_id, [(i, partial(self._finish_again, job_id, i, give_up)) for i in whole]
        )
        if (outage := outage or kept_back) is not None:
            raise outage

    async def _each(
        self, job_id: str, images: Iterable[tuple[str, Callable[[], Awaitable[None]]]]
    ) -> Outage | None:
        """Do something for each image: one that raises keeps no other from it.

        Returns:
            The outage that kept some back, and after a few in a row all that were to follow.
        """
        outage: Outage | None = None
        away = 0
        for image_id, again in images:
            try:
                await again()
                away = 0
            except Outage as e:
                outage, away = e, away + 1
                _log.warning(
                    "an image is not driven again", job_id=job_id, image_id=image_id, error=str(e)
                )
                if away == _AWAY:
                    break
            except Exception as e:
                _log.error(
                    "driving an image again failed", job_id=job_id, image_id=image_id, exc_info=e
                )
        return outage

    async def _upload_again(self, job_id: str, image_id: str, give_up: bool) -> None:
        event = await self._recorded(keys.job_input_record(job_id, image_id), ImageUploaded)
        if event is None:
            return
        if give_up:
            name = event.name or event.image.rsplit("/", 1)[-1]
            await self._fail(job_id, image_id, event.image, name, event.job_size)
            return
        await self._send("uploaded", topics.UPLOADED, [event])

    async def _refused_again(self, job_id: str, image_id: str) -> None:
        event = await self._recorded(keys.job_refused_record(job_id, image_id), ImageRejected)
        if event is not None:
            await self._send("refused", topics.DETECTED, [event])

    async def _recorded(self, key: str, kind: type[E]) -> E | None:
        try:
            return kind.model_validate_json(await self.store.get(key))
        except (ObjectMissing, ValidationError) as e:
            _log.error("an image's record cannot be read", key=key, error=str(e))
            return None

    async def _chunks_again(
        self, job_id: str, image_id: str, there: set[str], give_up: bool
    ) -> bool:
        """Send the chunks that are missing; returns whether none is."""
        plan = await self.imaging.plan(job_id, image_id)
        if plan is None:
            return False
        missing: list[Event] = []
        lost = False
        for chunk in chunks_of(plan):
            if chunk.chunk_id in there:
                continue
            if give_up:
                await self._fail(job_id, image_id, plan.image, plan.name, plan.job_size)
                return False
            lost = True
            missing.append(chunk)
            if len(missing) >= _BATCH:
                await self._send("tiled", topics.TILED, missing)
                missing = []
        await self._send("tiled", topics.TILED, missing)
        return not lost

    async def _finish_again(self, job_id: str, image_id: str, give_up: bool) -> None:
        try:
            finished = await self.imaging.finish(job_id, image_id)
        except Outage:
            raise
        except Exception as e:
            if not give_up:
                raise
            _log.error("an image is given up", job_id=job_id, image_id=image_id, exc_info=e)
            finished = None
        if finished is not None:
            await self._send("imaged", topics.IMAGED, [finished])
        elif give_up and (plan := await self.imaging.plan(job_id, image_id)) is not None:
            await self._fail(job_id, image_id, plan.image, plan.name, plan.job_size)

    async def _fail(
        self, job_id: str, image_id: str, image: str, name: str, job_size: int | None
    ) -> None:
        finished = await self.imaging.fail(
            job_id, image_id, image, name, Reason.INTERNAL, _FRUITLESS, job_size
        )
        if finished is not None:
            await self._send("given up", topics.IMAGED, [finished])

    async def _send(self, what: metrics.Redriven, topic: Topic, events: list[Event]) -> None:
        if events:
            metrics.redriven(what, len(events))
            await self.producer.send([Outgoing(topic, e) for e in events])
            crash_point("aggregator.redriven")
