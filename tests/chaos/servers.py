"""The broker and the object store: killed, held down, and started again for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

from frond.stack import NativeStack
from frond.stack.process import Child

SERVERS: Final = ("kafka", "minio")


class Servers:
    """Kafka and MinIO of one stack; whatever dies is started again, unless it is held down.

    Args:
        killed: is told the name of each that is killed while it ran.
        note: is told what helps to replay a failure.
        fell: is told the name and the status of each that ended and was not killed by us.
    """

    def __init__(
        self, stack: NativeStack, *, killed: Callable[[str], None], note: Callable[..., None],
        fell: Callable[[str, int | None], None],
    ) -> None:  # fmt: skip
        self.stack = stack
        self._killed = killed
        self._note = note
        self._fell = fell
        self._told: set[Child] = set()
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._held: set[str] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    def keep(self) -> None:
        """From now on."""
        for name in SERVERS:
            self._keepers[name] = asyncio.create_task(self._keep(name))

    async def close(self) -> None:
        """End them."""
        self._closing = True
        tasks = [*self._keepers.values(), *self._starting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._end)

    def child(self, name: str) -> Child:
        child = (self.stack.kafka if name == "kafka" else self.stack.minio).child
        assert child is not None
        return child

    def pid(self, name: str) -> int | None:
        return self.stack.pids().get(name)

    def kill(self, name: str) -> asyncio.Task[None]:
        """SIGKILL; awaiting the result waits until it answers again."""
        self._kill(name)
        return self._start(name)

    def stop(self, name: str) -> None:
        """SIGKILL, and hold down."""
        self._held.add(name)
        self._kill(name)

    def start(self, name: str) -> None:
        """Start what was held down; :meth:`up` waits for it."""
        self._held.discard(name)
        self._start(name)

    async def up(self, within: float) -> None:
        """Wait until those that are being started answer."""
        async with asyncio.timeout(within):
            for task in list(self._starting.values()):
                await asyncio.shield(task)

    def _kill(self, name: str) -> None:
        if (child := self.child(name)).running:
            self._killed(name)
            self._told.add(child)
            (self.stack.kill_kafka if name == "kafka" else self.stack.kill_minio)()

    async def _keep(self, name: str) -> None:
        while True:
            child = self.child(name)
            await exited(child)
            if child not in self._told and not self._closing:
                self._told.add(child)
                self._fell(name, child.returncode)
            if name in self._held or self._closing:
                await asyncio.sleep(0.2)  # until it is started again
                continue
            if self.child(name) is child:
                await asyncio.shield(self._start(name))

    def _start(self, name: str) -> asyncio.Task[None]:
        running = self._starting.get(name)
        if running is not None and not running.done():
            return running
        start = self.stack.start_kafka if name == "kafka" else self.stack.start_minio
        self._starting[name] = asyncio.create_task(self._until_it_runs(name, start))
        return self._starting[name]

    async def _until_it_runs(self, name: str, start: Callable[[], object]) -> None:
        while not self._closing and name not in self._held:
            try:
                await asyncio.to_thread(start)
            except Exception as e:  # a full disk, say: it is tried until it can
                self._note("server did not start", name=name, error=str(e)[-500:])
                await asyncio.sleep(1.0)
            else:
                self._note("server is back", name=name)
                return

    def _end(self) -> None:
        for end in (self.stack.kill_kafka, self.stack.kill_minio, self.stack.stop):
            with contextlib.suppress(Exception):
                end()


async def exited(child: Child) -> None:
    """Return once the process has ended, however."""
    if not child.running:
        return
    try:
        fd = os.pidfd_open(child.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(fd, lambda: ended.done() or ended.set_result(None))  # type: ignore[func-returns-value]
    try:
        await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)


class Tasks:
    """Background work that is held on to until it is done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
