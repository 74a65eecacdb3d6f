"""What the broker says of ends and commits: the ground for telling standstill from waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from frond.contracts.errors import BrokerUnavailable
from frond.contracts.topics import Topic

_DEADLINE_S: Final = 15.0

Ends = Mapping[TopicPartition, int]


class Offsets:
    """Asks the broker, over connections of its own: a consumer's may be busy, or dead."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._asking = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None

    async def ends(self, topics: Iterable[Topic]) -> dict[TopicPartition, int]:
        """The offset after the last message of each partition, those of open transactions included:
        what lies behind them is sent, and cannot be read yet.

        Raises:
            BrokerUnavailable: no answer within 15 s.
        """
        return await self._ask(topics, lambda consumer, of: consumer.end_offsets(of))

    async def begins(self, topics: Iterable[Topic]) -> dict[TopicPartition, int]:
        """The offset of the first message that each partition still has.

        Raises:
            BrokerUnavailable: no answer within 15 s.
        """
        return await self._ask(topics, lambda consumer, of: consumer.beginning_offsets(of))

    async def _partitions(self, names: list[str]) -> list[TopicPartition]:
        """Those that are there, not those that were declared: to ask for others is to wait in vain."""
        found: list[TopicPartition] = []
        for topic in await (await self._administrator()).describe_topics(names):
            if topic["error_code"]:
                raise for_code(topic["error_code"])(topic["topic"])
            found += [TopicPartition(topic["topic"], p["partition"]) for p in topic["partitions"]]
        return found

    async def _administrator(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
            self._admin = admin
            await admin.start()
        return self._admin

    async def _ask(
        self,
        topics: Iterable[Topic],
        question: Callable[[AIOKafkaConsumer, list[TopicPartition]], Awaitable[Ends]],
    ) -> dict[TopicPartition, int]:
        names = sorted({t.named(self._prefix) for t in topics})
        async with self._asking:
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    if self._consumer is None:
                        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap)
                        self._consumer = consumer
                        await consumer.start()
                    return dict(await question(self._consumer, await self._partitions(names)))
            except (KafkaError, TimeoutError, OSError) as e:
                await self._drop()
                raise BrokerUnavailable(f"{self._bootstrap}: {e!r}") from e

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """Where each partition's reading would go on; partitions never committed are not there.

        Raises:
            BrokerUnavailable: no answer within 15 s.
        """
        async with self._asking:
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    admin = await self._administrator()
                    found = await admin.list_consumer_group_offsets(group)
                    return {p: o.offset for p, o in found.items() if o.offset >= 0}
            except (KafkaError, TimeoutError, OSError) as e:
                await self._drop()
                raise BrokerUnavailable(f"{self._bootstrap}: {e!r}") from e

    async def first_from(self, partition: TopicPartition, offset: int) -> int:
        """The first offset with a message from this one on; the partition has one at its end.

        Raises:
            BrokerUnavailable: no answer within 15 s.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await consumer.start()
                consumer.assign([partition])
                consumer.seek(partition, offset)
                return int((await consumer.getone(partition)).offset)
        except (KafkaError, TimeoutError, OSError) as e:
            raise BrokerUnavailable(f"{self._bootstrap}: {e!r}") from e
        finally:
            await consumer.stop()

    async def done(self, group: str, topics: Iterable[Topic]) -> dict[TopicPartition, int]:
        """Up to where nothing is left for a group in each partition: what it has committed, and what
        retention has removed, which nobody will ever commit.

        Raises:
            BrokerUnavailable: no answer within 15 s.
        """
        begins, committed = await self.begins(topics), await self.committed(group)
        return {p: max(begin, committed.get(p, 0)) for p, begin in begins.items()}

    async def lag(self, group: str, topic: Topic) -> tuple[int, dict[int, int]]:
        """How many messages a group has not done, and by partition up to where it has.

        Raises:
            BrokerUnavailable: no answer within 15 s.
        """
        ends, done = await self.ends([topic]), await self.done(group, [topic])
        lag = sum(max(0, end - done[p]) for p, end in ends.items())
        return lag, {p.partition: at for p, at in done.items()}

    async def close(self) -> None:
        """Disconnect."""
        async with self._asking:
            await self._drop()

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        endings = [c.stop() for c in (consumer,) if c] + [a.close() for a in (admin,) if a]
        for ending in endings:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await asyncio.wait_for(ending, 5)


def behind(ends: Ends, done: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    """Partitions that hold messages up to ``ends`` which are not done."""
    return [p for p, end in ends.items() if end > done.get(p, 0)]
