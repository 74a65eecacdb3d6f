"""Drift: what a model's training data looked like, and how live windows compare with it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, model_validator

from frond.contracts.jobs import Contract, Figure, Sum

LEVELS: Final = 256
"""Values that a sample of a window has; the bins of a live histogram."""
SCORE_BINS: Final = 100
"""Of equal width, from 0 to 1."""
PARTS: Final = 1_000_000
"""What the counts of a histogram in ``model.yaml`` add up to."""
MOST_COUNTED: Final = 1 << 45
"""Of one histogram of an event: a hundred thousand of them add up in 62 bits."""
MOST_BANDS: Final = 64
"""Bands that are looked at, the model's first ones: an event of more would outgrow a message."""

Counts = Annotated[tuple[Sum, ...], Field(min_length=1, max_length=LEVELS)]


class DriftVerdict(StrEnum):
    """What is made of a comparison; from harmless to serious."""

    UNKNOWN = "unknown"
    """Too little was seen, or there is nothing to compare it with."""
    STABLE = "stable"
    SHIFTING = "shifting"
    """Plainly different; look at it."""
    DRIFTED = "drifted"
    """So different that the model's figures say nothing about these images."""

    @property
    def rank(self) -> int:
        """0 to 3, in this order."""
        return tuple(DriftVerdict).index(self)


class DriftBounds(Contract):
    """From where on a difference is one.

    Both tests must agree: PSI says how large it is, Kolmogorov–Smirnov whether it may be chance.
    """

    shifting: float = Field(default=0.1, gt=0, description="of PSI")
    drifted: float = Field(default=0.25, gt=0, description="of PSI")
    alpha: float = Field(
        default=0.01,
        gt=0,
        le=0.1,
        description="chance below which a distance is not put down to it",
    )
    windows: int = Field(
        default=50, ge=1, description="with fewer observations on either side nothing is said"
    )

    @model_validator(mode="after")
    def _drifted_is_more(self) -> DriftBounds:
        if self.drifted < self.shifting:
            raise ValueError(
                f"drifted ({self.drifted:g}) lies below shifting ({self.shifting:g}): it is the more "
                "serious one"
            )
        return self


class Compared(Contract):
    """A live distribution beside its reference. Figures are None where there is none to compare."""

    live: Counts = Field(description="counts by bin, of equal width over the range of values")
    reference: Counts | None = Field(
        default=None, description="of the training data; their sum is free"
    )
    values: Sum = Field(description="how many were counted: pixels, or scores")
    observed: Figure = Field(
        default=0, description="windows that values are of: what chance is judged by"
    )
    observed_reference: Figure = Field(default=0, description="the same of the reference")
    ks: float | None = Field(
        default=None, ge=0, le=1, description="two-sample Kolmogorov–Smirnov: the largest distance"
    )
    p: float | None = Field(
        default=None, ge=0, le=1,
        description="how likely so large a distance is by chance, each window counted once",
    )  # fmt: skip
    critical: float | None = Field(
        default=None, ge=0, description="the distance from which p is below the level asked for"
    )
    psi: float | None = Field(default=None, ge=0, description="population stability index")
    verdict: DriftVerdict = DriftVerdict.UNKNOWN

    @model_validator(mode="after")
    def _can_be_compared(self) -> Compared:
        if self.reference is None:
            return self
        a, b = sorted((len(self.live), len(self.reference)))
        if b % a:
            raise ValueError(f"{a} and {b} bins do not fit into each other")
        if not any(self.reference):
            raise ValueError("a reference of zeros alone is none")
        return self


class BandCompared(Compared):
    """One band's pixels."""

    band: int = Field(ge=1, description="1-based, of the raster")
