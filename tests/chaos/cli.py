"""The command: which scenarios, for how long, under which seed; and the exit status."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from chaos import report
from chaos.figures import Figures
from chaos.runner import FULL_S, Run
from chaos.sabotage import KINDS, kinds
from chaos.scenarios import QUIET, SCENARIOS, Scenario
from frond.stack.small_disk import why_no_small_disk

# starts, the least that is asked, checks and the calm run, on two cores
_LEAST_S: Final = 2100.0


def chosen(only: str, sabotage: tuple[str, ...] = ()) -> list[Scenario]:
    """The scenarios of this comma-separated list, all that are there by default; for a sabotage, one
    without other trouble."""
    if sabotage and not only:
        return [QUIET]
    names = [n.strip() for n in only.split(",") if n.strip()]
    for name in names:
        if name not in SCENARIOS:
            raise SystemExit(f"There is no scenario {name!r}. There are: {', '.join(SCENARIOS)}.")
    found = [SCENARIOS[n] for n in names] if names else list(SCENARIOS.values())
    ready = []
    for scenario in found:
        try:
            why = why_no_small_disk() if scenario.needs.small_disk_mb else ""
        except Exception as e:
            why = f"{type(e).__name__}: {e}"
        if why:
            print(f"skipped: {scenario.name}: {why}", flush=True)
        else:
            ready.append(scenario)
    return ready


async def _interruptible(run: Run, scenarios: list[Scenario]) -> Figures:
    """A first SIGINT or SIGTERM ends the trouble and goes on to the verdict; a second one kills."""
    loop = asyncio.get_running_loop()

    def told(sig: int) -> None:
        print("no more trouble; judging what was submitted (once more: give up)", flush=True)
        loop.remove_signal_handler(sig)
        run.interrupt()

    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, told, sig)
    return await run.all(scenarios)


def _how_long(duration: float, scenarios: int) -> str:
    """What to expect: some scenarios ask a least of kills, and all of it is judged twice over."""
    full = duration >= FULL_S
    asked = "all of each scenario" if full else f"{duration / FULL_S:.0%} of a full run"
    minutes = (duration + _LEAST_S * min(1.0, duration / FULL_S) * scenarios / len(SCENARIOS)) / 60
    return f"{asked}; with starts, checks and the calm run it takes {minutes:.0f} minutes or more"


def main() -> None:
    """Run; exit status 0 only if nothing was lost, doubled or different."""
    parser = argparse.ArgumentParser(prog="chaos", description="The real stack under attack.")
    env = os.environ
    parser.add_argument(
        "--duration", type=float, default=env.get("DURATION") or "900",
        help="seconds of trouble, shared out among the scenarios (DURATION)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=env.get("SEED") or None, help="(SEED)")
    parser.add_argument("--only", default=env.get("ONLY") or "", help="scenarios, a,b (ONLY)")
    parser.add_argument(
        "--sabotage", default=env.get("SABOTAGE") or "",
        help=f"do harm that must be noticed: all, or some of {', '.join(KINDS)} (SABOTAGE)",
    )  # fmt: skip
    parser.add_argument("--short", action="store_true", help="the short matrix of make test")
    parser.add_argument("--report", type=Path, help="write docs/reliability.md here")
    parser.add_argument("--folder", type=Path, help="keep logs and journals in this folder")
    given = parser.parse_args()
    seed = int(given.seed) if given.seed is not None else random.SystemRandom().randrange(10_000)
    print(f"seed={seed} duration={given.duration:.0f} short={given.short}", flush=True)
    sabotage = kinds(given.sabotage)
    if sabotage and given.report:
        parser.error("a run under sabotage is nothing to report")
    scenarios = chosen(given.only, sabotage)
    if not given.short:
        print(_how_long(given.duration, len(scenarios)), flush=True)
    logging.basicConfig(level=logging.ERROR)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="frond-chaos-"))
    run = Run(folder, seed=seed, duration=given.duration, short=given.short, sabotage=sabotage)
    began = time.monotonic()
    total = asyncio.run(_interruptible(run, scenarios))
    total.seconds = time.monotonic() - began
    if given.report:
        report.write(given.report, run, total)
        print(f"{given.report} is written")
    if total.good and not given.folder:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs and journals: {folder}")
    print(f"seed={seed} duration={given.duration:.0f}")
    if not given.short:
        print(f"again: {report.command(run)}")
    if told := total.ended_by_themselves():
        print(told)
    print(total.line(), flush=True)
    if run.interrupted:
        sys.exit(130)
    if not all(done.noticed(run.outcomes[name]) for name, done in run.harms):
        sys.exit(2)
    # nothing that was not tried counts as proved
    sys.exit(0 if total.good and total.jobs > 0 else 1)
