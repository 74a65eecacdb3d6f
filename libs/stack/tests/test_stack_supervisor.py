"""``up`` to ``down``: services come up ready, and come back when they or the broker are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from frond.stack import StackError, control
from frond.stack.choose import kept_kind
from frond.stack.installation import read_env_file
from frond.stack.minio_server import http_ok

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The ``.frond`` folder of an installation that is stopped in the end."""
    folder = tmp_path / ".frond"
    yield folder
    control.down(folder)


def test_a_killed_service_and_a_killed_broker_come_back(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL on a service or on Kafka needs nobody's attention, and the count of restarts shows."""
    monkeypatch.setenv("FROND_STACK", "native")
    lines: list[str] = []
    assert control.up(state, tmp_path / "no-models", services=("tiler",), say=lines.append)
    assert any(line.startswith("tiler is ready") for line in lines)
    assert kept_kind(state / "data") == "native"
    env = read_env_file(state / "env")
    assert {"FROND_API_URL", "FROND_KAFKA_BOOTSTRAP", "FROND_S3_BUCKET", "FROND_API_KEY"} <= set(
        env
    )
    assert not control.up(state, tmp_path, services=("tiler",)), "it was up already"

    before = _state(state)
    os.kill(before["services"][0]["pid"], signal.SIGKILL)
    after = _until(state, lambda s: s["services"][0]["restarts"] == 1 and s["services"][0]["pid"])
    assert after["services"][0]["pid"] != before["services"][0]["pid"]
    os.kill(before["servers"]["kafka"], signal.SIGKILL)
    _until(state, lambda s: s["servers"]["kafka"] != before["servers"]["kafka"])
    port = before["services"][0]["port"]
    _until(state, lambda s: http_ok(f"http://127.0.0.1:{port}/ready"))

    pids = [*_state(state)["servers"].values(), *(s["pid"] for s in _state(state)["services"])]
    assert control.down(state)
    assert not control.down(state), "there is nothing left to stop"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (state / "env").exists()


def test_a_service_that_cannot_start_says_why(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` ends with the reason from the service's own log, and leaves nothing running."""
    monkeypatch.setenv("FROND_STACK", "native")
    monkeypatch.setenv("FROND_WINDOWS_PER_CHUNK", "none")
    lines: list[str] = []
    with pytest.raises(StackError):
        control.up(state, tmp_path / "no-models", services=("tiler",), say=lines.append)
    assert "FROND_WINDOWS_PER_CHUNK cannot be used" in "\n".join(lines)
    assert control.read_state(state) is None


def _state(state: Path) -> dict[str, Any]:
    found = control.read_state(state)
    assert found is not None
    return found


def _until(state: Path, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    end = time.monotonic() + 90
    while not wanted(found := _state(state)):
        assert time.monotonic() < end, found
        time.sleep(0.1)  # the supervisor is another process: only its file speaks to us
    return found
