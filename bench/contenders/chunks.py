"""Chunks beside each other, as many as fill the model's runs, as the inference service has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from frond.contracts.plan import ImagePlan
from frond.inference.pipeline import Runner, Spent, at_once
from frond.merge import Detections, assemble
from frond.models import WindowDetections
from frond.models.session import ModelSession
from frond.raster import WindowPixels


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of an image's windows, as read; ``last``: it has no more."""

    plan: ImagePlan
    pixels: list[WindowPixels]
    last: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What the model makes of a chunk, whose pixels are let go."""

    plan: ImagePlan
    last: bool
    windows: int
    detections: Detections
    spent: Spent


_Run = Future[tuple[list[WindowDetections], Spent]]


def detected(runner: Runner, session: ModelSession, chunks: Iterable[Chunk]) -> Iterator[Found]:
    """What the model finds in each chunk, in order.

    The one after is begun before a chunk's finds are handed out: whatever is done with them keeps no
    run waiting. Held are the pixels of as many as go on, and of the one that is read meanwhile.
    """
    going: deque[tuple[Chunk, _Run]] = deque()
    with ThreadPoolExecutor(session.concurrency + 1, thread_name_prefix="chunk") as running:
        for chunk in chunks:
            done = []
            while len(going) >= at_once(session, len(chunk.pixels)):
                done.append(_found(*going.popleft()))
            data = [p.data for p in chunk.pixels]
            run = running.submit(runner.detect, session, data, session.manifest.thresholds)
            going.append((chunk, run))
            yield from done
        while going:
            yield _found(*going.popleft())


def _found(chunk: Chunk, run: _Run) -> Found:
    found, spent = run.result()
    detections = assemble(found, chunk.pixels, chunk.plan.grid, chunk.plan.source)
    return Found(chunk.plan, chunk.last, len(chunk.pixels), detections, spent)
