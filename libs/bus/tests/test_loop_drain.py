"""How long a consumer waits for what it has in hand when its service is asked to stop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from frond.bus.consumer import _Loop
from frond.contracts import topics
from frond.runtime import Service, ServiceSettings


async def test_a_drain_is_as_long_as_the_settings_say() -> None:
    """FROND_DRAIN_S, but for what leaving takes."""
    asked: list[float] = []

    async def idle(limit_s: float) -> None:
        asked.append(limit_s)

    service = Service("copier", ServiceSettings(drain_s=120))
    loop = _Loop(service, topics.UPLOADED, cast(Any, None), 1, lambda _: False)
    loop.hands = cast(Any, SimpleNamespace(idle=idle))
    await loop._drain()
    assert asked == [service.settings.finish_s]
