"""From windows to detections or masks, overlapped: some threads run models, others read, prepare, decode.

Results depend on the windows, their order and the model alone, never on timing: a chunk's batches
form only within one call, in the order of its windows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import RasterRejected
from frond.contracts.modelspec import ModelThresholds
from frond.contracts.plan import RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.masks import WindowMask
from frond.merge import Detections, own
from frond.models import WindowDetections, WindowPlanes, WindowResult, detections_of
from frond.models.session import PROVIDERS, Arrays, ModelSession
from frond.raster import WindowPixels

_RUNS: Final = 2
# a detection whose box is mostly pixels that mean nothing was found in the fill
_VALID_SHARE = 0.5


@dataclass(slots=True)
class Spent:
    """Seconds by stage, of one chunk; only its own thread writes to it."""

    preprocess: float = 0.0
    run: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A window that waits for a run, and what will come of it."""

    window: NDArray[np.uint8]
    outputs: Future[Arrays] = field(default_factory=Future)


class Runner:
    """The threads in which every model of this process runs.

    Two, because a run leaves the cores idle wherever its graph does: another request's fills them.
    On a GPU runs take turns, and the second thread prepares its batch meanwhile.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_RUNS, thread_name_prefix="onnx")
        self._device = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, deque[_Asked]] = {}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def beside_others(
        self,
        session: ModelSession,
        windows: Sequence[NDArray[np.uint8]],
        thresholds: ModelThresholds,
    ) -> list[WindowDetections]:
        """Each window's detections, in order, of one request among others. Blocking.

        Where the model takes several windows a run, a run takes what waits when it begins, whose
        ever it is; nothing waits for more to come. A batch is as large as ever, only fuller: what
        else is in it changes nothing but a window's row. Chunks, which are stored under names that
        say what is in them, do not share runs all the same.

        Raises:
            ModelRejected: the run failed, or gave what the decoder cannot read.
        """
        if session.batch == 1:
            return self.detect(session, windows, thresholds)[0]
        asked = [_Asked(window) for window in windows]
        with self._lock:
            self._waiting.setdefault(id(session), deque()).extend(asked)
        for _ in range(0, len(asked), session.batch):
            run = self._pool.submit(self._run_waiting, session)
            run.add_done_callback(
                lambda run: run.cancelled() and [a.outputs.cancel() for a in asked]
            )
        found = [one for a in asked for one in session.decode(a.outputs.result(), thresholds)]
        metrics.WINDOWS.inc(len(windows))
        return detections_of(found)

    def _run_waiting(self, session: ModelSession) -> None:
        """One run of what waits for this model, if it was not taken by a run before."""
        with self._lock:
            waiting = self._waiting.get(id(session), deque())
            taken = [waiting.popleft() for _ in range(min(len(waiting), session.batch))]
            taken = [a for a in taken if a.outputs.set_running_or_notify_cancel()]
            if not waiting:
                self._waiting.pop(id(session), None)
        if not taken:
            return
        try:
            outputs, _ = self._run(session, session.prepare([a.window for a in taken]), len(taken))
        except BaseException as e:
            for a in taken:
                a.outputs.set_exception(e)
            return
        for row, a in enumerate(taken):
            a.outputs.set_result({name: v[row : row + 1] for name, v in outputs.items()})

    def _run(self, session: ModelSession, prepared: NDArray[Any], n: int) -> tuple[Arrays, float]:
        on_cpu = session.providers[0] == PROVIDERS[-1]
        with nullcontext() if on_cpu else self._device:
            started = time.perf_counter()
            outputs = session.infer(prepared, n)
            return outputs, time.perf_counter() - started

    def detect(
        self,
        session: ModelSession,
        windows: Sequence[NDArray[np.uint8]],
        thresholds: ModelThresholds,
    ) -> tuple[list[WindowDetections], Spent]:
        """Each window's detections, in order, by a detection model. Blocking, as :meth:`results`."""
        spent = Spent()
        return detections_of(list(self.results(session, windows, thresholds, spent))), spent

    def results(
        self,
        session: ModelSession,
        windows: Sequence[NDArray[np.uint8]],
        thresholds: ModelThresholds,
        spent: Spent,
    ) -> Iterator[WindowResult]:
        """What the model makes of each window, in order. Blocking: for a thread of the caller's.

        While a batch runs, this thread decodes the one before, hands its results out one by one,
        and prepares the one after: a caller that keeps none holds a batch of them.

        Raises:
            ModelRejected: the run failed, or gave what the decoder cannot read.
        """
        batches = [windows[i : i + session.batch] for i in range(0, len(windows), session.batch)]
        before: Arrays | None = None
        ahead = _prepared(spent, session, batches[0]) if batches else None
        for i, batch in enumerate(batches):
            assert ahead is not None
            running = self._pool.submit(self._run, session, ahead, len(batch))
            if before is not None:
                yield from _decoded(spent, session, before, thresholds)
            if i + 1 < len(batches):
                ahead = _prepared(spent, session, batches[i + 1])
            before, took = running.result()
            spent.run += took
        if before is not None:
            yield from _decoded(spent, session, before, thresholds)
        metrics.WINDOWS.inc(len(windows))


def _prepared(
    spent: Spent, session: ModelSession, windows: Sequence[NDArray[np.uint8]]
) -> NDArray[Any]:
    started = time.perf_counter()
    prepared = session.prepare(windows)
    spent.preprocess += time.perf_counter() - started
    return prepared


def _decoded(
    spent: Spent, session: ModelSession, outputs: Arrays, thresholds: ModelThresholds
) -> Sequence[WindowResult]:
    started = time.perf_counter()
    found = session.decode(outputs, thresholds)
    spent.decode += time.perf_counter() - started
    return found


def check_count(found: Sequence[WindowDetections], most: int) -> None:
    """Hold each window's detections against the limit.

    All or nothing: the best N of a window would be an answer that looks whole and is not.

    Raises:
        RasterRejected: TOO_MANY.
    """
    worst = max(map(len, found), default=0)
    if worst > most:
        raise RasterRejected(
            Reason.TOO_MANY,
            f"The model finds {worst} objects in one window of this image; at most {most} are taken. "
            "Ask for a higher score, or see whether model and image fit each other.",
        )


def assemble(
    found: Sequence[WindowDetections],
    windows: Sequence[WindowPixels],
    grid: WindowGrid,
    source: RasterSource,
    *,
    cores: bool = False,
) -> Detections:
    """Windows' detections in full-image raster pixels, each with what its window owns.

    Args:
        found: one entry a window, boxes in window pixels.
        windows: the windows they were found in, in the same order.
        cores: what was found is said of the whole window: its box becomes the window's core, and
            the merge leaves it alone.

    Returns:
        In the table's total order.
    """
    parts = []
    for one, pixels in zip(found, windows, strict=True):
        if not len(one):
            continue
        place = grid.window(pixels.index)
        shift = np.array((place.x0, place.y0, place.x0, place.y0), np.float64)
        boxes = one.boxes
        if cores:
            core = np.array(grid.core(pixels.index), np.float64) - shift
            boxes = np.broadcast_to(core.astype(np.float32), boxes.shape)
        keep = _on_valid(boxes, pixels.valid)
        rows = own(
            boxes[keep].astype(np.float64) + shift, one.scores[keep], one.classes[keep],
            pixels.index, grid, width=source.width, height=source.height,
        )  # fmt: skip
        # cores tile the image: what is flagged is looked for a twin, and they have none
        parts.append(replace(rows, flags=np.zeros_like(rows.flags)) if cores else rows)
    return Detections.concat(parts).sorted()


def masks(
    found: Iterable[WindowPlanes], windows: Sequence[WindowPixels], grid: WindowGrid
) -> Iterator[WindowMask]:
    """Windows' planes, cut to the image; all 0 where a pixel means nothing.

    Args:
        found: one entry a window; taken one by one.
        windows: the windows they were found in, in the same order.
    """
    for one, pixels in zip(found, windows, strict=True):
        place = grid.window(pixels.index)
        inside = (slice(place.height), slice(place.width))
        planes = one.planes[:, *inside]
        yield WindowMask(
            pixels.index, planes if pixels.valid is None else planes * pixels.valid[inside]
        )


def _on_valid(boxes: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Which boxes are at least half on pixels that mean something."""
    if valid is None:
        return np.ones(len(boxes), np.bool_)
    rows, cols = valid.shape
    # summed-area table: any box costs four look-ups
    area = np.zeros((rows + 1, cols + 1), np.int64)
    np.cumsum(np.cumsum(valid, axis=0, dtype=np.int64), axis=1, out=area[1:, 1:])
    x0, x1 = (np.clip(np.rint(boxes[:, k]), 0, cols).astype(np.intp) for k in (0, 2))
    y0, y1 = (np.clip(np.rint(boxes[:, k]), 0, rows).astype(np.intp) for k in (1, 3))
    inside = area[y1, x1] - area[y0, x1] - area[y1, x0] + area[y0, x0]
    return np.asarray(inside >= _VALID_SHARE * np.maximum((x1 - x0) * (y1 - y0), 1))
