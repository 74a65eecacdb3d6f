"""Periods: which windows are told of together, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from drift_support import manifest, ref
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts import topics
from frond.contracts.drift import (
    LEVELS,
    MOST_COUNTED,
    SCORE_BINS,
    BandCompared,
    Compared,
    DriftBounds,
    DriftVerdict,
)
from frond.contracts.envelope import decode, encode
from frond.contracts.events import DriftObserved
from frond.contracts.topics import MAX_MESSAGE_BYTES
from frond.drift import Length, Periods, Tally
from frond.drift.naming import parts_of
from frond.drift.periods import MOST_MODELS

OBSERVER = "0f" * 16
BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


class Clock:
    """A wall clock that is set, beside seconds that go on."""

    def __init__(self) -> None:
        self.now = BEGAN
        self.gone = 1e6

    def __call__(self) -> datetime:
        return self.now

    def steady(self) -> float:
        return self.gone

    def on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.gone += seconds

    def set(self, step: timedelta) -> None:
        self.now += step


def periods_of(
    clock: Clock, length: Length | None = None, bounds: DriftBounds | None = None
) -> Periods:
    return Periods(OBSERVER, clock, clock.steady, length, bounds)


def tally(windows: int, value: int = 7, bands: int = 1) -> Tally:
    bins = np.zeros((bands, LEVELS), np.int64)
    bins[:, value] = 10 * windows
    scores = np.zeros(SCORE_BINS, np.int64)
    scores[60] = windows
    return Tally(bins, scores, windows, 4 * windows, windows, windows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 30), st.floats(0, 400), st.floats(-1e8, 1e8)),
        max_size=40,
    )
)
def test_every_window_is_told_of_exactly_once(steps: list[tuple[int, int, float, float]]) -> None:
    """Whatever comes when, of which model, with clocks set by years: the sums are those that went in,
    and an event is of the time that it was when it came about."""
    clock = Clock()
    periods = periods_of(clock, Length(300, 50))
    told: list[DriftObserved] = []
    went: dict[str, int] = {}
    for model, windows, seconds, step in steps:
        clock.on(seconds)
        clock.set(timedelta(seconds=step))
        went[ref(model).digest] = went.get(ref(model).digest, 0) + windows
        ended = periods.saw(ref(model), manifest(), tally(windows))
        assert all(e.ended == clock.now for e in ended)
        told += ended
    told += periods.stop()
    assert periods.stop() == []
    came: dict[str, int] = {}
    for event in told:
        came[event.model.digest] = came.get(event.model.digest, 0) + event.windows
        assert event.windows_run == 4 * event.windows
        assert sum(event.bands[0].live) == 10 * event.windows == event.bands[0].values
        assert timedelta(0) <= event.ended - event.started <= timedelta(seconds=40 * 400)
        assert event.windows < 50 + 30
    assert came == went
    assert len({e.event_id for e in told}) == len(told)


def test_a_period_ends_by_time_or_by_windows() -> None:
    """Whichever comes first; time is noticed without another window."""
    clock = Clock()
    periods = periods_of(clock, Length(60, 100))
    assert periods.saw(ref(0), manifest(), tally(99)) == []
    (full,) = periods.saw(ref(0), manifest(), tally(1))
    assert (full.ended_by, full.windows) == ("windows", 100)
    clock.on(1)
    periods.saw(ref(0), manifest(), tally(3))
    clock.on(59)
    assert periods.due() == []
    clock.on(1)
    (late,) = periods.due()
    assert (late.ended_by, late.windows, late.started) == ("time", 3, BEGAN + timedelta(seconds=1))


@pytest.mark.parametrize("step", [timedelta(days=-365), timedelta(days=365)])
def test_a_clock_set_by_a_year_ends_periods_all_the_same(step: timedelta) -> None:
    """Neither early nor never; what ends afterwards is of now, with the length that it had, and two
    periods that began at one time by the clock are two events."""
    clock = Clock()
    periods = periods_of(clock, Length(60, 1000))
    told = []
    for change in (step, -step, timedelta(0)):
        assert periods.saw(ref(0), manifest(), tally(3)) == []
        clock.on(59)
        clock.set(change)
        assert periods.due() == []
        clock.on(1)
        (event,) = periods.due()
        assert (event.ended_by, event.ended) == ("time", clock.now)
        assert event.ended - event.started == timedelta(seconds=60)
        told.append(event)
        clock.set(-timedelta(seconds=60))
    assert told[1].started == told[2].started
    assert len({e.event_id for e in told}) == len(told) == 3


def test_models_do_not_mix() -> None:
    """Two models' windows are told of apart; of too many models, the one that rests longest ends."""
    clock = Clock()
    periods = periods_of(clock, Length())
    for n in range(MOST_MODELS):
        assert periods.saw(ref(n), manifest(), tally(1, value=n)) == []
    periods.saw(ref(0), manifest(), tally(1, value=0))
    (ended,) = periods.saw(ref(99), manifest(), tally(1))
    assert (ended.model, ended.ended_by) == (ref(1), "room")
    assert ended.bands[0].live[1] == 10


def test_what_looks_like_the_training_data_is_stable_and_else_it_is_not() -> None:
    """Bands and scores have verdicts of their own, and the event the more serious one."""
    clock = Clock()
    for value, verdict in ((7, DriftVerdict.STABLE), (200, DriftVerdict.DRIFTED)):
        periods = periods_of(clock, Length(60, 100))
        (event,) = periods.saw(ref(0), manifest(value=7, score=60), tally(400, value))
        assert event.bands[0].verdict is verdict is event.verdict
        assert event.scores is not None and event.scores.verdict is DriftVerdict.STABLE
    (event,) = periods_of(clock, Length(60, 100)).saw(
        ref(0), manifest(value=7, score=30), tally(400)
    )
    assert event.bands[0].verdict is DriftVerdict.STABLE
    assert event.verdict is DriftVerdict.DRIFTED


def found(windows: int, with_finds: int, finds: int) -> Tally:
    """Pixels as in training; in so many windows so many finds in all, of scores that training had not."""
    seen = tally(windows)
    seen.scores[:] = 0
    seen.scores[90] = finds
    return Tally(seen.bands, seen.scores, windows, 4 * windows, windows, with_finds)


@pytest.mark.parametrize(
    ("windows", "with_finds", "finds"), [(400, 10, 10), (20, 20, 900), (2000, 6, 360)]
)
@pytest.mark.parametrize(("known", "observed_reference"), [(480, 480), (None, 500), (6, 6)])
def test_scores_are_judged_by_windows_with_finds(
    windows: int, with_finds: int, finds: int, known: int | None, observed_reference: int
) -> None:
    """Windows without a find are no observations of a score, nor are the many finds of one window; the
    same of the training data, as far as its manifest tells."""
    (event,) = periods_of(Clock(), Length(60, 1)).saw(
        ref(0), manifest(value=7, score=30, with_finds=known), found(windows, with_finds, finds)
    )
    assert event.scores is not None
    assert event.scores.observed == with_finds
    assert event.scores.observed_reference == observed_reference
    assert (event.scores.psi or 0) > 1 and event.scores.verdict is DriftVerdict.UNKNOWN


@pytest.mark.parametrize(
    ("known", "verdict"), [(480, "drifted"), (None, "drifted"), (6, "unknown")]
)
def test_scores_of_enough_windows_have_a_verdict(known: int | None, verdict: str) -> None:
    """On both sides: a few windows of the training data are too few, however much was found in them."""
    (event,) = periods_of(Clock(), Length(60, 1)).saw(
        ref(0), manifest(value=7, score=30, with_finds=known), found(2000, 60, 360)
    )
    assert event.scores is not None and event.scores.verdict.value == verdict


def test_scores_of_a_segmentation_are_of_every_window() -> None:
    """Each has them in every pixel, and none has finds."""
    known = manifest(value=7, score=30).model_copy(update={"task": "segmentation"})
    (event,) = periods_of(Clock(), Length(60, 1)).saw(ref(0), known, found(60, 0, 60 * 4096))
    assert event.scores is not None
    assert (event.scores.observed, event.scores.observed_reference) == (60, 500)
    assert event.scores.verdict is DriftVerdict.DRIFTED


def blind(windows: int, with_finds: int) -> Tally:
    """Pixels as in training; so many windows have finds, whose scores are as in training."""
    seen = tally(windows)
    seen.scores[60] = with_finds
    return Tally(seen.bands, seen.scores, windows, 4 * windows, windows, with_finds)


@pytest.mark.parametrize(
    ("known", "with_finds", "verdict"),
    [
        (480, 0, "drifted"),  # blind
        (300, 0, "drifted"),
        (50, 0, "drifted"),
        (300, 200, "shifting"),  # other country, perhaps
        (300, 1180, "stable"),
        (500, 2000, "stable"),
        (0, 1200, "shifting"),
        (2, 0, "stable"),  # what is rare may not come for long
        (None, 0, "unknown"),  # a reference from before
    ],
)
def test_a_model_that_has_gone_blind_is_told_of(
    known: int | None, with_finds: int, verdict: str
) -> None:
    """By the share of windows with finds: it has no scores to compare."""
    (event,) = periods_of(Clock(), Length(60, 100)).saw(
        ref(0), manifest(value=7, score=60, with_finds=known), blind(2000, with_finds)
    )
    assert event.bands[0].verdict is DriftVerdict.STABLE
    assert event.finds is not None and event.finds.verdict.value == verdict
    assert event.finds.live == (2000 - with_finds, with_finds)
    if known is not None:
        assert event.finds.reference == (500 - known, known)
        assert event.verdict.value == verdict
    (few,) = periods_of(Clock(), Length(60, 1)).saw(
        ref(0), manifest(value=7, score=60, with_finds=480), blind(40, 0)
    )
    assert few.verdict is DriftVerdict.UNKNOWN


def test_bands_that_a_model_takes_twice_have_names_of_their_own() -> None:
    """By their place among what the model is fed with; else by the raster's band."""
    for bands, names in (
        ((1, 1, 1), ["band 1 (input 1)", "band 1 (input 2)", "band 1 (input 3)"]),
        ((2, 4, 2), ["band 2 (input 1)", "band 4", "band 2 (input 3)"]),
    ):
        known = manifest(value=7, score=60, bands=bands)
        (event,) = periods_of(Clock(), Length(60, 1)).saw(ref(0), known, tally(9, bands=3))
        assert [name for name, _ in parts_of(event)] == [*names, "scores", "finds"]


def test_without_a_reference_windows_are_told_of_all_the_same() -> None:
    """Histograms, and no figures."""
    (event,) = periods_of(Clock(), Length(60, 1)).saw(ref(0), manifest(), tally(400))
    assert event.verdict is DriftVerdict.UNKNOWN
    assert event.bands[0].reference is None and event.bands[0].psi is None


def test_the_largest_event_fits_into_a_message() -> None:
    """64 bands, each with counts as large as they may be."""
    many = (MOST_COUNTED // LEVELS,) * LEVELS
    one = BandCompared(band=100, live=many, reference=many, values=1, ks=0.123456, psi=0.123456)
    event = DriftObserved(
        model=ref(0), observer=OBSERVER, started=BEGAN, ended=BEGAN, ended_by="time", windows=1,
        windows_run=1, bands=(one,) * 64, scores=Compared(live=many, values=1),
        verdict=DriftVerdict.STABLE,
    )  # fmt: skip
    message = encode(event, source="/test")
    assert len(message.value) < MAX_MESSAGE_BYTES // 2
    assert message.key == ref(0).digest.encode()
    assert decode(topics.DRIFT, message.value, message.headers).event == event
