"""What other programs took is told of what was measured beside them."""

from __future__ import annotations

import time

import pytest

import run
from neighbours import Neighbours


def test_an_instant_tells_nothing() -> None:
    """A share of a hundredth of a second is one of the kernel's ticks, not somebody's work."""
    assert [Neighbours().share() for _ in range(5)] == [None] * 5


def test_a_second_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the processors' time for others, in two seconds."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    busy, own = iter((10.0, 13.0)), iter((4.0, 5.0))
    monkeypatch.setattr("neighbours._busy", lambda: next(busy))
    monkeypatch.setattr("neighbours._own", lambda: next(own))
    share = Neighbours(began=time.monotonic() - 2).share()
    assert share == pytest.approx(0.5, rel=0.05)


def test_tables_given_together_were_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth over images measures both of its tables before it gives the first: what others took
    meanwhile holds for both."""
    shares = iter((0.25, None, 0.5))

    class _Beside:
        def share(self) -> float | None:
            return next(shares)

    monkeypatch.setattr(run, "Neighbours", _Beside)
    given = [([{"case": title}], {"title": title}) for title in ("a", "b", "c")]
    told = list(run.with_others(given))
    assert [lines for lines, _ in told] == [lines for lines, _ in given]
    assert [table["others"] for _, table in told] == [0.25, 0.25, 0.5]


def test_what_tells_nothing_is_not_told() -> None:
    """A first table that took no time has no share."""
    assert [table["others"] for _, table in run.with_others([([], {})])] == [None]
