"""The process that trains, in a process group of its own: what it says, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

_PIECE: Final = 1 << 16
_TAIL: Final = 1 << 16
_MOST_LOG: Final = 4 << 20
_READ_OUT_S: Final = 5.0
# alone, it needs nothing of where we were started, nor of what we import
_GUARD: Final = Path(__file__).with_name("guard.py").absolute()


class Child:
    """One process. What it writes goes into a log of bounded size; the last of it is kept.

    Attributes:
        ended: done when it has ended itself, whatever it has left behind that goes on writing.
    """

    def __init__(self, process: Process, log: Path, out: _Pipe, err: _Pipe) -> None:
        self._process = process
        self._log = log
        self._tails = {"out": b"", "err": b""}
        self._cut = False
        self._pipes = (out, err)
        self._reading = [
            asyncio.create_task(self._read("out", out.reader)),
            asyncio.create_task(self._read("err", err.reader)),
        ]
        self.ended = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, command: Sequence[str], folder: Path, log: Path) -> Child:
        """Begin a command in this folder; it ends with us. Raises OSError."""
        guard = (sys.executable, "-I", str(_GUARD), str(os.getpid()))
        # asyncio's own pipes would make its end wait for whoever else has them
        async with _Pipe() as out, _Pipe() as err:
            process = await asyncio.create_subprocess_exec(
                *guard, *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=out.end,
                stderr=err.end, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            return cls(process, log, out.kept(), err.kept())

    async def stop(self, within: float) -> int:
        """Ask it to end, then end it with whatever it has begun; returns its exit code."""
        if not self.ended.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.ended}, timeout=within)
        # what it has begun itself does not outlive it
        self._signal(signal.SIGKILL)
        code = await self.ended
        _, late = await asyncio.wait(self._reading, timeout=_READ_OUT_S)
        for task in late:
            task.cancel()
        for pipe in self._pipes:
            pipe.close()
        if self._cut:
            # the end says more than the middle
            await asyncio.to_thread(self._write, b"\n[...]\n" + self._tails["err"])
        return code

    def last_line(self, stream: str) -> bytes:
        """The last line on ``out`` or ``err`` that says anything: a frame's edge does not."""
        lines = [line for line in self._tails[stream].splitlines() if re.search(rb"\w", line)]
        return lines[-1].strip() if lines else b""

    def _signal(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, how)

    async def _read(self, stream: str, source: asyncio.StreamReader) -> None:
        while piece := await source.read(_PIECE):
            self._tails[stream] = (self._tails[stream] + piece)[-_TAIL:]
            if not self._cut:
                await asyncio.to_thread(self._write, piece)

    def _write(self, piece: bytes) -> None:
        # a full disk ends the training by itself, and must not end us
        with contextlib.suppress(OSError), self._log.open("ab") as out:
            out.write(piece)
            self._cut = out.tell() >= _MOST_LOG


class _Pipe:
    """A pipe whose other end is a process's; closed here unless it is kept."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()

    async def __aenter__(self) -> Self:
        ours, self.end = os.pipe()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), os.fdopen(ours, "rb", 0)
        )
        self._kept = False
        return self

    async def __aexit__(self, *_: object) -> None:
        os.close(self.end)
        if not self._kept:
            self.close()

    def kept(self) -> Self:
        self._kept = True
        return self

    def close(self) -> None:
        self._transport.close()
