"""What an event compares, by name: one name a band and source of figures, and never two for one."""

from __future__ import annotations

from collections import Counter
from typing import Final

from frond.contracts.drift import Compared
from frond.contracts.events import DriftObserved

SCORES: Final = "scores"
FINDS: Final = "finds"
"""Windows without a find, and with one or more."""


def parts_of(event: DriftObserved) -> list[tuple[str, Compared]]:
    """Bands, scores and finds by name. A model may take one band of the raster more than once:
    what it is fed with then says which."""
    often = Counter(one.band for one in event.bands)
    told: list[tuple[str, Compared]] = [
        (f"band {one.band}" + (f" (input {n})" if often[one.band] > 1 else ""), one)
        for n, one in enumerate(event.bands, 1)
    ]
    rest = ((SCORES, event.scores), (FINDS, event.finds))
    return told + [(name, one) for name, one in rest if one is not None]
