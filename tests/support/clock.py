"""The running event loop's clock, which a test may put forward: what waits for a time has it at once,
however fast or busy the machine is."""

from __future__ import annotations

import asyncio

import pytest


class Clock:
    """Of the loop that runs where it is made. Time-outs of the test itself are moved, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self._ahead)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds
