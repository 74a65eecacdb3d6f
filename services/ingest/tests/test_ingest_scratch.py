"""Models on their way in lie on disk, and a process may be killed while they do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frond.ingest.app import make_app
from frond.ingest.scratch import clear, folder_on_disk

FILLS = """
import sys
from frond.ingest.scratch import folder_on_disk
with folder_on_disk() as folder:
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


def test_what_lives_and_what_is_not_ours(disk: Path) -> None:
    """Our own folders stay, whichever number their process has; so does what is no folder of ours."""
    others = disk / "others"
    others.mkdir()
    (disk / "frond-push-link").symlink_to(others)
    (disk / "frond-push-file").write_text("no folder")
    with folder_on_disk() as folder:
        clear()
        assert folder.is_dir()
    assert {p.name for p in disk.iterdir()} == {"others", "frond-push-link", "frond-push-file"}


def test_taken_away_before_it_was_locked(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start in that very moment takes a new folder for one that was left: another one is made."""
    made: list[str] = []
    make = tempfile.mkdtemp

    def cleared_at_first(**how: Any) -> str:
        made.append(make(**how))
        if len(made) == 1:
            clear()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", cleared_at_first)
    with folder_on_disk() as folder:
        assert folder.is_dir() and str(folder) == made[1]
    assert list(disk.iterdir()) == []
