"""A terminal obeys nothing that a file is named."""

from __future__ import annotations

from typing import Any, cast

import pytest

from frond.client import Client
from frond.client.cli import show
from frond.client.cli.app import fail
from frond.client.watching import JobEvent

EVIL = "a\x1b[2J\n\u202eb[red].tif"
SHOWN = "a\\x1b[2J\\x0a\\u202eb[red].tif"
COUNTS = {"expected": 1, "received": 1, "running": 0, "completed": 0, "failed": 1}
FIGURES: dict[str, Any] = {
    "job_id": "j", "status": "successful", "outcome": None, "images": COUNTS,
    "windows": {"total": 0, "done": 0, "skipped": 0, "failed": 0}, "detections": {EVIL: 1},
    "model": {"name": EVIL, "version": EVIL, "digest": "ab" * 32}, "created": None,
    "finished": None, "failures": [{"name": EVIL, "reason": "truncated", "detail": EVIL}],
}  # fmt: skip


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One row stays one row."""
    show.table(["name", "n"], [(EVIL, 1)], right="n")
    told = capsys.readouterr().out
    assert SHOWN in told and "\x1b" not in told and "\u202e" not in told


def test_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of images, classes and models; `frond status` and the end of `frond watch`."""
    show.job(FIGURES)
    told = capsys.readouterr().out
    assert told.count(SHOWN) == 5 and "\x1b" not in told and "\u202e" not in told


def test_a_job_that_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """`frond watch` tells each failed image by its name."""

    class Following:
        def watch(self, job_id: str) -> Any:
            yield JobEvent(
                type="image", id="1", data={"status": "failed", "name": EVIL, "detail": EVIL}
            )

        def status(self, job_id: str) -> dict[str, Any]:
            return FIGURES

    show.following(cast(Client, Following()), "j")
    assert capsys.readouterr().err == f"failed: {SHOWN}: {SHOWN}\n"


def test_a_job_of_unknown_size_that_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """Its size is a question mark until it is sealed, as `frond status` shows it."""

    class Following:
        def watch(self, job_id: str) -> Any:
            images = {"expected": None, "completed": 1, "failed": 1}
            yield JobEvent(type="status", id="1", data={"images": images})

        def status(self, job_id: str) -> dict[str, Any]:
            return FIGURES

    show.following(cast(Client, Following()), "j")
    assert capsys.readouterr().err == "2 of ? images done, 1 failed\n"


def test_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The one sentence may quote a name."""
    with pytest.raises(BaseException):  # noqa: B017
        fail(f"There is no file {EVIL}.", 2)
    assert f"There is no file {SHOWN}." in capsys.readouterr().err
