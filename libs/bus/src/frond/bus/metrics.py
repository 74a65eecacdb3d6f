"""The bus's metrics, one list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

HANDLED: Final = Counter(
    "frond_events_handled_total", "Events handled to the end", ["topic", "type"]
)
DEAD: Final = Counter(
    "frond_dead_letters_total", "Messages sent to the dead-letter topic", ["topic"]
)
HANDLING: Final = Histogram(
    "frond_event_seconds", "From taking an event up to its effects being durable, its results sent", ["topic"],
    buckets=(0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300),
)  # fmt: skip
IN_FLIGHT: Final = Gauge(
    "frond_events_in_flight",
    "Events being handled, and those whose results are being sent",
    ["topic"],
)
AHEAD: Final = Gauge("frond_events_read_ahead", "Events read and waiting their turn", ["topic"])
LAG: Final = Gauge("frond_consumer_lag", "Messages behind the end", ["topic", "partition"])


class Lags:
    """What one consumer shows of how far behind it is: its own partitions, and no others.

    A partition that went to another worker is shown no more: its last value would stand there for
    ever, and count twice in a sum over workers.
    """

    def __init__(self) -> None:
        self._shown: set[tuple[str, str]] = set()

    def show(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Show these, by topic and partition, in place of those of the last call."""
        labels = {(topic, str(partition)): lag for (topic, partition), lag in lags.items()}
        for gone in self._shown - labels.keys():
            LAG.remove(*gone)
        for at, lag in labels.items():
            LAG.labels(*at).set(max(0, lag))
        self._shown = set(labels)
