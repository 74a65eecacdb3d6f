"""The demo on an installation that sends no webhooks to this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from frond.client.client import Client
from frond.client.demo import submit
from frond.client.demo.receiver import Receiver
from frond.client.errors import FrondClientError
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason
from frond.runtime import Egress
from frond.stack.paths import free_port
from support.waiting import until_ready


class Door:
    """A client of an installation with this FROND_EGRESS_ALLOW."""

    def __init__(self, allow: str) -> None:
        self.egress = Egress(allow)
        self.hooks: list[str | None] = []

    def upload(
        self, files: Sequence[Path], job_id: str, webhook_url: str | None = None, **_: Any
    ) -> str:
        try:
            if webhook_url:
                self.egress.check(webhook_url)
        except JobRejected as e:
            raise FrondClientError(e.detail, reason=e.reason.value, status=400) from None
        self.hooks.append(webhook_url)
        return job_id


def test_it_says_so_and_runs_without(capsys: pytest.CaptureFixture[str]) -> None:
    """The job runs, untold; how to see the webhook is said in so many words."""
    door, receiver = Door(""), Receiver("http://127.0.0.1:9/frond")
    submit(cast(Client, door), [], "demo-1", receiver)
    assert (door.hooks, receiver.shut) == ([None], True)
    told = " ".join("".join(capsys.readouterr()).split())
    assert "sends no webhooks to this machine" in told
    assert "FROND_EGRESS_ALLOW=127.0.0.1 make up" in told


def test_with_leave_the_webhook_is_asked_for() -> None:
    door, receiver = Door("127.0.0.1"), Receiver("http://127.0.0.1:9/frond")
    submit(cast(Client, door), [], "demo-1", receiver)
    assert (door.hooks, receiver.shut) == ([receiver.url], False)


def test_other_refusals_end_it() -> None:
    """Only the address is forgiven: nothing else is tried again without it."""
    door, receiver = Door(""), Receiver("ftp://127.0.0.1/frond")
    with pytest.raises(FrondClientError, match="refused"):
        submit(cast(Client, door), [], "demo-1", receiver)
    assert (door.hooks, receiver.shut) == ([], False)


@pytest.mark.stack
def test_the_real_door_refuses_in_the_words_that_the_demo_knows(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """Before the job is made: afterwards the demo may make it without."""
    port = free_port()
    env = {**service_env, "API_PORT": str(port), "FROND_API_KEY": "k", "FROND_EGRESS_ALLOW": ""}
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        door = subprocess.Popen(
            [sys.executable, "-m", "frond.ingest"], env=env, stdout=log, stderr=log
        )
    try:
        until_ready(door, url, tmp_path / "log")
        with Client(url, "k") as client, pytest.raises(FrondClientError) as told:
            client.create_job("demo-1", webhook_url="http://127.0.0.1:9/frond")
        assert told.value.reason == Reason.BAD_REQUEST
        assert "FROND_EGRESS_ALLOW" in told.value.detail
        answer = httpx.get(f"{url}/status/demo-1", headers={"authorization": "Bearer k"})
        assert answer.status_code == 404
    finally:
        door.terminate()
        door.wait(60)
