"""The chaos program under sabotage, as a stranger runs it: its verdict can go against the system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.sabotage import KINDS

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[1]


def test_every_harm_is_noticed_as_what_it_is(tmp_path: Path) -> None:
    """One real harm of each kind, done to a running installation that nobody else disturbs: the last
    three figures of the last line are all above zero, and the exit status is 1."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    for name in ("DURATION", "SEED", "ONLY", "POINTS", "SABOTAGE"):
        env.pop(name, None)
    command = [sys.executable, "-m", "chaos", "--short", "--seed", "7", "--sabotage", "all"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], env=env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 1
    for name, kind in KINDS.items():
        assert re.search(rf"^sabotage {name}: noticed as {kind.figure}: ", done.stdout, re.M), name
    last = done.stdout.strip().splitlines()[-1]
    figures = dict(part.split("=") for part in last.split())
    assert int(figures["jobs"]) > 0
    assert all(int(figures[n]) > 0 for n in ("lost", "doubled", "different")), last
