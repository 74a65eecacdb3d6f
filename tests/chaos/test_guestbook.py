"""The judgement of guests notices each way in which one may have gone wrong."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.guestbook import Guest, Wanted, misfits
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
