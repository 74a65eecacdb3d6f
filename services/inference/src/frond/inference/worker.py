"""A chunk in, its result and the event that tells of it out. Knows no Kafka and no MinIO."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext, suppress
from typing import Any, Final

from frond.contracts import keys
from frond.contracts.errors import (
    ModelRejected,
    ModelUnavailable,
    ObjectMissing,
    Outage,
    UserError,
)
from frond.contracts.events import ChunkDetected, ChunkPlanned
from frond.contracts.jobs import Timings, WindowCounts
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.inference.deaths import MOST_ALONE, Deaths, Run, Trial
from frond.inference.outages import Failing, Patience, since
from frond.inference.pipeline import Runner, at_once
from frond.inference.ports import Models, ReadBlock, Results, Watch
from frond.inference.reading import FailedBefore, Reading, SourceGone
from frond.inference.results import RESULT_TYPE, detections_in, run
from frond.inference.shadowing import Shadowing, kept, share_of
from frond.inference.turns import Room, Turns
from frond.models import effective_thresholds
from frond.models.session import ModelSession
from frond.raster import Layout, Limits, WindowPixels
from frond.runtime import crash_point, get_logger, wait_out

_log = get_logger(__name__)

_PAUSES_S: Final = (1.0, 5.0, 15.0)
# what the event says, or what was read of the very object that was planned: a second look tells the
# same. The planner has opened the raster and the model before: anything else may be a shortage of
# memory or disk, or a store that restarts
_FOR_GOOD: Final = {
    Reason.TRUNCATED, Reason.CORRUPT, Reason.OBJECT_CHANGED, Reason.BAD_REQUEST,
    Reason.BAD_IMAGE_URI, Reason.BUCKET_NOT_ALLOWED, Reason.UNKNOWN_MODEL, Reason.DISMISSED,
    Reason.READER_DIED, Reason.READ_TIMEOUT, Reason.TOO_MANY,
    # of a reader that was killed: it may pass, and whoever reads has paused for that
    Reason.UNAVAILABLE,
}  # fmt: skip
_LONGEST_DETAIL: Final = 2000
"""Characters: a foreign word in it must not make an event that no topic takes."""


_DIED: Final = (
    f"{MOST_ALONE} times a worker's process ended while it ran the model on this job's images, and on "
    "nothing else. Either memory runs out (give inference more, or set FROND_BATCH and "
    "FROND_THREADS lower) or the model's graph makes ONNX Runtime crash. When that is mended, send the "
    "job's failed images once more."
)


class Worker:
    """Runs chunks. Safe to run twice on one chunk, at once, and beside a zombie.

    Args:
        read: reads windows, in another process.
        readers: how many chunks are read at a time.
        in_flight: how many the caller lets be handled at a time.
        max_detections: of one window; an image with more is refused.
        pauses_s: before each new attempt at a chunk that failed for what may pass.
        patience_s: after which chunks fail whose model's server does not answer; 0: never.
        watch: looks on.
        shadows: run after chunks' own results are stored.
        deaths: what ran when processes died; None: nothing is known of that.
    """

    def __init__(
        self,
        results: Results,
        models: Models,
        runner: Runner,
        read: ReadBlock,
        *,
        readers: int = 2,
        in_flight: int = 4,
        max_detections: int = Limits().max_detections,
        pauses_s: Sequence[float] = _PAUSES_S,
        patience_s: float = 0.0,
        watch: Watch | None = None,
        shadows: Shadowing | None = None,
        deaths: Deaths | None = None,
    ) -> None:
        self._results = results
        self._models = models
        self._runner = runner
        self._failed_before = FailedBefore()
        self._reading = Reading(results, read, readers, self._failed_before)
        self._max_detections = max_detections
        self._pauses_s = pauses_s
        self._patience = Patience(patience_s)
        self._watch = watch
        self._shadows = shadows
        self._deaths = deaths
        self._room = Room()
        self._failing = Failing()
        # one that runs and one that is finished, or as many as share runs
        self._workers = ThreadPoolExecutor(in_flight + 1, thread_name_prefix="chunk")
        self._turns = Turns()

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def handle(self, event: ChunkPlanned) -> ChunkDetected:
        """Run a chunk unless its result is there, and tell of it.

        A chunk that cannot be run is told of all the same, with its reason: the ledger closes.
        What may be a passing shortage is tried again, after longer and longer pauses.

        A store that does not take the result is waited for: nothing is run again for that.

        Raises:
            Outage: the store, or the model's server, is away: call again; nothing is lost.
        """
        waits = False
        try:
            return await self._tried(event)
        except ModelUnavailable as e:
            if waits := self._patience.lasts(event, e.told):
                raise
            return self._unavailable(event, e.told)
        finally:
            if not waits:
                self._patience.forget(event)

    async def _tried(self, event: ChunkPlanned) -> ChunkDetected:
        for pause in (*self._pauses_s, None):
            try:
                return await self._handle(event)
            except Outage:
                raise
            except SourceGone as e:
                return self._failed(event, Reason.OBJECT_MISSING, str(e))
            except UserError as e:
                if e.reason in _FOR_GOOD:
                    self._failed_before.add(event.image_id, e.reason, e.detail)
                    return self._failed(event, e.reason, e.detail)
                reason, detail, by_model = e.reason, e.detail, isinstance(e, ModelRejected)
                if by_model:
                    # a server that refuses is there, and each chunk is to have its own reason
                    self._patience.answered(event)
                _log.warning(
                    "a chunk failed for what may pass", job_id=event.job_id,
                    image_id=event.image_id, chunk_id=event.chunk_id, reason=reason.value,
                    detail=detail,
                )  # fmt: skip
            except Exception as e:
                reason, by_model = Reason.INTERNAL, False
                detail = "Something went wrong on our side; it is in the logs."
                _log.error(
                    "a chunk failed for a reason of our own", job_id=event.job_id,
                    image_id=event.image_id, chunk_id=event.chunk_id, exc_info=e,
                )  # fmt: skip
            # one failed chunk fails its image: the others need not wait as long for the same
            if pause is None or self._failed_before.detail(event.image_id, reason) is not None:
                break
            if by_model and self._failing.for_long(event.model.digest):
                break
            await asyncio.sleep(pause)
        self._failed_before.add(event.image_id, reason, detail)
        return self._failed(event, reason, detail)

    async def _handle(self, event: ChunkPlanned) -> ChunkDetected:
        began = time.perf_counter()
        waited = since(event.planned_at)
        key = keys.chunk_result(event.job_id, event.image_id, event.chunk_id)
        stored, cancelled = await asyncio.gather(
            self._stored(key), self._results.is_cancelled(event.job_id)
        )
        if stored is not None:
            metrics.CHUNKS.labels("repeated").inc()
            self._came_through(event)
            async with self._room.beside():
                await self._beside(event)
            return self._done(event, key, stored, Timings())
        if cancelled:
            return self._failed(event, Reason.DISMISSED, "The job was cancelled.")
        if (told := self._patience.spent(event)) is not None:
            return self._unavailable(event, told)
        trial = self._deaths.trial(event) if self._deaths else Trial.BESIDE
        if trial is Trial.NONE:
            return self._failed(event, Reason.INFERENCE_FAILED, _DIED)
        async with AsyncExitStack() as held:
            alone = trial is Trial.ALONE
            await held.enter_async_context(self._room.alone() if alone else self._room.beside())
            runs = self._deaths.begin(event, trial) if self._deaths else None
            if runs is not None:
                held.callback(runs.end)
            session = await self._models.get(event.model)
            done, seen = await self._run(event, session, key, began, waited, held, runs)
            if done.result is not None:
                self._came_through(event)
                await self._beside(event, (seen, session.layout))
        return done

    def _came_through(self, event: ChunkPlanned) -> None:
        if self._deaths is not None:
            self._deaths.came_through(event)

    async def _run(
        self, event: ChunkPlanned, session: ModelSession, key: str, began: float, waited: float,
        held: AsyncExitStack, runs: Run | None,
    ) -> tuple[ChunkDetected, list[WindowPixels]]:  # fmt: skip
        """Also the windows that the job's shadow sees: the others' memory is let go with this.

        ``held`` is held for as long as the model runs, also where nobody waits for it any more;
        ``runs`` is ended before the result is stored.
        """
        windows, read = await self._reading.windows(event, session)
        thresholds = effective_thresholds(session.manifest, event.thresholds)
        look = self._watch and self._watch.look(event, session.manifest, thresholds)
        saw = look.saw if look else None
        loop = asyncio.get_running_loop()
        queued = time.perf_counter()
        # what fills no batch, and may share one, does not wait: there would be nothing to share. Nor
        # does what a server runs: it keeps no core of this machine busy
        skips = session.remote or (session.rows_alike and len(windows) < session.batch)
        most = at_once(session, len(windows))
        async with nullcontext() if skips else self._turns.of(most):
            waited += time.perf_counter() - queued
            if await self._results.is_cancelled(event.job_id):
                return self._failed(event, Reason.DISMISSED, "The job was cancelled."), []
            going = self._workers.submit(
                run, self._runner, session, event, windows, thresholds, saw
            )
            try:
                finish, spent = await asyncio.wrap_future(going)
            except ModelRejected as e:
                raise ModelRejected(Reason.INFERENCE_FAILED, e.detail) from e
            except asyncio.CancelledError:
                _outlive(going, held)
                raise
        self._patience.answered(event)
        self._failing.ended(event.model.digest)
        started = time.perf_counter()
        result = await loop.run_in_executor(self._workers, finish, self._max_detections)
        detections = result.detections
        decode = spent.decode + time.perf_counter() - started
        # storing kills nobody, and a full store may take hours
        if runs is not None:
            runs.end()
        started = time.perf_counter()
        stored = await self._put(event, key, result.data)
        if stored is None:
            return self._failed(event, Reason.DISMISSED, "The job was cancelled."), []
        crash_point("inference.result-stored")
        if self._watch and look:
            self._watch.seen(event, session, look, windows)
        timings = Timings(
            plan=event.planning_s or 0.0, wait=waited, read=read, preprocess=spent.preprocess, run=spent.run, decode=decode,
            write=time.perf_counter() - started,
        )  # fmt: skip
        if stored != result.data:
            _log.warning("another worker stored other bytes first", chunk_id=event.chunk_id)
            detections = await asyncio.to_thread(detections_in, stored)
        metrics.observe(timings)
        metrics.CHUNKS.labels("done").inc()
        metrics.DETECTIONS.inc(detections)
        _log.info(
            "chunk done", job_id=event.job_id, image_id=event.image_id, chunk_id=event.chunk_id,
            windows=len(event.windows), detections=detections,
            seconds=round(time.perf_counter() - began, 3),
        )  # fmt: skip
        return self._done(event, key, detections, timings), kept(windows, share_of(event))

    async def _beside(
        self, event: ChunkPlanned, seen: tuple[list[WindowPixels], Layout] | None = None
    ) -> None:
        """Have the job's shadow run, on windows that were seen or, where the chunk was run before, are
        read again."""

        async def windows(chosen: tuple[int, ...]) -> tuple[Sequence[WindowPixels], Layout]:
            if seen is not None:
                return seen
            return await self._reading.again(event, chosen, "CHW"), "CHW"

        if self._shadows is not None:
            await self._shadows.beside(event, windows, again=seen is None)

    async def _put(self, event: ChunkPlanned, key: str, data: bytes) -> bytes | None:
        """What is stored for the chunk from now on; None: its job was cancelled.

        Waits here for a store that is full or away: whoever called anew would run the model anew.
        """

        async def once() -> bytes | None:
            if await self._results.is_cancelled(event.job_id):
                return None
            return await self._results.put_if_absent(key, data, RESULT_TYPE)

        return await wait_out(once, what="storing a chunk's result")

    async def _stored(self, key: str) -> int | None:
        """What the chunk's stored result counts, if there is one."""
        try:
            raw = await self._results.get(key)
        except ObjectMissing:
            return None
        return await asyncio.to_thread(detections_in, raw)

    def _done(
        self, event: ChunkPlanned, key: str, detections: int, timings: Timings
    ) -> ChunkDetected:
        n = len(event.windows)
        return self._event(event).model_copy(
            update={
                "windows": WindowCounts(total=n, done=n),
                "result": key,
                "detections": detections,
                "timings": timings,
            }
        )

    def _unavailable(self, event: ChunkPlanned, told: str) -> ChunkDetected:
        said = f" ({told})" if told else ""
        return self._failed(
            event, Reason.UNAVAILABLE,
            f"The server that runs the model {event.model.name} has given no result for a long "
            f"time{said}. When it is well again, send the job's failed images once more.",
        )  # fmt: skip

    def _failed(self, event: ChunkPlanned, reason: Reason, detail: str) -> ChunkDetected:
        metrics.CHUNKS.labels("failed").inc()
        if len(detail) > _LONGEST_DETAIL:
            detail = f"{detail[: _LONGEST_DETAIL - 1]}…"
        _log.warning(
            "chunk failed", job_id=event.job_id, image_id=event.image_id, chunk_id=event.chunk_id,
            reason=reason.value, detail=detail,
        )  # fmt: skip
        return self._event(event).model_copy(update={"reason": reason, "detail": detail})

    def _event(self, event: ChunkPlanned) -> ChunkDetected:
        n = len(event.windows)
        return ChunkDetected(
            job_id=event.job_id,
            image_id=event.image_id,
            image=event.image,
            name=event.name,
            job_size=event.job_size,
            plan_digest=event.plan_digest,
            chunk_id=event.chunk_id,
            ordinal=event.ordinal,
            chunks=event.chunks,
            windows=WindowCounts(total=n, failed=n),
            windows_total=event.windows_total,
            windows_skipped=event.windows_skipped,
            model=event.model,
        )


def _outlive(going: Future[Any], held: AsyncExitStack) -> None:
    """Let go what is held when a thread, which nobody can stop, has ended; at once if it never began."""
    if going.cancel() or going.done():
        return
    loop, later = asyncio.get_running_loop(), held.pop_all()

    def ended(_: Future[Any]) -> None:
        # a loop that is closed ends with its process, which is said to do so of itself
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: loop.create_task(later.aclose()))

    going.add_done_callback(ended)
