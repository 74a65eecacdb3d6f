"""Kolmogorov–Smirnov and PSI against what they are by definition, and against the literature's figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.drift import DriftBounds, DriftVerdict
from frond.drift import compare
from frond.drift.figures import ks, ks_critical, ks_p, psi

histograms = st.lists(st.integers(0, 1000), min_size=16, max_size=16).filter(sum)


def brute(live: list[int], reference: list[int]) -> float:
    """The distance of the empirical distribution functions, from the values one by one."""
    a = np.repeat(np.arange(len(live)), live)
    b = np.repeat(np.arange(len(reference)), reference)
    return max(
        abs(np.searchsorted(a, x, "right") / len(a) - np.searchsorted(b, x, "right") / len(b))
        for x in range(len(live))
    )


@settings(max_examples=60, deadline=None)
@given(histograms, histograms)
def test_ks_is_the_largest_distance_of_the_distributions(a: list[int], b: list[int]) -> None:
    """As by its definition; symmetric, and 0 for a distribution and itself, however much of it."""
    assert ks(a, b) == pytest.approx(brute(a, b), abs=1e-12)
    assert ks(a, b) == pytest.approx(ks(b, a))
    assert ks(a, [7 * n for n in a]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "p"), [(0.8276, 0.5), (1.2238, 0.1), (1.3581, 0.05), (1.6276, 0.01), (1.9495, 0.001)]
)
def test_chance_is_that_of_the_tables(x: float, p: float) -> None:
    """The quantiles of Kolmogorov's distribution (Smirnov 1948), for very large samples."""
    n = 10**10
    assert ks_p(x / math.sqrt(n / 2), n, n) == pytest.approx(p, rel=2e-3)
    if p <= 0.1:
        assert ks_critical(p, n, n) * math.sqrt(n / 2) == pytest.approx(x, rel=2e-3)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 10**6))
def test_chance_falls_with_distance(d: float, e: float, n: int, m: int) -> None:
    """A probability, smaller for what is farther apart."""
    near, far = sorted((d, e))
    assert 1 >= ks_p(near, n, m) >= ks_p(far, n, m) - 1e-9 >= -1e-9


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_equal_distributions_are_rarely_called_different(seed: int) -> None:
    """Two samples of one distribution, counted one by one: no drift at the level of a thousandth."""
    rng = np.random.default_rng(seed)
    a, b = (np.bincount(rng.binomial(255, 0.4, 500), minlength=256).tolist() for _ in range(2))
    told = compare(a, b, (500, 500), DriftBounds(alpha=1e-6))
    assert told.verdict is DriftVerdict.STABLE
    assert told.p is not None and told.p > 1e-6


def test_psi_is_siddiqis() -> None:
    """By hand, over tenths: a tenth that doubles and one that goes."""
    reference = [10] * 10
    live = [20, 0, *[10] * 8]
    n = 10**9
    told = psi(live, reference, n, n)
    gone = 0.5 / n
    assert told == pytest.approx(
        (0.2 - 0.1) * math.log(2) + (gone - 0.1) * math.log(gone / 0.1), rel=1e-3
    )
    assert psi(reference, reference, 100, 100) == 0


@settings(max_examples=60, deadline=None)
@given(histograms, histograms, st.integers(1, 10**6), st.integers(1, 10**6))
def test_psi_is_finite_and_not_negative(a: list[int], b: list[int], n: int, m: int) -> None:
    """Also where one side has nothing of what the other has; 0 for a distribution and itself."""
    assert 0 <= psi(a, b, n, m) < 100
    assert psi(a, [3 * v for v in a], n, n) == pytest.approx(0, abs=1e-9)


def test_psi_sees_what_lies_beyond_the_references_ends() -> None:
    """Values that the training data never had do not hide in its outermost tenths."""
    reference = [0] * 64 + [10] * 128 + [0] * 64
    inside = [0] * 64 + [10] * 128 + [0] * 64
    inside[64] += 320
    below, above = [320, *reference[1:]], [*reference[:-1], 320]
    assert psi(below, reference, 1000, 1000) > 2 * psi(inside, reference, 1000, 1000)
    assert psi(above, reference, 1000, 1000) == pytest.approx(psi(below, reference, 1000, 1000))


@pytest.mark.parametrize("tenth", range(10))
def test_every_tenth_counts_by_itself(tenth: int) -> None:
    """Also where sums of tenths are not quite tenths: none is taken for its neighbour."""
    live = [10] * 10
    live[tenth], live[tenth - 1] = 15, 5
    known = [10, 10, 10, 10, 10, 10, 10, 10, 5, 15]
    assert psi(live, [10] * 10, 500, 500) == pytest.approx(psi(known, [10] * 10, 500, 500))


@pytest.mark.parametrize(
    ("n", "alpha", "distance"),
    [(10, 0.05, 0.40925), (10, 0.01, 0.48893), (20, 0.05, 0.29408), (20, 0.01, 0.35241)],
)
def test_small_samples_are_those_of_the_tables(n: int, alpha: float, distance: float) -> None:
    """L. H. Miller's critical values (1956) of one small sample; the other is as large as may be."""
    assert ks_critical(alpha, n, 10**12) == pytest.approx(distance, abs=2e-3)
    assert ks_p(distance, n, 10**12) == pytest.approx(alpha, rel=0.06)


def test_fewer_bins_in_the_reference_are_compared_on_them() -> None:
    """256 live bins against a reference of 64, of the same pixels."""
    rng = np.random.default_rng(3)
    live = rng.integers(0, 50, 256)
    reference = live.reshape(64, 4).sum(axis=1)
    assert ks(live.tolist(), reference.tolist()) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="fit"):
        ks([1] * 256, [1] * 100)


def shifted(by: int) -> list[int]:
    x = np.arange(256)
    return (1e6 * np.exp(-((x - 120 - by) ** 2) / (2 * 30**2))).astype(int).tolist()


@pytest.mark.parametrize(
    ("by", "windows", "verdict"),
    [
        (0, 500, "stable"),
        (4, 500, "stable"),
        (12, 500, "shifting"),
        (30, 500, "drifted"),
        (30, 49, "unknown"),
        # half a deviation is no news from so few windows, however many pixels those have
        (12, 60, "stable"),
    ],
)
def test_verdicts(by: int, windows: int, verdict: str) -> None:
    """A shift of brightness, in standard deviations of 30 levels."""
    told = compare(shifted(by), shifted(0), (windows, 4000), DriftBounds())
    assert told.verdict.value == verdict, told


def test_nothing_to_compare_is_not_stable() -> None:
    """Without a reference, or without one pixel, there are no figures and no verdict."""
    for live, reference in (([1, 2], None), ([0, 0], [1, 1])):
        told = compare(live, reference, (100, 100), DriftBounds())
        assert (told.ks, told.psi, told.p, told.verdict) == (None, None, None, "unknown")
