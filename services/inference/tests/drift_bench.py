"""Images that are run while somebody looks on, a clock and a broker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from frond.contracts.errors import BrokerUnavailable, FrondError
from frond.contracts.events import ChunkPlanned, DriftObserved
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.drift import Length, Periods
from frond.inference.drifting import Drifting
from frond.inference.pipeline import Runner
from frond.inference.results import run
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA
from frond.raster import (
    PlanRequest,
    RasterReader,
    chunks_of,
    inspect,
    open_raster,
    plan_image,
)

OBSERVER = "a" * 32


class Clock:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    gone = 0.0

    def __call__(self) -> datetime:
        return self.now

    def steady(self) -> float:
        return self.gone


class Broker:
    """Keeps what is sent; away for the first ``away`` sendings; does not take models in ``refused``."""

    def __init__(self, away: int = 0, refused: frozenset[str] = frozenset()) -> None:
        self.away = away
        self.refused = refused
        self.events: list[DriftObserved] = []

    async def send(self, event: DriftObserved) -> None:
        if event.model.name in self.refused:
            raise FrondError("a message of 9 MB")
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("away")
        self.events.append(event)


def draw(path: Path, grey: int = 90, seed: int = 1, things: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(grey - 20, grey + 20, (3, 500, 500)).astype(np.uint8)
    for x in range(10, 460, 60) if things else ():
        for y in range(10, 460, 60):
            pixels[:, y : y + 16, x : x + 16] = np.array(MAGENTA)[:, None, None]
    with rasterio.open(
        path, "w", driver="GTiff", width=500, height=500, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5),
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


def drifting(clock: Clock | None = None, **more: object) -> Drifting:
    clock = clock or Clock()
    periods = Periods(OBSERVER, clock, clock.steady, Length(600, 10_000))
    return Drifting(periods, **({"share": 1.0} | more))  # type: ignore[arg-type]


def plan_of(path: Path, session: ModelSession) -> ImagePlan:
    with open_raster(str(path)) as dataset:
        return plan_image(
            dataset, inspect(dataset),
            PlanRequest(
                job_id="j", image_id="1" * 32, image="s3://b/i.tif", name="i", uri=str(path),
                etag="e", size=1, manifest=session.manifest,
                model=ModelRef(name=session.manifest.name, digest="ab" * 32),
                windows_per_chunk=32,
            ),
        )  # fmt: skip


async def run_image(
    watch: Drifting, session: ModelSession, path: Path, score: float | None = None
) -> list[bytes]:
    """Every chunk of an image, looked on at as the worker has it looked on at; what was stored."""
    plan = plan_of(path, session)
    runner, stored = Runner(), []
    thresholds = session.manifest.thresholds
    if score is not None:
        thresholds = thresholds.model_copy(update={"score": score})
    with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
        for event in chunks_of(plan):
            assert isinstance(event, ChunkPlanned)
            windows = reader.read_block(event.windows)
            look = watch.look(event, session.manifest, thresholds)
            saw = look.saw if look else None
            finish, _ = await asyncio.to_thread(
                run, runner, session, event, windows, thresholds, saw
            )
            stored.append(finish(1000).data)
            if look is not None:
                watch.seen(event, session, look, windows)
    runner.close()
    return stored
