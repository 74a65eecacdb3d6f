"""How it goes, for people on stderr and for programs in a small file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich import progress as bars
from rich.console import Console

from frond.training.files import write_json

_FILE_EVERY_S: Final = 3.0
_LINE_EVERY_S: Final = 30.0


class ProgressFile:
    """``{"step", "steps", "metrics"}`` every few seconds; a :class:`frond.training.loop.Watcher`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._told = 0.0
        self._steps = 0
        self._metrics: dict[str, float] = {}

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self._steps = steps
        self._metrics |= metrics
        now = time.monotonic()
        if step >= steps or now - self._told >= _FILE_EVERY_S:
            self._told = now
            self._write(step)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        self._metrics |= metrics
        self._write(step)

    def _write(self, step: int) -> None:
        write_json(self._file, {"step": step, "steps": self._steps, "metrics": self._metrics})


class Bar:
    """A bar on a terminal, else a line every half minute; a :class:`~frond.training.loop.Watcher`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._console = Console(stderr=True)
        self._line = 0.0
        self._bar: bars.Progress | None = None
        if self._console.is_terminal:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[told]}"), bars.TimeRemainingColumn(),
                console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(what, total=None, told="")
            self._bar.start()

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        told = f"loss {metrics['loss']:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=steps, told=told)
            return
        now = time.monotonic()
        if step >= steps or now - self._line >= _LINE_EVERY_S:
            self._line = now
            say(f"{self._what}: step {step} of {steps}, {told}")

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        told = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items())
        line = f"{self._what}: step {step}, validated: {told}"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            say(line)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def say(line: str) -> None:
    """A line for people: stdout is a program's."""
    print(line, file=sys.stderr, flush=True)
