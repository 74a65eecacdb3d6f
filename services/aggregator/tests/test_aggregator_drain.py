"""How long merges in hand may take when the aggregator is asked to stop."""

from __future__ import annotations

import pytest

from frond.aggregator import wiring
from frond.aggregator.settings import AggregatorSettings
from frond.runtime import Service


@pytest.mark.parametrize(("drain_s", "merging_s"), [(25, 12), (120, 107), (6, 1.5)])
async def test_a_drain_is_as_long_as_the_settings_say(
    drain_s: float, merging_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FROND_DRAIN_S, but for what Faust may take to stop, and for leaving."""
    asked: list[float] = []

    class Aggregator:
        def __init__(self, _: Service) -> None:
            pass

        async def start(self) -> bool:
            return False

        async def stop(self, patience_s: float) -> None:
            asked.append(patience_s)

    monkeypatch.setattr(wiring, "Aggregator", Aggregator)
    await wiring.aggregate(Service("aggregator", AggregatorSettings(drain_s=drain_s)))
    assert asked == [merging_s]
