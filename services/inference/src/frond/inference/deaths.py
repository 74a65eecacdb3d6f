"""Which chunks ran when a worker's process died, remembered on its disk.

A chunk is told of to the broker when it is done: whose run ends the process, by a crash in a kernel
or because memory runs out, would be given to one worker after the other, for ever. What runs has a
file, which a process takes away with it unless it dies. The next one finds those files, runs these
chunks alone, and in the end tells of the one at which processes keep dying.

Files are named, not written to: what is known is a set of names, and a rename is all that moves one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Final

from frond.contracts.events import ChunkPlanned
from frond.inference import metrics
from frond.runtime import get_logger

MOST_ALONE: Final = 5
"""Deaths beside nothing else after which a chunk, or a job none of whose chunks came through, is
not tried again: fewer may be somebody's kills."""
_TOGETHER: Final = 3
"""Deaths beside other chunks after which all of a job's run alone."""
_REMEMBERED_S: Final = 6 * 3600.0
_WELL: Final = "well"
_log = get_logger(__name__)


class Trial(Enum):
    """How a chunk is to be run."""

    BESIDE = "beside"
    """As ever, beside others."""
    ALONE = "alone"
    """While nothing else runs: it, or its job, was there when a process died."""
    NONE = "none"
    """Not at all: processes die of it."""


class Deaths:
    """Of processes that share a folder on one machine's disk. A disk that fails forgets, and stops nothing.

    Args:
        folder: kept when a process dies; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._running = folder / "running"
        self._died = folder / "died"
        self._me = uuid.uuid4().hex
        self._mine = self._running / self._me
        self._lock: int | None = None
        try:
            self._enter()
            self._find()
        except OSError as e:
            _log.warning("what runs when this process dies will not be known", error=str(e))

    def close(self) -> None:
        """This process ends of itself."""
        shutil.rmtree(self._mine, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def trial(self, event: ChunkPlanned) -> Trial:
        """How to run a chunk, by what is known just now."""
        chunk = _name(event.image_id, event.chunk_id)
        known = self._known(event.job_id)
        alone = [c for c, _, how in known if how == Trial.ALONE.value]
        if alone.count(chunk) >= MOST_ALONE:
            return Trial.NONE
        # one chunk's deaths say nothing of the others
        if len(alone) >= MOST_ALONE and len(set(alone)) > 1 and not self._is_well(event.job_id):
            return Trial.NONE
        together = {process for _, process, how in known if how == Trial.BESIDE.value}
        if len(together) >= _TOGETHER or any(c == chunk for c, _, _ in known):
            return Trial.ALONE
        return Trial.BESIDE

    @contextmanager
    def running(self, event: ChunkPlanned, trial: Trial) -> Iterator[None]:
        """While a chunk runs: one that ends, be it with an error, has killed nobody."""
        job, chunk = _name(event.job_id), _name(event.image_id, event.chunk_id)
        file = self._mine / f"{job}.{chunk}.{trial.value}"
        with suppress(OSError):
            file.touch()
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink()
        # where nobody died there is no such folder
        with suppress(OSError):
            (self._died / job / _WELL).touch()

    def _known(self, job_id: str) -> list[tuple[str, str, str]]:
        """A job's deaths of late: of which chunk, of which process, and how it ran."""
        known = []
        with suppress(OSError), os.scandir(self._died / _name(job_id)) as files:
            for file in files:
                if file.name != _WELL and not _is_old(file.stat().st_mtime):
                    chunk, process, how = file.name.split(".")
                    known.append((chunk, process, how))
        return known

    def _is_well(self, job_id: str) -> bool:
        return (self._died / _name(job_id) / _WELL).exists()

    def _enter(self) -> None:
        """Take a folder of this process's own, locked before anybody can see it."""
        self._running.mkdir(parents=True, exist_ok=True)
        hidden = self._running / f".{self._me}"
        hidden.mkdir()
        self._lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        hidden.rename(self._mine)

    def _find(self) -> None:
        """Note what ran in processes that are no more, and drop what is old."""
        for folder in sorted(self._running.iterdir()):
            if folder != self._mine and not folder.name.startswith("."):
                # another one that begins just now may have found it first
                with suppress(FileNotFoundError):
                    self._bury(folder)
        for job in self._died.glob("*"):
            # as above
            with suppress(FileNotFoundError):
                if all(_is_old(file.stat().st_mtime) for file in job.iterdir()):
                    shutil.rmtree(job, ignore_errors=True)

    def _bury(self, folder: Path) -> None:
        lock = os.open(folder / "lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it lives
        else:
            self._note(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)

    def _note(self, folder: Path) -> None:
        metrics.DEATHS.inc()
        ran = sorted(file for file in folder.iterdir() if file.name != "lock")
        for file in ran:
            job, chunk, how = file.name.split(".")
            (self._died / job).mkdir(parents=True, exist_ok=True)
            file.rename(self._died / job / f"{chunk}.{folder.name}.{how}")
        _log.warning("a worker's process died", chunks_running=len(ran))


def _is_old(moment: float) -> bool:
    return time.time() - moment > _REMEMBERED_S


def _name(*ids: str) -> str:
    """Of ids that anybody may have chosen, a name that any disk takes."""
    return hashlib.sha256("\0".join(ids).encode()).hexdigest()[:24]
