"""Which chunks ran when a worker's process died, remembered on its disk.

A chunk is told of to the broker when it is done: whose run ends the process, by a crash in a kernel
or because memory runs out, would be given to one worker after the other, for ever. What runs has a
file, which a process takes away with it unless it dies. The next one finds those files, runs these
chunks alone, and in the end tells of the one at which processes keep dying, and of its image's others.

Files are named, not written to: what is known is a set of names, and a rename is all that moves one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from frond.contracts.events import ChunkPlanned
from frond.inference import metrics
from frond.runtime import get_logger

MOST_ALONE: Final = 5
"""Deaths beside nothing else after which a chunk and its image, or a job none of whose chunks came
through, are not tried again: fewer may be somebody's kills."""
_TOGETHER: Final = 3
"""Deaths beside other chunks after which all of a job's run alone."""
_GIVEN_UP: Final = 2
"""Images of a job given up, after which one death alone is enough."""
_REMEMBERED_S: Final = 6 * 3600.0
_WELL_S: Final = 3600.0
_KNOWN: Final = 1000
_log = get_logger(__name__)


class Trial(Enum):
    """How a chunk is to be run."""

    BESIDE = "beside"
    """As ever, beside others."""
    ALONE = "alone"
    """While nothing else runs: it, or its job, was there when a process died."""
    NONE = "none"
    """Not at all: processes die of it, of its image or of its job."""


@dataclass(frozen=True, slots=True)
class _Death:
    """Of a process, at a chunk; as the name of a file in its job's folder."""

    image: str
    chunk: str
    process: str
    how: str

    @classmethod
    def of(cls, name: str) -> _Death:
        return cls(*name.split("."))

    @property
    def alone(self) -> bool:
        return self.how == Trial.ALONE.value


class Deaths:
    """Of processes that share a folder on one machine's disk. A disk that fails forgets, and stops nothing.

    Args:
        folder: kept when a process dies; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._running = folder / "running"
        self._died = folder / "died"
        self._well = folder / "well"
        self._me = uuid.uuid4().hex
        self._mine = self._running / self._me
        self._lock: int | None = None
        # jobs, and when it was last noted that a chunk of theirs came through
        self._noted: OrderedDict[str, float] = OrderedDict()
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
        known = self._known(event.job_id)
        if not known:
            return Trial.BESIDE
        image, chunk = _name(event.image_id), _name(event.image_id, event.chunk_id)
        alone = Counter((death.image, death.chunk) for death in known if death.alone)
        # of each image, the most at one of its chunks: with the first that is given up it has failed
        most = Counter[str]()
        for (of, _), deaths in alone.items():
            most[of] = max(most[of], deaths)
        given_up = sum(deaths >= MOST_ALONE for deaths in most.values())
        if most[image] >= (1 if given_up >= _GIVEN_UP else MOST_ALONE):
            return Trial.NONE
        # one image's deaths say nothing of the others
        if alone.total() >= MOST_ALONE and len(most) > 1 and not self._is_well(event.job_id):
            return Trial.NONE
        together = {death.process for death in known if not death.alone}
        if len(together) >= _TOGETHER or any(death.chunk == chunk for death in known):
            return Trial.ALONE
        return Trial.BESIDE

    def begin(self, event: ChunkPlanned, trial: Trial) -> Run:
        """A chunk runs from now on, until it is said to have ended."""
        image, chunk = _name(event.image_id), _name(event.image_id, event.chunk_id)
        return Run(self._mine / f"{_name(event.job_id)}.{image}.{chunk}.{trial.value}")

    def came_through(self, event: ChunkPlanned) -> None:
        """A chunk of the job has its result: not every one of them kills."""
        job, now = event.job_id, time.monotonic()
        if now - self._noted.get(job, -_WELL_S) < _WELL_S:
            return
        self._noted[job] = now
        while len(self._noted) > _KNOWN:
            self._noted.popitem(last=False)
        with suppress(OSError):
            (self._well / _name(job)).touch()

    def _known(self, job_id: str) -> list[_Death]:
        """A job's deaths of late."""
        known = []
        with suppress(OSError), os.scandir(self._died / _name(job_id)) as files:
            for file in files:
                if not _is_old(file.stat().st_mtime):
                    known.append(_Death.of(file.name))
        return known

    def _is_well(self, job_id: str) -> bool:
        with suppress(OSError):
            return not _is_old((self._well / _name(job_id)).stat().st_mtime)
        return False

    def _enter(self) -> None:
        """Take a folder of this process's own, locked before anybody can see it."""
        self._running.mkdir(parents=True, exist_ok=True)
        self._well.mkdir(exist_ok=True)
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
        for noted in [*self._died.glob("*/*"), *self._well.iterdir()]:
            with suppress(FileNotFoundError):
                if _is_old(noted.stat().st_mtime):
                    noted.unlink()
        for job in self._died.glob("*"):
            # those that hold something stay
            with suppress(OSError):
                job.rmdir()

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
        ran = sorted(file for file in folder.iterdir() if file.name != "lock")
        for file in ran:
            job, what, how = _split(file.name)
            (self._died / job).mkdir(parents=True, exist_ok=True)
            file.rename(self._died / job / f"{what}.{folder.name}.{how}")
            if how == Trial.ALONE.value:
                self._clear_others(job, what)
        if ran:
            metrics.DEATHS.inc()
            _log.warning("a worker's process died", chunks_running=len(ran))

    def _clear_others(self, job: str, what: str) -> None:
        """A chunk at which a process died alone explains the deaths at which it was one of several."""
        for mine in self._died.glob(f"{job}/{what}.*.{Trial.BESIDE.value}"):
            for other in self._died.glob(f"*/*.{_Death.of(mine.name).process}.*"):
                if other != mine:
                    other.unlink(missing_ok=True)


class Run:
    """A chunk that runs: a file, for as long as it does."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with suppress(OSError):
            file.touch()

    def end(self) -> None:
        """Be it with a result or with an error: it has killed nobody. May be said again."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def _split(name: str) -> tuple[str, str, str]:
    """Of a file of a run: the job, image and chunk together, and how it ran."""
    job, _, rest = name.partition(".")
    what, _, how = rest.rpartition(".")
    return job, what, how


def _is_old(moment: float) -> bool:
    return time.time() - moment > _REMEMBERED_S


def _name(*ids: str) -> str:
    """Of ids that anybody may have chosen, a name that any disk takes."""
    return hashlib.sha256("\0".join(ids).encode()).hexdigest()[:24]
