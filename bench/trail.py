"""When the events of each job were sent, read back from the topics after the measurement."""

from __future__ import annotations

import json
from collections import defaultdict

from aiokafka import AIOKafkaConsumer, TopicPartition

from frond.contracts import topics

WAY = (topics.UPLOADED, topics.TILED, topics.DETECTED, topics.IMAGED, topics.COMPLETED)


async def trails(bootstrap: str) -> dict[str, dict[str, float]]:
    """Of each job, by topic in the order of the way: when its last event there was sent (seconds
    since the epoch, by its producer's clock). A job without an event on each of them is left out."""
    seen: dict[str, dict[str, float]] = defaultdict(dict)
    for topic in WAY:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            every = [TopicPartition(topic.name, p) for p in range(topic.partitions)]
            ends = await consumer.end_offsets(every)
            consumer.assign(every)
            await consumer.seek_to_beginning()
            left = {p for p in every if ends[p]}
            while left:
                for place, messages in (await consumer.getmany(timeout_ms=500)).items():
                    for message in messages:
                        if message.value:
                            job = json.loads(message.value).get("job_id", "")
                            # other events of the job lie there, too: a seal comes early
                            at = max(seen[job].get(topic.name, 0.0), message.timestamp / 1e3)
                            seen[job][topic.name] = at
                    if await consumer.position(place) >= ends[place]:
                        left.discard(place)
        finally:
            await consumer.stop()
    return {job: at for job, at in seen.items() if len(at) == len(WAY)}
