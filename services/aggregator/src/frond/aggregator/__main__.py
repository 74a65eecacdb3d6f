"""``python -m frond.aggregator``."""

from __future__ import annotations

from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.wiring import aggregate
from frond.runtime import serve


def main() -> None:
    """Run the aggregator until it is asked to stop."""
    serve("aggregator", AggregatorSettings(), [aggregate])


if __name__ == "__main__":
    main()
