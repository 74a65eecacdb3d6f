"""``python -m frond.aggregator``."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Final

from frond.aggregator.progress import FaustCrashed
from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.wiring import aggregate
from frond.contracts.errors import BrokerUnavailable
from frond.runtime import Service, get_logger, serve

_PAUSE_S: Final = 1.0
_EXIT_S: Final = 15.0
_log = get_logger(__name__)


async def aggregating(service: Service) -> None:
    """The service's part: aggregate, in a fresh process whenever Faust has ended by itself.

    Faust ends at a commit that the broker does not answer. What is left of it (threads with a
    consumer of their own, tasks that are restarted when they are cancelled) can neither be trusted
    nor be ended, so the process is replaced by a fresh one under the same id, which waits for the
    broker.
    """
    try:
        await aggregate(service)
    except (FaustCrashed, BrokerUnavailable) as e:
        _log.error("starting afresh", error=repr(e))
        await asyncio.sleep(_PAUSE_S)
        if not service.stop.is_set():
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, "-m", "frond.aggregator"])  # noqa: S606
        raise
    finally:
        _exit_in_any_case()


def _exit_in_any_case() -> None:
    # a Faust that could not be stopped would keep the event loop from ending
    timer = threading.Timer(_EXIT_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def main() -> None:
    """Run the aggregator until it is asked to stop."""
    serve("aggregator", AggregatorSettings.read(), [aggregating])


if __name__ == "__main__":
    main()
