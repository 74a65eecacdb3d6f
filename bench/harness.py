"""Contenders in processes of their own, with caps on time and memory, in interleaved rounds."""

from __future__ import annotations

import json
import os
import resource
import selectors
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from neighbours import Neighbours
from proc import cpu_s, memory_mib

ROOT: Final = Path(__file__).resolve().parent.parent
WORK: Final = ROOT / ".frond" / "bench"
BENCH_PYTHON: Final = ROOT / ".frond" / "bench-venv" / "bin" / "python"

CAP_S: Final = 60.0
CAP_MB: Final = 4096.0
ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "3"))
_LONG_S: Final = 15.0
"""Longer than this is not repeated: its spread would tell nothing that the ratio does not."""
_START_S: Final = 120.0


@dataclass
class Contender:
    """One way to do a case's work.

    ``target`` is MODULE:FUNCTION under bench/contenders, called with ``args`` in a process of its
    own; or ``call`` does the work, in processes that it starts itself, and returns the figures.
    ``over`` says which cap it exceeded or why it failed; it is not run again then.
    """

    name: str
    target: str
    args: dict[str, Any]
    frond: bool = False
    call: Callable[[], dict[str, Any]] | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    over: str | None = None
    burnt: float = 0.0
    """CPU seconds that it had taken when it was stopped."""
    held: float = 0.0
    """MB that it had added at most by then; it would have come to that, or more."""
    others: list[float] = field(default_factory=list)
    """What other programs took of the processors, by round, starting included; of rounds long enough
    to tell."""

    def median(self, figure: str) -> float | None:
        values = [r[figure] for r in self.rounds]
        return statistics.median(values) if values and not self.over else None

    def spread(self, figure: str) -> list[float]:
        values = [r[figure] for r in self.rounds]
        return [min(values), max(values)] if values else []


def interleave(
    contenders: Sequence[Contender],
    cap_s: float = CAP_S,
    rounds: int = ROUNDS,
    long_s: float = _LONG_S,
) -> None:
    """Run each once a round, each in turn first; what takes long is run in the first only."""
    for n in range(rounds):
        turn = n % len(contenders)
        for one in [*contenders[turn:], *contenders[:turn]]:
            if one.over is None and not any(r["seconds"] > long_s for r in one.rounds):
                beside = Neighbours()
                _run(one, cap_s)
                told = one.over or f"{one.rounds[-1]['seconds']:.3f} s"
                if (share := beside.share()) is not None:
                    one.others.append(share)
                    told += f" (other programs took {share:.0%} of the processors)"
                print(f"    round {n + 1}: {one.name}: {told}", flush=True)


def _run(one: Contender, cap_s: float) -> None:
    if one.call is not None:
        try:
            one.rounds.append(one.call())
        except Exception as e:
            traceback.print_exc()
            one.over = f"failed: {str(e)[:160]}"
        return
    python = sys.executable if one.frond else str(BENCH_PYTHON)
    behind = str(Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    if not one.frond:
        env["FROND_SITE"] = behind + "/site-packages"
    process = subprocess.Popen(
        [python, str(ROOT / "bench" / "worker.py"), one.target, json.dumps(one.args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
        # a matrix of all pairs is refused here; what grows slowly is caught by _watch
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
    )  # fmt: skip
    try:
        figures = _watch(process, one, cap_s)
    finally:
        if process.poll() is None:
            process.kill()
        _, errors = process.communicate()
    if figures is not None:
        one.rounds.append(figures)
    elif one.over is None:
        said = errors.strip().splitlines()
        last = said[-1] if said else f"exit code {process.returncode}"
        # an allocation beyond the limit was an attempt to hold more than the cap
        one.over = f"> {CAP_MB / 1024:.0f} GB" if "MemoryError" in last else f"failed: {last[:160]}"


def _watch(process: subprocess.Popen[str], one: Contender, cap_s: float) -> dict[str, Any] | None:
    assert process.stdout is not None
    deadline, started, idle_cpu, idle_mb = time.monotonic() + _START_S, False, 0.0, 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(0.05):
                line = process.stdout.readline()
                if not line:
                    return None
                if line.startswith("{"):
                    return dict(json.loads(line))
                if line.strip() == "ready":
                    deadline, started = time.monotonic() + cap_s, True
                    idle_cpu, idle_mb = cpu_s(process.pid), memory_mib(process.pid, "VmRSS")
            elif time.monotonic() > deadline:
                one.over = "did not start"
                if started:
                    one.burnt = cpu_s(process.pid) - idle_cpu
                    # since it was ready: the worker begins its high-water mark anew then
                    one.held = memory_mib(process.pid, "VmHWM") - idle_mb
                    one.over = f"> {cap_s:.0f} s ({one.burnt:.0f} s of CPU)"
                return None
            elif started and memory_mib(process.pid, "VmRSS") > CAP_MB:
                one.over = f"> {CAP_MB / 1024:.0f} GB"
                return None


def limit(
    name: str, case: str, ours: float, most: float, unit: str, spread: Sequence[float] = ()
) -> dict[str, Any]:
    """One line of results.json for a figure that is judged alone."""
    return {
        "name": name, "case": case, "ours": ours, "theirs": None, "unit": unit, "ratio": None,
        "target": f"≤ {most:g}", "met": ours <= most, "spread": {"ours": list(spread)},
    }  # fmt: skip


def entry(
    name: str, case: str, ours: Contender, theirs: Contender, figure: str, unit: str, target: float
) -> dict[str, Any]:
    """One line of results.json. ``ratio``: theirs ÷ ours, above 1 where Frond is better."""
    mine, other = ours.median(figure), theirs.median(figure)
    ratio = other / mine if mine and other else None
    met = None
    if mine and ratio is not None:
        met = ratio > target
    elif mine and theirs.over and theirs.over.startswith(f"> {CAP_MB / 1024:.0f} GB"):
        met = figure == "seconds" or CAP_MB / mine > target
    elif mine and figure == "seconds" and theirs.burnt:
        # on a busy machine only the CPU time that it got says what it cannot do better than
        met = theirs.burnt / (ours.median("cpu") or mine) > target
    elif mine and figure == "added" and theirs.held / mine > target:
        # what it would have come to is not known, only that it is no less
        met = True
    stopped = f"> {theirs.held:.0f} {unit}" if figure == "added" and theirs.held else theirs.over
    mine_cpu, other_cpu = ours.median("cpu"), theirs.median("cpu") or theirs.burnt
    return {
        "name": name,
        "case": case,
        "ours": mine if mine is not None else ours.over,
        "theirs": other if other is not None else stopped,
        "unit": unit,
        "ratio": ratio,
        "target": f"> {target:g}",
        "met": met,
        "spread": {"ours": ours.spread(figure), "theirs": theirs.spread(figure)},
        "cpu_ratio": other_cpu / mine_cpu if figure == "seconds" and mine_cpu else None,
        "rounds": [len(ours.rounds), len(theirs.rounds)],
        "others": [max(c.others, default=None) for c in (ours, theirs)],
    }
