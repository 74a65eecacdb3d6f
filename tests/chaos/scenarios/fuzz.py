"""Any bytes on any topic while jobs flow, and every consumer's code under coverage-guided fuzzing.

Messages are golden events, changed in their structure, and plain rubbish. What they say of jobs is
of jobs called ``fuzz-…``, whose objects are nobody's; whom they would tell is nobody's address.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from chaos.world import World
from frond.contracts import topics
from frond.contracts.envelope import decode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.topics import Topic
from fuzz.mutate import mutate
from fuzz.raw import Raw, golden, pack, unpack

NAME: Final = "fuzz"
ABOUT: Final = (
    "Any bytes on any topic while jobs flow; every consumer under coverage-guided fuzzing"
)
_SHORT_MESSAGES: Final = 200
_BATCH: Final = 50
_LETTERS_WITHIN_S: Final = 180.0
_TARGET_S: Final = 45
_ROOT: Final = Path(__file__).parents[3]
_TARGETS: Final = (
    "tiler", "inference", "aggregator_images", "aggregator_jobs", "notifier", "readmodel", "arrow",
    "plan", "objects", "manifest", "multipart", "names", "deadletters",
)  # fmt: skip
# status and dead letters have no worker of their own: nothing may come of what is sent there
_WORKED_ON: Final = (
    topics.UPLOADED, topics.TILED, topics.DETECTED, topics.IMAGED, topics.COMPLETED,
)  # fmt: skip
_LINE: Final = re.compile(r"^fuzz target=(\S+) execs=(\d+) bytes=(\d+) found=(\d+)$", re.MULTILINE)
_Place = tuple[str, int, int]


async def run(world: World) -> None:
    """Rubbish between the events of jobs that must come out as if it were not there."""
    world.dead_letters = True
    world.strangers += [f"{p}/fuzz-*" for p in ("jobs", "open", "deliveries", "untold", "uploads")]
    stop = asyncio.Event()
    jobs = asyncio.create_task(world.feeder.keep_submitting(stop, at_once=2))
    guided = asyncio.create_task(_guided(world))
    unreadable: set[_Place] = set()
    try:
        sent = 0
        async with _producer(world) as producer:
            while sent < _SHORT_MESSAGES or (not world.short and world.time_left > 0):
                unreadable |= await _batch(world, producer)
                sent += _BATCH
                # as fast as it is digested, no faster: the jobs between are what is looked at
                await _letters(world, unreadable)
        stop.set()
        await jobs
        await guided
    finally:
        jobs.cancel()
        guided.cancel()
    await world.ended(within=600)


async def _batch(world: World, producer: AIOKafkaProducer) -> set[_Place]:
    """Send some messages to every topic; returns where those lie that must become dead letters."""
    prefix = world.installation.env.get("FROND_TOPIC_PREFIX", "")
    waiting = []
    for _ in range(_BATCH):
        topic = world.rng.choice(topics.ALL)
        for message in _messages(world.rng, topic):
            size = len(message.value or b"") + len(message.key or b"")
            world.figures.bytes_fuzzed += size + sum(
                len(k) + len(v or b"") for k, v in message.headers
            )
            world.figures.messages_fuzzed += 1
            future = await producer.send(
                topic.named(prefix), message.value,
                key=b"" if message.key is None and message.value is None else message.key,
                headers=list(message.headers),
            )  # fmt: skip
            waiting.append((topic, message, future))
    world.fault("bytes", messages=len(waiting))
    bad: set[_Place] = set()
    for topic, message, future in waiting:
        try:
            told = await future
        except KafkaError:
            continue  # the broker's own refusal: a compacted topic takes no message without a key
        if topic in _WORKED_ON and _is_unreadable(topic, message):
            bad.add((topic.name, told.partition, told.offset))
    return bad


def _is_unreadable(topic: Topic, message: Raw) -> bool:
    try:
        decode(topic, message.value, [(k, v or b"") for k, v in message.headers])
    except UnreadableEvent:
        return True
    return False


def _messages(rng: random.Random, topic: Topic) -> Iterator[Raw]:
    kind = rng.random()
    if kind < 0.1:
        yield Raw(rng.randbytes(rng.randrange(2000)), rng.randbytes(rng.randrange(40)))
    elif kind < 0.13:
        # as large as a topic takes
        yield Raw(b'{"job_id": "fuzz-big", "x": "' + b"x" * rng.randrange(10**5, 9 * 10**5) + b'"}')
    elif kind < 0.18:
        yield Raw(None, b"fuzz-tombstone")
    else:
        # events of another topic, too
        seeds = [pack([m]) for t in (topic, rng.choice(topics.ALL)) for m in golden(t)]
        if not seeds:
            seeds = [pack([Raw(b"{}", b"k", (("dlq_id", b"x"), ("dlq_mark", b"\xff")))])]
        for message in unpack(mutate(rng, rng.choice(seeds), 60_000, seeds)):
            headers = message.headers * rng.choice((1, 1, 1, 2))
            yield Raw(_of_nobody(message.value), message.key, headers)


def _of_nobody(value: bytes | None) -> bytes | None:
    """The value, about jobs of ours alone, and with addresses where nobody lives."""
    try:
        data = json.loads(value or b"")
    except (ValueError, RecursionError):
        return value
    if not isinstance(data, dict):
        return value
    for holder in (data, data.get("outcome")):
        if isinstance(holder, dict) and isinstance(holder.get("job_id"), str):
            holder["job_id"] = f"fuzz-{holder['job_id']}"
    if "webhook_url" in data:
        data["webhook_url"] = "http://127.0.0.1:9/nobody"
    if "email" in data:
        data["email"] = "nobody@example.invalid"
    return json.dumps(data).encode()


async def _letters(world: World, wanted: set[_Place]) -> None:
    """Wait until every unreadable message lies on the dead-letter topic, with its reason."""
    prefix = world.installation.env.get("FROND_TOPIC_PREFIX", "")
    name = topics.DEADLETTER.named(prefix)
    deadline = time.monotonic() + _LETTERS_WITHIN_S
    found: set[_Place] = set()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.installation.stack.direct.kafka_bootstrap,
        auto_offset_reset="earliest", group_id=None,
    )  # fmt: skip
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, p) for p in range(topics.DEADLETTER.partitions)])
        while wanted - found and time.monotonic() < deadline:
            for messages in (await consumer.getmany(timeout_ms=1000)).values():
                found.update(p for m in messages if (p := _place(m)) is not None)
    finally:
        await consumer.stop()
    for topic, partition, offset in sorted(wanted - found)[:20]:
        world.figures.lose(f"no dead letter of {topic}[{partition}]@{offset}")
    # told once is enough
    wanted.clear()


def _place(message: Any) -> _Place | None:
    told = {k: v.decode("utf-8", "replace") for k, v in message.headers if v is not None}
    if not told.get("dlq_reason") or not told.get("dlq_detail"):
        return None
    where = told.get("dlq_partition", ""), told.get("dlq_offset", "")
    return (told.get("dlq_topic", ""), int(where[0]), int(where[1])) if all(
        w.isascii() and w.isdigit() and len(w) < 19 for w in where
    ) else None  # fmt: skip


@asynccontextmanager
async def _producer(world: World) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=world.installation.stack.direct.kafka_bootstrap, max_request_size=1 << 20
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _guided(world: World) -> None:
    """The targets of tests/fuzz, one after the other, each for a while, as long as there is time."""
    seed = world.rng.randrange(1 << 30)
    targets = list(_TARGETS)
    random.Random(seed).shuffle(targets)
    for target in targets[:1] if world.short else targets:
        seconds = 3 if world.short else int(min(_TARGET_S, max(0, world.time_left)))
        if not seconds:
            return
        told = await _target(world, target, seconds, seed)
        m = _LINE.search(told)
        if m is None:
            if "skipped: atheris" in told:
                world.figures.notes.append(told.strip())
            else:
                # a crash of the interpreter, too much time or memory: libFuzzer's own ways out
                world.figures.lose(f"fuzz target {target} (seed {seed}) died: {told[-1500:]}")
            continue
        world.figures.messages_fuzzed += int(m.group(2))
        world.figures.bytes_fuzzed += int(m.group(3))
        if int(m.group(4)):
            world.figures.lose(f"fuzz target {target} (seed {seed}): {told[-1500:]}")


async def _target(world: World, target: str, seconds: int, seed: int) -> str:
    process = await asyncio.create_subprocess_exec(
        "nice", "-n", "10", sys.executable, "-m", "fuzz", target, "--seconds", str(seconds),
        "--seed", str(seed), "--found", str(world.installation.folder / "fuzz-found"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT / "tests")},
    )  # fmt: skip
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return out.decode("utf-8", "replace")
