"""Frond's REST service as an injected transport: enough of it to hold the client to its contract."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from frond.client.client import Client
from frond.stack.paths import free_port
from support.waiting import until_ready


@dataclass
class FakeService:
    """Answers as services/ingest does.

    ``trouble`` is asked first at each request: an answer or an exception of its own, or None.
    """

    images: dict[str, bytes] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    sealed: int = 0
    created: str = "2026-01-02T03:04:05Z"
    seen: list[httpx.Request] = field(default_factory=list)
    trouble: Callable[[httpx.Request], httpx.Response | None] = lambda request: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        body = request.read()
        answer = self.trouble(request)
        if answer is not None:
            return answer
        path = unquote(request.url.raw_path.decode().partition("?")[0])
        match request.method, path.split("/")[1:]:
            case "POST", ["jobs"]:
                job_id = json.loads(body).get("job_id") or "job-1"
                return httpx.Response(201, json=figures(job_id) | {"created": self.created})
            case "PUT", ["jobs", _, "images", *name]:
                self.images["/".join(name)] = body
                return httpx.Response(201, json={"name": "/".join(name)})
            case "GET", ["jobs", _, "images"]:
                start = int(request.url.params.get("cursor") or 0)
                stop = start + int(request.url.params["limit"])
                listed = [{"name": n} for n in sorted(self.images)]
                more = str(stop) if stop < len(listed) else None
                return httpx.Response(200, json={"images": listed[start:stop], "next_cursor": more})
            case "POST", ["jobs", job_id, "seal"]:
                self.sealed += 1
                return httpx.Response(200, json=figures(job_id))
            case "GET", ["status", job_id]:
                if len(self.statuses) > 1:
                    return httpx.Response(200, json=self.statuses.pop(0))
                told = self.statuses[0] if self.statuses else figures(job_id)
                return httpx.Response(200, json=told)
            case "GET", ["jobs", _, "events"]:
                if not self.streams:
                    return httpx.Response(404, json={"detail": "no events here"})
                text = self.streams.pop(0)
                return httpx.Response(
                    200, text=text, headers={"content-type": "text/event-stream; charset=utf-8"}
                )
            case "GET", ["jobs", _, "results"]:
                listed = [
                    {"name": n, "size": len(b), "sha256": hashlib.sha256(b).hexdigest(),
                     "media_type": "application/json"}
                    for n, b in self.results.items()
                ]  # fmt: skip
                return httpx.Response(200, json={"results": listed})
            case "GET", ["jobs", _, "results", *name] if "/".join(name) in self.results:
                return ranged(request, self.results["/".join(name)])
            case "GET", ["jobs"]:
                start = int(request.url.params.get("cursor") or 0)
                stop = start + int(request.url.params["limit"])
                jobs = [figures(f"job-{n}") for n in range(start, min(stop, 2500))]
                more = str(stop) if stop < 2500 else None
                return httpx.Response(200, json={"jobs": jobs, "next_cursor": more})
            case "DELETE", _:
                return httpx.Response(404, json={"detail": "There is no such job."})
        return httpx.Response(404, json={"detail": f"Nothing is at {path}."})


def figures(job_id: str, status: str = "running", done: int = 0) -> dict[str, Any]:
    return {
        "job_id": job_id, "status": status, "outcome": None, "message": "", "progress": 0,
        "images": {"expected": 2, "received": 2, "running": 0, "completed": done, "failed": 0},
        "windows": {"total": 4, "done": 2 * done, "skipped": 0, "failed": 0},
        "detections": {"palm": done}, "model": None, "created": "2026-01-02T03:04:05Z",
        "finished": None, "failures": [], "artifacts": [], "timings": None,
    }  # fmt: skip


def ranged(request: httpx.Request, data: bytes) -> httpx.Response:
    start = request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-")
    if "range" not in request.headers:
        return httpx.Response(200, content=data)
    if int(start) >= len(data):
        return httpx.Response(416, headers={"content-range": f"bytes */{len(data)}"})
    return httpx.Response(206, content=data[int(start) :])


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def naps() -> list[float]:
    """How long the client waited between tries, instead of waiting."""
    return []


@pytest.fixture
def client(service: FakeService, naps: list[float], tmp_path: Path) -> Iterator[Client]:
    with Client(
        "http://frond.test", "key-1", transport=httpx.MockTransport(service), sleep=naps.append,
        journal_dir=tmp_path / "journal", inference_url="http://inference.test",
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
def rasters(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    paths = [folder / f"{n}.tif" for n in ("a", "b ü", "c#1")]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * (3_000_000 + n))
    return paths


@pytest.fixture
def door(
    service_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A REST door with no key configured; this process's environment leads to it."""
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("FROND_API_URL", url)
    for name, value in service_env.items():
        if name.startswith("FROND_S3_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "ingest.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "frond.ingest"], stdout=log, stderr=log,
            env={**service_env, "API_PORT": str(port)},
        )  # fmt: skip
        try:
            until_ready(process, url, tmp_path / "ingest.log")
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
