"""``python -m frond.aggregator``."""

from __future__ import annotations

import os
import sys
import time

from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.wiring import FaustCrashed, aggregate
from frond.contracts.errors import BrokerUnavailable
from frond.runtime import Service, serve

_PAUSE_S = 1.0


def main() -> None:
    """Run the aggregator until it is asked to stop.

    Faust ends at a commit that the broker does not answer. What is left of it in the process (a
    thread with a consumer of its own that may join the group again) cannot be trusted, so the
    process is replaced by a fresh one under the same id, which waits for the broker.
    """
    lost: list[Exception] = []

    async def aggregating(service: Service) -> None:
        try:
            await aggregate(service)
        except (FaustCrashed, BrokerUnavailable) as e:
            lost.append(e)
            raise

    try:
        serve("aggregator", AggregatorSettings(), [aggregating])
    except SystemExit:
        if not lost:
            raise
        time.sleep(_PAUSE_S)
        os.execv(sys.executable, [sys.executable, "-m", "frond.aggregator"])  # noqa: S606


if __name__ == "__main__":
    main()
