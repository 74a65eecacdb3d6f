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
from datetime import datetime
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


def local_file(given: str | Path) -> Path:
    """A file's path from the root, called as it was given: a link keeps its own name.

    Raises:
        FrondClientError: it is no file.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        raise FrondClientError(f"{given} is a folder. Name its files, as in {given}/*.tif.")
    if not path.is_file():
        raise FrondClientError(f"There is no file {given}.")
    plain = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    # behind a folder that is a link, .. leads elsewhere than it reads
    is_it = plain.is_file() and plain.samefile(path)
    return plain if is_it else path.parent.resolve() / path.name


def local_files(paths: Sequence[str | Path]) -> list[LocalFile]:
    """Files by path, each once, named so that no two names are equal.

    A name is the file's own; where two are the same, all are named from their common folder.

    Raises:
        FrondClientError: a path is no file, or there is none; or a name is not UTF-8.
    """
    found = list(dict.fromkeys(local_file(p) for p in paths))
    if not found:
        raise FrondClientError("There is no file to upload.")
    names = [p.name for p in found]
    if len(set(names)) < len(names):
        base = Path(os.path.commonpath([p.parent for p in found]))
        names = [p.relative_to(base).as_posix() for p in found]
    out = []
    for path, name in zip(found, names, strict=True):
        if not _is_utf8(name):
            raise FrondClientError(
                f"The name {name!r} is not UTF-8, and no job can have an image called so. Rename it."
            )
        stat = path.stat()
        out.append(LocalFile(path, name, stat.st_size, stat.st_mtime_ns))
    return out


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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


class Stopped(Exception):
    """A file is not sent any further, because another could not be sent or nobody waits any more."""


class Reading:
    """A file's bytes for one request, metered; takes back what it counted when sent again.

    Reading it raises FrondClientError where the file has not the size any more that it was found
    with, and Stopped once ``stop`` is set.
    """

    def __init__(self, file: LocalFile, meter: Meter, stop: threading.Event | None = None) -> None:
        self.file = file
        self.meter = meter
        self.stop = stop or threading.Event()
        self.counted = 0

    def __iter__(self) -> Iterator[bytes]:
        with self.file.path.open("rb") as source:
            while piece := source.read(PIECE):
                if self.stop.is_set():
                    raise Stopped
                if self.counted + len(piece) > self.file.size:
                    raise _changed()
                yield piece
                self.counted += len(piece)
                self.meter.add(size=len(piece))
        if self.counted < self.file.size:
            raise _changed()

    def take_back(self) -> None:
        self.meter.add(size=-self.counted)
        self.counted = 0


def _changed() -> FrondClientError:
    return FrondClientError(
        "it changed while it was being sent. Send it again once nobody writes to it."
    )


class Journal:
    """Which files a job has confirmed, so that an upload that was interrupted goes on.

    One line for each file that the service has confirmed; a file that has changed since is sent
    again. Losing the journal costs time only.

    Args:
        created: when the job began, as the service tells it. Lines of an earlier job of the same
            id count for nothing. A later time is another job; an earlier one is not, as the
            service takes the earliest that it hears of.
    """

    def __init__(
        self, api_url: str, job_id: str, created: str | None, folder: Path | None = None
    ) -> None:
        base = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        tag = hashlib.sha256(f"{api_url}\n{job_id}".encode()).hexdigest()[:24]
        self.path = base / "frond" / "uploads" / f"{tag}.jsonl"
        self._began = datetime.fromisoformat(created).timestamp() if created else 0.0
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, int, int]] = {}
        self._tidy()
        with suppress(OSError), self.path.open(encoding="utf-8") as lines:
            for line in lines:
                # the last line may be half a line
                with suppress(ValueError, KeyError):
                    row = json.loads(line)
                    if row["began"] >= self._began:
                        self._known[row["name"]] = (row["path"], row["size"], row["mtime_ns"])

    def named(self, files: Sequence[LocalFile]) -> list[LocalFile]:
        """These files, each under the name that it has in the job already: what it is called else
        depends on what is sent beside it. Not where another of them is called so now."""
        before = {path: name for name, (path, _, _) in self._known.items()}
        now = {f.name for f in files}
        out = []
        for file in files:
            name = before.get(str(file.path), file.name)
            out.append(file if name in now else replace(file, name=name))
        return out

    def has(self, file: LocalFile) -> bool:
        return self._known.get(file.name) == (str(file.path), file.size, file.mtime_ns)

    def differs(self, file: LocalFile) -> bool:
        """Whether what was sent under its name looks otherwise than it does now, wherever it lay."""
        known = self._known.get(file.name)
        return known is not None and known[1:] != (file.size, file.mtime_ns)

    def add(self, file: LocalFile) -> None:
        row = {
            "name": file.name, "path": str(file.path), "size": file.size,
            "mtime_ns": file.mtime_ns, "began": self._began,
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


def in_threads(
    work: Callable[[LocalFile], None],
    files: Sequence[LocalFile],
    at_once: int,
    stop: threading.Event,
) -> None:
    """Do the work for each file, some at once; the first error ends it and is raised.

    ``stop`` is set then, and when the caller is interrupted: work under way is to raise Stopped.
    """

    def one(file: LocalFile) -> None:
        if stop.is_set():
            return
        try:
            work(file)
        except Stopped:
            return
        except BaseException:
            stop.set()
            raise

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="frond-upload")
    try:
        futures = [pool.submit(one, f) for f in files]
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled():
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
