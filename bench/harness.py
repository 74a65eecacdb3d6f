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
_SPARE: Final = 0.75
"""Of the machine's memory: no contender may hold more, lest the kernel ends somebody else."""
_BESIDE_MB: Final = 8192.0
"""Addresses that a process has beyond what it holds: libraries, files, its threads' arenas."""
ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "3"))
_LONG_S: Final = 15.0
"""Longer than this is not repeated: its spread would tell nothing that the ratio does not."""
_START_S: Final = 120.0


@dataclass
class Contender:
    """One way to do a case's work.

    ``target`` is MODULE:FUNCTION under bench/contenders, called with ``args`` in a process of its
    own; or ``call`` does the work, in processes that it starts itself, and returns the figures.
    ``over`` says which cap it exceeded or why it failed; it is not run again then. ``cap_mb`` is
    what it may hold: more than others where a case would have no figure of it else.
    """

    name: str
    target: str
    args: dict[str, Any]
    frond: bool = False
    call: Callable[[], dict[str, Any]] | None = None
    cap_mb: float = CAP_MB
    rounds: list[dict[str, Any]] = field(default_factory=list)
    over: str | None = None
    burnt: float = 0.0
    """CPU seconds that it had taken when it was stopped."""
    held: float = 0.0
    """MB that it had added at most by then; it would have come to that, or more."""
    others: list[float] = field(default_factory=list)
    """What other programs took of the processors, by round, starting included; of rounds long enough
    to tell."""

    @property
    def too_much(self) -> str:
        """``over`` of one that would hold more than it may."""
        return f"> {self.cap_mb / 1024:.0f} GB"

    def median(self, figure: str) -> float | None:
        values = [r[figure] for r in self.rounds]
        return statistics.median(values) if values and not self.over else None

    def spread(self, figure: str) -> list[float]:
        values = [r[figure] for r in self.rounds]
        return [min(values), max(values)] if values else []


def spared(wanted_mb: float) -> float:
    """That much memory as a contender's cap, or what the machine can spare."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return max(CAP_MB, min(wanted_mb, _SPARE * whole))


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
    addresses = int(one.cap_mb + _BESIDE_MB) << 20
    process = subprocess.Popen(
        [python, str(ROOT / "bench" / "worker.py"), one.target, json.dumps(one.args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
        # a matrix of all pairs is refused here; what grows slowly is caught by _watch
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses)),
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
        one.over = one.too_much if "MemoryError" in last else f"failed: {last[:160]}"


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
                if line.startswith('{"refused"'):
                    # its end follows, which says why
                    one.burnt = json.loads(line)["refused"]
                elif line.startswith("{"):
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
            elif started and memory_mib(process.pid, "VmRSS") > one.cap_mb:
                one.burnt = cpu_s(process.pid) - idle_cpu
                one.over = one.too_much
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
    """One line of results.json. ``ratio``: theirs ÷ ours, above 1 where Frond is better.

    Of a rival that was stopped is known that it would have come to no less than it had by then: what
    that does not decide is not decided.
    """
    mine, other = ours.median(figure), theirs.median(figure)
    ratio = other / mine if mine and other else None
    stopped = f"> {theirs.held:.0f} {unit}" if figure == "added" and theirs.held else theirs.over
    mine_cpu, other_cpu = ours.median("cpu"), theirs.median("cpu") or theirs.burnt
    line = {
        "name": name,
        "case": case,
        "ours": mine if mine is not None else ours.over,
        "theirs": other if other is not None else stopped,
        "unit": unit,
        "ratio": ratio,
        "target": f"> {target:g}",
        "met": None if ratio is None else ratio > target,
        "spread": {"ours": ours.spread(figure), "theirs": theirs.spread(figure)},
        "cpu_ratio": other_cpu / mine_cpu
        if figure == "seconds" and mine_cpu and other_cpu
        else None,
        "rounds": [len(ours.rounds), len(theirs.rounds)],
        "others": [max(c.others, default=None) for c in (ours, theirs)],
    }
    if mine is None or figure == "seconds":
        return judged(line)
    if ratio is None:
        held = theirs.cap_mb if theirs.over == theirs.too_much else theirs.held
        line["met"] = held / mine > target or None
    return line


def judged(line: dict[str, Any]) -> dict[str, Any]:
    """A line of results.json; Frond stopped or failed has missed; where a rival was stopped before its time was known, judged by the CPU
    seconds that it had taken: on a busy machine only they say what it cannot do better than."""
    if isinstance(line["ours"], str):
        return {**line, "met": False}
    if not (line["unit"].startswith("s") and isinstance(line["theirs"], str)):
        return line
    least = line["cpu_ratio"] or 0.0
    return {**line, "met": least > float(line["target"].removeprefix("> ")) or None}
