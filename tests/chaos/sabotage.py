"""Harm done on purpose, to see that the verdict notices: ``SABOTAGE=all``, or kinds by name.

After a scenario, when nothing is open any more, each kind does one real thing to one job of the real
installation, as a bug of Frond would have done. A run in which one of them goes unnoticed proves
nothing; one in which all are noticed ends with status 1, like any run in which something is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from aiokafka import AIOKafkaProducer
from standardwebhooks import Webhook

from chaos import outside
from chaos.figures import Figures
from chaos.installation import SECRET
from chaos.jobs import Bad, JobPlan
from chaos.world import World
from frond.contracts import keys, topics
from frond.contracts.topics import Topic
from frond.store import ObjectStore

_WITHIN_S: Final = 120.0


@dataclass(frozen=True)
class Harm:
    """What was done in a scenario; ``about`` must stand in what the verdict says of it."""

    kind: str
    about: str

    def noticed(self, figures: Figures) -> bool:
        """Whether the verdict has counted it as what it is."""
        figure = KINDS[self.kind].figure
        return any(d.startswith(f"{figure}: ") and self.about in d for d in figures.details)


@dataclass(frozen=True)
class Kind:
    """One way of doing harm.

    Attributes:
        figure: which of the last three figures must count it.
        done: what has been done, in words.
        do: does it to a job; returns what the verdict's sentence must name.
    """

    figure: str
    done: str
    do: Callable[[World, ObjectStore, JobPlan], Awaitable[str]]


def kinds(named: str) -> tuple[str, ...]:
    """Of a comma-separated list, or ``all``."""
    if named.strip() == "all":
        return tuple(KINDS)
    found = tuple(n.strip() for n in named.split(",") if n.strip())
    for name in found:
        if name not in KINDS:
            raise SystemExit(f"There is no sabotage {name!r}. There are: {', '.join(KINDS)}.")
    return found


async def harm(world: World, wanted: tuple[str, ...]) -> list[Harm]:
    """Do these, each to a job of its own as far as there are enough."""
    await world.ended()
    store = world.installation.store()
    try:
        async with asyncio.timeout(_WITHIN_S):
            while left := await outside.unsettled(store, _bootstrap(world), lambda _: True):
                world.say(f"{len(left)} not settled")
                await asyncio.sleep(0.5)  # commits and markers announce themselves to nobody
        jobs = [world.oracle.plans[j] for j in sorted(world.oracle.acknowledged)]
        done = []
        for i, name in enumerate(wanted):
            plan = jobs[i % len(jobs)]
            done.append(Harm(name, await KINDS[name].do(world, store, plan)))
            world.oracle.note("sabotage", kind=name, about=done[-1].about)
        return done
    finally:
        store.close()


def _bootstrap(world: World) -> str:
    return world.installation.stack.direct.kafka_bootstrap


async def _chunk(_: World, store: ObjectStore, plan: JobPlan) -> str:
    image = next(plan.image_id(p) for p in plan.images if p.bad is Bad.NO)
    key = (await anext(store.list(keys.chunks_prefix(plan.job_id, image)))).key
    await store.delete(key)
    return key


async def _artifact(_: World, store: ObjectStore, plan: JobPlan) -> str:
    await store.delete(keys.result(plan.job_id, "coco.json"))
    return keys.result(plan.job_id, "coco.json")


async def _image(_: World, store: ObjectStore, plan: JobPlan) -> str:
    key = keys.result(plan.job_id, "summary.json")
    summary = json.loads(await store.get(key))
    gone = summary["images"].pop()
    await store.put(key, json.dumps(summary).encode(), "application/json")
    return f"{plan.job_id}: image {gone['name']} is not in the summary"


async def _orphan(_: World, store: ObjectStore, plan: JobPlan) -> str:
    key = keys.image_outcome(plan.job_id, "0" * 32)
    await store.put(key, b"{}", "application/json")
    return key


async def _buried(world: World, _: ObjectStore, plan: JobPlan) -> str:
    """A message of a job that cannot be read: whoever it was for never gets it."""
    value = f'{{"job_id": "{plan.job_id}", "image'.encode()
    told = await _send(world, topics.TILED, plan.job_id.encode(), value, [])
    return f"{topics.TILED.name}/{told.partition}@{told.offset}"


async def _ending(world: World, _: ObjectStore, plan: JobPlan) -> str:
    """The completed event once more, under another id."""
    seen: list[Any] = []
    key = plan.job_id.encode()

    def take(message: Any) -> None:
        if message.key == key:
            seen.append(message)

    await outside.all_of(_bootstrap(world), topics.COMPLETED, take)
    headers = [(k, b"0" * 32 if k == "ce_id" else v) for k, v in seen[0].headers]
    await _send(world, topics.COMPLETED, key, seen[0].value, headers)
    return f"{plan.job_id} has completed events of 2 different ids"


async def _webhook(world: World, _: ObjectStore, plan: JobPlan) -> str:
    """The same webhook once more, which nobody but the sabotage has asked for."""
    await world.feeder.ask("POST", f"/jobs/{plan.job_id}/webhooks/replay")
    async with asyncio.timeout(_WITHIN_S):
        while len(world.receiver.of(plan.job_id)) < 2:
            await world.watch.any_change(0.3)  # the receiver is a thread of its own
    return f"{plan.job_id}: its webhook was taken, and came again"


async def _stranger(world: World, _: ObjectStore, plan: JobPlan) -> str:
    """A webhook, well signed, for a job that is none."""
    job_id, now = f"{plan.job_id}-of-nobody", datetime.now(UTC)
    body = json.dumps({"type": "job.completed", "data": {"job_id": job_id}})
    headers = {
        "webhook-id": "nobody", "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("nobody", now, body),
    }  # fmt: skip
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        (await http.post(world.receiver.url, content=body, headers=headers)).raise_for_status()
    return f"a webhook came for job {job_id!r}"


async def _death(world: World, _store: ObjectStore, _plan: JobPlan) -> str:
    """A service is killed as the kernel kills one that takes too much memory."""
    name = world.installation.names("tiler")[0]
    pid = world.installation.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(_WITHIN_S):
        while world.installation.pid(name) == pid:
            await world.watch.any_change(0.1)
    return f"{name} died by itself: SIGKILL"


async def _byte(_: World, store: ObjectStore, plan: JobPlan) -> str:
    """One digit of a coordinate."""
    key = keys.result(plan.job_id, "coco.json")
    data = bytearray(await store.get(key))
    at = data.index(b'"bbox"')
    while not chr(data[at]).isdigit():
        at += 1
    data[at] = ord("1") if data[at] != ord("1") else ord("2")
    await store.put(key, bytes(data), "application/json")
    return key


async def _send(
    world: World, topic: Topic, key: bytes, value: bytes, headers: list[tuple[str, bytes]]
) -> Any:
    producer = AIOKafkaProducer(bootstrap_servers=_bootstrap(world))
    await producer.start()
    try:
        return await producer.send_and_wait(topic.name, value, key=key, headers=headers)
    finally:
        with contextlib.suppress(Exception):
            await producer.stop()


KINDS: Final[dict[str, Kind]] = {
    "chunk": Kind("lost", "a chunk's result is deleted", _chunk),
    "artifact": Kind("lost", "a job's coco.json is deleted", _artifact),
    "image": Kind("lost", "an image is taken out of a job's summary", _image),
    "orphan": Kind("lost", "an object is stored that no job has", _orphan),
    "buried": Kind("lost", "a message is sent that ends as a dead letter", _buried),
    "ending": Kind("doubled", "a completed event is sent again under another id", _ending),
    "webhook": Kind("doubled", "a webhook is made once more", _webhook),
    "byte": Kind("different", "one byte of a job's coco.json is changed", _byte),
    "death": Kind("lost", "a service is killed by somebody else", _death),
    "stranger": Kind("doubled", "a webhook is made for a job that nobody submitted", _stranger),
}
