"""Keys and settings are replaced while everything runs: a roll hands them over."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import queue
import secrets
import signal
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from frond.contracts import keys
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobStatus, WindowCounts
from frond.stack import StackError, control
from frond.stack.installation import read_env_file
from frond.store import ObjectStore, StoreSettings
from support.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.slow]

Post = tuple[dict[str, str], bytes]


@pytest.fixture
def posts() -> Iterator[tuple[str, queue.Queue[Post]]]:
    """A webhook receiver on this machine: its address, and what it gets."""
    got: queue.Queue[Post] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.put(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The ``.frond`` folder of an installation of ingest and notifier that runs."""
    monkeypatch.setenv("FROND_STACK", "native")
    for name in (
        "FROND_API_KEY",
        "FROND_WEBHOOK_SECRET",
        "FROND_EGRESS_ALLOW",
        "FROND_TOPIC_PREFIX",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ".frond"
    up(folder)
    yield folder
    control.down(folder)


def up(folder: Path) -> None:
    models = folder.parent / "no-models"
    assert control.up(folder, models, services=("ingest", "notifier"), say=lambda _: None)


def roll(folder: Path, **settings: str) -> None:
    """As ``FROND_X=… make roll`` from a shell that has sourced the env file."""
    env = {**os.environ, **read_env_file(folder / "env"), **settings}
    control.roll(folder, env=env, say=lambda _: None)


def told(folder: Path, url: str, got: queue.Queue[Post]) -> Post:
    """The webhook of a job that has just ended."""
    job_id = f"job-{secrets.token_hex(4)}"
    over = JobCompleted(
        job_id=job_id, status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED,
        images=ImageCounts(expected=0), windows=WindowCounts(), detections={},
    )  # fmt: skip
    env = read_env_file(folder / "env")

    async def end() -> None:
        store = ObjectStore(
            StoreSettings(
                env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
                env["FROND_S3_BUCKET"],
            )
        )  # fmt: skip
        await store.put(keys.job_notify(job_id), json.dumps({"webhook_url": url}).encode())
        await store.put(keys.job_completed(job_id), over.model_dump_json().encode())
        await store.put(keys.untold_marker(job_id), b"{}")
        store.close()

    asyncio.run(end())
    headers, body = got.get(timeout=60)
    assert json.loads(body)["data"]["job_id"] == job_id
    return headers, body


def knock(folder: Path, key: str) -> int:
    url = read_env_file(folder / "env")["FROND_API_URL"]
    headers = {"authorization": f"Bearer {key}"}
    # a service that is starting again answers when it is up
    return httpx.get(f"{url}/jobs", headers=headers, trust_env=False, timeout=60).status_code


def test_secrets_are_rotated_by_a_roll(state: Path, posts: tuple[str, queue.Queue[Post]]) -> None:
    """Old and new webhook secret together sign twice, then the new one alone; the old API key is
    shut out and the new one let in; both stay at the next start, and a shell that has sourced the
    file before brings back neither. Settings that no service takes change nothing."""
    url, got = posts
    before = read_env_file(state / "env")
    old = before["FROND_WEBHOOK_SECRET"]
    new = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    key = f"frond_{secrets.token_urlsafe(32)}"
    roll(
        state, FROND_WEBHOOK_SECRET=f"{old} {new}", FROND_EGRESS_ALLOW="127.0.0.1",
        FROND_RESCAN_S="0.2", FROND_API_KEY=key,
    )  # fmt: skip
    headers, body = told(state, url, got)
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        Webhook(secret).verify(body, headers)
    assert (knock(state, before["FROND_API_KEY"]), knock(state, key)) == (401, 200)
    after = read_env_file(state / "env")
    assert (after["FROND_API_KEY"], after["FROND_WEBHOOK_SECRET"]) == (key, f"{old} {new}")
    assert stat.S_IMODE((state / "env").stat().st_mode) == 0o600

    roll(state, FROND_WEBHOOK_SECRET=new)
    headers, body = told(state, url, got)
    Webhook(new).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body, headers)

    # a shell from before, and a number that is none
    stale = {**os.environ, **before, "FROND_MAX_FILES": "many"}
    with pytest.raises(StackError, match="go on as they were"):
        control.roll(state, env=stale, say=lambda _: None)
    found = control.read_state(state)
    assert found is not None
    os.kill(found["services"][0]["pid"], signal.SIGKILL)

    def first() -> dict[str, Any]:
        # a state that cannot be read just now is none
        now = control.read_state(state)
        return dict(now["services"][0]) if now else {}

    until(lambda: first().get("restarts") == 1)
    until(lambda: first().get("pid"))
    assert knock(state, key) == 200

    control.down(state)
    up(state)
    assert knock(state, key) == 200
    assert read_env_file(state / "env")["FROND_WEBHOOK_SECRET"] == new
