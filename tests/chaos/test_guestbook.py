"""The judgement of guests notices each way in which one may have gone wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from chaos import guestbook
from chaos.figures import Figures
from chaos.guestbook import REPLAY, Guest, Guestbook, Wanted, misfits, replays_of
from chaos.guests import Guests
from chaos.oracle import Oracle
from chaos.outside import Copy
from chaos.receiver import Delivery
from chaos.world import World
from frond.contracts import keys
from frond.contracts.jobs import JobOutcome
from frond.contracts.reasons import Reason

GUEST = Guest(
    "g-1", "test", (Wanted("good.tif"), Wanted("bad.tif", Reason.NOT_A_RASTER)),
    (JobOutcome.COMPLETED_WITH_ERRORS, JobOutcome.DISMISSED),
)  # fmt: skip


def image(name: str, reason: str | None = None, squares: int = 3) -> dict[str, Any]:
    """As a summary has it."""
    status = "failed" if reason else "completed"
    found = {"blob": squares} if not reason and squares else {}
    return {"name": name, "status": status, "reason": reason, "detections": found}


RIGHT = [image("good.tif"), image("bad.tif", "not-a-raster")]


def judged(told: list[dict[str, Any]], drawn: list[str], *, cancelled: bool = False) -> list[str]:
    outcome = JobOutcome.DISMISSED if cancelled else JobOutcome.COMPLETED_WITH_ERRORS
    return misfits(GUEST, outcome, told, drawn)


def test_what_is_right_is_no_misfit() -> None:
    """Each image once, as it was wanted; of a cancelled job any of them missing or dismissed."""
    assert judged(RIGHT, ["good.tif"]) == []
    assert judged([], [], cancelled=True) == []
    assert judged([image("good.tif", "dismissed")], [], cancelled=True) == []
    assert judged(RIGHT, ["good.tif"], cancelled=True) == []


@pytest.mark.parametrize(
    ("told", "drawn"),
    [
        (RIGHT[:1], ["good.tif"]),
        ([*RIGHT, RIGHT[0]], ["good.tif"]),
        ([*RIGHT, image("stray.tif")], ["good.tif", "stray.tif"]),
        ([image("good.tif", "dismissed"), RIGHT[1]], []),
        ([image("good.tif", squares=2), RIGHT[1]], ["good.tif"]),
        ([RIGHT[0], image("bad.tif", "truncated")], ["good.tif"]),
        ([RIGHT[0], image("bad.tif")], ["good.tif", "bad.tif"]),
        (RIGHT, []),
        (RIGHT, ["good.tif", "good.tif"]),
        (RIGHT, ["good.tif", "bad.tif"]),
        (RIGHT, ["good.tif", "stray.tif"]),
    ],
)
def test_what_is_wrong_is_told(told: list[dict[str, Any]], drawn: list[str]) -> None:
    """Missing, doubled, unknown, failed otherwise, with other detections, drawn too often or not."""
    assert judged(told, drawn)


def test_a_cancelled_job_has_no_wrong_images() -> None:
    """That it was cancelled excuses what is missing, not what is there and wrong."""
    assert judged([image("good.tif", squares=1)], ["good.tif"], cancelled=True)
    assert judged([image("good.tif", "truncated")], [], cancelled=True)
    assert judged([image("good.tif", "dismissed")], ["good.tif"], cancelled=True)


# -- with a world ----------------------------------------------------------------------------------


class Outside:
    """What a guestbook sees of the world; REST answers whatever it is told to."""

    def __init__(self, journal: Path) -> None:
        self.oracle, self.figures = Oracle(journal), Figures()
        self.strangers: list[str] = []
        self.guests: set[str] = set()
        self.seed, self.webhook_url = 1, "http://receiver.invalid/hook"
        self.feeder = self.receiver = self.watch = self
        self.got: list[Delivery] = []
        self.states: list[str] = []

    async def ask(self, method: str, path: str, **_: Any) -> httpx.Response:
        return httpx.Response(200, json={"webhooks": [{"state": s} for s in self.states]})

    async def any_change(self, _: float) -> None: ...

    def of(self, _: str) -> list[Delivery]:
        return self.got


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    monkeypatch.setattr(guestbook, "_NOTICED_S", 0.0)
    world = Outside(tmp_path / "journal.jsonl")
    yield world
    world.oracle.close()


def took(at: float) -> Delivery:
    return Delivery("g-1", "w1", True, "b1", "ok", at, "/hook")


async def test_a_job_of_which_nothing_came_has_failed(outside: Outside) -> None:
    """And no other has: its status follows from its images."""
    book = Guestbook(cast(World, outside))
    half = replace(GUEST, job_id="half")
    none = replace(GUEST, job_id="none", images=GUEST.images[1:])
    for guest, status, lost in (
        (half, "successful", 0), (half, "failed", 1), (none, "failed", 1), (none, "successful", 2),
    ):  # fmt: skip
        event = {"outcome": "completed_with_errors", "status": status, "images": guest.counts()}
        book._event(guest, [Copy("1", "v", "h", event)])
        assert outside.figures.lost == lost, outside.figures.details


@pytest.mark.parametrize(
    ("came", "states", "lost", "doubled"),
    [
        ([10, 20], ["delivered"] * 2, 0, 0),
        # marked as delivered, and never posted
        ([10], ["delivered"] * 2, 2, 0),
        # two rounds excuse no third, though five may be asked for
        ([10, 20, 30], ["delivered"] * 2, 0, 1),
        ([10, 20, 30], ["delivered"] * 3, 0, 0),
        ([10, 20], ["delivered"], 1, 1),
    ],
)
async def test_each_round_is_posted_once(
    outside: Outside, came: list[float], states: list[str], lost: int, doubled: int
) -> None:
    """As many as there are records of, wherever they say that they were delivered."""
    outside.oracle.noted += [{"at": t, "what": REPLAY, "job_id": "g-1"} for t in (15.0, 16.0)]
    outside.got, outside.states = [took(at) for at in came], states
    await Guestbook(cast(World, outside))._notices(replace(GUEST, notices=(2, 5)))
    figures = outside.figures
    assert (figures.lost, figures.doubled) == (lost, doubled), figures.details


def test_when_rounds_were_asked_for() -> None:
    """A client that asks again may make more rounds than it notes; none were made before."""
    noted = [{"at": t, "what": w, "job_id": j} for t, w, j in
             ((1.0, "kill", "j"), (2.0, REPLAY, "j"), (3.0, REPLAY, "k"), (4.0, REPLAY, "j"))]  # fmt: skip
    assert replays_of(noted, "j", 3) == [2.0, 4.0, 4.0]
    assert replays_of(noted, "j", 1) == [2.0]
    assert replays_of(noted, "j", -1) == replays_of(noted, "nobody", 2) == []


async def test_nobody_is_excused_for_what_was_not_brought(outside: Outside) -> None:
    """What was put whole may be left of a cancelled job; a raster begun in parts may not."""
    guests = Guests(cast(World, outside))
    for name, images in (("parts_given_up", 0), ("cancelled", 1)):
        job_id = await getattr(guests, name)()
        brought = guests.book.guests[job_id].brought
        assert len(brought) == images
        assert all(key == keys.job_upload(job_id, "one.tif") for key in brought)
        assert job_id in outside.guests
