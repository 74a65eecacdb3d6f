"""A single-drive MinIO as a child process on loopback."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from frond.stack.paths import free_port
from frond.stack.process import Child
from frond.stack.small_disk import SmallDisk


class MinioServer:
    """One object store on a fixed loopback port, over a data directory that outlives it.

    Args:
        disk: where objects lie in place of ``data``.

    Attributes:
        endpoint: ``http://host:port``; the same after every restart.
    """

    def __init__(
        self,
        data: Path,
        binary: Path,
        access_key: str,
        secret_key: str,
        *,
        port: int = 0,
        log: Path | None = None,
        disk: SmallDisk | None = None,
    ) -> None:
        self.data = data
        self.disk = disk
        self.binary = binary
        self.access_key = access_key
        self.secret_key = secret_key
        self.port = port or free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = log or data.parent / "minio.log"
        self.child: Child | None = None

    def spawn(self) -> Child:
        """Start the process, without waiting."""
        self.data.mkdir(parents=True, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith("MINIO_")}
        env |= {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            # the server's own certificates folder would be looked for in a home it may not have
            "HOME": str(self.data),
        }
        self.child = Child(
            "MinIO",
            [*(self.disk.enter() if self.disk else ()), self.binary, "server",
             (self.disk.at if self.disk else self.data) / "drive", "--quiet",
             "--address", f"127.0.0.1:{self.port}", "--certs-dir", self.data / "certs"],
            log=self.log, env=env,
        )  # fmt: skip
        return self.child

    def wait_ready(self, deadline_s: float = 180.0) -> None:
        """Return once the server says that it serves reads and writes."""
        assert self.child is not None
        self.child.wait_ready(self.answers, deadline_s)

    def answers(self) -> bool:
        return http_ok(f"{self.endpoint}/minio/health/ready")

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL, as if the machine had lost it."""
        if self.child:
            self.child.kill()

    def stop(self) -> None:
        if self.child:
            self.child.stop()


def http_ok(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a GET on loopback is answered with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False
