"""COCO's run lengths: down the columns, zeros first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unpacked(counts: str) -> list[int]:
    """COCO's compressed run lengths as numbers."""
    runs: list[int] = []
    number = shift = 0
    for c in counts.encode("latin-1", "replace"):
        bits = c - 48
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs


def are_sound(shape: Mapping[str, Any]) -> bool:
    """Whether a ``segmentation`` of run lengths fills the image that it says it is of."""
    size, counts = shape.get("size"), shape.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(_whole, size))):
        return False
    runs = unpacked(counts) if isinstance(counts, str) else counts
    return (
        isinstance(runs, list)
        and all(map(_whole, runs))
        and sum(runs) == size[0] * size[1]
        and any(runs[1::2])
    )


def _whole(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= 0
