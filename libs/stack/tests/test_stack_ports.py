"""Ports for servers of tests and of native installations."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from frond.stack import paths


@pytest.fixture
def one_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """Chance gives the same port again and again."""
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path))
    port = paths.free_port()
    (tmp_path / f"frond-ports-{os.getuid()}" / str(port)).unlink()
    monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: port)
    return port


def test_a_port_is_given_once(one_port: int) -> None:
    """Also while nobody listens on it: its server may have been killed, and will be back."""
    assert paths.free_port() == one_port
    with pytest.raises(RuntimeError, match="no free port"):
        paths.free_port()


def test_a_port_of_a_dead_process_is_free(one_port: int, tmp_path: Path) -> None:
    """And that of a living one is not."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    file = tmp_path / f"frond-ports-{os.getuid()}" / str(one_port)
    file.write_text(str(dead.pid))
    assert paths.free_port() == one_port
    file.write_text(str(os.getppid()))
    with pytest.raises(RuntimeError, match="no free port"):
        paths.free_port()


def test_without_a_folder_chance_has_to_do(
    one_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path / "not-there"))
    assert paths.free_port() == paths.free_port() == one_port
