"""When drift asks for training: after so many periods in succession, and once a rest."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from frond.contracts.drift import DriftVerdict
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.training.worker.drifted import DriftState, Policy, after

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
V = DriftVerdict
POLICY = Policy(periods=2, rest=timedelta(days=7))


def period(hour: float, verdict: DriftVerdict = V.DRIFTED, hours: float = 1) -> DriftObserved:
    started = START + hour * HOUR
    return DriftObserved(
        model=ModelRef(name="palm-detector", digest="ab" * 32), observer="0" * 32, number=1,
        started=started, ended=started + hours * HOUR, ended_by="time", windows=100,
        windows_run=400, verdict=verdict,
    )  # fmt: skip


def asked(*events: DriftObserved, policy: Policy = POLICY) -> list[int]:
    """Which of the events, each seen as it ended, asked for training."""
    state, found = DriftState(), []
    for n, event in enumerate(events):
        state, asks = after(state, event, policy, event.ended)
        # it survives the store
        state = DriftState.model_validate_json(state.model_dump_json())
        if asks:
            found.append(n)
    return found


def test_the_second_in_succession_asks() -> None:
    """Not the first; a period of which nothing can be said breaks nothing, a good one does."""
    assert asked(period(0)) == []
    assert asked(period(0), period(1)) == [1]
    assert asked(period(0), period(1, V.UNKNOWN), period(2)) == [2]
    for good in (V.STABLE, V.SHIFTING):
        assert asked(period(0), period(1, good), period(2)) == []
        assert asked(period(0), period(1, good), period(2), period(3)) == [3]
    assert asked(period(0), policy=Policy(periods=1)) == [0]


def test_periods_beside_each_other_are_one() -> None:
    """Four processes tell of one hour; however their periods lie, the next hour is the second."""
    beside = [period(0 + n / 10) for n in range(4)]
    assert asked(*beside) == []
    assert asked(*beside, *(period(1 + n / 10) for n in range(4))) == [4]


def test_a_period_that_comes_again_counts_once() -> None:
    """Delivered twice, or late: nothing changes."""
    for order in itertools.permutations([period(0), period(0), period(0)]):
        assert asked(*order) == []
    assert asked(period(3), period(1), period(2)) == []
    state = after(DriftState(), period(2, V.STABLE), POLICY, START + 3 * HOUR)[0]
    assert after(state, period(1), POLICY, START + 3 * HOUR) == (state, False)


def test_once_a_rest() -> None:
    """A hundred drifted hours ask once; after the rest, once more."""
    week = [period(n) for n in range(100)]
    assert asked(*week) == [1]
    assert asked(*week, period(200)) == [1, 100]
    assert asked(*(period(n) for n in range(340))) == [1, 169, 337]


@pytest.mark.parametrize(("ago", "asks"), [(0.0, True), (23.0, True), (25.0, False)])
def test_history_asks_for_nothing(ago: float, asks: bool) -> None:
    """Who is told to look for the first time finds months on the topic."""
    now = START + (2 + ago) * HOUR
    state = after(DriftState(), period(0), POLICY, now)[0]
    state, found = after(state, period(1), POLICY, now)
    assert found is asks and state.count == 2


def test_a_clock_that_runs_ahead_does_not_count() -> None:
    """A period of next year would hide all that come before it."""
    state, asks = after(DriftState(), period(9000), Policy(periods=1), START)
    assert state == DriftState() and not asks
