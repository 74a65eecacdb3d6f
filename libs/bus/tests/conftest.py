"""What tests of the bus share."""

from __future__ import annotations

import pytest

from frond.bus import ensure_topics
from frond.runtime import ServiceSettings


@pytest.fixture
async def settings(service_env: dict[str, str]) -> ServiceSettings:
    """Of a service on topics of the test's own, which are there."""
    made = ServiceSettings(
        kafka_bootstrap=service_env["FROND_KAFKA_BOOTSTRAP"],
        topic_prefix=service_env["FROND_TOPIC_PREFIX"],
    )
    await ensure_topics(made.kafka_bootstrap, made.topic_prefix)
    return made
