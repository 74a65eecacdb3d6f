"""Waiting while the broker, the object store, the database or a model's server is away.

An outage is not an error of the work at hand: the work waits and goes on. Nothing else is
retried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from prometheus_client import Counter

from frond.contracts.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    ModelUnavailable,
    Outage,
    StoreUnavailable,
)
from frond.runtime.logs import get_logger

T = TypeVar("T")

_FIRST_S: Final = 0.2
_LONGEST_S: Final = 10.0
_KINDS: Final = {
    "store": StoreUnavailable, "broker": BrokerUnavailable, "database": DatabaseUnavailable,
    "model-server": ModelUnavailable,
}  # fmt: skip
_WAITS: Final = Counter(
    "frond_outage_waits_total",
    "Pauses of work that found something away: store, broker, database, model-server",
    ["of"],
)
# an alert on its increase sees the first pause, too
for _kind in _KINDS:
    _WAITS.labels(of=_kind)
_log = get_logger(__name__)


async def wait_out(call: Callable[[], Awaitable[T]], *, what: str = "") -> T:
    """Call until whatever it needs answers, pausing 0.2 s, then twice as long, up to 10 s.

    Only an Outage is waited out; all else is raised at once. The call must be safe to repeat.
    Each pause is counted in ``frond_outage_waits_total`` by what was away.
    """
    pause = _FIRST_S
    while True:
        try:
            return await call()
        except Outage as e:
            _log.warning("waiting for an outage to end", what=what, error=str(e), pause_s=pause)
            count_wait(e)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_S)


def count_wait(outage: Outage) -> None:
    """Count a pause that somebody makes in a loop of their own."""
    _tell(_kind_of(outage))


def count_wait_of(kind: str) -> None:
    """Count a pause of another process, by what that one told was away."""
    _WAITS.labels(of=kind).inc()


def pass_waits_on(tell: Callable[[str], None]) -> None:
    """From now on tell what was away, and count nothing: nobody asks this process for metrics."""
    global _tell
    _tell = tell


_tell: Callable[[str], None] = count_wait_of


def _kind_of(outage: Outage) -> str:
    return next((kind for kind, class_ in _KINDS.items() if isinstance(outage, class_)), "other")
