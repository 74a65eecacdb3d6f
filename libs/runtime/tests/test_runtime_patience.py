"""An outage is waited out, and an operator can see which one it is."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from frond.contracts.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    ModelUnavailable,
    ObjectMissing,
    Outage,
    StoreFull,
    StoreUnavailable,
)
from frond.runtime import wait_out


def waits(of: str) -> float | None:
    return REGISTRY.get_sample_value("frond_outage_waits_total", {"of": of})


@pytest.mark.parametrize(
    ("outage", "of"),
    [
        (StoreUnavailable("away"), "store"),
        (StoreFull("full"), "store"),
        (BrokerUnavailable("away"), "broker"),
        (DatabaseUnavailable("away"), "database"),
        (ModelUnavailable("away", told="away"), "model-server"),
        (Outage("away"), "other"),
    ],
)
async def test_a_pause_is_counted_by_what_was_away(outage: Outage, of: str) -> None:
    """Once for each pause; what answers then is given back."""
    before = waits(of) or 0.0
    left = [outage]

    async def call() -> str:
        if left:
            raise left.pop()
        return "done"

    assert await wait_out(call) == "done"
    assert waits(of) == before + 1


def test_what_nobody_waited_for_is_zero() -> None:
    """An increase can be told only from a series that is there before it."""
    assert None not in {waits(of) for of in ("store", "broker", "database", "model-server")}


async def test_what_is_no_outage_is_raised() -> None:
    """At once, and not counted."""
    before = waits("store")

    async def call() -> None:
        raise ObjectMissing("no such object")

    with pytest.raises(ObjectMissing):
        await wait_out(call)
    assert waits("store") == before
