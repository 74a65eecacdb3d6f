"""Topics as they are made."""

from __future__ import annotations

import pytest

from frond.bus import ensure_topics
from frond.contracts.errors import BrokerUnavailable

pytestmark = pytest.mark.stack


async def test_on_as_many_brokers_as_were_asked_for(service_env: dict[str, str]) -> None:
    """Here is one: it says that it cannot hold two copies of an event, and so that two were asked for."""
    bootstrap, prefix = service_env["FROND_KAFKA_BOOTSTRAP"], service_env["FROND_TOPIC_PREFIX"]
    with pytest.raises(BrokerUnavailable, match="InvalidReplicationFactor"):
        await ensure_topics(bootstrap, prefix, replication_factor=2)
    await ensure_topics(bootstrap, prefix, replication_factor=1)
