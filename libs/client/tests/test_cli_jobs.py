"""``frond jobs``, ``status`` and ``delete``: how jobs stand is told in the words that they are asked for by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
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


@pytest.mark.parametrize(
    ("word", "limit", "told"),
    [
        ("completed", 9, ["a", "c"]), ("completed_with_errors", 9, ["b", "d", "e"]),
        ("completed_with_errors", 2, ["b", "d"]), ("successful", 9, ["a", "b", "c", "d", "e"]),
    ],
)  # fmt: skip
def test_jobs_of_one_outcome(
    frond: Callable[..., Result], service: Any, word: str, limit: int, told: list[str]
) -> None:
    """Those alone, from as many pages as it takes, and none is asked for once there are enough."""
    worse = "completed_with_errors"
    pages = [[("a", "completed"), ("b", worse)], [("c", "completed"), ("d", worse)], [("e", worse)]]

    def lists(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params.get("cursor", 0))
        found = [figures("successful", outcome) | {"job_id": j} for j, outcome in pages[page]]
        more = str(page + 1) if page + 1 < len(pages) else None
        return httpx.Response(200, json={"jobs": found, "next_cursor": more})

    service.trouble = lists
    done = frond("jobs", "--status", word, "--limit", str(limit), "--json")
    assert [j["job_id"] for j in json.loads(done.stdout)] == told
    assert len(service.seen) == (2 if limit == 2 else 3)
    rows = [r.split() for r in frond("jobs", "--status", word).stdout.splitlines()]
    shown = [r for r in rows if r and r[0] in "abcde"]
    assert word == "successful" or {r[1] for r in shown} == {word}


def test_a_status_that_is_none(frond: Callable[..., Result], service: Any) -> None:
    """The words that there are are told, before anybody is asked."""
    done = frond("jobs", "--status", "done")
    assert done.exit_code == 2 and not service.seen
    assert "--status" in done.stderr and "'dismissed'" in done.stderr


def test_a_reason_that_is_none(frond: Callable[..., Result], service: Any) -> None:
    """The codes that there are, in the words of the option; those that are go to the service."""
    done = frond("retry", "j", "--reason", "nonsense")
    assert done.exit_code == 2 and not service.seen
    assert "'--reason'" in done.stderr and "'truncated'" in done.stderr
    service.trouble = lambda r: httpx.Response(201, json=figures("accepted", None))
    assert frond("retry", "j", "--reason", "truncated", "--reason", "corrupt").exit_code == 0
    assert json.loads(service.seen[-1].content) == {"reasons": ["truncated", "corrupt"]}


def test_a_job_of_no_images(frond: Callable[..., Result], listed: list[dict[str, Any]]) -> None:
    """None is a number; a question mark is of what is not known."""
    listed += [
        figures("successful", "completed", expected=0, failed=0),
        figures("running", None, expected=None, failed=0),
    ]
    told = frond("jobs").stdout
    assert "0/0" in told and "0/?" in told


@pytest.fixture
def deleting(service: Any) -> Callable[[int, int], None]:
    """Let the service answer so, where the job is asked for; it has so many images."""

    def answers(status: int, received: int) -> None:
        told = figures("running", None, received=received) if status == 200 else {"detail": "No."}
        service.trouble = lambda r: httpx.Response(
            204 if r.method == "DELETE" else status, json=None if r.method == "DELETE" else told
        )

    return answers


@pytest.mark.parametrize(
    ("status", "received", "asked"),
    [(200, 2, "its 2 images"), (200, 1, "its one image"), (403, 0, "all of its images")],
)
def test_what_is_to_be_deleted_is_told(
    frond: Callable[..., Result], service: Any, deleting: Callable[[int, int], None],
    status: int, received: int, asked: str,
) -> None:  # fmt: skip
    """How many images go with it, where the key may read that; it may delete all the same."""
    deleting(status, received)
    done = frond("delete", "j", answer="n\n")
    assert f"Delete job j with {asked} and all results?" in done.stdout and done.exit_code == 1
    assert service.seen[-1].method == "GET"
    assert frond("delete", "j", answer="y\n").exit_code == 0
    assert service.seen[-1].method == "DELETE"


def test_nothing_is_asked_of_a_job_that_is_none(
    frond: Callable[..., Result], service: Any, deleting: Callable[[int, int], None]
) -> None:
    """What the service says of it, and no question; told not to ask, nobody looks."""
    deleting(404, 0)
    done = frond("delete", "nojob", answer="y\n")
    assert (done.exit_code, done.stdout) == (2, "") and "No." in done.stderr
    assert frond("delete", "nojob", "--yes").exit_code == 0
    assert [r.method for r in service.seen] == ["GET", "DELETE"]


@pytest.mark.parametrize(
    ("words", "at", "told"),
    [
        (["upload", "a.tif"], "/jobs", None),
        (["upload", "a.tif"], "/jobs/job-1/seal", "the same command with --job-id job-1 goes on"),
        (["upload", "a.tif", "--wait"], "/jobs/job-1/events", "Job job-1 goes on"),
        (["watch", "j"], "/jobs/j/events", "Job j goes on"),
        (["watch", "j", "--json"], "/jobs/j/events", "Job j goes on"),
    ],
)
def test_what_an_interrupted_command_leaves_behind(
    frond: Callable[..., Result], service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: list[str], at: str, told: str | None,
) -> None:  # fmt: skip
    """An open job, or one that runs on, and what may be done with it; nothing where there is none."""

    def interrupted(request: httpx.Request) -> None:
        if request.url.path == at:
            raise KeyboardInterrupt

    service.trouble = interrupted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Path("a.tif").write_bytes(b"x")
    done = frond(*words)
    assert done.exit_code == 130
    *said, last = done.stderr.splitlines()
    assert last == "Interrupted."
    assert ("frond cancel" in done.stderr) == (told is not None)
    assert told is None or told in said[-1]
