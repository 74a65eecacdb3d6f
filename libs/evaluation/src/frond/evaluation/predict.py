"""A model over an image, as a job would run it: plan, windows, decoder, merge or blend."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from frond.contracts.errors import RasterRejected
from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import ModelRef, Thresholds
from frond.contracts.modelspec import ModelThresholds
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.evaluation.dataset import LabelledImage
from frond.masks import masks, to_ipc
from frond.masks.blend import Band, blended
from frond.masks.build import Chunks, rule_of
from frond.merge import Detections, assemble, merge
from frond.models import WindowResult, detections_of, effective_thresholds, folder_digest, planes_of
from frond.models.session import DEFAULT_BATCH, ModelSession
from frond.raster import (
    PlanRequest,
    RasterReader,
    WindowPixels,
    chunks_of,
    configure_formats,
    inspect,
    open_raster,
    plan_image,
)

FLOOR: Final = 0.05
"""Finds of lower scores are not looked at, by AP and by the sweep of thresholds either."""

OnWindows = Callable[[int, int], None]
"""Told how many windows of an image are done, of how many."""


class Found(NamedTuple):
    """What a model finds in one image.

    Attributes:
        plain: at the score asked for, as a job gives it.
        every: at the floor.
    """

    plain: Detections
    every: Detections


class Predictor:
    """A model folder in a session.

    Args:
        score: in place of the model's own threshold.
        threads: of one run; 0: one for each core.
        batch: windows a run, where the model leaves it open.

    Raises:
        ModelRejected: the model cannot be run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        score: float | None = None,
        threads: int = 0,
        batch: int = DEFAULT_BATCH,
    ) -> None:
        configure_formats()
        self.session = ModelSession(folder, threads=threads, batch=batch)
        self.manifest = self.session.manifest
        self.digest = folder_digest(folder)
        self._asked = Thresholds(score=score)
        self.thresholds = effective_thresholds(self.manifest, self._asked)
        self.floor = min(FLOOR, self.thresholds.score)

    def plan(self, image: LabelledImage) -> ImagePlan:
        """How a job would see this image.

        Raises:
            RasterRejected: it would not be taken, or is not the image that was labelled.
        """
        path = image.path
        if not path.is_file():
            raise RasterRejected(Reason.OBJECT_MISSING, f"There is no {path}.")
        size = path.stat().st_size
        with open_raster(str(path), size=size) as dataset:
            request = PlanRequest(
                job_id="evaluate", image_id="0" * 32, image=image.name, name=image.name,
                uri=str(path), etag="", size=size, manifest=self.manifest, thresholds=self._asked,
                model=ModelRef(name=self.manifest.name, digest=self.digest),
            )  # fmt: skip
            plan = plan_image(dataset, inspect(dataset, size), request, self.session)
        have = plan.source.width, plan.source.height
        told = image.width or have[0], image.height or have[1]
        if told != have:
            raise RasterRejected(
                Reason.BAD_REQUEST,
                f"It has {have[0]}×{have[1]} pixels, and its labels are for {told[0]}×{told[1]}.",
            )
        return plan

    def detections(self, plan: ImagePlan, on_windows: OnWindows) -> Found:
        """Merged detections of an image, in its raster's pixels.

        Raises:
            RasterRejected: it cannot be read to the end.
            ModelRejected: the model failed.
        """
        low = self.thresholds.model_copy(update={"score": self.floor})
        plain: list[Detections] = []
        every: list[Detections] = []
        for _, windows, told in self._chunks(plan, (self.thresholds, low), on_windows):
            for parts, found in zip((plain, every), told, strict=True):
                boxes = detections_of(found)
                parts.append(assemble(boxes, windows, plan.grid, plan.source))
        over = self.thresholds.merge_iou
        return Found(
            merge(Detections.concat(plain), plan.grid, over),
            merge(Detections.concat(every), plan.grid, over),
        )

    def bands(self, plan: ImagePlan, on_windows: OnWindows) -> Iterator[Band]:
        """The class of each scaled pixel, some rows at a time; planes wait on disk meanwhile.

        Raises: as :meth:`detections`.
        """
        with tempfile.TemporaryDirectory(prefix="frond-evaluate-") as name:
            folder = Path(name)
            for chunk, windows, (found,) in self._chunks(plan, (self.thresholds,), on_windows):
                data = to_ipc(masks(planes_of(found), windows, plan.grid), {})
                (folder / f"{chunk.chunk_id}.arrow").write_bytes(data)
            with Chunks(folder, plan) as stored:
                yield from blended(plan.grid, stored.planes, rule_of(plan, self.manifest))

    def _chunks(
        self, plan: ImagePlan, thresholds: tuple[ModelThresholds, ...], on_windows: OnWindows
    ) -> Iterator[tuple[ChunkPlanned, list[WindowPixels], tuple[list[WindowResult], ...]]]:
        """Chunk by chunk: its windows, and what is in them at each of these thresholds."""
        session, done = self.session, 0
        total = plan.grid.count - plan.windows_skipped
        with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
            for chunk in chunks_of(plan):
                windows = reader.read_block(chunk.windows)
                told: tuple[list[WindowResult], ...] = tuple([] for _ in thresholds)
                for i in range(0, len(windows), session.batch):
                    outputs = session.run([w.data for w in windows[i : i + session.batch]])
                    for found, at in zip(told, thresholds, strict=True):
                        found += session.decode(outputs, at)
                yield chunk, windows, told
                done += len(windows)
                on_windows(done, total)
