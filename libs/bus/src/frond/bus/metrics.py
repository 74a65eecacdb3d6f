"""The bus's metrics, one list."""

from __future__ import annotations

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
