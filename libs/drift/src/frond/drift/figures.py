"""How far two histograms are apart.

A window counts as one observation in all that is said of chance: its pixels are alike, and so are
its finds. Counted pixel by pixel, any two flights would differ beyond doubt.

Sources. Kolmogorov–Smirnov: N. Smirnov, Ann. Math. Statist. 19 (1948) 279; the correction for
small samples is M. A. Stephens', J. R. Statist. Soc. B 32 (1970) 115, as in Press et al.,
Numerical Recipes, 3rd ed., 14.3. On binned values the distance is at most that of the values
themselves: the test errs towards "no difference". Population stability index: N. Siddiqi, Credit
Risk Scorecards (2006), which also has the bounds 0.1 and 0.25; it is the sum of Kullback and
Leibler's divergences in both directions. Half a count in every group before (H. Jeffreys, 1946)
keeps it finite where one side has nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GROUPS: Final = 10
"""Tenths of the reference: PSI over many small bins grows with their number alone."""
_PRIOR: Final = 0.5
_TERMS: Final = 100


def shares(live: Sequence[int], reference: Sequence[int]) -> tuple[Floats, Floats]:
    """Both as shares of their sums, over the coarser one's bins.

    Raises:
        ValueError: one is empty, or their bins do not fit into each other.
    """
    a, b = np.asarray(live, np.float64), np.asarray(reference, np.float64)
    bins = min(len(a), len(b))
    if not bins or len(a) % bins or len(b) % bins:
        raise ValueError(f"{len(a)} and {len(b)} bins do not fit into each other")
    if not a.sum() or not b.sum():
        raise ValueError("a histogram of nothing")
    return _coarse(a, bins), _coarse(b, bins)


def ks(live: Sequence[int], reference: Sequence[int]) -> float:
    """The two-sample Kolmogorov–Smirnov statistic of two histograms: 0…1."""
    a, b = shares(live, reference)
    return min(1.0, float(np.abs(np.cumsum(a) - np.cumsum(b)).max()))


def ks_p(distance: float, n: int, m: int) -> float:
    """How likely samples of n and m observations of one distribution are as far apart."""
    x = _scaled(n, m) * distance
    if x < 0.2:
        return 1.0  # 1 − 10⁻¹²; the series needs many terms here
    total = sum(math.exp(-2 * (k * x) ** 2) * (1 if k % 2 else -1) for k in range(1, _TERMS))
    return min(1.0, max(0.0, 2 * total))


def ks_critical(alpha: float, n: int, m: int) -> float:
    """The distance at which :func:`ks_p` is ``alpha``, for alpha ≤ 0.1, by the series' first term."""
    return min(1.0, math.sqrt(-math.log(alpha / 2) / 2) / _scaled(n, m))


def psi(live: Sequence[int], reference: Sequence[int], n: int, m: int) -> float:
    """The population stability index over tenths of the reference, and what lies beyond its ends.

    Args:
        n, m: observations on either side: how little half a count weighs.
    """
    a, b = shares(live, reference)
    group = _groups(b)
    p, q = (_smooth(np.bincount(group, weights=v), k) for v, k in ((a, n), (b, m)))
    return max(0.0, float(((p - q) * np.log(p / q)).sum()))


def _scaled(n: int, m: int) -> float:
    root = math.sqrt(n * m / (n + m))
    return root + 0.12 + 0.11 / root


def _coarse(counts: Floats, bins: int) -> Floats:
    grouped: Floats = counts.reshape(bins, -1).sum(axis=1)
    made: Floats = grouped / grouped.sum()
    return made


def _groups(reference: Floats) -> NDArray[np.int64]:
    """Each bin's group: tenths by where a bin begins; the empty ends are groups of their own. So few
    bins that there is nothing to put together are groups each."""
    if len(reference) <= GROUPS:
        return np.arange(len(reference), dtype=np.int64)
    upto = np.cumsum(reference)
    begins = np.concatenate([[0.0], upto[:-1]])
    used = np.flatnonzero(reference)
    # the sums' rounding must not make a tenth begin a bin later
    group = 1 + np.minimum((begins * GROUPS + 1e-9).astype(np.int64), GROUPS - 1)
    group[: used[0]] = 0
    group[used[-1] + 1 :] = GROUPS + 1
    found: NDArray[Any] = np.unique(group, return_inverse=True)[1]
    return found.astype(np.int64)


def _smooth(of: NDArray[Any], n: int) -> Floats:
    made: Floats = (of * n + _PRIOR) / (n + _PRIOR * len(of))
    return made
