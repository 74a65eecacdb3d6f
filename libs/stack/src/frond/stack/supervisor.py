"""Keeps the stack and the five services running: restarts what ends, until it is asked to stop.

Services exit rather than linger half dead, so somebody has to start them again: here that is a
detached process with its state in ``.frond/``; in Compose it is ``restart: unless-stopped``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from frond.stack.birth import birth_of
from frond.stack.choose import choose_stack, keep_kind
from frond.stack.endpoints import Stack
from frond.stack.errors import StackError, with_log
from frond.stack.installation import (
    SERVICES,
    Installation,
    settings_of,
    write_env_file,
    write_private,
)
from frond.stack.prepare import prepare, push_models
from frond.stack.roll import Roll
from frond.stack.supervised import Supervised, leave_s

_TICK_S: Final = 0.25
_READY_S: Final = 180.0
_BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_STEADY_S: Final = 60.0  # up this long, a service begins its backoff anew
_HOPELESS: Final = 3  # exits before the first readiness after which `up` gives up


class Supervisor:
    """The life of one installation; ``run`` returns when it was asked to stop.

    Args:
        state: the ``.frond`` folder.
        models: a folder of model folders to push.
        scale: how many processes of a service, where not one.
        services: which; none for Kafka and MinIO alone.
    """

    def __init__(
        self,
        state: Path,
        models: Path,
        *,
        scale: Mapping[str, int] | None = None,
        services: tuple[str, ...] = SERVICES,
        say: Callable[[str], None] = print,
    ) -> None:
        self.state = state
        self.models = models
        self.scale = dict(scale or {})
        self.services = services
        self._told = say
        self.stop = threading.Event()
        self._supervised: list[Supervised] = []
        self._stack: Stack | None = None
        self._phase = "starting"
        self._written = ""
        self._roll: Roll | None = None
        self._rolls = 0
        self._given: dict[str, str] = {}
        self._wished: dict[str, str] = {}

    def run(self) -> None:
        """Start everything, say so, watch over it; stop everything in the end.

        Raises:
            StackError: something did not start.
        """
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: self.stop.set())
        try:
            self._start()
            self._phase = "ready"
            while not self.stop.is_set():
                self._tick()
                self._tend_roll()
                self._write()
                self.stop.wait(_TICK_S)
        except BaseException:
            self._phase = "failed"
            raise
        finally:
            if self._phase != "failed":
                self._phase = "stopping"
            try:
                self._write()
            finally:
                self._stop_all()

    def say(self, line: str) -> None:
        """Tell it; where the disk is full that has the log, nobody hears it."""
        with contextlib.suppress(OSError):
            self._told(line)

    def _names(self) -> list[tuple[str, str]]:
        names = []
        for service in self.services:
            names.append((service, service))
            names += [(f"{service}-{i}", service) for i in range(2, self.scale.get(service, 1) + 1)]
        return names

    def _start(self) -> None:
        installation = Installation.load_or_make(self.state)
        names = self._names()
        installation.take_ports(("kafka", "s3", *dict.fromkeys(("ingest", *(n for n, _ in names)))))
        installation.save(self.state)
        self._installation = installation
        wished = installation.with_keys(settings_of(os.environ))
        (self.state / "roll").unlink(missing_ok=True)
        self._write()
        stack = choose_stack(
            self.state / "data",
            kafka_port=installation.ports["kafka"],
            s3_port=installation.ports["s3"],
            keys=(installation.access_key, installation.secret_key),
            logs=self.state / "logs",
            lasting=True,
            say=self.say,
        )
        stack.start(self.say)
        self._stack = stack
        keep_kind(self.state / "data", stack)
        self.say(f"Kafka is ready at {stack.kafka_bootstrap}, MinIO at {stack.s3_endpoint}")
        prepare(stack.endpoints, installation.bucket, installation.topic_prefix)
        self.say("Topics and bucket are there")
        push_models(stack.endpoints, installation.bucket, self.models, self.say)
        self._write_env(wished)
        for name, module in names:
            env = self._env_of(name, module, wished, {})
            one = Supervised(
                name, module, env, self.state / "logs" / f"{name}.log", installation.ports[name]
            )
            one.spawn()
            self._supervised.append(one)
        self._wait_for_services()
        if not self.stop.is_set():
            # not sooner: with a key that no service takes, nothing would start ever again
            self._keep(wished)

    def _env_of(
        self, name: str, module: str, installation: Installation, given: Mapping[str, str]
    ) -> dict[str, str]:
        assert self._stack is not None
        env = installation.service_env(name, self._stack.endpoints, self.state, given)
        if module == "ingest":
            env["API_HOST"], env["API_PORT"] = "127.0.0.1", str(installation.ports[name])
        return env

    def _write_env(self, installation: Installation) -> None:
        assert self._stack is not None
        write_env_file(
            self.state / "env",
            installation.public_env(self._stack.endpoints),
            Path(sysconfig.get_path("scripts")),
        )

    def _keep(self, installation: Installation) -> None:
        installation.save(self.state)
        self._installation = installation

    def _wait_for_services(self) -> None:
        end = time.monotonic() + _READY_S
        waiting = list(self._supervised)
        while waiting and not self.stop.is_set():
            self._tick()
            self._write()
            for one in list(waiting):
                if one.ready:
                    one.was_ready = True
                    waiting.remove(one)
                    self.say(f"{one.name} is ready at http://127.0.0.1:{one.port}")
                elif one.streak >= _HOPELESS:
                    raise with_log(f"{one.name} ends as soon as it is started.", one.log, 40)
                elif time.monotonic() > end:
                    raise with_log(f"{one.name} was not ready in {_READY_S:.0f} s.", one.log, 40)
            self.stop.wait(_TICK_S)

    def _tick(self) -> None:
        """Look at every process once, and start again what has ended."""
        self._tend_stack()
        now = time.monotonic()
        for one in self._supervised:
            if self._held(one):
                continue
            if one.child is not None and one.child.running:
                continue
            if one.child is not None:
                if now - one.child.started > _STEADY_S:
                    one.streak = 0
                wait = _BACKOFF_S[min(one.streak, len(_BACKOFF_S) - 1)]
                self.say(f"{one.name} ended with status {one.child.returncode}: again in {wait} s")
                one.child, one.due = None, now + wait
                one.streak += 1
                one.restarts += 1
            elif now >= one.due:
                try:
                    one.spawn()
                except OSError as e:
                    self.say(f"{one.name}, port {one.port}, cannot be started: {e}: again in 2 s")
                    one.due = now + 2.0

    def _tend_stack(self) -> None:
        assert self._stack is not None
        for name in self._stack.trouble():
            self.say(f"{name} has ended: starting it again")
            try:
                (self._stack.start_kafka if name == "kafka" else self._stack.start_minio)()
            except (StackError, OSError) as e:
                # of a full disk, say; the next look tries again, and services wait meanwhile
                self.say(str(e))

    def _held(self, one: Supervised) -> bool:
        """Whether a developer runs this service by hand (``run SERVICE``)."""
        hold = self.state / "hold" / one.name
        try:
            pid, _, born = hold.read_text().partition(" ")
            runs = birth_of(int(pid)) == born
        except (FileNotFoundError, ValueError):
            runs = False
        if not runs:
            hold.unlink(missing_ok=True)
            return False
        if one.child is not None:
            one.child.stop()
            one.child, one.due = None, 0.0
        one.let_go()
        return True

    def _tend_roll(self) -> None:
        """Begin the roll that somebody wishes, or go on with the one there is."""
        if self._roll is not None and self._roll.state == "unkept":
            self._keep_rolled(self._roll)
            return
        if self._roll is None or self._roll.state != "running":
            wish = self.state / "roll"
            if not wish.exists():
                return
            self._wished = {**self._given, **json.loads(wish.read_text() or "{}")}
            wish.unlink()
            self._rolls += 1
            self._roll = Roll(self._supervised, self._envs(), self.say)
        try:
            self._roll.step()
        except OSError as e:
            self._roll.state = "failed"
            self.say(f"The roll ends: {e}")
        if self._roll.state == "done":
            self._take_rolled()
            self._keep_rolled(self._roll)

    def _take_rolled(self) -> None:
        """Of a roll that failed nothing is taken: what it did not reach goes on as it was."""
        self._installation = self._installation.with_keys(self._wished)
        envs = self._envs()
        for one in self._supervised:
            one.env = envs[one.name]
        self._given = self._wished

    def _keep_rolled(self, roll: Roll) -> None:
        """Write what all services run with by now; while the disk has no room, each look tries again."""
        try:
            self._installation.save(self.state)
            self._write_env(self._installation)
        except OSError as e:
            if roll.state != "unkept":
                self.say(f"The keys cannot be kept, which is tried again until they are: {e}")
            roll.state = "unkept"
        else:
            roll.state = "done"

    def _envs(self) -> dict[str, dict[str, str]]:
        """The services' environments with what the present roll brings."""
        installation = self._installation.with_keys(self._wished)
        return {
            one.name: self._env_of(one.name, one.module, installation, self._wished)
            for one in self._supervised
        }

    def _stop_all(self) -> None:
        children = [child for one in self._supervised for child in one.processes]
        for child in children:
            child.terminate()
        with ThreadPoolExecutor(max(1, len(children))) as pool:
            list(pool.map(lambda child: child.stop(child.leave_s), children))
        if self._stack is not None:
            self._stack.stop()

    def _write(self) -> None:
        state: dict[str, Any] = {
            "phase": self._phase,
            "pid": os.getpid(),
            "born": birth_of(os.getpid()),
            "stack": self._stack.kind if self._stack else "",
            "servers": self._stack.pids() if self._stack else {},
            "leave_s": max(
                (child.leave_s for one in self._supervised for child in one.processes),
                default=leave_s(os.environ),
            ),
            "rolls": self._rolls,
            "given": sorted(self._given),
            "roll": self._roll.state if self._roll else "",
            "services": [
                {
                    "name": one.name,
                    "pid": one.child.pid if one.child else None,
                    "port": one.port,
                    "restarts": one.restarts,
                    "log": str(one.log),
                }
                for one in self._supervised
            ],
        }
        text = json.dumps(state, indent=1)
        if text != self._written:
            # on a full disk the next look tries again
            with contextlib.suppress(OSError):
                write_private(self.state / "state.json", text)
                self._written = text


def supervise(
    state: Path, models: Path, scale: Mapping[str, int], services: tuple[str, ...]
) -> int:
    """The detached process behind ``up``; its output is ``.frond/logs/up.log``."""

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        Supervisor(state, models, scale=scale, services=services, say=say).run()
    except Exception as e:
        # what a user can do something about says so itself; of the rest the trace is wanted
        if isinstance(e, StackError):
            say(str(e))
        else:
            import traceback

            say(traceback.format_exc())
        return 1
    finally:
        for left in ("state.json", "env"):
            (state / left).unlink(missing_ok=True)
    return 0
