"""Points where a process can be made to die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frond.runtime.crashpoints import ENVIRONMENT, FIRED, POINTS, crash_point, maybe_crash_point

_ROOT = Path(__file__).parents[3]
_CALL = re.compile(r'crash_point\(\s*(f?)"([^"]+)"\s*\)')
_POINT = "tiler.plan-stored"


def _pass(folder: Path | None, name: str = _POINT) -> int:
    env = {k: v for k, v in os.environ.items() if k != ENVIRONMENT}
    if folder is not None:
        env[ENVIRONMENT] = str(folder)
    code = f"from frond.runtime.crashpoints import crash_point; crash_point({name!r})"
    return subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode


def test_arming_a_point_twice_kills_twice(tmp_path: Path) -> None:
    """Each token kills one passer-by, and afterwards lies in ``fired/``."""
    for n in (1, 2):
        (tmp_path / f"{_POINT}.{n}").touch()
    assert [_pass(tmp_path) for _ in range(3)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert {p.name for p in (tmp_path / FIRED).iterdir()} == {f"{_POINT}.1", f"{_POINT}.2"}


def test_other_points_and_unarmed_processes_live(tmp_path: Path) -> None:
    """A token is for its own point alone, and for processes that were told of the folder."""
    (tmp_path / f"{_POINT}.1").touch()
    assert _pass(tmp_path, "tiler.sent") == 0
    assert _pass(None) == 0
    assert (tmp_path / f"{_POINT}.1").exists()


def test_a_name_that_is_no_point_is_an_error(tmp_path: Path) -> None:
    """A misspelt point shows wherever it is passed, armed or not."""
    with pytest.raises(KeyError):
        crash_point("tiler.no-such-point")
    maybe_crash_point("tiler.no-such-point")
    assert _pass(tmp_path, "tiler.no-such-point") == 1


def test_every_point_is_placed_and_every_placed_point_is_declared() -> None:
    """The list and the sources say the same: no point is only a name, none is unnamed."""
    placed: set[str] = set()
    for source in sorted(_ROOT.glob("services/*/src/**/*.py")) + sorted(
        _ROOT.glob("libs/*/src/**/*.py")
    ):
        for formatted, name in _CALL.findall(source.read_text()):
            pattern = (
                re.sub(r"\\\{.*?\\\}", r"[a-z.-]+", re.escape(name))
                if formatted
                else re.escape(name)
            )
            found = {p for p in POINTS if re.fullmatch(pattern, p)}
            assert found, f"{source.name}: {name} is not in POINTS"
            placed |= found
    assert placed == set(POINTS)
