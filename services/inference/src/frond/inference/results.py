"""A chunk's result, by the model's task: how it comes about, its bytes, and what they count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.events import ChunkPlanned
from frond.contracts.modelspec import ModelThresholds
from frond.contracts.reasons import Reason
from frond.inference.pipeline import Runner, Spent, check_count
from frond.masks import WindowMask, masks
from frond.masks import check as check_masks
from frond.masks import to_ipc as masks_to_ipc
from frond.merge import assemble, from_ipc, to_ipc
from frond.models import WindowPlanes, WindowResult, planes_of
from frond.models.session import ModelSession
from frond.raster import WindowPixels

RESULT_TYPE = "application/vnd.apache.arrow.file"


@dataclass(frozen=True, slots=True)
class Result:
    """What is stored for a chunk: a function of raster, plan and model alone.

    Attributes:
        detections: that it counts; a mask has none before it is blended with its neighbours.
    """

    data: bytes
    detections: int


Saw = Callable[[int, WindowResult], None]
"""Told what the model made of each window, by its number in the chunk, while the chunk runs."""

Finish = Callable[[int], Result]
"""What is left to do after a model's run, given the most detections that a window may have. Raises
RasterRejected (TOO_MANY)."""


def run(
    runner: Runner,
    session: ModelSession,
    event: ChunkPlanned,
    windows: Sequence[WindowPixels],
    thresholds: ModelThresholds,
    saw: Saw | None = None,
) -> tuple[Finish, Spent]:
    """Run the model over a chunk's windows. Blocking.

    Raises:
        ModelRejected: the run failed, or gave what the decoder cannot read.
        ModelUnavailable: the server that runs it does not answer.
    """
    if session.manifest.task == "segmentation":
        return _masks(runner, session, event, windows, thresholds, saw)
    return _detections(runner, session, event, windows, thresholds, saw)


def check_fit(event: ChunkPlanned, session: ModelSession) -> None:
    """Raise ModelRejected where the model does not take what was planned; RasterRejected where the grid
    has no such windows."""
    manifest = session.manifest
    if event.grid.size != manifest.input.size or len(event.source.bands) != len(manifest.bands):
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"The plan has windows of {event.grid.size} pixels and {len(event.source.bands)} bands; "
            f"{manifest.name} takes {manifest.input.size} and {len(manifest.bands)}.",
        )
    if min(event.windows) < 0 or max(event.windows) >= event.grid.count:
        raise RasterRejected(Reason.BAD_REQUEST, "The chunk names windows that its grid has not.")


def detections_in(stored: bytes) -> int:
    """What a stored result counts, of either kind.

    Raises:
        ValueError: it is no result.
    """
    try:
        check_masks(stored)
    except ValueError:
        return len(from_ipc(stored)[0])
    return 0


def _detections(
    runner: Runner,
    session: ModelSession,
    event: ChunkPlanned,
    windows: Sequence[WindowPixels],
    thresholds: ModelThresholds,
    saw: Saw | None,
) -> tuple[Finish, Spent]:
    found, spent = runner.detect(session, [w.data for w in windows], thresholds)
    if saw is not None:
        for number, one in enumerate(found):
            saw(number, one)

    def finish(most: int) -> Result:
        check_count(found, most)
        cores = session.manifest.task == "classification"
        rows = assemble(found, windows, event.grid, event.source, cores=cores)
        return Result(to_ipc(rows, _about(event)), len(rows))

    return finish, spent


def _masks(
    runner: Runner,
    session: ModelSession,
    event: ChunkPlanned,
    windows: Sequence[WindowPixels],
    thresholds: ModelThresholds,
    saw: Saw | None,
) -> tuple[Finish, Spent]:
    """Encoded while the model runs: planes are many times what the windows were."""
    spent = Spent()
    results = runner.results(session, [w.data for w in windows], thresholds, spent)
    found = masks(_planes(results, saw), windows, event.grid)
    data = masks_to_ipc(_timed(found, spent), _about(event))
    return lambda _: Result(data, 0), spent


def _planes(results: Iterator[WindowResult], saw: Saw | None) -> Iterator[WindowPlanes]:
    for number, one in enumerate(results):
        if saw is not None:
            saw(number, one)
        yield from planes_of([one])


def _timed(found: Iterator[WindowMask], spent: Spent) -> Iterator[WindowMask]:
    for one in found:
        started = time.perf_counter()
        yield one
        spent.decode += time.perf_counter() - started


def _about(event: ChunkPlanned) -> dict[str, str]:
    return {
        "plan_digest": event.plan_digest,
        "ordinal": str(event.ordinal),
        "windows": str(len(event.windows)),
        "image_etag": event.source.etag,
        "model": event.model.name,
        "model_digest": event.model.digest,
    }
