"""What was seen of windows, as counts: bounded, and the same however it is put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.drift import LEVELS, MOST_BANDS, SCORE_BINS

Ints = NDArray[np.int64]
_TOP: Final = 255


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Counts over some windows. Adding is associative and commutative, and nothing grows by it but
    numbers: 2 kB a band, 64 bands at most.

    Attributes:
        bands: [bands, 256]: pixels by value.
        scores: [100]: scores from 0 to 1.
        windows: that were looked at.
        run: that were run, looked at or not.
        scored: of those looked at: whose scores were counted.
        with_finds: of those: with a score that counts, or more. None of a segmentation, which has
            scores everywhere.
    """

    bands: Ints
    scores: Ints
    windows: int = 0
    run: int = 0
    scored: int = 0
    with_finds: int = 0

    @classmethod
    def empty(cls, bands: int) -> Tally:
        """Of nothing, for a model of so many bands."""
        return cls(
            np.zeros((min(bands, MOST_BANDS), LEVELS), np.int64), np.zeros(SCORE_BINS, np.int64)
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.bands + other.bands,
            self.scores + other.scores,
            self.windows + other.windows,
            self.run + other.run,
            self.scored + other.scored,
            self.with_finds + other.with_finds,
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Tally)
            and self.bands.shape == other.bands.shape
            and bool((self.bands == other.bands).all() and (self.scores == other.scores).all())
            and self._windows == other._windows
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def _windows(self) -> tuple[int, ...]:
        return (self.windows, self.run, self.scored, self.with_finds)

    @property
    def pixels(self) -> int:
        """Of one band."""
        return int(self.bands[0].sum())


def score_counts(scores: NDArray[np.float32], floor: float) -> Ints:
    """Scores by bin; those below ``floor`` are left out."""
    kept = scores[scores >= floor]
    bins = np.minimum((kept * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS).astype(np.int64)


def byte_score_counts(scores: NDArray[np.uint8]) -> Ints:
    """The same of scores in 255ths."""
    by_value = np.bincount(scores, minlength=_TOP + 1)
    return np.bincount(_BIN_OF_BYTE, weights=by_value, minlength=SCORE_BINS).astype(np.int64)


_BIN_OF_BYTE: Final = np.minimum(np.arange(_TOP + 1) * SCORE_BINS // _TOP, SCORE_BINS - 1)
