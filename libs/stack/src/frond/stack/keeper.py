"""The stack of one pytest session, shared by its pytest-xdist workers.

Whoever needs it first starts a keeper process; the keeper owns the servers and watches the
process that stands for the whole session. When that ends, however it ends, so does the stack.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from frond.stack.choose import choose_stack
from frond.stack.endpoints import Endpoints
from frond.stack.errors import StackError, tail
from frond.stack.locks import file_lock

_START_S = 1500.0  # MinIO may have to be compiled first, on a slow machine


def shared_endpoints(home: Path, owner: int) -> Endpoints:
    """The session's stack, started by a keeper if this is the first to ask.

    Args:
        home: a folder of this session, the same for all its workers.
        owner: the process whose end ends the stack.

    Raises:
        StackError: it could not be started; the same error for each worker that asks.
    """
    found, failed, log = home / "stack.json", home / "failed", home / "keeper.log"
    with file_lock(home / "lock"):
        if failed.exists():
            raise StackError(failed.read_text())
        if found.exists():
            return Endpoints.load(found)
        with log.open("ab") as out:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "frond.stack", "keep", str(home), str(owner)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + _START_S
        told = 0
        while not found.exists():
            told = _tell(log, told)
            if keeper.poll() is not None or time.monotonic() > end:
                failed.write_text(f"The test stack did not start:\n{tail(log, 40)}")
                raise StackError(failed.read_text())
            time.sleep(0.1)  # the keeper is a process of its own: only its file speaks to us
        (home / "keeper.pid").write_text(str(keeper.pid))
        return Endpoints.load(found)


def _tell(log: Path, told: int) -> int:
    """Pass the keeper's progress lines on to whoever looks at the tests."""
    text = log.read_text(errors="replace")
    if len(text) > told:
        sys.__stderr__ and sys.__stderr__.write(text[told:])
    return len(text)


def stop_shared(home: Path) -> None:
    """End the keeper, if one runs, and wait until its servers are gone."""
    try:
        pid = int((home / "keeper.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass
    shutil.rmtree(home, ignore_errors=True)


def keep(home: Path, owner: int) -> None:
    """The keeper's life: start, say where, wait for the owner's end, stop."""
    stop = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: stop.set())
    stack = choose_stack(home / "data", logs=home / "logs", say=lambda s: print(s, flush=True))
    try:
        stack.start(lambda s: print(s, flush=True))
        stack.endpoints.save(home / "stack.json")
        threading.Thread(target=_stop_after, args=(owner, stop), daemon=True).start()
        stop.wait()
    finally:
        stack.stop()
        # an owner that was killed cannot clear up; a failed start leaves its logs to be read
        if (home / "stack.json").exists():
            shutil.rmtree(home / "data", ignore_errors=True)


def _stop_after(owner: int, stop: threading.Event) -> None:
    _wait_for_end(owner)
    stop.set()


def _wait_for_end(pid: int) -> None:
    try:
        watch = os.pidfd_open(pid)
    except (AttributeError, ProcessLookupError):
        while True:  # not Linux, or gone already
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.5)
    try:
        select.select([watch], [], [])
    finally:
        os.close(watch)
