"""The notifier's metrics, one list."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from frond.contracts.deliveries import Kind, State

ATTEMPTS: Final = Counter(
    "frond_delivery_attempts_total", "Attempts to deliver, by what they came to", ["kind", "state"]
)
# an alert on the increase of a series sees its first event only if it was there before
for _kind in Kind:
    for _state in State:
        ATTEMPTS.labels(_kind, _state)
PENDING: Final = Gauge("frond_deliveries_pending", "Deliveries that this process attends to")
