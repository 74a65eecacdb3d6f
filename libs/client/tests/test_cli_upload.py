"""``frond upload`` and what is told of a job, whatever its key may read."""

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


@pytest.fixture
def upload(
    service: Any, rasters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The command, with a key that may submit and not read."""
    service.trouble = lambda r: (
        httpx.Response(403, json={"detail": "This needs the scope 'read'."})
        if r.method == "GET"
        else None
    )
    door = httpx.MockTransport(service)
    monkeypatch.setattr(
        "frond.client.Client",
        lambda: Client("http://frond.test", transport=door, journal_dir=tmp_path / "journal"),
    )
    return lambda *words: CliRunner().invoke(app, ["upload", str(rasters[0]), *words])


def test_a_key_that_may_submit_alone(upload: Callable[..., Result], service: Any) -> None:
    """The job is made, and how it stands is told: its key may be told that much."""
    done = upload()
    assert (done.exit_code, done.stderr.count("scope")) == (0, 0)
    assert done.stdout.startswith("job job-1\n") and "frond watch job-1" in done.stdout
    done = upload("--json")
    assert (done.exit_code, json.loads(done.stdout)["job_id"]) == (0, "job-1")
    assert service.sealed == 2


def test_a_key_that_is_told_no_figures(upload: Callable[..., Result], service: Any) -> None:
    """As the service answers one that may submit and not read: no command asks for more."""
    refuse = service.trouble
    told = {"job_id": "job-1", "type": "process", "status": "accepted", "links": []}
    service.trouble = lambda r: (
        httpx.Response(200, json=told) if r.url.path.endswith(("/seal", "/retry")) else refuse(r)
    )
    done = upload("--strict", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, told), done.stderr
    done = CliRunner().invoke(app, ["retry", "job-1"])
    assert done.exit_code == 0 and done.stdout.startswith("Images of job job-1 run again.\n")


@pytest.mark.parametrize("words", [["--wait"], ["--wait", "--json"]])
def test_a_job_that_cannot_be_followed(upload: Callable[..., Result], words: list[str]) -> None:
    """It was made all the same: its id is told, and with --json the document is none."""
    done = upload(*words)
    assert done.exit_code == 2 and "scope 'read'" in done.stderr
    told = done.stderr if "--json" in words else done.stdout
    assert "job job-1\n" in told
    assert "--json" not in words or done.stdout == ""


def test_a_retry_that_cannot_be_followed(upload: Callable[..., Result], service: Any) -> None:
    """Neither is its new job lost sight of."""
    refuse = service.trouble
    service.trouble = lambda r: (
        httpx.Response(201, json={"job_id": "j-retry-1"})
        if r.url.path == "/jobs/j/retry"
        else refuse(r)
    )
    done = CliRunner().invoke(app, ["retry", "j", "--wait", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("job j-retry-1\n")
