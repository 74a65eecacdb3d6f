"""A disk that can be filled up: a tmpfs in a mount namespace of its own.

Nothing of it shows outside the namespace, and it goes with the process that holds it, so that a
killed test run leaves no mount behind. Root needs no more than ``unshare -m``; anybody else gets
a user namespace around it, where the kernel gives them.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from frond.stack.errors import StackError
from frond.stack.process import Child

_WAYS: Final = (("-m",), ("-U", "-r", "-m"))
_MIB: Final = 1 << 20
_BLOCK: Final = 4096


@functools.cache
def _way() -> tuple[tuple[str, ...], str]:
    """The flags of unshare that work here, or none and the reason why not."""
    for tool in ("unshare", "nsenter", "mount"):
        if not shutil.which(tool):
            return (), f"there is no {tool} on PATH (it comes with util-linux)"
    reason = ""
    for flags in _WAYS if os.geteuid() == 0 else _WAYS[1:]:
        tried = subprocess.run(
            ["unshare", *flags, "mount", "-t", "tmpfs", "-o", "size=1m", "frond", "/mnt"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not tried.returncode:
            return flags, ""
        reason = tried.stderr.strip() or f"unshare ended with status {tried.returncode}"
    return (), f"a file system may not be mounted here: {reason}"


def why_no_small_disk() -> str:
    """Why this machine lets us have no such disk; empty where it does."""
    return _way()[1]


class SmallDisk:
    """A tmpfs of ``mb`` MiB at ``at``, for processes started by :meth:`enter`.

    Attributes:
        inside: the same folder, as processes outside the namespace reach it.

    Raises:
        StackError: this machine does not allow it.
    """

    def __init__(self, at: Path, mb: int) -> None:
        flags, reason = _way()
        if reason:
            raise StackError(f"No small disk: {reason}.")
        self.at = at.resolve()
        self.mb = mb
        self.at.mkdir(parents=True, exist_ok=True)
        mount = 'mount -t tmpfs -o "size=$1m,mode=755" frond "$2" && exec sleep infinity'
        self._holder = Child(
            "the small disk",
            ["unshare", *flags, "--propagation", "private", "sh", "-c", mount, "sh", str(mb), self.at],
            log=self.at.with_name(f"{self.at.name}.disk.log"),
        )  # fmt: skip
        self._user = ["-U", "--preserve-credentials"] if "-U" in flags else []
        self.inside = Path(f"/proc/{self._holder.pid}/root{self.at}")
        self._holder.wait_ready(lambda: os.path.ismount(self.inside), 20)

    def enter(self) -> list[str]:
        """What a command must begin with to see the disk; its process id stays the command's."""
        return ["nsenter", "-t", str(self._holder.pid), *self._user, "-m"]

    @property
    def free_bytes(self) -> int:
        told = os.statvfs(self.inside)
        return told.f_bavail * told.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all room but ``leave`` bytes, by a file that nobody else looks at."""
        with self._ballast.open("ab") as f:
            step = 64 * _MIB
            while step >= _BLOCK and (more := min(self.free_bytes - leave, step)) > 0:
                try:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, more)
                except OSError:
                    step //= 2  # somebody else wrote at the same moment

    def make_room(self) -> None:
        """Give back what :meth:`fill` took."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.inside / "ballast"

    def close(self) -> None:
        """End it; what lay on it is gone once its last process has ended."""
        self._holder.kill()
