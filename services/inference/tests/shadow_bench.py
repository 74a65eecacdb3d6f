"""A worker with shadows, and what hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from inference_bench import Bench

from frond.contracts import keys
from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import ModelRef, Shadow
from frond.contracts.shadows import ShadowFailure
from frond.inference import metrics
from frond.inference.pipeline import Runner
from frond.inference.shadowing import Shadowing
from frond.models.session import ModelSession

SHARE: Final = 0.5
Doing = Callable[[], Any]


class Shadows:
    """Models of shadows: by digest, or whatever ``trouble`` does first."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.trouble: Doing = lambda: None
        self.asked = 0

    async def get(self, ref: ModelRef) -> ModelSession:
        self.asked += 1
        told = self.trouble()
        if told is not None:
            await told
        return await self._bench.models.get(ref)


class Made:
    """A worker with shadows, one chunk of a job that has one, and the same without."""

    def __init__(self, scene: Path, tmp_path: Path, own: Path, other: Path, **more: Any) -> None:
        self.bench = Bench(scene, tmp_path, own, other, pauses_s=(0, 0))
        self.results = self.bench.results
        self.models = Shadows(self.bench)
        self._more = {"timeout_s": 120.0, "max_detections": 1000} | more
        self.begin_anew()
        session = ModelSession(own, threads=1)
        self.plain = self.bench.chunk(own, session)
        ref = ModelRef(name="blob", digest=self.bench.folders.ref(other).digest, version="2")
        self.chunk = self.plain.model_copy(update={"shadow": Shadow(model=ref, share=SHARE)})

    def begin_anew(self) -> None:
        """As another process would, that knows nothing of before."""
        self.shadowing = Shadowing(
            self.results, self.models, Runner(1, metrics.SHADOW_WINDOWS), **self._more
        )
        self.bench.worker._shadows = self.shadowing

    async def handle(self, chunk: ChunkPlanned | None = None) -> Any:
        return await self.bench.worker.handle(chunk or self.chunk)

    def another(self, number: int) -> ChunkPlanned:
        return self.chunk.model_copy(update={"chunk_id": f"{number:032x}"})

    def key(self, chunk: ChunkPlanned | None = None) -> str:
        c = chunk or self.chunk
        return keys.chunk_result(c.job_id, c.image_id, c.chunk_id)

    def shadow_key(self, chunk: ChunkPlanned | None = None) -> str:
        c = chunk or self.chunk
        return keys.shadow_result(c.job_id, c.image_id, c.chunk_id)

    def failure(self, chunk: ChunkPlanned | None = None) -> ShadowFailure:
        c = chunk or self.chunk
        raw = self.results.kept[keys.shadow_failure(c.job_id, c.image_id, c.chunk_id)]
        return ShadowFailure.model_validate_json(raw)


class Held:
    """Runs of a session that hang until they are let go."""

    def __init__(self, session: ModelSession) -> None:
        self.began, self.go, self.runs = threading.Event(), threading.Event(), 0
        infer = session.infer

        def held(*args: Any, **how: Any) -> Any:
            self.runs += 1
            self.began.set()
            assert self.go.wait(250)
            return infer(*args, **how)

        session.infer = held  # type: ignore[method-assign]
