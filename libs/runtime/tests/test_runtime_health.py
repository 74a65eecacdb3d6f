"""What becomes of a process once it is ready."""

from __future__ import annotations

import asyncio
import gc

from prometheus_client import REGISTRY

from frond.runtime.health import Health
from frond.runtime.service import _settle


async def test_what_is_there_when_all_is_ready_is_not_looked_through_again() -> None:
    """The garbage collector is left in peace until the last part is ready, and a part that becomes
    unready changes nothing of that."""
    health = Health()
    health.expect("broker")
    health.expect("store")
    before, thresholds = gc.get_freeze_count(), gc.get_threshold()
    settling = asyncio.create_task(_settle(health))
    try:
        health.ready("broker")
        await asyncio.sleep(0)
        assert not health.was_ready.is_set() and not settling.done()
        health.ready("store")
        await settling
        assert gc.get_freeze_count() > before
        health.unready("store", "away")
        assert health.was_ready.is_set()
    finally:
        settling.cancel()
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def test_a_scrape_tells_which_part_is_not_ready() -> None:
    """As /ready does: from the moment it is expected, and again whenever it is not."""
    health = Health()

    def told() -> float | None:
        return REGISTRY.get_sample_value("frond_ready", {"part": "a part of this test"})

    assert told() is None
    for change, ready in (
        (health.expect, 0), (health.ready, 1), (lambda part: health.unready(part, "away"), 0),
    ):  # fmt: skip
        change("a part of this test")
        assert told() == ready
