"""Parts of wholes that may be nothing, and their means."""

from __future__ import annotations

from collections.abc import Iterable


def share(part: float, whole: float) -> float | None:
    """``part`` of ``whole``; None where that is nothing."""
    return part / whole if whole else None


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None where none is."""
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there else None
