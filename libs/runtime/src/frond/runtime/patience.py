"""Waiting while the broker, the object store or a model's server is away.

An outage is not an error of the work at hand: the work waits and goes on. Nothing else is
retried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from frond.contracts.errors import Outage
from frond.runtime.logs import get_logger

T = TypeVar("T")

_FIRST_S: Final = 0.2
_LONGEST_S: Final = 10.0
_log = get_logger(__name__)


async def wait_out(call: Callable[[], Awaitable[T]], *, what: str = "") -> T:
    """Call until whatever it needs answers, pausing 0.2 s, then twice as long, up to 10 s.

    Only an Outage is waited out; all else is raised at once. The call must be safe to repeat.
    """
    pause = _FIRST_S
    while True:
        try:
            return await call()
        except Outage as e:
            _log.warning("waiting for an outage to end", what=what, error=str(e), pause_s=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_S)
