"""``frond webhooks replay`` over many jobs, some of which the service refuses."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from frond.client.cli import app

runner = CliRunner()
FINISHED = "2026-03-01T12:00:00+00:00"


class Door:
    """Answers as services/ingest does; ``refusals`` are its answers to replays, by job."""

    def __init__(self) -> None:
        self.jobs = ["a", "b", "c", "d"]
        self.refusals: dict[str, int] = {}
        self.replayed: list[str] = []
        self.finished = FINISHED

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"jobs": [{"job_id": j, "finished": self.finished} for j in self.jobs]}
        job = path.split("/")[2]
        if status := self.refusals.get(job):
            return status, {"detail": f"Job {job} is\x1b[31m not to be."}
        self.replayed.append(job)
        notice = {"webhook_id": f"msg_{job}", "target": "http://r.example/", "kind": "webhook",
                  "round": "1"}  # fmt: skip
        return 202, {"webhooks": [notice] if job != "d" else []}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Door]:
    made = Door()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status, body = made.answer(self.command, self.path)
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setenv("FROND_API_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("FROND_API_KEY", "k")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_refusal_keeps_no_other_job_from_it(door: Door) -> None:
    """409 and 422 are told beside what was sent; exit code 1; JSON has what was sent alone."""
    door.refusals = {"a": 409, "c": 422}
    done = runner.invoke(app, ["webhooks", "replay", "--since", "2026-03-01"])
    assert (done.exit_code, door.replayed) == (1, ["b", "d"])
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "msg_b" in rows["b"] and "is being sent" in rows["b"]
    for job in "ac":
        assert f"refused: Job {job} is\\x1b[31m not to be." in rows[job]
    assert "d" not in rows and "\x1b" not in done.output
    done = runner.invoke(app, ["webhooks", "replay", "a", "b", "d", "--json"])
    assert done.exit_code == 1
    assert {j: len(n) for j, n in json.loads(done.stdout).items()} == {"b": 1, "d": 0}
    assert done.stderr == "a: Job a is\\x1b[31m not to be.\n"


def test_what_was_sent_is_told_when_the_rest_cannot_be(door: Door) -> None:
    """A key that is good for nothing any more is no job's own refusal: nothing else is asked for."""
    door.refusals = {"c": 401}
    done = runner.invoke(app, ["webhooks", "replay", "a", "b", "c", "d"])
    assert (done.exit_code, door.replayed) == (2, ["a", "b"])
    assert "msg_a" in done.stdout and "msg_b" in done.stdout and "not to be" in done.stderr


def test_all_is_well(door: Door) -> None:
    """A job that asked for no webhook is told of where it was named."""
    done = runner.invoke(app, ["webhooks", "replay", "b", "d"])
    assert done.exit_code == 0 and "asked for no webhook" in done.stdout
    door.jobs = ["d"]
    done = runner.invoke(app, ["webhooks", "replay", "--since", "2026-03-01"])
    assert done.exit_code == 0 and "No job that ended" in done.stdout


def test_of_the_last_hours(door: Door) -> None:
    """So long ago, as `frond drift` reads it; what is no time is refused, and nobody is asked."""
    door.finished = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    for words, sent in (
        (["--since", "1h"], 0), (["--since", "3h", "--until", "90m"], 4), (["--until", "1d"], 0),
    ):  # fmt: skip
        door.replayed.clear()
        assert runner.invoke(app, ["webhooks", "replay", *words]).exit_code == 0
        assert len(door.replayed) == sent
    done = runner.invoke(app, ["webhooks", "replay", "--until", "soon"])
    assert done.exit_code == 2 and "--until" in done.stderr and "'soon' is no time" in done.stderr
