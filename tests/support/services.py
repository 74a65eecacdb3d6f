"""The five services of an installation as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from frond.bus import ensure_topics
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.stack import Endpoints
from frond.stack import testing as stack_testing
from frond.stack.paths import free_port
from frond.store import ObjectStore, StoreSettings

NAMES = ("ingest", "tiler", "inference", "aggregator", "notifier")


@dataclass
class Services:
    """Services of one installation, each its own process, each with its own HTTP port."""

    env: dict[str, str]
    logs: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    files: list[IO[bytes]] = field(default_factory=list)

    def start(self, *names: str) -> None:
        for name in names or NAMES:
            port = self.ports.setdefault(name, free_port())
            out = (self.logs / f"{name}.log").open("ab")
            self.files.append(out)
            env = {**os.environ, **self.env, "FROND_HTTP_PORT": str(port), "API_PORT": str(port)}
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"frond.{name}"], env=env, stdout=out, stderr=out
            )

    def kill(self, *names: str, sig: int = signal.SIGKILL) -> None:
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            process.send_signal(sig)
            process.wait(60)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    async def ready(self, *names: str, within: float = 240) -> None:
        """Wait until each says it is ready; shows its log when it does not."""
        end = time.monotonic() + within
        async with httpx.AsyncClient(timeout=2) as http:
            for name in names or tuple(self.processes):
                while True:
                    code = self.processes[name].poll()
                    assert code is None, f"{name} exited with {code}\n{self.tail(name)}"
                    with contextlib.suppress(httpx.HTTPError):
                        if (await http.get(self.url(name) + "/ready")).status_code == 200:
                            break
                    assert time.monotonic() < end, f"{name} is not ready\n{self.tail(name)}"
                    await asyncio.sleep(0.1)

    def tail(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for out in self.files:
            out.close()


def installation(
    endpoints: Endpoints, prefix: str, bucket: str, folder: Path, **more: str
) -> dict[str, str]:
    """The whole environment of an installation's services: the blob model, and a key of its own."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("FROND_")},
        **stack_testing.environment(endpoints, prefix, bucket),
        "FROND_DEFAULT_MODEL": "blob",
        "FROND_API_KEY": "test-key",
        "DATABASE_PATH": str(folder / "ingest.db"),
        "FROND_CACHE_DIR": str(folder / "cache"),
        **more,
    }


def open_store(env: dict[str, str]) -> ObjectStore:
    return ObjectStore(
        StoreSettings(
            env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
            env["FROND_S3_BUCKET"],
        )
    )  # fmt: skip


async def prepare(env: dict[str, str], store: ObjectStore, folder: Path) -> None:
    """Topics, bucket, and the blob model as the default model."""
    await ensure_topics(env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"])
    await store.ensure_bucket()
    folder.mkdir(parents=True, exist_ok=True)
    blob_model(folder)
    await Registry(store).push(folder, alias="production")
