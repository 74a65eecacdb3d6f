"""Who ended a process: chaos, a crash point, or neither."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.figures import Figures
from chaos.installation import Installation
from chaos.workers import Workers, asked_for
from frond.runtime.crashpoints import FIRED

TERM, KILL = signal.SIGTERM, signal.SIGKILL


class Watched(Workers):
    """Workers whose deaths are told in a queue."""

    def __init__(self, folder: Path) -> None:
        self.told: asyncio.Queue[tuple[str, int | None]] = asyncio.Queue()
        self.points: list[str] = []
        super().__init__(
            folder, {"FROND_CACHE_DIR": str(folder)}, killed=lambda _: None,
            fell=lambda *what: self.told.put_nowait(what), crashed=self._at_a_point,
        )  # fmt: skip

    def _at_a_point(self, name: str) -> bool:
        if name in self.points:
            self.points.remove(name)
            return True
        return False

    def shoot(self, name: str, sig: signal.Signals) -> None:
        """As somebody else."""
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, sig)

    async def again(self, name: str, pid: int | None) -> None:
        async with asyncio.timeout(120):
            while self.pid(name) == pid:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # it is started again by a task of its own


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    await watched.close()


async def test_who_was_killed_by_us_did_not_die_by_itself(workers: Watched) -> None:
    """Nor who died at a crash point, once for each; who was shot by anybody else did."""
    name = workers.add("tiler")
    pid = workers.pid(name)
    assert workers.kill(name)
    await workers.again(name, pid)
    pid = workers.pid(name)
    workers.points.append(name)
    workers.shoot(name, KILL)
    await workers.again(name, pid)
    assert workers.told.empty()
    workers.shoot(name, KILL)
    assert await asyncio.wait_for(workers.told.get(), 120) == (name, -KILL)


async def test_who_dies_on_its_way_out_is_told(workers: Watched) -> None:
    """It was asked to leave, and was ended by something else."""
    name = workers.add("tiler")
    pid = workers.pid(name)
    assert pid is not None
    # a signal that ends nobody: SIGTERM might be quicker than what follows
    gone = workers.remove(name, signal.SIGCONT)
    os.kill(pid, KILL)
    await gone
    assert await asyncio.wait_for(workers.told.get(), 120) == (name, -KILL)


@pytest.mark.parametrize(
    ("code", "sent", "asked"),
    [
        (-KILL, KILL, True), (-KILL, None, False), (-KILL, TERM, False), (0, TERM, True),
        (-TERM, TERM, True), (-TERM, None, False), (1, TERM, False), (0, None, False),
        (-signal.SIGSEGV, KILL, False),
    ],
)  # fmt: skip
def test_what_was_asked_for(code: int, sent: signal.Signals | None, asked: bool) -> None:
    assert asked_for(code, sent) is asked


def test_a_crash_point_explains_one_death(tmp_path: Path) -> None:
    """Of a process of its service; the same token laid out and taken again explains one more."""
    installation = Installation(tmp_path, Figures())
    fired = installation.crash_points / FIRED
    fired.mkdir(parents=True)
    assert not installation._crashed("tiler")
    token = fired / "tiler.plan-stored.1"
    token.touch()
    assert not installation._crashed("inference")
    assert installation._crashed("tiler-2")
    assert not installation._crashed("tiler")
    token.unlink()
    token.touch()
    assert installation._crashed("tiler")
