"""Topics are made explicitly, before any service starts: a topic that a broker makes on demand
gets other partitions, and Faust consumes nothing from one that was not there when it subscribed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import (
    InvalidPartitionsError,
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable, FrondError

_DEADLINE_S: Final = 60.0


class TopicMisfit(FrondError):
    """A topic that somebody else made, and that Frond can neither use nor change."""


async def ensure_topics(
    bootstrap: str,
    prefix: str = "",
    *,
    extra: Iterable[NewTopic] = (),
    replication_factor: int = 1,
) -> None:
    """Make every declared topic that is not there yet, and wait until the broker shows them.

    One that has fewer partitions than declared, since a broker made it on demand, is given more.

    Args:
        prefix: of this installation's topic names.
        extra: the aggregator's changelogs, already named.

    Raises:
        BrokerUnavailable: the broker did not answer within a minute.
        TopicMisfit: one that belongs to a table has another number of partitions than the table.
    """
    wanted = [
        NewTopic(t.named(prefix), t.partitions, replication_factor, topic_configs=t.settings())
        for t in topics.ALL
    ]
    fixed = {t.named(prefix) for t in topics.ALL if t.table}
    for changelog in extra:
        wanted.append(changelog)
        fixed.add(changelog.name)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=15_000)
            await admin.start()
            try:
                await _create(admin, wanted)
                await _fit(admin, {t.name: t.num_partitions for t in wanted}, fixed)
            finally:
                await admin.close()
    except (KafkaError, TimeoutError, OSError) as e:
        raise BrokerUnavailable(f"{bootstrap}: {type(e).__name__}: {e}") from e


async def _create(admin: AIOKafkaAdminClient, wanted: list[NewTopic]) -> None:
    there = set(await admin.list_topics())
    missing = [t for t in wanted if t.name not in there]
    if not missing:
        return
    response = await admin.create_topics(missing)
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {rest}")


async def _fit(admin: AIOKafkaAdminClient, wanted: dict[str, int], fixed: set[str]) -> None:
    """Wait until all are shown with as many partitions at least; those that are fixed, exactly."""
    while True:
        shown = await _partitions(admin, wanted)
        for name in sorted(fixed & shown.keys()):
            if shown[name] != wanted[name]:
                raise TopicMisfit(
                    f"Topic {name} has {shown[name]} partitions, and Frond's tables have "
                    f"{wanted[name]}. Stop all of Frond's services, delete the topic and start them "
                    "again: it is made anew, and what it held is made good from the store."
                )
        narrow = [name for name, count in wanted.items() if shown.get(name, count) < count]
        for name in narrow:
            # another service may have been faster
            with contextlib.suppress(InvalidPartitionsError):
                await admin.create_partitions({name: NewPartitions(wanted[name])})
        if not narrow and shown.keys() >= wanted.keys():
            return
        # creation is asynchronous in KRaft and nothing announces its end
        await asyncio.sleep(0.05)


async def _partitions(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """How many each topic has that the broker shows."""
    described = await admin.describe_topics(sorted(names))
    return {t["topic"]: len(t["partitions"]) for t in described if not t["error_code"]}
