"""Folders for files that do not outlive their process, and those that killed processes left.

A folder has a file beside it that is locked for as long as somebody needs the folder. A number of a
process would tell nothing: in containers that share a disk the first processes have the same ones.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from frond.contracts.errors import StoreUnavailable

_LOCK: Final = ".lock"


@contextlib.contextmanager
def folder_on_disk(parent: Path, kind: str) -> Iterator[Path]:
    """A new folder of one's own, gone on leaving.

    Args:
        parent: where; made if it is not there. Other machines' processes may use it, too.
        kind: what it is for, as one word: the start of its name.

    Raises:
        StoreUnavailable: the disk has no room just now.
        OSError: it takes no folder.
    """
    folder = parent / f"{kind}-{uuid.uuid4().hex}"
    lock: int | None = None
    try:
        try:
            lock = _locked(folder)
            folder.mkdir(mode=0o700)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreUnavailable(f"no room for {kind} in {parent}") from e
            raise
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


def clear_folders(parent: Path, kind: str) -> None:
    """Remove folders of that kind whose processes were killed; those of live ones stay."""
    for file in parent.glob(f"{kind}-*{_LOCK}"):
        # another one may clear it meanwhile, or it may not be ours to clear
        with contextlib.suppress(OSError):
            lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(file.with_suffix(""))
            finally:
                os.close(lock)


def _locked(folder: Path) -> int:
    """A folder's lock, held before anybody can see it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f".{folder.name}{_LOCK}")
    lock = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hidden.rename(_lock_of(folder))
    except OSError:
        hidden.unlink(missing_ok=True)
        os.close(lock)
        raise
    return lock


def _remove(folder: Path) -> None:
    """The lock last, and only with all of it: whoever begins next finds what stays."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        if not folder.exists():
            _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")
