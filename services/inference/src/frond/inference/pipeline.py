"""From windows to what a model makes of them, overlapped: some threads run models, others read, prepare, decode.

Results depend on the windows, their order and the model alone, never on timing: a chunk's batches
form only within one call, in the order of its windows, unless the model was seen not to care.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final
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
    outputs: Future[tuple[Arrays, float]] = field(default_factory=Future)


class Runner:
    """The threads in which every model of this process runs.

    Two, because a run leaves the cores idle wherever its graph does: another request's fills them.
    On a GPU runs take turns, and the second thread prepares its batch meanwhile. A model that is
    fastest with several runs at once has as many of its own, and so has each model that a server
    runs: a slow server keeps no other model waiting.

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
        self._own: WeakKeyDictionary[ModelSession, ThreadPoolExecutor] = WeakKeyDictionary()
        self._going: dict[int, int] = defaultdict(int)
        self._device = threading.Lock()
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: dict[int, deque[_Asked]] = {}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            own = list(self._own.values())
        for threads in own:
            threads.shutdown(wait=False, cancel_futures=True)

    def _threads(self, session: ModelSession) -> ThreadPoolExecutor:
        if not session.remote and session.concurrency == 1:
            return self._pool
        with self._lock:
            if (threads := self._own.get(session)) is None:
                if self._closed:
                    return self._pool
                threads = ThreadPoolExecutor(
                    self._requests if session.remote else max(session.concurrency, _RUNS),
                    thread_name_prefix="server" if session.remote else "onnx",
                )
                self._own[session] = threads
            return threads

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
        say what is in them, share runs only where the row was seen to change nothing.

        Raises:
            ModelRejected: the run failed, or gave what the decoder cannot read.
            ModelUnavailable: the server that runs it does not answer.
        """
        if session.batch == 1:
            return self.detect(session, windows, thresholds)[0]
        asked = self._ask(session, windows)
        try:
            found = list(self._shared(session, asked, thresholds, Spent()))
        finally:
            _drop(asked)
        self._counted.inc(len(windows))
        return detections_of(found)

    def _ask(self, session: ModelSession, windows: Sequence[NDArray[np.uint8]]) -> Sequence[_Asked]:
        """Let these windows run with whatever else waits."""
        asked = [_Asked(window) for window in windows]
        with self._lock:
            self._waiting.setdefault(id(session), deque()).extend(asked)
        for _ in range(0, len(asked), session.batch):
            run = self._threads(session).submit(self._run_waiting, session)
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
                outputs, took = (
                    self._threads(session).submit(self._run, session, prepared, 1).result()
                )
            spent.run += took
            yield from _decoded(spent, session, outputs, thresholds)

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
            prepared = session.prepare([a.window for a in taken])
            outputs, took = self._run(session, prepared, len(taken))
        except BaseException as e:
            for a in taken:
                a.outputs.set_exception(e)
            return
        for row, a in enumerate(taken):
            mine = {name: v[row : row + 1] for name, v in outputs.items()}
            a.outputs.set_result((mine, took / len(taken)))

    def _run(
        self, session: ModelSession, prepared: NDArray[Any], n: int, *, among: bool = False
    ) -> tuple[Arrays, float]:
        """One run; ``among``: others of its chunk follow at once."""
        shared = session.remote or session.providers[0] == PROVIDERS[-1]
        with self._lock:
            self._going[id(session)] += 1
            beside = among or self._going[id(session)] > 1
        try:
            with nullcontext() if shared else self._device:
                started = time.perf_counter()
                outputs = session.infer(prepared, n, beside=beside)
                took = time.perf_counter() - started
                return outputs, took / session.concurrency if beside else took
        finally:
            with self._lock:
                self._going[id(session)] -= 1

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
        and prepares the one after: a caller that keeps none holds a batch of them, or as many more
        as the model has runs at once.

        Raises:
            ModelRejected: the run failed, or gave what the decoder cannot read.
            ModelUnavailable: the server that runs it does not answer.
        """
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
                running.append(
                    self._threads(session).submit(
                        self._run, session, ahead, len(batch), among=len(batches) > 1
                    )
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
