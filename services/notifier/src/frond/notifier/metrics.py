"""The notifier's metrics, one list."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from frond.contracts.deliveries import Kind, State

REFUSED: Final = "refused"
"""Given up at the first word, as nothing would come of another try: the receiver wants no more, or where
it should go is no place to send to. That is the sender's of the job to mend; giving up after all tries may not be."""
ATTEMPTS: Final = Counter(
    "frond_delivery_attempts_total", "Attempts to deliver, by what they came to", ["kind", "state"]
)
# an alert on the increase of a series sees its first event only if it was there before
for _kind in Kind:
    for _state in (*State, REFUSED):
        ATTEMPTS.labels(_kind, _state)
PENDING: Final = Gauge("frond_deliveries_pending", "Deliveries that this process attends to")


def attempted(kind: Kind, answered: State, came_to: State) -> None:
    """Count an attempt, by its answer and by what its delivery came to with it."""
    ATTEMPTS.labels(kind, REFUSED if answered is State.GAVE_UP else came_to).inc()
