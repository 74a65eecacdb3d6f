"""Topics are made explicitly, before any service starts: a topic that a broker makes on demand
gets other partitions, and Faust consumes nothing from one that was not there when it subscribed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable

_DEADLINE_S: Final = 60.0


async def ensure_topics(
    bootstrap: str,
    prefix: str = "",
    *,
    extra: Iterable[NewTopic] = (),
    replication_factor: int = 1,
) -> None:
    """Make every declared topic that is not there yet, and wait until the broker shows them.

    Args:
        prefix: of this installation's topic names.
        extra: further topics, already named, such as the aggregator's changelogs.

    Raises:
        BrokerUnavailable: the broker did not answer within a minute.
    """
    wanted = [
        NewTopic(t.named(prefix), t.partitions, replication_factor, topic_configs=t.settings())
        for t in topics.ALL
    ]
    wanted.extend(extra)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=15_000)
            await admin.start()
            try:
                await _create(admin, wanted)
                await _visible(admin, {t.name for t in wanted})
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


async def _visible(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    while True:
        shown = {
            t["topic"] for t in await admin.describe_topics(sorted(names)) if not t["error_code"]
        }
        if shown >= names:
            return
        # creation is asynchronous in KRaft and nothing announces its end
        await asyncio.sleep(0.05)
