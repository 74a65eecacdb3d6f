"""Versions of models on a local disk that several processes share: ``models/{name}/{digest}``."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from frond.contracts.errors import ModelRejected
from frond.models.folder import folder_digest

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_ABANDONED_S: Final = 3600.0
_IN_USE_S: Final = 3600.0
_log = logging.getLogger(__name__)


def is_whole(folder: Path, digest: str) -> bool:
    """Whether all files of this digest are there, and no others."""
    try:
        return folder.is_dir() and folder_digest(folder) == digest
    except (ModelRejected, OSError):
        return False


def no_room(error: BaseException | None) -> OSError | None:
    """The error of a full disk that this one is, or was raised for."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        error = error.__cause__
    return None


def drop_oldest(models: Path) -> bool:
    """Remove the version that was asked for longest ago; False: all are too fresh."""
    try:
        found = [p for p in models.glob("*/*") if _DIGEST.fullmatch(p.name)]
        asked, oldest = min((p.stat().st_mtime, p) for p in found)
        if time.time() - asked < _IN_USE_S:
            return False
        # out of sight first, and whole: who is killed here leaves what is cleared as abandoned
        going = oldest.with_name(f".{oldest.name[:12]}-gone-{os.getpid()}")
        oldest.rename(going)
    except ValueError:
        return False
    except FileNotFoundError:
        return True  # another process makes room
    except OSError:
        return False
    shutil.rmtree(going, ignore_errors=True)
    _log.warning("no room for a model: %s of %s went", oldest.name, oldest.parent.name)
    return True


def touch(version: Path) -> None:
    """Note that it was asked for now."""
    # a cache that cannot be written to makes no room either
    with suppress(OSError):
        os.utime(version)


def clear_abandoned(models: Path) -> None:
    """Remove what fetches left that were killed."""
    for left in models.glob("*/.*-*"):
        try:
            touched = max(p.stat().st_mtime for p in (left, *left.rglob("*")))
        except OSError:
            continue  # taken its place, or cleared by another process
        if time.time() - touched > _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)


def take_place(fresh: Path, target: Path, digest: str) -> None:
    """Move what was fetched to where it is looked for."""
    try:
        fresh.rename(target)
    except OSError:
        # another process was faster, or a damaged folder is in the way
        if is_whole(target, digest):
            return
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
