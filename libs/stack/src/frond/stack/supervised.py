"""One service under supervision: its listening socket, and the process that answers on it.

The supervisor listens and the service inherits: whoever connects while processes change waits for
the next one and is not refused. That is also what lets two of them overlap during a roll.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from frond.stack.minio_server import http_ok
from frond.stack.process import Child

_BACKLOG: Final = 512
_DRAIN_S: Final = 25.0
"""As the services have it where nobody sets ``FROND_DRAIN_S``."""
_MORE_S: Final = 35.0
"""For closing connections after that, on a machine that is busy."""


class Worker(Child):
    """One process of a service, which answers on a port of its own as well as on the shared one."""

    def __init__(self, one: Supervised, shared: socket.socket, env: Mapping[str, str]) -> None:
        with socket.create_server((one.host, 0)) as own:
            self.port = int(own.getsockname()[1])
            fds = [shared.fileno(), own.fileno()]
            super().__init__(
                one.name,
                [sys.executable, "-m", f"frond.{one.module}"],
                log=one.log,
                env={**env, "FROND_HTTP_FD": ",".join(map(str, fds))},
                pass_fds=fds,
            )
        self.host = one.host
        self.leave_s = leave_s(env)
        """How long it may take to end once it was asked to."""
        self.started = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether this very process is, whoever else answers on the shared port."""
        return http_ok(f"http://{self.host}:{self.port}/ready")


def leave_s(env: Mapping[str, str]) -> float:
    """How long a process with this environment may take to end once it was asked to."""
    try:
        return float(env.get("FROND_DRAIN_S") or _DRAIN_S) + _MORE_S
    except ValueError:
        return _DRAIN_S + _MORE_S  # it refuses to start with that


@dataclass
class Supervised:
    """One service: how it is started, and how often it had to be.

    Attributes:
        child: the process that stands for the service.
        others: processes that begin or end beside it while it is rolled.
    """

    name: str
    module: str
    env: Mapping[str, str]
    log: Path
    port: int
    host: str = "127.0.0.1"
    child: Worker | None = None
    others: list[Worker] = field(default_factory=list)
    restarts: int = 0
    streak: int = 0
    due: float = 0.0
    was_ready: bool = False
    _listening: socket.socket | None = None

    def begin(self, env: Mapping[str, str] | None = None) -> Worker:
        """A further process of the service, in its environment or another; it is the caller's."""
        if self._listening is None:
            self._listening = socket.create_server((self.host, self.port), backlog=_BACKLOG)
        return Worker(self, self._listening, self.env if env is None else env)

    def spawn(self) -> None:
        """Start the process that stands for the service."""
        self.child = self.begin()

    def let_go(self) -> None:
        """Free the port for a process that somebody else starts."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    @property
    def ready(self) -> bool:
        return self.child is not None and self.child.ready

    @property
    def processes(self) -> list[Worker]:
        """All processes there are of it."""
        return [*([self.child] if self.child else []), *self.others]
