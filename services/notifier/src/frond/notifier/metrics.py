"""The notifier's metrics, one list."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

ATTEMPTS: Final = Counter(
    "frond_delivery_attempts_total", "Attempts to deliver, by what they came to", ["kind", "state"]
)
PENDING: Final = Gauge("frond_deliveries_pending", "Deliveries that this process attends to")
