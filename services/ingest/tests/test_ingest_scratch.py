"""Models on their way in lie on disk, and a process may be killed while they do."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frond.ingest.app import make_app
from frond.ingest.problems import Refused
from frond.ingest.routes import models

FILLS = """
import sys
from frond.ingest.routes.models import _on_disk
with _on_disk() as folder:
    (folder / "model.onnx").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def start() -> None:
    """What happens when the service starts."""

    async def nothing() -> None: ...

    ingest: Any = SimpleNamespace(prepared=nothing, close=nothing)
    app = make_app(ingest)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(run())


def test_a_killed_push_leaves_nothing_for_ever(disk: Path) -> None:
    """The next start removes its folder; not while its process lives."""
    pushes = subprocess.Popen(
        [sys.executable, "-c", FILLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert pushes.stdout is not None
    folder = Path(pushes.stdout.readline().strip())
    assert folder.parent == disk
    start()
    assert (folder / "model.onnx").is_file()
    pushes.kill()
    pushes.communicate(timeout=60)
    assert folder.is_dir()
    start()
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("when", ["made", "filled"])
def test_a_full_disk_is_told_in_words(
    disk: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Be it that the folder finds no room, or what comes into it."""
    models.clear_pushes()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(*_: Any, **__: Any) -> None:
        raise full

    with monkeypatch.context() as patched:
        if when == "made":
            patched.setattr(os, "open", fails)
        with pytest.raises(Refused, match="no room on the service's disk") as e, models._on_disk():
            raise full
    assert e.value.status == 507
    assert list(disk.iterdir()) == []
