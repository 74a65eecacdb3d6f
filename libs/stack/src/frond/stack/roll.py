"""Every service exchanged for a fresh process, one by one, while all of them work.

The new process is ready before the old one is asked to end; the old one then has its drain time.
If a new one does not become ready, it is taken away again, the old ones stay, and nothing was lost:
that is how an upgrade that does not work is noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from frond.stack.errors import tail
from frond.stack.supervised import Supervised, Worker

_READY_S: Final = 180.0


class Roll:
    """One roll, driven by ``step`` beside whatever else the supervisor does.

    Args:
        services: in their order; those that do not run now are left out.
        envs: by name: what the new processes, and whatever follows them, are started with.
        say: told what happens.
    """

    def __init__(
        self,
        services: Sequence[Supervised],
        envs: Mapping[str, Mapping[str, str]],
        say: Callable[[str], None],
    ) -> None:
        self._services = services
        self._envs = envs
        self._say = say
        self._steps = self._all()
        self.state = "running"

    def step(self) -> bool:
        """Go on as far as there is nothing to wait for; False once all is done or one failed."""
        return next(self._steps, None) is not None

    def _all(self) -> Iterator[bool]:
        for one in self._services:
            if one.child is None or not one.child.running:
                self._say(f"{one.name} does not run: left out")
                continue
            began = time.monotonic()
            new = one.begin(self._envs[one.name])
            one.others.append(new)
            while not new.ready:
                yield True
                if not new.running or time.monotonic() - began > _READY_S:
                    yield from self._take_away(one, new)
                    return
            ready_s = time.monotonic() - began
            old, one.child = one.child, new
            one.env = self._envs[one.name]
            one.others = [old]
            began = time.monotonic()
            old.terminate()
            while old.running and time.monotonic() - began < old.leave_s:
                yield True
            if old.running:
                self._say(f"{one.name}: the old process did not end in {old.leave_s:.0f} s: killed")
                old.kill()
            one.others.clear()
            self._say(
                f"{one.name}: the new process was ready in {ready_s:.1f} s, the old one left "
                f"after {time.monotonic() - began:.1f} s with status {old.returncode}"
            )
        self.state = "done"
        self._say("All services are rolled")

    def _take_away(self, one: Supervised, new: Worker) -> Iterator[bool]:
        new.kill()
        one.others.clear()
        self.state = "failed"
        self._say(
            f"{one.name}: the new process did not become ready, the old one stays. "
            f"The end of its log:\n{tail(one.log, 20)}"
        )
        yield True
