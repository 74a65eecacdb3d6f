"""Files over the wire: streamed from disk, several at once, resumed where they stopped."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from frond.client.errors import FrondClientError
from frond.client.http import checked

PIECE: Final = 1 << 20
_KEPT_S: Final = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Progress:
    """How far an upload is. Bytes that had to be sent again count once."""

    files: int
    files_done: int
    bytes: int
    bytes_done: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class LocalFile:
    """A file to send, and what it is called in its job."""

    path: Path
    name: str
    size: int
    mtime_ns: int


def local_files(paths: Sequence[str | Path]) -> list[LocalFile]:
    """Files by path, each once, named so that no two names are equal.

    A name is the file's own; where two are the same, all are named from their common folder.

    Raises:
        FrondClientError: a path is no file, or there is none.
    """
    unique: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            raise FrondClientError(f"{given} is a folder. Name its files, as in {given}/*.tif.")
        if not path.is_file():
            raise FrondClientError(f"There is no file {given}.")
        unique[path.resolve()] = None
    if not unique:
        raise FrondClientError("There is no file to upload.")
    found = list(unique)
    names = [p.name for p in found]
    if len(set(names)) < len(names):
        base = Path(os.path.commonpath([p.parent for p in found]))
        names = [p.relative_to(base).as_posix() for p in found]
    out = []
    for path, name in zip(found, names, strict=True):
        stat = path.stat()
        out.append(LocalFile(path, name, stat.st_size, stat.st_mtime_ns))
    return out


class Meter:
    """Adds up the progress of several threads and tells it, one call at a time."""

    def __init__(self, files: Sequence[LocalFile], tell: OnProgress | None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._now = Progress(len(files), 0, sum(f.size for f in files), 0)

    def add(self, *, files: int = 0, size: int = 0) -> None:
        with self._lock:
            self._now = replace(
                self._now,
                files_done=self._now.files_done + files,
                bytes_done=self._now.bytes_done + size,
            )
            if self._tell is not None:
                self._tell(self._now)


class Reading:
    """A file's bytes for one request, metered; takes back what it counted when sent again."""

    def __init__(self, file: LocalFile, meter: Meter) -> None:
        self.file = file
        self.meter = meter
        self.counted = 0

    def __iter__(self) -> Iterator[bytes]:
        with self.file.path.open("rb") as source:
            while piece := source.read(PIECE):
                yield piece
                self.counted += len(piece)
                self.meter.add(size=len(piece))

    def take_back(self) -> None:
        self.meter.add(size=-self.counted)
        self.counted = 0


class Journal:
    """Which files a job has for certain, so that an upload that was interrupted goes on.

    One line for each file that the service has confirmed; a file that has changed since is sent
    again. Losing the journal costs time only.
    """

    def __init__(self, api_url: str, job_id: str, folder: Path | None = None) -> None:
        base = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        tag = hashlib.sha256(f"{api_url}\n{job_id}".encode()).hexdigest()[:24]
        self.path = base / "frond" / "uploads" / f"{tag}.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, int, int]] = {}
        self._tidy()
        with suppress(OSError), self.path.open(encoding="utf-8") as lines:
            for line in lines:
                # the last line may be half a line
                with suppress(ValueError, KeyError):
                    row = json.loads(line)
                    self._known[row["name"]] = (row["path"], row["size"], row["mtime_ns"])

    def has(self, file: LocalFile) -> bool:
        return self._known.get(file.name) == (str(file.path), file.size, file.mtime_ns)

    def add(self, file: LocalFile) -> None:
        row = {
            "name": file.name, "path": str(file.path), "size": file.size,
            "mtime_ns": file.mtime_ns,
        }  # fmt: skip
        # a disk that is full must not stop an upload
        with self._lock, suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")

    def _tidy(self) -> None:
        """Remove journals that nobody has written to for a month."""
        oldest = time.time() - _KEPT_S
        with suppress(OSError):
            for path in self.path.parent.glob("*.jsonl"):
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


def in_threads(work: Callable[[LocalFile], None], files: Sequence[LocalFile], at_once: int) -> None:
    """Do the work for each file, some at once; the first error ends it and is raised."""
    stop = threading.Event()

    def one(file: LocalFile) -> None:
        if stop.is_set():
            return
        try:
            work(file)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(at_once, thread_name_prefix="frond-upload") as pool:
        futures = [pool.submit(one, f) for f in files]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            stop.set()
            raise
    for future in futures:
        future.result()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def fetch(http: httpx.Client, url: str, part: Path, progress: Callable[[int], None] | None) -> None:
    """Get a URL into a file, from where the file ends."""
    have = part.stat().st_size if part.exists() else 0
    # ranges are of the bytes as they are, not as they are packed on the way
    headers = {"accept-encoding": "identity"}
    if have:
        headers["range"] = f"bytes={have}-"
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            size = response.headers.get("content-range", "").rpartition("/")[2]
            if size == str(have):
                return  # all of it was there
            part.unlink()
            raise httpx.ReadError("the file has changed; from its start again")
        checked(response)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if response.status_code == 206 else "wb") as out:
            for piece in response.iter_bytes(PIECE):
                out.write(piece)
                if progress is not None:
                    progress(len(piece))
