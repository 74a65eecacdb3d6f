"""Folders on this machine's disk for models on their way in, and those that killed processes left.

A folder is locked for as long as its process lives. A number of a process would tell nothing: in
containers that share a disk every first process has the same one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PREFIX: Final = "frond-push-"


@contextlib.contextmanager
def folder_on_disk() -> Iterator[Path]:
    """A folder of one's own, gone on leaving. Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            lock = _opened(folder)
        except FileNotFoundError:
            continue  # taken for one that was left behind, before it was locked
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def clear() -> None:
    """Remove the folders of processes that were killed; those of live ones stay."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            lock = _opened(left)
        except OSError:
            continue  # no folder, or not ours
        try:
            if os.fstat(lock).st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            continue  # somebody lives who fills it
        finally:
            os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
