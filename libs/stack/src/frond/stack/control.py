"""``up``, ``down``, ``status``: talking with the supervisor through its files."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from frond.stack.birth import birth_of, command_of
from frond.stack.errors import StackError
from frond.stack.installation import (
    SERVICES,
    read_env_file,
    refuse_personal_key,
    settings_of,
    write_private,
)

_SERVERS_S: Final = 45.0
"""How long Kafka and MinIO may take to end, after the services."""


def read_state(state: Path) -> dict[str, Any] | None:
    """What the supervisor last wrote; None when none runs.

    One that left its file behind runs no more, whoever has its pid by now.
    """
    try:
        found: dict[str, Any] = json.loads((state / "state.json").read_text())
        pid = int(found["pid"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    born = birth_of(pid)
    if "born" not in found and _supervises(pid, state):
        found["born"] = born  # by an older version, which did not write it
    return found if born and found.get("born") == born else None


def _supervises(pid: int, state: Path) -> bool:
    """Whether a process is the supervisor of this folder, by its command line."""
    return {"frond.stack", "supervise", str(state)} <= set(command_of(pid))


def up(
    state: Path,
    models: Path,
    *,
    scale: Mapping[str, int] | None = None,
    services: tuple[str, ...] = SERVICES,
    say: Callable[[str], None] = print,
) -> bool:
    """Return once everything is ready; False when it already was.

    Raises:
        StackError: it did not start; with the reason, everything is stopped again.
    """
    refuse_personal_key(settings_of(os.environ))
    logs = state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    with (state / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = read_state(state)
        if running is not None and running["phase"] == "ready":
            return False
        if running is not None:
            down(state)
        log = logs / "up.log"
        command = [
            sys.executable, "-m", "frond.stack", "supervise", str(state), str(models),
            *(f"--scale={n}={count}" for n, count in (scale or {}).items()),
            *(f"--only={name}" for name in services or ("none",)),
        ]  # fmt: skip
        with log.open("wb") as out:
            supervisor = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        _follow(state, log, supervisor, say)
    return True


def _follow(
    state: Path, log: Path, supervisor: subprocess.Popen[bytes], say: Callable[[str], None]
) -> None:
    """Pass the supervisor's lines on until it says that all is ready."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        while True:
            ended = supervisor.poll() is not None
            found = read_state(state)
            ready = found is not None and found["phase"] == "ready"
            for line in lines:
                say(line.rstrip("\n"))
            if ended:
                raise StackError(f"Nothing was left running. All of it stands in {log.parent}.")
            if ready:
                return
            time.sleep(0.1)  # the supervisor is another process: only its files speak to us


def roll(
    state: Path, *, env: Mapping[str, str] = os.environ, say: Callable[[str], None] = print
) -> None:
    """Exchange every service for a fresh process, one by one; return once all are.

    Args:
        env: its FROND_ and WEBHOOK_ variables are handed over to the services, over those that they
            were started with. The API key and the webhook secret stay from then on, others until
            ``down``.

    Raises:
        StackError: nothing runs here, or a new process did not become ready.
    """
    refuse_personal_key(settings_of(env))
    before = read_state(state)
    if before is None or before["phase"] != "ready":
        raise StackError("Nothing runs here. Start it with `make up`.")
    if "given" not in before:
        raise StackError("What runs here was started by an older version: `make down up` once.")
    with (state / "logs" / "up.log").open(encoding="utf-8", errors="replace") as lines:
        lines.seek(0, os.SEEK_END)
        write_private(state / "roll", json.dumps(settings_of(env)))
        while True:
            found = read_state(state)
            for line in lines:
                say(line.rstrip("\n"))
            if found is None:
                raise StackError("It was stopped meanwhile.")
            if found["rolls"] > before["rolls"] and found["roll"] not in ("running", "unkept"):
                break
            time.sleep(0.1)  # the supervisor is another process: only its files speak to us
    if found["roll"] != "done":
        raise StackError(
            "The services that were not rolled go on as they were. What is wrong stands above; after "
            "that is mended, roll again."
        )


def down(state: Path) -> bool:
    """Stop everything and wait until it is gone; False when nothing ran."""
    found = read_state(state)
    if found is None:
        return False
    pid = int(found["pid"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + found.get("leave_s", 45) + _SERVERS_S
    while birth_of(pid) == found["born"]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)  # its reaper kills what it had started
            break
        time.sleep(0.1)  # it is not our child: there is nothing to wait for
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # where `up` was called by this process
    for left in ("state.json", "env"):
        (state / left).unlink(missing_ok=True)
    return True


def environment(state: Path) -> dict[str, str]:
    """The variables of ``.frond/env``.

    Raises:
        StackError: nothing runs here.
    """
    path = state / "env"
    if not path.exists():
        raise StackError("Nothing runs here. Start it with `make up`.")
    return read_env_file(path)
