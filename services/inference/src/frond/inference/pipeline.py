"""From windows to what a model makes of them, overlapped: some threads run models, others read, prepare, decode.

Results depend on the windows, their order and the model alone, never on timing: a chunk's batches
form only within one call, in the order of its windows, unless the model was seen not to care.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.modelspec import ModelThresholds
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.models import WindowDetections, WindowResult, detections_of
from frond.models.session import PROVIDERS, Arrays, ModelSession

_RUNS: Final = 2
T = TypeVar("T")


@dataclass(slots=True)
class Spent:
    """Seconds by stage, of one chunk; only its own thread writes to it. Of a run beside others, its
    share of them: what it would have taken had it had their cores, too."""

    preprocess: float = 0.0
    run: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A window that waits for a run, and what will come of it."""

    window: NDArray[np.uint8]
    request: bool
    outputs: Future[tuple[Arrays, float]] = field(default_factory=Future)


@dataclass(slots=True)
class _Lane:
    """What a model has of a runner: threads for chunks and for requests, how many of its runs go on,
    and the windows that wait for one, of requests and of chunks."""

    chunks: ThreadPoolExecutor
    requests: ThreadPoolExecutor
    going: int = 0
    asked: deque[_Asked] = field(default_factory=deque)
    left: deque[_Asked] = field(default_factory=deque)

    def take(self, most: int, *, request: bool) -> Iterator[_Asked]:
        """Windows for a run, first of those that it was submitted for: neither requests nor chunks,
        however many come, have the runs of the others, which therefore are enough."""
        for waiting in (self.asked, self.left) if request else (self.left, self.asked):
            while waiting and most > 0:
                most -= 1
                yield waiting.popleft()


class Runner:
    """The threads in which every model of this process runs.

    Two, because a run leaves the cores idle wherever its graph does: another request's fills them.
    On a GPU runs take turns, and the second thread prepares its batch meanwhile. A model that is
    fastest with several runs at once has as many of its own, and as many again for requests: these do
    not wait behind what chunks have asked for. Each model that a server runs has its own, too: a slow
    server keeps no other model waiting.

    Args:
        requests: to one such model at a time: as many as there are chunks and requests to fill them.
        counted: counts the windows that were run.

    Attributes:
        halted: while it is set, no further batch of a chunk is begun.
    """

    def __init__(self, requests: int = 8, counted: Counter = metrics.WINDOWS) -> None:
        self._counted = counted
        self.halted = threading.Event()
        self._pool = ThreadPoolExecutor(_RUNS, thread_name_prefix="onnx")
        self._requests = requests
        # an executor that nobody has any more ends its threads by itself
        self._lanes: WeakKeyDictionary[ModelSession, _Lane] = WeakKeyDictionary()
        self._device = threading.Lock()
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            for threads in (lane.chunks, lane.requests):
                threads.shutdown(wait=False, cancel_futures=True)

    def _lane(self, session: ModelSession) -> _Lane:
        with self._lock:
            if (lane := self._lanes.get(session)) is None:
                lane = self._lanes[session] = self._new_lane(session)
            return lane

    def _new_lane(self, session: ModelSession) -> _Lane:
        if self._closed or (session.concurrency == 1 and not session.remote):
            return _Lane(self._pool, self._pool)
        if session.remote:
            threads = ThreadPoolExecutor(self._requests, thread_name_prefix="server")
            return _Lane(threads, threads)
        runs = session.concurrency
        return _Lane(
            ThreadPoolExecutor(runs, thread_name_prefix="onnx"),
            ThreadPoolExecutor(runs, thread_name_prefix="onnx-request"),
        )

    def _submit(
        self, session: ModelSession, work: Callable[..., T], *args: Any, request: bool
    ) -> Future[T]:
        lane = self._lane(session)
        return (lane.requests if request else lane.chunks).submit(work, session, *args)

    def request(
        self,
        session: ModelSession,
        windows: Sequence[NDArray[np.uint8]],
        thresholds: ModelThresholds,
    ) -> list[WindowDetections]:
        """Each window's detections, in order, of one request among others. Blocking.

        Where the model takes several windows a run, a run takes what waits when it begins, whose
        ever it is; nothing waits for more to come. A batch is as large as ever, only fuller: what
        else is in it changes nothing but a window's row. Chunks, which are stored under names that
        say what is in them, share runs only where the row was seen to change nothing.

        Raises:
            ModelRejected: the run failed, or gave what the decoder cannot read.
            ModelUnavailable: the server that runs it does not answer.
        """
        if session.batch == 1:
            results = self._results(session, windows, thresholds, Spent(), request=True)
            return detections_of(list(results))
        asked = self._ask(session, windows, request=True)
        try:
            found = list(self._shared(session, asked, thresholds, Spent()))
        finally:
            _drop(asked)
        self._counted.inc(len(windows))
        return detections_of(found)

    def _ask(
        self, session: ModelSession, windows: Sequence[NDArray[np.uint8]], *, request: bool = False
    ) -> Sequence[_Asked]:
        """Let these windows run with whatever else waits."""
        asked = [_Asked(window, request) for window in windows]
        lane = self._lane(session)
        with self._lock:
            (lane.asked if request else lane.left).extend(asked)
        for _ in range(0, len(asked), session.batch):
            run = self._submit(session, self._run_waiting, request, request=request)
            run.add_done_callback(lambda run: _drop(asked) if run.cancelled() else None)
        return asked

    def _shared(
        self,
        session: ModelSession,
        asked: Sequence[_Asked],
        thresholds: ModelThresholds,
        spent: Spent,
    ) -> Iterator[WindowResult]:
        for one in asked:
            try:
                outputs, took = one.outputs.result()
            except ModelRejected:
                # the cause may be another's window: its own fate is its own
                prepared = _prepared(spent, session, [one.window])
                run = self._submit(
                    session, self._run, prepared, 1, one.request, request=one.request
                )
                outputs, took = run.result()
            spent.run += took
            yield from _decoded(spent, session, outputs, thresholds)

    def _run_waiting(self, session: ModelSession, request: bool) -> None:
        """One run of what waits for this model, if it was not taken by a run before."""
        lane = self._lane(session)
        with self._lock:
            waited = lane.take(session.batch, request=request)
            taken = [a for a in waited if a.outputs.set_running_or_notify_cancel()]
        if not taken:
            return
        try:
            prepared = session.prepare([a.window for a in taken])
            alone = all(a.request for a in taken)
            outputs, took = self._run(session, prepared, len(taken), alone)
        except BaseException as e:
            for a in taken:
                a.outputs.set_exception(e)
            return
        for row, a in enumerate(taken):
            mine = {name: v[row : row + 1] for name, v in outputs.items()}
            a.outputs.set_result((mine, took / len(taken)))

    def _run(
        self, session: ModelSession, prepared: NDArray[Any], n: int, alone: bool
    ) -> tuple[Arrays, float]:
        """One run. ``alone``: it may have all threads, where no other goes on: never a chunk's, which
        is stored, and whose graph is not to depend on what else there is at the time."""
        on_cpu = session.remote or session.providers[0] == PROVIDERS[-1]
        lane = self._lane(session)
        with self._lock:
            lane.going += 1
            going = lane.going
        try:
            with nullcontext() if on_cpu else self._device:
                started = time.perf_counter()
                outputs = session.infer(prepared, n, beside=not alone or going > 1)
                took = time.perf_counter() - started
                return outputs, took / min(going, session.concurrency)
        finally:
            with self._lock:
                lane.going -= 1

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
        and prepares the one after. A caller that keeps none holds a batch of them and, where the
        model has several runs at once, as many more and one that waits.

        Raises:
            ModelRejected: the run failed, or gave what the decoder cannot read.
            ModelUnavailable: the server that runs it does not answer.
        """
        yield from self._results(session, windows, thresholds, spent, request=False)

    def _results(
        self,
        session: ModelSession,
        windows: Sequence[NDArray[np.uint8]],
        thresholds: ModelThresholds,
        spent: Spent,
        *,
        request: bool,
    ) -> Iterator[WindowResult]:
        batches = [windows[i : i + session.batch] for i in range(0, len(windows), session.batch)]
        # what fills no batch of its own runs with what other chunks have left, of any image and job
        left = session.rows_alike and batches and len(batches[-1]) < session.batch
        asked = self._ask(session, batches.pop()) if left else ()
        # where several run at once, one more waits, so that no thread does
        most = 1 if session.concurrency == 1 else session.concurrency + 1
        running: deque[Future[tuple[Arrays, float]]] = deque()
        before: Arrays | None = None
        try:
            for batch in batches:
                ahead = _prepared(spent, session, batch)
                if len(running) == most:
                    before, took = running.popleft().result()
                    spent.run += took
                if self.halted.is_set():
                    raise ModelRejected(Reason.INFERENCE_FAILED, "The run was stopped.")
                alone = request and len(batches) == 1
                running.append(
                    self._submit(session, self._run, ahead, len(batch), alone, request=request)
                )
                if before is not None:
                    yield from _decoded(spent, session, before, thresholds)
                    before = None
            while running:
                outputs, took = running.popleft().result()
                spent.run += took
                yield from _decoded(spent, session, outputs, thresholds)
            yield from self._shared(session, asked, thresholds, spent)
        finally:
            for run in running:
                run.cancel()
            _drop(asked)
        self._counted.inc(len(windows))


def at_once(session: ModelSession, windows: int) -> int:
    """How many chunks of so many windows fill the model's runs, where each has its results decoded
    and stored at its end: one more than that, so that no run waits for it meanwhile."""
    runs = -(-windows // session.batch)
    return min(session.concurrency, -(-session.concurrency // max(runs, 1)) + 1)


def _drop(asked: Sequence[_Asked]) -> None:
    """Let those that have not begun to run never run."""
    for one in asked:
        one.outputs.cancel()


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
