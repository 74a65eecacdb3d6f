"""Run as a script: a supervisor whose stack has ended and cannot start while its disk is full.

``python stack_on_full_disk.py STATE RECORD``: the record, on another disk, has a line for each try to start
the broker, and in the end that the stack was stopped.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

from frond.stack.supervisor import Supervisor


class Stack:
    """A broker that needs room for its settings to start."""

    kind = "native"

    def __init__(self, state: Path, record: Path) -> None:
        self.settings = state / "server.properties"
        self.record = record
        self.tries = 0
        self.runs = False

    def trouble(self) -> list[str]:
        return [] if self.runs else ["kafka"]

    def start_kafka(self) -> None:
        self.tries += 1
        self._note(f"try {self.tries}")
        self.settings.write_text("x" * 8192)
        self.runs = True

    def pids(self) -> dict[str, int]:
        # another state to write at each look
        return {"kafka": self.tries}

    def stop(self) -> None:
        self._note("stopped")

    def _note(self, line: str) -> None:
        with self.record.open("a") as f:
            print(line, file=f)


class OnFullDisk(Supervisor):
    """``make up`` is over; what comes then is under test."""

    def _start(self) -> None:
        self._stack = cast(Any, Stack(self.state, Path(sys.argv[2])))


if __name__ == "__main__":
    say = partial(print, flush=True)
    OnFullDisk(Path(sys.argv[1]), Path("none"), services=(), say=say).run()
