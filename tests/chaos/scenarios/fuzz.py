"""Any bytes on any topic while jobs flow, and every consumer's code under coverage-guided fuzzing.

Messages are golden events, changed in their structure, and plain rubbish. What they say of jobs is
of jobs of their own, whose objects are nobody's; whom they would tell is nobody's address.
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
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chaos.jobs import FUZZ
from chaos.letters import Place
from chaos.world import World
from frond.contracts import topics
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
_TARGET_S: Final = 120.0
_LEAST_S: Final = 15.0
_ROOT: Final = Path(__file__).parents[3]
_TARGETS: Final = (
    "tiler", "inference", "aggregator_images", "aggregator_jobs", "notifier", "training", "drift",
    "readmodel", "arrow", "plan", "objects", "manifest", "multipart", "names", "deadletters",
)  # fmt: skip
_LINE: Final = re.compile(r"^fuzz target=(\S+) execs=(\d+) bytes=(\d+) found=(\d+)$", re.MULTILINE)


async def run(world: World) -> None:
    """Rubbish between the events of jobs that must come out as if it were not there."""
    world.strangers += [f"{p}/{FUZZ}*" for p in ("jobs", "open", "deliveries", "untold", "uploads")]
    guided = asyncio.create_task(_guided(world))
    missing: set[Place] = set()
    try:
        sent = 0
        async with world.feeder.flowing(2), _producer(world) as producer:
            while sent < _SHORT_MESSAGES or (not world.short and world.time_left > 0):
                await _batch(world, producer)
                sent += _BATCH
                # as fast as it is digested, no faster: the jobs between are what is looked at
                missing |= await _letters(world, missing)
        await guided
    finally:
        guided.cancel()
    await world.ended(within=600)


async def _batch(world: World, producer: AIOKafkaProducer) -> None:
    """Send some messages to every topic, and note where each lies."""
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
            key = b"" if message.key is None and message.value is None else message.key
            headers = [(k, v or b"") for k, v in message.headers]
            future = await producer.send(
                topic.named(prefix), message.value, key=key, headers=headers
            )
            waiting.append((topic, key, message.value, headers, future))
    world.fault("bytes", messages=len(waiting))
    for topic, key, value, headers, future in waiting:
        # the broker's own refusal: a compacted topic takes no message without a key
        with suppress(KafkaError):
            told = await future
            world.rubbish.sent(topic, told.partition, told.offset, key, value, headers)


def _messages(rng: random.Random, topic: Topic) -> Iterator[Raw]:
    kind = rng.random()
    if kind < 0.1:
        yield Raw(rng.randbytes(rng.randrange(2000)), rng.randbytes(rng.randrange(40)))
    elif kind < 0.13:
        # as large as a topic takes
        yield Raw(
            f'{{"job_id": "{FUZZ}big", "x": "'.encode()
            + b"x" * rng.randrange(10**5, 9 * 10**5)
            + b'"}'
        )
    elif kind < 0.18:
        yield Raw(None, f"{FUZZ}tombstone".encode())
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
            holder["job_id"] = f"{FUZZ}{holder['job_id']}"
    if "webhook_url" in data:
        data["webhook_url"] = "http://127.0.0.1:9/nobody"
    if "email" in data:
        data["email"] = "nobody@example.invalid"
    return json.dumps(data).encode()


async def _letters(world: World, missing: set[Place]) -> set[Place]:
    """Wait until what is no event was buried; returns where that lies which was not in time.

    Whether it is ever, and how, is told by the verdict.
    """
    deadline = time.monotonic() + _LETTERS_WITHIN_S
    while left := world.rubbish.awaited() - world.watch.buried - missing:
        if time.monotonic() > deadline:
            return left
        await world.watch.any_change(1.0)
    return set()


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
    """The targets of tests/fuzz, one after the other, each its share of the time."""
    seed = world.rng.randrange(1 << 30)
    targets = list(_TARGETS)
    random.Random(seed).shuffle(targets)
    least = max(3.0, _LEAST_S * world.scale)
    for n, target in enumerate(targets[:1] if world.short else targets):
        share = world.time_left / (len(targets) - n)
        seconds = 3 if world.short else round(min(_TARGET_S, max(least, share)))
        told = await _target(world, target, seconds, seed)
        m = _LINE.search(told)
        if m is None:
            if "skipped: atheris" in told:
                world.figures.notes.append(told.strip())
            else:
                # a crash of the interpreter, too much time or memory: libFuzzer's own ways out
                world.figures.lose(f"fuzz target {target} (seed {seed}) died: {told[-1500:]}")
            continue
        world.figures.inputs_fuzzed += int(m.group(2))
        world.figures.bytes_guided += int(m.group(3))
        if int(m.group(4)):
            world.figures.lose(f"fuzz target {target} (seed {seed}): {told[-1500:]}")


async def _target(world: World, target: str, seconds: int, seed: int) -> str:
    process = await asyncio.create_subprocess_exec(
        "nice", "-n", "10", sys.executable, "-m", "fuzz", target, "--seconds", str(seconds),
        "--seed", str(seed), "--found", str(world.installation.folder / "fuzz-found"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(_ROOT / p) for p in ("tests", "training/src"))},
    )  # fmt: skip
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return out.decode("utf-8", "replace")
