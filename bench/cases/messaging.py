"""The events' way alone: four topics, handlers that do nothing, against bare aiokafka."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

import scale
from contenders.hop import CHAIN, GIVEN, SOURCE
from frond.bus import ensure_topics
from frond.contracts.envelope import encode
from frond.stack.testing import delete_topics
from harness import ROOT, Contender, entry, interleave
from proc import cpu_s
from system import System, contender

OWN = ("aiokafka", "pydantic", "numpy")
_EVENTS, _WARM, _TARGET, _CAP_S = 20_000, 500, 0.5, 300.0
_HOPS = len(CHAIN) - 1

ABOUT = f"""\
{_EVENTS:,} events from `frond.uploaded.v1` over `frond.tiled.v1` and `frond.detected.v1` to
`frond.completed.v1`: topics with their real partitions, events of the contracts' own kinds and sizes
(the golden ones), {_HOPS} hops, each a process. The first hop is held back until all events lie on the
first topic; timed is from there until the last one is read from the last topic. Warmed up before.

- **Frond**: `frond.bus.consume` with handlers that return the next event and do nothing else. Each
  event is parsed and validated, handled as its job's turn comes, encoded, acknowledged, and then
  committed in order; 4 at once as inference does, and 64.
- **bare aiokafka, at least once**: a consume-process-produce loop: up to 500 messages, sent, all
  acknowledged, offsets committed once a second. Bytes of the next event's size go out; nothing is parsed.
- **bare aiokafka, transactional**: the same, a transaction a batch, offsets in it. Frond has no
  transactional kind (its handlers may run twice), so this row is judged against nothing.

All with `acks=all`, readers `read_committed`, and the garbage collector settled as the services do it;
bare aiokafka with `linger_ms=2`, Frond without lingering: its batches form while the one before is on its
way. *CPU s* is that of the hops.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document."""
    number = scale.count(_EVENTS, 2 * _WARM)
    with System("messaging", "none") as system:
        chain = _Chain(system, number)
        every = [
            contender("Frond, 4 at once", lambda: chain.measure("frond", 4)),
            contender("Frond, 64 at once", lambda: chain.measure("frond", 64)),
            contender("bare aiokafka, at least once", lambda: chain.measure("at-least-once", 1)),
            contender("bare aiokafka, transactional", lambda: chain.measure("transactional", 1)),
        ]
        interleave(every, long_s=float("inf"))
    what = f"{number:,} events over {_HOPS} hops"
    lines = [
        entry(
            "messaging", f"{what}, events/s, {one.name}, vs {every[2].name}", one, every[2],
            "seconds", "s", _TARGET,
        )
        for one in every[:2]
    ]  # fmt: skip
    yield scale.marked(lines, _table(f"Messaging: {what}", every, number))


def _table(title: str, every: list[Contender], number: int) -> dict[str, Any]:
    rows = [
        {
            "contender": c.name, "over": c.over, "seconds": c.median("seconds"),
            "spread": c.spread("seconds"), "CPU s": c.median("cpu"),
            "events/s": number / s if (s := c.median("seconds")) else None,
            "rounds": len(c.rounds),
        }
        for c in every
    ]  # fmt: skip
    return {"title": title, "rows": rows, "plot": "seconds"}


class _Chain:
    """Measures one kind of chain, on topics of its own each time."""

    def __init__(self, system: System, number: int) -> None:
        self._env = system.env
        self._bootstrap = system.env["FROND_KAFKA_BOOTSTRAP"]
        self._number = number
        self._times = 0

    async def measure(self, kind: str, at_once: int) -> dict[str, Any]:
        self._times += 1
        prefix = f"m{self._times}-"
        await ensure_topics(self._bootstrap, prefix)
        try:
            async with self._hops(kind, at_once, prefix) as hops, self._last(prefix) as last:
                await self._feed(prefix, range(_WARM))
                await _seen(last, _WARM)
                first = hops[0]
                await _say(first, "shut")
                await _heard(first, "shut")
                await self._feed(prefix, range(_WARM, _WARM + self._number))
                cpu, began = _cpu(hops), time.perf_counter()
                await _say(first, "open")
                await _seen(last, self._number)
                return {"seconds": time.perf_counter() - began, "cpu": _cpu(hops) - cpu}
        finally:
            await asyncio.to_thread(delete_topics, self._bootstrap, prefix)

    @asynccontextmanager
    async def _hops(self, kind: str, at_once: int, prefix: str) -> Any:
        env = {**os.environ, **self._env, "FROND_TOPIC_PREFIX": prefix}
        env["PYTHONPATH"] = str(ROOT / "bench")
        hops = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "contenders.hop", kind, str(hop), str(at_once), env=env,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
            for hop in range(_HOPS)
        ]  # fmt: skip
        try:
            for hop in hops:
                await _heard(hop, "ready")
            yield hops
        finally:
            for hop in hops:
                if hop.returncode is None:
                    hop.kill()
                await hop.wait()

    @asynccontextmanager
    async def _last(self, prefix: str) -> Any:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed",
        )  # fmt: skip
        await consumer.start()
        try:
            name, partitions = CHAIN[-1].named(prefix), range(CHAIN[-1].partitions)
            consumer.assign([TopicPartition(name, p) for p in partitions])
            yield consumer
        finally:
            await consumer.stop()

    async def _feed(self, prefix: str, numbers: range) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", linger_ms=5)
        await producer.start()
        try:
            sent = []
            for n in numbers:
                event = GIVEN[0].model_copy(update={"job_id": f"bench-{n:07d}"})
                m = encode(event, source=SOURCE, key=event.job_id)
                sent.append(
                    await producer.send(
                        CHAIN[0].named(prefix), m.value, key=m.key, headers=m.headers
                    )
                )
            await asyncio.gather(*sent)
        finally:
            await producer.stop()


async def _seen(last: AIOKafkaConsumer, number: int) -> None:
    """Return when so many different events have been read; one that came twice counts once."""
    keys: set[bytes] = set()
    async with asyncio.timeout(_CAP_S):
        while len(keys) < number:
            for messages in (await last.getmany(timeout_ms=200)).values():
                keys.update(m.key for m in messages)


async def _say(hop: asyncio.subprocess.Process, word: str) -> None:
    assert hop.stdin is not None
    hop.stdin.write(f"{word}\n".encode())
    await hop.stdin.drain()


async def _heard(hop: asyncio.subprocess.Process, word: str) -> None:
    assert hop.stdout is not None
    async with asyncio.timeout(60):
        while line := await hop.stdout.readline():
            if line.decode().strip() == word:
                return
    raise RuntimeError(f"a hop ended before it was {word}")


def _cpu(hops: Sequence[asyncio.subprocess.Process]) -> float:
    return sum(cpu_s(hop.pid) for hop in hops)
