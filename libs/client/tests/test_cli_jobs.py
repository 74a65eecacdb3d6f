"""``frond jobs``, ``status`` and ``delete``: how jobs stand is told in the words that they are asked for by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from frond.client import Client
from frond.client.cli import app


def figures(status: str, outcome: str | None, **images: int | None) -> dict[str, Any]:
    counts = {"expected": 2, "received": 2, "running": 0, "completed": 0, "failed": 2} | images
    return {
        "job_id": "j", "status": status, "outcome": outcome, "progress": 100, "images": counts,
        "windows": {"total": 4, "done": 0, "skipped": 0, "failed": 4}, "detections": {},
        "model": None, "created": "2026-01-02T03:04:05Z", "finished": None, "failures": [],
    }  # fmt: skip


@pytest.fixture
def frond(service: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, at the service."""
    door = httpx.MockTransport(service)
    monkeypatch.setattr("frond.client.Client", lambda: Client("http://frond.test", transport=door))
    return lambda *words, answer=None: CliRunner().invoke(app, list(words), input=answer)


@pytest.fixture
def listed(service: Any) -> list[dict[str, Any]]:
    """What the service lists."""
    found: list[dict[str, Any]] = []
    service.trouble = lambda r: (
        httpx.Response(200, json={"jobs": found, "next_cursor": None})
        if r.url.path == "/jobs"
        else None
    )
    return found


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        ("failed", "completed_with_errors", "failed"),
        ("successful", "completed_with_errors", "completed_with_errors"),
        ("successful", "completed", "completed"),
        ("running", None, "running"),
    ],
)
def test_how_a_job_stands(
    frond: Callable[..., Result], service: Any, listed: list[dict[str, Any]],
    status: str, outcome: str | None, told: str,
) -> None:  # fmt: skip
    """In the list as beside the job: one of which no image completed has failed."""
    service.statuses = [figures(status, outcome)]
    listed += service.statuses
    assert told in frond("jobs").stdout.split()
    assert frond("status", "j").stdout.split()[:3] == ["job", "j", told]


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("completed", "successful"), ("completed_with_errors", "successful"),
        ("successful", "successful"), ("failed", "failed"),
    ],
)  # fmt: skip
def test_jobs_by_any_word_of_the_list(
    frond: Callable[..., Result], service: Any, listed: list[dict[str, Any]], word: str, asked: str
) -> None:
    """The service lists by status alone."""
    assert frond("jobs", "--status", word).exit_code == 0
    assert service.seen[-1].url.params["status"] == asked


def test_a_status_that_is_none(frond: Callable[..., Result], service: Any) -> None:
    """The words that there are are told, before anybody is asked."""
    done = frond("jobs", "--status", "done")
    assert done.exit_code == 2 and not service.seen
    assert "--status" in done.stderr and "'dismissed'" in done.stderr


def test_a_job_of_no_images(frond: Callable[..., Result], listed: list[dict[str, Any]]) -> None:
    """None is a number; a question mark is of what is not known."""
    listed += [
        figures("successful", "completed", expected=0, failed=0),
        figures("running", None, expected=None, failed=0),
    ]
    told = frond("jobs").stdout
    assert "0/0" in told and "0/?" in told
