"""How long chunks wait for a model's server, and which of them are not even tried."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from frond.inference import outages
from frond.inference.outages import Patience

AGO = datetime.now(UTC) - timedelta(hours=1)
LATER = datetime.now(UTC) + timedelta(hours=1)


class Clock:
    """Tells what it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outages, "time", made)
    return made


def chunk(name: str, job: str = "j", planned: datetime | None = LATER, model: str = "m") -> Any:
    return SimpleNamespace(
        chunk_id=name, job_id=job, planned_at=planned, model=SimpleNamespace(digest=model)
    )


def given_up(clock: Clock, job: str = "j", model: str = "m") -> Patience:
    """Just now, after a chunk of this job has waited all its time."""
    patience = Patience(900)
    waits(patience, clock, chunk("first", job, model=model))
    return patience


def waits(patience: Patience, clock: Clock, event: Any) -> None:
    assert patience.lasts(event, "early words")
    clock.now += 899
    assert patience.lasts(event, "early words")
    clock.now += 1
    assert not patience.lasts(event, "last words")
    patience.forget(event)


def test_a_job_waits_once_however_late_its_images_are_planned(clock: Clock) -> None:
    """What is planned of it from then on fails untried, with what the server said; a job that was sent
    later, as a retry, has all the time, and so has another model."""
    patience = given_up(clock)
    assert patience.spent(chunk("next")) == "last words"
    assert not patience.lasts(chunk("under way"), "very last words")
    assert patience.spent(chunk("next")) == "very last words"
    for other in (chunk("other", "j-retry-1"), chunk("other", model="n"), chunk("x", "k", None)):
        assert patience.spent(other) is None
        assert patience.lasts(other, "busy")
    waits(patience, clock, chunk("a", "j-retry-1"))
    assert patience.spent(chunk("b", "j-retry-1")) == "last words"


def test_a_job_that_was_planned_in_part_before_was_sent_before(clock: Clock) -> None:
    """The rest of it, which the tiler plans later, waits no more either."""
    patience = given_up(clock)
    assert patience.spent(chunk("late", "k")) is None
    assert patience.spent(chunk("early", "k", AGO.replace(tzinfo=None))) == "last words"
    assert patience.spent(chunk("late", "k")) == "last words"


def test_one_chunk_is_tried_now_and_then(clock: Clock) -> None:
    """However long that one takes, others wait neither for it nor beside it."""
    patience = given_up(clock)
    clock.now += outages._TRIED_S
    assert patience.spent(chunk("a")) == "last words"
    clock.now += 1
    assert patience.spent(chunk("a")) is None
    clock.now += 600
    assert patience.spent(chunk("a")) is None
    assert patience.spent(chunk("b")) == "last words"
    assert not patience.lasts(chunk("a"), "no")
    patience.forget(chunk("a"))
    assert patience.spent(chunk("b")) == "no"
    # one whose image is gone, say, has told nothing of the server
    clock.now += outages._TRIED_S + 1
    assert patience.spent(chunk("b")) is None
    patience.forget(chunk("b"))
    assert patience.spent(chunk("c")) is None
    assert patience.spent(chunk("d")) == "no"


def test_what_was_seen_long_ago_fails_nobody(clock: Clock) -> None:
    """The server may be well by now: chunks that come at once are all tried. Yet they do not wait."""
    patience = given_up(clock)
    clock.now += outages._PASSES_S + 1
    assert [patience.spent(chunk(name)) for name in "abc"] == [None] * 3
    assert not patience.lasts(chunk("a"), "no")
    patience.forget(chunk("a"))
    assert patience.spent(chunk("d")) == "no"


def test_once_the_server_answers_all_is_as_before(clock: Clock) -> None:
    """What is left of the job runs, and the next outage has all its time."""
    patience = given_up(clock)
    clock.now += outages._TRIED_S + 1
    assert patience.spent(chunk("a")) is None
    patience.answered(chunk("a"))
    patience.forget(chunk("a"))
    assert patience.spent(chunk("b")) is None
    waits(patience, clock, chunk("b"))


def test_what_is_remembered_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of jobs those are forgotten first of which nothing has come for longest."""
    monkeypatch.setattr(outages, "_REMEMBERED", 3)
    monkeypatch.setattr(outages, "_MODELS", 2)
    patience = given_up(clock)
    for n in range(5):
        assert patience.spent(chunk("early", f"k{n}", AGO)) is not None
        assert patience.spent(chunk("late")) is not None
    assert list(patience._given_up["m"].jobs) == ["k3", "k4", "j"]
    for n in range(5):
        waits(patience, clock, chunk("a", model=f"m{n}"))
    assert list(patience._given_up) == ["m3", "m4"]
    for n in range(5):
        patience.lasts(chunk(f"{n}", "other"), "")
    assert len(patience._waiting) == 3


def test_without_an_end_nothing_is_given_up(clock: Clock) -> None:
    """0: as long as it takes."""
    patience = Patience(0)
    for _ in range(3):
        assert patience.lasts(chunk("a", planned=AGO), "no")
        clock.now += 1e6
        assert patience.spent(chunk("a", planned=AGO)) is None
