"""What makes a crash point's turn come, where jobs of the usual kinds do not pass it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from chaos import jobs, rasters, verdict
from chaos.armed import Armed
from chaos.compared import Compared
from chaos.guestbook import Wanted
from chaos.guests import DISMISSED, Guests
from chaos.hosting import COMPLETED, ONE, SOON_S
from chaos.installation import SECRET
from chaos.jobs import Door
from chaos.receiver import Mode, Receiver
from chaos.world import World
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from frond.contracts.topics import Topic

_RUBBISH: Final = b"\x00 no event"
_REBUILT_S: Final = 300.0
_ABANDONED_S: Final = 120.0
"""Longer than ``FROND_ABANDONED_SECONDS``."""


@dataclass
class _Gone:
    """A receiver that says 410, the job that it says it of, and when that was asked for again."""

    receiver: Receiver
    job_id: str
    replayed: float = float("inf")


class Occasions:
    """Brings about what only crash points need; a need that is not met raises."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.armed = Armed(world)
        self.guests = Guests(world)
        self.compared = Compared(world)
        self._gone: list[_Gone] = []

    async def never_sent(self) -> None:
        """An image that was recorded and not sent, by a client that waits for the sweeper."""
        guests = self.guests
        job_id = await guests.begun("never sent")
        fired = await self.armed.once("ingest.inputs-recorded")
        await guests.put(job_id, once=True)
        fired()

        async def seen() -> bool:
            answer = await guests.ask("GET", f"/jobs/{job_id}/images")
            return bool(answer.json()["images"])

        # by then the sweeper has had its turns
        await guests.book.until(seen, SOON_S / 3)
        await guests.put(job_id)
        await guests.seal(job_id)

    async def cancel_never_sent(self) -> None:
        """A cancellation that was stored and not sent, by a client that never comes back."""
        guests = self.guests
        job_id = await guests.begun("cancel never sent", ONE, (*COMPLETED, *DISMISSED))
        await guests.put(job_id)
        fired = await self.armed.once("ingest.cancel-stored")
        answered = await guests.try_once("POST", f"/jobs/{job_id}/cancel")
        if fired() or answered:
            await guests.book.acknowledge(job_id)
            await self.world.installation.ready(*self.world.installation.names("ingest"))
            await self.armed.fires("ingest.cancel-swept")
        else:
            await guests.seal(job_id)

    async def abandoned(self) -> None:
        """A form of a client that never comes back; the sweeper removes what it left."""
        fired = await self.armed.once("ingest.form-stored")
        await self.guests.form_once()
        fired()
        await self.armed.fires("ingest.abandoned-deleted", 2, _ABANDONED_S)

    async def new_database(self) -> None:
        """The read model's database is lost while nobody uses it, and made anew."""
        here = self.world.installation
        names = here.names("ingest")
        here.stop(*names)
        try:
            for file in here.folder.glob("ingest*.sqlite*"):
                file.unlink()
            self.world.fault("database")
        finally:
            here.start(*names)
        await here.ready(*names)
        # rows of many jobs take their time, and a database that is lost again begins anew
        await self.armed.fires("ingest.rebuilt", 1, _REBUILT_S)

    async def many_chunks(self) -> None:
        """An image of several batches; its job is cancelled once the point has fired."""
        job_id = await self.guests.many_chunks()
        await self.armed.fires("tiler.batch-sent", 2, SOON_S)
        await self.guests.drop(job_id)

    async def wrong_roster(self) -> None:
        """A job whose stored roster has not the images that it has; what is left is the
        reconciler's."""
        guests = self.guests
        wanted = [Wanted("a.tif"), Wanted("b.tif")]
        names = [w.name for w in wanted]
        job_id = await guests.new("wrong roster", wanted, brought=names)
        self.world.robbed.add(job_id)
        await guests.bring(job_id, {n: rasters.small(i) for i, n in enumerate(names)})
        store = self.world.installation.store()
        wrong = {"cancelled": False, "size": 2, "images": base64.b64encode(bytes(16)).decode()}
        await store.put(f"{keys.job_prefix(job_id)}closing.json", json.dumps(wrong).encode())
        store.close()
        at = f"s3://{jobs.BUCKET}/guests/{job_id}/"
        await self.world.feeder.send(
            [ImageUploaded(job_id=job_id, image=at + n, name=n, job_size=2) for n in names]
        )
        await guests.book.acknowledge(job_id)
        await self.world.watch.end_of([job_id], 2 * SOON_S)

    async def gone(self) -> None:
        """A receiver of its own that wants no more, of a later job neither, and is there again when
        a replay asks it. It listens until :meth:`judge`."""
        receiver = Receiver(SECRET)
        receiver.behave(Mode.GONE)
        job_id = await self._given_up("gone", receiver)
        gone = _Gone(receiver, job_id)
        self._gone.append(gone)
        await self._given_up("gone before", receiver)
        receiver.behave(Mode.OK)
        gone.replayed = time.time()
        heads = {"Idempotency-Key": job_id}
        await self.guests.ask("POST", f"/jobs/{job_id}/webhooks/replay", headers=heads)
        await self._webhooks_are(job_id, ["gave-up", "delivered"])

    async def _given_up(self, kind: str, receiver: Receiver) -> str:
        guests = self.guests
        job_id = await guests.begun(kind, webhook=receiver.url)
        await guests.put(job_id)
        await guests.seal(job_id)
        await guests.ended(job_id)
        await self._webhooks_are(job_id, ["gave-up"])
        return job_id

    def judge(self) -> None:
        """What the receivers got that say 410; they are closed."""
        noted, figures = self.world.oracle.noted, self.world.figures
        causes = verdict.causes(noted)
        # who dies once it is noted has heard it
        heard = verdict.causes(n for n in noted if n.get("point") != "notifier.gone-noted")
        for one in self._gone:
            one.receiver.close()
            got = one.receiver.deliveries
            verdict.gone(figures, one.job_id, got, replayed=one.replayed, spans=heard)
            if one.replayed < float("inf"):
                mine = one.receiver.of(one.job_id)
                verdict.notices(figures, one.job_id, mine, asked=True, least=1, spans=causes)
        self._gone.clear()

    async def _webhooks_are(self, job_id: str, wanted: list[str]) -> None:
        states: list[str] = []

        async def so() -> bool:
            answer = await self.guests.ask("GET", f"/jobs/{job_id}/webhooks")
            states[:] = sorted((w["state"] for w in answer.json()["webhooks"]), reverse=True)
            return states == sorted(wanted, reverse=True)

        assert await self.guests.book.until(so, 2 * SOON_S), f"{job_id}: {states}, not {wanted}"

    async def lost_chunks(self) -> None:
        """A job whose chunks are lost: inference's offsets are set past them while it is down."""
        here = self.world.installation
        names = here.names("inference")
        here.stop(*names)
        try:
            # while nobody is in the group, anybody may commit for it
            await asyncio.sleep(float(here.env["FROND_SESSION_TIMEOUT_S"]) + 1)
            plan = self.world.feeder.next(door=Door.TOPIC_SIZE, images=1, side=1300, bad=0)
            self.world.robbed.add(plan.job_id)
            await self.world.feeder.submit(plan)
            await self.world.progress(topics.TILED, 1)
            store = here.store()
            image = plan.image_id(plan.images[0])
            while not await store.exists(keys.image_plan(plan.job_id, image)):
                await self.world.watch.any_change(0.3)
            store.close()
            await asyncio.sleep(1.0)
            await _skip_to_end(here.stack.direct.kafka_bootstrap, "frond.inference", topics.TILED)
            self.world.fault("offsets", group="frond.inference")
        finally:
            here.start(*names)
        await self.world.watch.end_of([plan.job_id], 2 * SOON_S)

    async def rubbish(self, topic: Topic) -> None:
        """A message that is no event, nor names one."""
        await self.guests.rubbish(topic, b"rubbish", _RUBBISH)


async def _skip_to_end(bootstrap: str, group: str, topic: Topic) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        parts = [TopicPartition(topic.name, p) for p in range(topic.partitions)]
        consumer.assign(parts)
        await consumer.commit(await consumer.end_offsets(parts))
    finally:
        await consumer.stop()


Need = Callable[[Occasions], Awaitable[object]]


def _guest(name: str) -> Need:
    return lambda occasions: getattr(occasions.guests, name)()


def _compared(name: str) -> Need:
    return lambda occasions: getattr(occasions.compared, name)()


def _rubbish(topic: Topic) -> Need:
    return lambda occasions: occasions.rubbish(topic)


_NEEDS: Final[dict[str, Need]] = {
    "ingest.turn-taken": _guest("form_with_key"),
    "ingest.answer-kept": _guest("form_with_key"),
    "ingest.form-marked": _guest("form"),
    "ingest.piece-written": _guest("form"),
    "ingest.part-sent": _guest("form_large"),
    "ingest.file-stored": _guest("form"),
    "ingest.form-stored": _guest("form"),
    "ingest.form-named": _guest("form"),
    "ingest.manifest-stored": _guest("form"),
    "ingest.copies-deleted": _guest("form_twice"),
    "ingest.form-unmarked": _guest("form"),
    "ingest.claim-stored": _guest("form_into_open"),
    "ingest.input-recorded": _guest("form_into_open"),
    "ingest.parts-begun": _guest("parts"),
    "ingest.parts-noted": _guest("parts"),
    "ingest.parts-joined": _guest("parts"),
    "ingest.parts-forgotten": _guest("parts"),
    "ingest.parts-dropped": _guest("parts_given_up"),
    "ingest.misfit-deleted": _guest("misfit"),
    "ingest.misfit-released": _guest("misfit"),
    "ingest.retry-spec-stored": _guest("retried"),
    "ingest.retry-manifest-stored": _guest("retried"),
    "ingest.refusal-recorded": _guest("refused"),
    "ingest.refused-recorded": _guest("refused"),
    "ingest.refused-sent": _guest("refused"),
    "ingest.cancel-stored": _guest("cancelled"),
    "ingest.cancel-told": _guest("cancelled"),
    "ingest.cancel-sent": _guest("cancelled"),
    "ingest.tombstone-stored": _guest("deleted"),
    "ingest.uploads-deleted": _guest("deleted"),
    "ingest.objects-deleted": _guest("deleted"),
    "ingest.job-deleted": _guest("deleted"),
    "ingest.status-cleared": _guest("deleted"),
    "ingest.round-taken": _guest("replayed"),
    "ingest.replay-stored": _guest("replayed_by_two"),
    "ingest.replay-marked": _guest("replayed"),
    "ingest.swept": lambda occasions: occasions.never_sent(),
    "ingest.cancel-swept": lambda occasions: occasions.cancel_never_sent(),
    "ingest.remembered": lambda occasions: occasions.new_database(),
    "ingest.rebuilt": lambda occasions: occasions.new_database(),
    "ingest.abandoned-deleted": lambda occasions: occasions.abandoned(),
    "tiler.seal-stored": _compared("sealed_on_topic"),
    "tiler.cancel-stored": _guest("cancelled"),
    "tiler.spec-completed": _compared("told_late"),
    "tiler.cog-stored": _compared("wide"),
    "tiler.batch-sent": lambda occasions: occasions.many_chunks(),
    "tiler.ledger-told": _guest("botched"),
    "tiler.buried": _rubbish(topics.UPLOADED),
    "inference.buried": _rubbish(topics.TILED),
    "aggregator.failure-noted": _compared("broken"),
    "aggregator.chunk-counted": _compared("several_chunks"),
    "aggregator.image-forgotten": _compared("several_chunks"),
    "aggregator.buried": _rubbish(topics.DETECTED),
    "aggregator.roster-deleted": lambda occasions: occasions.wrong_roster(),
    "aggregator.redriven": lambda occasions: occasions.lost_chunks(),
    "notifier.untold-dropped": _guest("forgotten"),
    "notifier.gone-noted": lambda occasions: occasions.gone(),
    "notifier.gone-forgotten": lambda occasions: occasions.gone(),
    "notifier.buried": _rubbish(topics.COMPLETED),
}
_FLOW: Final = {True: _compared("by_rest"), False: _compared("by_topic")}


def need_of(point: str) -> Need:
    """What makes this point's turn come: by default a job of the usual kind, by its door."""
    return _NEEDS.get(point) or _FLOW[point.startswith("ingest.")]
