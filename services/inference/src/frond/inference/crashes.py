"""Which chunk was being read when this service crashed, told to the next process on this disk.

Pixels are decoded in the service's own process. A raster that crashes the decoder would do so
again after every restart, and nothing behind it would ever run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.runtime import get_logger

_DEATHS: Final = 2
_FAULT: Final = "fault.txt"
_THREAD: Final = re.compile(r"Current thread (0x[0-9a-f]+)")
_log = get_logger(__name__)


class CrashJournal:
    """A folder in which running processes note what they read, and dead ones are looked up.

    A chunk is blamed for a crash (SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL) of the very thread
    that was reading it. A process that was killed or lost its power blames nobody: only the
    crashing process itself writes where it crashed. Any number of processes may share a folder.

    Attributes:
        deaths: crashes by chunk id, as of when it was last looked.
    """

    def __init__(self, folder: Path) -> None:
        self._strikes = folder / "deaths"
        self._running = folder / "running"
        for made in (self._strikes, self._running):
            made.mkdir(parents=True, exist_ok=True)
        self._own: Path | None = None
        self._fault: IO[str] | None = None
        self.deaths: dict[str, int] = {}

    def learn(self) -> None:
        """Look up what processes that are no more were doing."""
        for left in self._running.iterdir():
            self._settle(left)
        self.deaths = {p.name: p.stat().st_size for p in self._strikes.iterdir()}

    def watch(self) -> None:
        """Learn, and begin to note what this process does."""
        self.learn()
        self._own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._running))
        self._fault = (self._own / _FAULT).open("w")
        # held until this process ends, however it ends; a pid says nothing in a container
        fcntl.flock(self._fault, fcntl.LOCK_EX)
        faulthandler.enable(self._fault)

    def close(self) -> None:
        """Leave nothing for the next process to look at."""
        if self._fault is not None and self._own is not None:
            faulthandler.disable()
            self._fault.close()
            shutil.rmtree(self._own, ignore_errors=True)
            self._fault = self._own = None

    @contextlib.contextmanager
    def reading(self, chunk_id: str) -> Iterator[None]:
        """While this thread reads the chunk.

        Raises:
            RasterRejected: READER_DIED: doing so has crashed this service twice.
        """
        if self.deaths.get(chunk_id, 0) >= _DEATHS:
            raise RasterRejected(
                Reason.READER_DIED,
                "The image makes the program that reads it crash. Export it again, for example "
                "with gdal_translate -of COG.",
            )
        if self._own is None:
            yield
            return
        note = self._own / f"{chunk_id}.{threading.get_ident():x}"
        # a full disk must not keep chunks from being read
        with contextlib.suppress(OSError):
            note.touch()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                note.unlink(missing_ok=True)

    def _settle(self, left: Path) -> None:
        try:
            with (left / _FAULT).open("r+", errors="replace") as fault:
                fcntl.flock(fault, fcntl.LOCK_EX | fcntl.LOCK_NB)
                thread = _THREAD.search(fault.read())
                if thread is not None:
                    self._blame(left, int(thread[1], 16))
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            # it runs, begins just now, or another process settles it
            return

    def _blame(self, left: Path, thread: int) -> None:
        for note in left.glob(f"*.{thread:x}"):
            with (self._strikes / note.stem).open("ab") as strikes:
                strikes.write(b"x")
            _log.error("reading a chunk crashed this service", chunk_id=note.stem)
