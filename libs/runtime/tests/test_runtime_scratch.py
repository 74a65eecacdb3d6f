"""Folders for files that do not outlive their process, on a disk that processes share."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frond.contracts.errors import StoreUnavailable
from frond.runtime import clear_folders, folder_on_disk

FILLS = """
import sys
from pathlib import Path
from frond.runtime import folder_on_disk
with folder_on_disk(Path(sys.argv[1]), "copy") as folder:
    (folder / "whole.tif").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_nothing_for_ever(tmp_path: Path) -> None:
    """The next one that begins removes its folder; not while it lives."""
    fills = subprocess.Popen(
        [sys.executable, "-c", FILLS, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert fills.stdout is not None
    folder = Path(fills.stdout.readline().strip())
    clear_folders(tmp_path, "copy")
    assert (folder / "whole.tif").is_file()
    fills.send_signal(signal.SIGKILL)
    fills.communicate(timeout=60)
    clear_folders(tmp_path, "masks")
    assert folder.is_dir()
    clear_folders(tmp_path, "copy")
    assert list(tmp_path.iterdir()) == []


def test_whoever_lives_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number its process has: in another container it may be ours, or nobody's that we see."""
    with folder_on_disk(tmp_path / "cache", "copy") as folder:
        for pid in (os.getpid(), 4194305):
            monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
            clear_folders(tmp_path / "cache", "copy")
        assert folder.is_dir()
        with folder_on_disk(tmp_path / "cache", "copy") as other:
            assert other != folder
        assert folder.is_dir()
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_no_folder_of_ours_stays(tmp_path: Path) -> None:
    """Be it a link, or without a lock: a model's folder, say."""
    (tmp_path / "others").mkdir()
    (tmp_path / "others.lock").touch()
    (tmp_path / "copy-1").mkdir()
    (tmp_path / "copy-2.lock").symlink_to(tmp_path / "others.lock")
    before = sorted(tmp_path.iterdir())
    clear_folders(tmp_path, "copy")
    clear_folders(tmp_path / "not-there", "copy")
    assert sorted(tmp_path.iterdir()) == before


def test_what_could_not_be_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next one that begins: the lock goes last."""
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with folder_on_disk(tmp_path, "copy") as folder:
            pass
    assert folder.is_dir()
    clear_folders(tmp_path, "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["mkdir", "rename"])
@pytest.mark.parametrize(
    ("number", "raised"),
    [(errno.ENOSPC, StoreUnavailable), (errno.EDQUOT, StoreUnavailable), (errno.EROFS, OSError)],
)
def test_a_disk_without_room_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, number: int, raised: type[Exception]
) -> None:
    """Whatever else it says is an error as it stands; either way nothing is left."""

    real = getattr(Path, how)

    def full(path: Path, *args: Any, **more: Any) -> Any:
        if "masks" in path.name:
            raise OSError(number, os.strerror(number))
        return real(path, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, how, full)
        with (
            pytest.raises(raised, match=r"no room for masks|Read-only"),
            folder_on_disk(tmp_path / "cache", "masks"),
        ):
            pass
    assert list((tmp_path / "cache").iterdir()) == []
