"""Where the stack keeps things, and which ports it takes."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Downloads and compiled binaries, shared by every checkout of this user.

    ``$XDG_CACHE_HOME/frond``, or ``~/.cache/frond``; made if it was not there.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "frond"
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_dir() -> Path:
    """What ``make up`` leaves in the checkout: ``$FROND_STATE_DIR``, or ``.frond`` here."""
    return Path(os.environ.get("FROND_STATE_DIR", ".frond")).resolve()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port that nobody listens on.

    Below the range that outgoing connections are given their ports from, and not asked for before by a
    process of this user's that still lives: while a killed server is away, nobody else may be handed
    its port by chance.
    """
    for _ in range(200):
        # not seeded: two stacks that start at once should look at different ports
        port = random.SystemRandom().randrange(20_000, 32_000)
        if port_is_free(port) and _take(port):
            return port
    raise RuntimeError("no free port between 20000 and 32000 on the loopback interface")


def _take(port: int) -> bool:
    """Note that this process has the port; False if another one, or this one, has it already."""
    file = Path(tempfile.gettempdir()) / f"frond-ports-{os.getuid()}" / str(port)
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        owner = file.read_text() if file.exists() else ""
        if owner and Path("/proc", owner).exists():
            return False
        file.write_text(str(os.getpid()))
    except OSError:
        pass  # then chance has to do
    return True
