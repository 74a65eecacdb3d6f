"""A worker in one process, over folders and a scene: for tests of models that servers run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from frond.contracts.errors import ObjectMissing
from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.inference.models import ModelCache
from frond.inference.pipeline import Runner
from frond.inference.worker import Worker
from frond.models import folder_digest, load_manifest
from frond.models.session import ModelSession
from frond.models.testing_server import Handler
from frond.raster import (
    Block,
    PlanRequest,
    WindowPixels,
    chunks_of,
    inspect,
    open_raster,
    plan_image,
    read_block,
)

SIZE = 64
PLACES = ((20, 30), (70, 40), (30, 90), (95, 100))


class Memory:
    """Results and rasters of one process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes:
        if key not in self.kept:
            raise ObjectMissing(key)
        return self.kept[key]

    async def put_if_absent(self, key: str, data: bytes, content_type: str) -> bytes:
        return self.kept.setdefault(key, data)

    def check(self, uri: str) -> None:
        """Rasters may lie anywhere."""

    async def etag(self, uri: str) -> str:
        return "e"

    @asynccontextmanager
    async def copy(self, uri: str) -> AsyncIterator[Path]:
        yield Path(uri)

    async def is_cancelled(self, job_id: str) -> bool:
        return False


class Folders:
    """Model folders by digest."""

    def __init__(self, *folders: Path) -> None:
        self._folders = {folder_digest(f): f for f in folders}

    def ref(self, folder: Path) -> ModelRef:
        return ModelRef(name="blob", digest=folder_digest(folder))

    async def resolve(self, text: str | None) -> ModelRef:
        digest = (text or "").partition("@")[2]
        return self.ref(self._folders[digest])

    async def manifest(self, ref: ModelRef) -> ModelManifest:
        return load_manifest(self._folders[ref.digest])

    async def fetch(self, ref: ModelRef, _: Path) -> Path:
        return self._folders[ref.digest]


async def reading(block: Block) -> list[WindowPixels]:
    return await asyncio.to_thread(read_block, block)


class Bench:
    """A worker over folders, and one chunk of a scene for any of them."""

    def __init__(self, scene: Path, tmp_path: Path, *folders: Path, **more: Any) -> None:
        self._scene = scene
        self.folders = Folders(*folders)
        servers = more.pop("servers", ())
        self.results = Memory()
        self.models = ModelCache(self.folders, tmp_path / "cache", servers=servers)  # type: ignore[arg-type]
        self.runner = Runner()
        self.worker = Worker(
            self.results, self.models, self.runner, reading, pauses_s=more.pop("pauses_s", ()), **more
        )  # fmt: skip

    def close(self) -> None:
        self.worker.close()
        self.runner.close()

    def chunk(self, folder: Path, session: ModelSession) -> ChunkPlanned:
        with open_raster(str(self._scene)) as dataset:
            plan = plan_image(
                dataset, inspect(dataset),
                PlanRequest(
                    job_id="j", image_id="1" * 32, image="s3://b/i.tif", name="i",
                    uri=str(self._scene), etag="e", size=self._scene.stat().st_size,
                    model=self.folders.ref(folder), manifest=session.manifest,
                ),
            )  # fmt: skip
        (chunk,) = chunks_of(plan)
        return chunk


def busy(handler: Handler) -> None:
    """Not now, and not within any test's time."""
    handler.answer(503, {"error": "busy"}, {"Retry-After": "600"})
