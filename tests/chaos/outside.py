"""Looking at an installation from outside: plain Kafka clients, plain listings, the drive itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from chaos.letters import READERS, Letter
from frond.contracts import keys, topics
from frond.contracts.envelope import Headers
from frond.contracts.topics import Topic
from frond.store import ObjectStore

MOMENTS: Final[dict[str, tuple[str, ...]]] = {
    "jobs/*/job.json": ("created",),
    "jobs/*/completed.json": ("timings", "started", "finished"),
    "jobs/*/names/*.json": ("by",),
}
"""Fields that tell when or by whom, not what: left out before an object is compared. All else in
these documents is compared."""

ACCIDENTS: Final = ("jobs/*/deliveries/*", "jobs/*/completed.headers.json", "models/*/aliases/*")
"""Objects whose bytes are a record of when and how often: they must be there as in the calm run,
but their bytes are not compared."""

COUNTED: Final = ("jobs/*/deliveries/*.attempts/*",)
"""Objects of which there are more the more often something was tried: neither counted as orphans
nor compared."""


FREE: Final = "jobs/*/names/*.json"
"""Names of images; without a byte it is one that was given back, and nobody's."""


@dataclass(frozen=True)
class Copy:
    """One message on ``completed``."""

    ce_id: str
    value: str
    headers: str
    event: dict[str, Any] | None
    """The event, of the first copy only: to keep memory small."""


def matches(key: str, patterns: tuple[str, ...] | list[str]) -> bool:
    return any(fnmatch(key, p) for p in patterns)


def job_of(key: str) -> str | None:
    """Whose job an object belongs to; None for those of no job."""
    head, _, rest = key.partition("/")
    if head in ("jobs", "uploads", "flights", "open", "deliveries", "untold", "deleted"):
        return rest.partition("/")[0]
    return None


def digest(key: str, data: bytes) -> bytes:
    """SHA-256 of an object, the fields of ``MOMENTS`` left out."""
    for pattern, fields in MOMENTS.items():
        if fnmatch(key, pattern):
            document = json.loads(data)
            for name in fields:
                document.pop(name, None)
            data = json.dumps(document, sort_keys=True).encode()
    return hashlib.sha256(data).digest()


async def digests(
    store: ObjectStore, wanted: Callable[[str], bool], said: Callable[[int], None]
) -> dict[str, bytes]:
    """The digest of each object, by key; empty bytes for those whose bytes are not compared."""
    found: dict[str, bytes] = {}
    slots = asyncio.Semaphore(24)

    async def read(key: str) -> None:
        async with slots:
            found[key] = digest(key, await store.get(key))
            said(len(found))

    batch: list[Awaitable[None]] = []
    async for item in store.list(""):
        if not wanted(item.key) or matches(item.key, COUNTED):
            continue
        if not item.size and fnmatch(item.key, FREE):
            continue
        if matches(item.key, ACCIDENTS):
            found[item.key] = b""
            continue
        batch.append(read(item.key))
        if len(batch) >= 500:
            await asyncio.gather(*batch)
            batch = []
    await asyncio.gather(*batch)
    return found


def unfinished_uploads(drive: Path) -> list[str]:
    """Multipart uploads that were begun and neither completed nor aborted, as the drive has them.

    MinIO lists them for exact keys only, so its folder is looked into.
    """
    if not (drive / ".minio.sys").is_dir():
        raise FileNotFoundError(f"{drive} is no drive of MinIO")
    root = drive / ".minio.sys" / "multipart"
    return sorted(str(p.relative_to(root)) for p in root.glob("*/*") if p.is_dir())


async def all_of(
    bootstrap: str, topic: Topic, take: Callable[[Any], None], within: float = 120
) -> None:
    """Hand over every message that a topic holds now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        parts = [TopicPartition(topic.name, p) for p in range(topic.partitions)]
        ends = await consumer.end_offsets(parts)
        begins = await consumer.beginning_offsets(parts)
        consumer.assign(parts)
        # before aiokafka looks up positions by itself
        for part in parts:
            consumer.seek(part, begins[part])
        async with asyncio.timeout(within):
            while any([await consumer.position(p) < ends[p] for p in parts]):
                for messages in (await consumer.getmany(timeout_ms=500)).values():
                    for message in messages:
                        take(message)
    finally:
        await consumer.stop()


async def completed_copies(bootstrap: str) -> dict[str, list[Copy]]:
    """Every message on ``completed``, by job."""
    copies: dict[str, list[Copy]] = {}

    def take(message: Any) -> None:
        headers = [(k, v or b"") for k, v in message.headers]
        try:
            event = json.loads(message.value)
            job_id = event["job_id"]
        except (ValueError, TypeError, KeyError):
            return  # rubbish that a scenario sent; whoever reads it must cope
        if not isinstance(job_id, str):
            return
        of_job = copies.setdefault(job_id, [])
        of_job.append(
            Copy(
                dict(headers).get("ce_id", b"").decode("utf-8", "replace"),
                hashlib.sha256(message.value).hexdigest(),
                headers_digest(headers),
                None if of_job else event,
            )
        )

    await all_of(bootstrap, topics.COMPLETED, take)
    return copies


def headers_digest(headers: Headers) -> str:
    """Of a message's headers, in whatever order."""
    return hashlib.sha256(repr(sorted(headers)).encode()).hexdigest()


def stored_headers(raw: bytes) -> str:
    """The digest of headers as they are stored beside a completed event."""
    return headers_digest([(str(k), str(v).encode()) for k, v in json.loads(raw)])


async def dead_letters(bootstrap: str) -> list[Letter]:
    """Every message on the dead-letter topic."""
    found: list[Letter] = []
    await all_of(bootstrap, topics.DEADLETTER, lambda m: found.append(Letter.read(m)))
    return found


async def lag(bootstrap: str) -> list[str]:
    """A line for each partition that a group has not committed to its end."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await admin.start()
    try:
        await consumer.start()
        stuck = []
        for group, read in READERS.items():
            committed = await admin.list_consumer_group_offsets(group)
            parts = [TopicPartition(t.name, p) for t in read for p in range(t.partitions)]
            stood = {part: told.offset for part, told in committed.items()}
            stuck += behind(group, stood, await consumer.end_offsets(parts))
        return stuck
    finally:
        await admin.close()
        await consumer.stop()


def behind(
    group: str, committed: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> list[str]:
    """A line for each partition that a group has not committed to its end."""
    return [
        f"{group} stands at {at} of {end} in {part.topic}/{part.partition}"
        for part, end in ends.items()
        if end > (at := max(committed.get(part, 0), 0))
    ]


async def unsettled(store: ObjectStore, bootstrap: str, mine: Callable[[str], bool]) -> list[str]:
    """A line for whatever is still under way: lag, and markers of open jobs and deliveries.

    Args:
        mine: which markers are looked at.
    """
    # in this order: a delivery's marker is there before the event's offset is committed
    left = await lag(bootstrap)
    for prefix in (keys.OPEN, keys.UNTOLD, keys.DELIVERIES):
        left += [f"still there: {i.key}" async for i in store.list(prefix) if mine(i.key)]
    return left
