"""Kafka's jars: versions and SHA-256 pinned in ``kafka-jars.lock``, fetched by jgo.

jgo has a lock file of its own, but only its command line reads it, and resolving the graph anew
on each machine is what a lock is to save: the flat list here is fetched file by file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frond.stack.errors import StackError
from frond.stack.locks import file_lock
from frond.stack.paths import cache_dir

KAFKA_VERSION: Final = "4.1.0"
_LOCK: Final = Path(__file__).with_name("kafka-jars.lock")
# the broker logs nothing without a binding; resolved apart, because its BOM holds older clients
_ROOTS: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
)
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock: Maven coordinates and the file's SHA-256 in hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def locked() -> list[Jar]:
    """The jars of the lock file, in its order."""
    jars = []
    for line in _LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinates, sha256 = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def ensure_jars(say: Callable[[str], None] = print) -> Path:
    """The folder with exactly the locked jars; fetched once for each lock, then cached.

    Raises:
        StackError: a jar could not be fetched, or is not the one that was locked.
    """
    digest = hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]
    home = cache_dir() / "kafka"
    folder = home / f"{KAFKA_VERSION}-{digest}"
    if folder.is_dir():
        return folder
    with file_lock(home / "lock"):
        if folder.is_dir():
            return folder
        jars = locked()
        say(f"Fetching Kafka {KAFKA_VERSION}: {len(jars)} jars, 45 MB, once")
        # a machine's own certificate authority is in the system's store, not in certifi's
        trusted = ssl.get_default_verify_paths().cafile
        if trusted:
            os.environ.setdefault("REQUESTS_CA_BUNDLE", trusted)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as temporary:
            ready = Path(temporary) / "jars"
            ready.mkdir()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda jar: _fetch(jar, Path(temporary), ready), jars))
            ready.rename(folder)
    return folder


def _fetch(jar: Jar, temporary: Path, into: Path) -> None:
    from jgo.maven import MavenContext

    failure = ""
    for attempt in range(_TRIES):
        time.sleep(attempt**2)  # give a registry that is out of breath some
        # jgo leaves a half-written file where a download breaks off: each try has its own folder
        repository = temporary / f"{jar.artifact}-{attempt}"
        try:
            context = MavenContext(repo_cache=repository, timeout=60)
            found = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
            path = Path(found.resolve())
            actual = sha256_of(path)
        except Exception as e:  # jgo lets its HTTP library's errors through
            failure = f"{type(e).__name__}: {e}"
        else:
            if actual == jar.sha256:
                shutil.move(path, into / jar.filename)
                return
            failure = f"its SHA-256 is {actual}, locked is {jar.sha256}"
    raise StackError(
        f"{jar.group}:{jar.artifact}:{jar.version} could not be fetched from Maven Central: "
        f"{failure}"
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_lock() -> int:
    """Resolve the jars anew and write the lock file; returns how many there are.

    Only for a change of Kafka's version; the diff shows what else changed.
    """
    import jgo

    found: dict[tuple[str, str], Jar] = {}
    for root in _ROOTS:
        for a in jgo.resolve(root):
            # the first root, Kafka, decides over versions
            key = (a.groupId, a.artifactId)
            if a.packaging == "jar" and key not in found:
                found[key] = Jar(*key, a.version, sha256_of(Path(a.resolve())))
    head = (
        f"# Kafka {KAFKA_VERSION} and its log binding; written by `python -m frond.stack lock`.\n"
    )
    lines = [f"{j.group}:{j.artifact}:{j.version} {j.sha256}\n" for _, j in sorted(found.items())]
    temporary = _LOCK.with_suffix(".tmp")
    temporary.write_text(head + "".join(lines))
    temporary.replace(_LOCK)
    return len(lines)
