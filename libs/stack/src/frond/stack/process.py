"""Child processes that never outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from frond.stack.errors import with_log


class _Reaper:
    """The companion process that kills our children if we are killed.

    One that was killed itself is replaced by the next that is told it, and that one is told all.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._alive: set[int] = set()
        self._lock = threading.Lock()

    def started(self, pid: int) -> None:
        with self._lock:
            if self._owner != os.getpid():
                # of a process that has forked, the children are not ours
                self._owner, self._process = os.getpid(), None
                self._alive.clear()
            self._alive.add(pid)
            self._tell(f"+{pid}\n")

    def ended(self, pid: int) -> None:
        with self._lock:
            if self._owner == os.getpid() and pid in self._alive:
                self._alive.remove(pid)
                self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None:
            try:
                self._write(self._process, line)
                return
            except BrokenPipeError:
                self._process.wait()
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__).with_name("_reaper.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # nothing stays behind for a process that is gone
            bufsize=0,
            start_new_session=True,
        )
        for pid in self._alive:
            self._write(self._process, f"+{pid}\n")

    @staticmethod
    def _write(process: subprocess.Popen[bytes], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line.encode())


_reaper = _Reaper()


class Child:
    """One server process, its log file, and the ways to end it.

    The process is killed when the process that started it dies, however that happened.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self.command = [str(c) for c in command]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                pass_fds=tuple(pass_fds),
                # a Ctrl-C in the terminal is for us: children are stopped in their order
                start_new_session=True,
            )
        _reaper.started(self.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs."""
        code = self._popen.poll()
        if code is not None:
            _reaper.ended(self.pid)
        return code

    @property
    def running(self) -> bool:
        return self.returncode is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait()
        _ = self.returncode

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.running:
            self._popen.send_signal(signal.SIGTERM)

    def stop(self, patience_s: float = 20.0) -> None:
        """SIGTERM, then SIGKILL for one that does not end in time."""
        self.terminate()
        try:
            self._popen.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        _ = self.returncode

    def wait_ready(self, ready: Callable[[], bool], deadline_s: float) -> None:
        """Ask ``ready`` until it says yes.

        Raises:
            StackError: the process ended, or the deadline passed; with the end of its log.
        """
        end = time.monotonic() + deadline_s
        while not ready():
            if not self.running:
                raise with_log(f"{self.name} ended with status {self.returncode}.", self.log)
            if time.monotonic() > end:
                raise with_log(f"{self.name} was not ready within {deadline_s:.0f} s.", self.log)
            # nothing announces that a server has begun to listen
            time.sleep(0.05)
