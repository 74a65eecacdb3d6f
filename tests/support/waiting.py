"""Waiting for what tells nobody that it has happened: a process that gets ready, an answer that
changes. Where there is an event to await, tests await that."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = 120, *, every: float = 0.05) -> T:
    """The first true thing that ``look`` gives."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {found!r}"
        time.sleep(every)


def until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a service says that it is ready; shows its log when it does not."""

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(lambda: process.poll() is not None or ready(), 180, every=0.1)
    except AssertionError:
        raise AssertionError(f"{url} is not ready:\n{_tail(log)}") from None
    assert process.poll() is None, f"ended with {process.returncode}:\n{_tail(log)}"


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-5000:]
