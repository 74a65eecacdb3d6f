"""One hop of the messaging chain, a process: ``hop.py KIND NUMBER AT_ONCE``, with FROND_* set.

Says ``ready`` when it has its partitions. Lines on stdin open and shut its gate: what it has read
waits at it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from frond.bus import EventProducer, Outgoing, consume
from frond.contracts import topics
from frond.contracts.envelope import Envelope, encode
from frond.contracts.events import Event
from frond.contracts.golden import GOLDEN
from frond.runtime import Service, ServiceSettings, settle
from frond.runtime.logs import configure_logs

CHAIN = (topics.UPLOADED, topics.TILED, topics.DETECTED, topics.COMPLETED)
GIVEN = (
    GOLDEN["image-uploaded-full"], GOLDEN["chunk-planned"], GOLDEN["chunk-detected"],
    GOLDEN["job-completed"],
)  # fmt: skip
SOURCE = "/frond/bench"
_BATCH, _COMMIT_EVERY_S = 500, 1.0


def made(hop: int, event: Event) -> Event:
    """What a handler that does nothing makes of an event: the next kind's, of its own identity."""
    own = event.job_id
    n = f"{int(own.rpartition('-')[2]):032x}"
    return GIVEN[hop + 1].model_copy(update={"job_id": own, "image_id": n, "chunk_id": n})


async def frond(hop: int, at_once: int, gate: asyncio.Event) -> None:
    """``frond.bus.consume`` as the services call it, ``at_once`` events at a time."""
    settings = ServiceSettings()
    configure_logs("bench", "WARNING")
    service = Service(f"hop-{hop}", settings)
    producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, SOURCE)
    await producer.start()

    async def handle(envelope: Envelope) -> list[Outgoing]:
        await gate.wait()
        return [Outgoing(CHAIN[hop + 1], made(hop, envelope.event))]

    loop = asyncio.create_task(
        consume(service, CHAIN[hop], handle, producer=producer, concurrency=at_once)
    )
    await asyncio.sleep(0)
    await _until(lambda: loop.done() or not service.health.waiting_for)
    print("ready", flush=True)
    await loop


async def bare(hop: int, transactional: bool, gate: asyncio.Event) -> None:
    """The loop of aiokafka's documentation: a batch, its answers, its offsets. Bytes in, bytes out."""
    settings = ServiceSettings()
    group, out = f"{settings.topic_prefix}bare-{hop}", CHAIN[hop + 1].named(settings.topic_prefix)
    value = encode(GIVEN[hop + 1], source=SOURCE).value
    consumer = AIOKafkaConsumer(
        CHAIN[hop].named(settings.topic_prefix), bootstrap_servers=settings.kafka_bootstrap,
        group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed",
    )  # fmt: skip
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=2,
        transactional_id=group if transactional else None,
    )  # fmt: skip
    await consumer.start()
    await producer.start()
    await _until(lambda: bool(consumer.assignment()))
    print("ready", flush=True)
    committed = time.monotonic()

    async def send(got: dict[Any, list[Any]]) -> None:
        sent = [
            await producer.send(out, value, key=m.key, headers=list(m.headers))
            for messages in got.values()
            for m in messages
        ]
        await asyncio.gather(*sent)

    while True:
        got = await consumer.getmany(timeout_ms=500, max_records=_BATCH)
        await gate.wait()
        if got and transactional:
            async with producer.transaction():
                await send(got)
                ends = {p: messages[-1].offset + 1 for p, messages in got.items()}
                await producer.send_offsets_to_transaction(ends, group)
            continue
        await send(got)
        # as often as Frond does
        if not transactional and time.monotonic() - committed >= _COMMIT_EVERY_S:
            await consumer.commit()
            committed = time.monotonic()


async def _until(there: Callable[[], bool]) -> None:
    while not there():  # noqa: ASYNC110 # neither aiokafka nor health tells of it
        await asyncio.sleep(0.02)


async def main(kind: str, hop: int, at_once: int) -> None:
    gate = asyncio.Event()
    gate.set()

    def told() -> None:
        line = sys.stdin.readline()
        if line.strip() == "shut":
            gate.clear()
            print("shut", flush=True)
        else:
            gate.set()

    asyncio.get_running_loop().add_reader(sys.stdin, told)
    # as every service does once it is ready; the bare loop has the benefit, too
    settle()
    if kind == "frond":
        await frond(hop, at_once, gate)
    else:
        await bare(hop, kind == "transactional", gate)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
