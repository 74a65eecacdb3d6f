"""The short matrix of the chaos program, as a stranger runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.scenarios import SCENARIOS
from chaos.scenarios.crash_points import SHORT

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(2400)]

TESTS = Path(__file__).parents[1]


def test_nothing_lost_doubled_or_different(tmp_path: Path) -> None:
    """Every scenario, in short: processes, broker and store killed, frozen, cut off, filled up,
    wiped; and then the last line has three zeros and the exit status is 0."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    for name in ("DURATION", "SEED", "ONLY", "POINTS", "SABOTAGE"):
        env.pop(name, None)
    command = [sys.executable, "-m", "chaos", "--short", "--seed", "7", "--folder", str(tmp_path)]
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    # shown by pytest when it fails, and with -rA: which were skipped, and why
    print(done.stdout)
    last = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r"jobs=\d+ kills=\d+ crash_points=\d+ faults=\d+ lost=0 doubled=0 different=0", last
    ), done.stdout[-6000:]
    assert done.returncode == 0
    figures = dict(part.split("=") for part in last.split())
    assert int(figures["jobs"]) > 0
    assert int(figures["kills"]) > 0
    assert int(figures["faults"]) > 0
    assert int(figures["crash_points"]) == len(SHORT)
    for name in SCENARIOS:
        assert re.search(rf"^({name}: \d+ s, |skipped: {name}: )", done.stdout, re.M), name
