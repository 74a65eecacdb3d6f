"""The services' processes: killed, frozen, joining and leaving; and whatever dies is started again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chaos.servers import Tasks, exited
from frond.stack.paths import free_port
from frond.stack.process import Child


@dataclass
class _Process:
    name: str
    service: str
    port: int
    held: bool = False
    child: Child | None = None
    keeper: asyncio.Task[None] | None = None


class Workers:
    """Processes of the services, by name: ``tiler``, ``tiler-2``, …

    Args:
        folder: theirs: logs, databases.
        env: of each process; what changes in it holds for those that are started from then on.
        killed: is told the name of each that is killed while it ran.
        fell: is told the name and the status of each that ended otherwise.
        crashed: whether one of this name that was killed died at a crash point.
    """

    def __init__(
        self, folder: Path, env: dict[str, str], *, killed: Callable[[str], None],
        fell: Callable[[str, int | None], None], crashed: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self.folder = folder
        self.env = env
        self._killed = killed
        self._fell = fell
        self._crashed = crashed
        self._asked: dict[Child, signal.Signals] = {}
        self._processes: dict[str, _Process] = {}
        self._started: dict[int, tuple[str, Child]] = {}
        self._read_to: dict[Path, int] = {}
        self._tasks = Tasks()
        self._closing = False

    async def close(self) -> None:
        """Kill all of them, and what they have left."""
        self._closing = True
        keepers = [p.keeper for p in self._processes.values() if p.keeper]
        for task in keepers:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for _, child in self._started.values():
            if child.running:
                _kill_group(child)
        for pid in self.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- who is there --------------------------------------------------------------------------

    def names(self, service: str | None = None) -> list[str]:
        """Processes of a service, or of all services."""
        return [p.name for p in self._processes.values() if service in (None, p.service)]

    def there(self, name: str) -> bool:
        """Whether it is meant to run."""
        process = self._processes.get(name)
        return process is not None and not process.held

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._processes[name].port}"

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        child = self._processes[name].child
        return child.pid if child is not None else None

    def orphans(self) -> dict[int, str]:
        """Helper processes that live on though the worker that began them has died, by process id."""
        dead = {pid: name for pid, (name, child) in self._started.items() if not child.running}
        return orphans_of(dead, str(self.folder))

    def driven_again(self) -> Counter[str]:
        """How often the reconciler drove each job again, since this was last asked."""
        found = Counter[str]()
        for path in (self.folder / "logs").glob("aggregator*.log"):
            with path.open("rb") as log:
                log.seek(self._read_to.get(path, 0))
                found.update(j for line in log if (j := driven(line)))
                self._read_to[path] = log.tell()
        return found

    # -- trouble -------------------------------------------------------------------------------

    def kill(self, name: str) -> bool:
        """SIGKILL; it is started again at once. Whether it ran."""
        child = self._processes[name].child
        if child is None or not child.running:
            return False
        self._killed(name)
        self._asked[child] = signal.SIGKILL
        child.kill()
        return True

    def add(self, service: str) -> str:
        """One more; returns its name."""
        name = next(n for n in _numbered(service) if n not in self._processes)
        self._processes[name] = process = _Process(name, service, free_port())
        self._spawn(process)
        return name

    def remove(self, name: str, sig: signal.Signals) -> asyncio.Task[None]:
        """It leaves for good; awaiting the result waits until it is gone."""
        process = self._processes.pop(name)
        process.held = True
        child = process.child
        if child is not None and child.running:
            if sig == signal.SIGKILL:
                self._killed(name)
            self._asked[child] = sig
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, sig)

        async def gone() -> None:
            if child is not None:
                await exited(child)

        return self._tasks.begin(f"remove {name}", gone())

    def stop(self, name: str) -> None:
        """SIGKILL, and hold down. When this returns it is gone."""
        process = self._processes[name]
        process.held = True
        if process.child is not None and process.child.running:
            self._killed(name)
            self._asked[process.child] = signal.SIGKILL
            process.child.kill()

    def start(self, name: str) -> None:
        """Start what was held down."""
        process = self._processes[name]
        if process.held:
            process.held = False
            self._spawn(process)

    # -- keeping -------------------------------------------------------------------------------

    def _spawn(self, process: _Process) -> None:
        name, port = process.name, str(process.port)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FROND_")}
        env = {
            **inherited, **self.env, "FROND_HTTP_PORT": port, "API_PORT": port,
            "DATABASE_PATH": str(self.folder / f"{name}.sqlite"),
        }  # fmt: skip
        command = [sys.executable, "-m", f"frond.{process.service}"]
        process.child = Child(name, command, log=self.log(name), env=env)
        self._started[process.child.pid] = (name, process.child)
        process.keeper = asyncio.create_task(self._keep(process, process.child))

    async def _keep(self, process: _Process, child: Child) -> None:
        began = time.monotonic()
        await exited(child)
        if self._closing:
            return
        by_itself = not self._was_asked(process.name, child)
        if by_itself:
            # one that leaves may die on its way, too
            self._fell(process.name, child.returncode)
        if process.held or process.child is not child:
            return
        if by_itself:
            # one that cannot start must not be started a hundred times a second
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
        # it may have been held down and started again meanwhile
        if not process.held and not self._closing and process.child is child:
            self._spawn(process)

    def _was_asked(self, name: str, child: Child) -> bool:
        code = child.returncode
        if asked_for(code, self._asked.pop(child, None)):
            return True
        return code == -signal.SIGKILL and self._crashed(name)


def asked_for(code: int | None, sig: signal.Signals | None) -> bool:
    """Whether a process that ended so was made to by this signal; None: it was sent none."""
    return sig is not None and (code == -sig or (sig == signal.SIGTERM and code == 0))


def orphans_of(dead: dict[int, str], mark: str) -> dict[int, str]:
    """Processes of the process groups of these leaders that are dead, by process id.

    Args:
        mark: stands in their environment; process ids come round again, and then belong to others.
    """
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # the command, in brackets, may hold anything
            told = (folder / "stat").read_text().rpartition(")")[2].split()
            state, group = told[0], int(told[2])
            if (
                group in dead
                and state != "Z"
                and mark.encode() in (folder / "environ").read_bytes()
            ):
                found[int(folder.name)] = dead[group]
    return found


def driven(line: bytes) -> str:
    """The job that this line of an aggregator's log tells was driven again; empty for others."""
    if b"is driven again" not in line:
        return ""
    try:
        return str(json.loads(line)["job_id"])
    except (ValueError, KeyError, TypeError):
        return "?"


def service_of(name: str) -> str:
    """The service of a process of this name."""
    head, _, number = name.rpartition("-")
    return head if head and number.isdigit() else name


def _numbered(service: str) -> Iterator[str]:
    yield service
    yield from (f"{service}-{n}" for n in itertools.count(2))


def _kill_group(child: Child) -> None:
    # whatever helper processes it had; each Child leads a session of its own
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
