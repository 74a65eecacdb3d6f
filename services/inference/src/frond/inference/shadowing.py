"""Runs jobs' shadows: once a chunk's own result is stored, apart from it, for a bounded time.

Nothing here fails a chunk. What goes wrong is counted, logged, and noted where the result would lie.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from frond.contracts import keys
from frond.contracts.errors import (
    ModelRejected,
    ModelUnavailable,
    ObjectMissing,
    StoreFull,
    StoreUnavailable,
    UserError,
)
from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import Shadow
from frond.contracts.reasons import Reason
from frond.contracts.shadows import ShadowFailure, shadow_windows
from frond.inference import metrics
from frond.inference.pipeline import Runner
from frond.inference.ports import Models, Results
from frond.inference.results import RESULT_TYPE, check_fit, run
from frond.models import effective_thresholds
from frond.models.session import ModelSession
from frond.raster import Layout, WindowPixels
from frond.runtime import get_logger

Windows = Callable[[tuple[int, ...]], Awaitable[tuple[Sequence[WindowPixels], Layout]]]
"""Gives these windows of the chunk, and how their pixels lie."""

_ASIDE_S: Final = 300.0
_STORE_S: Final = 5.0
"""For what is asked of the store first, and again for what is written at last."""
_AGAIN_S: Final = 0.5
_LONGEST: Final = 1900
_DEATHS: Final = 5
"""Of workers, as it seems, while they ran a job's shadow: then it may be what they die of."""
_ASKED_S: Final = 30.0
_REMEMBERED: Final = 1000
_LATE: Final = "An earlier run of a shadow on this worker has not ended yet."
_ENDS: Final = "Its worker was asked to end before it was done."
_log = get_logger(__name__)


@dataclass(slots=True)
class _Attempt:
    stage: Literal["waits", "loads", "runs"] = "waits"
    late: bool = False


class _NotNow(ModelRejected):
    """It was not tried."""


class Shadowing:
    """One shadow at a time. One that takes too long, or cannot be loaded, is set aside for a while.

    Args:
        results, models, runner: as a worker's; the latter two are for shadows alone.
        timeout_s: the most that a chunk waits for its shadow, not counting a few seconds in which the
            store is asked, and a few in which the result is written; 0: no shadow is run.
        max_detections: of one window.
        aside_s: for how long.
    """

    def __init__(
        self,
        results: Results,
        models: Models,
        runner: Runner,
        *,
        timeout_s: float,
        max_detections: int,
        aside_s: float = _ASIDE_S,
    ) -> None:
        self._results = results
        self._models = models
        self._runner = runner
        self._timeout_s = timeout_s
        self._max_detections = max_detections
        self._aside_s = aside_s
        self._aside: dict[str, tuple[float, str]] = {}
        self._late: set[asyncio.Task[bytes]] = set()
        # jobs whose shadow is not run any more, and when that was asked
        self._fatal: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._ending = asyncio.Event()
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def give_up(self) -> None:
        """From now on no chunk waits for its shadow: one that has not ended is noted as not run."""
        self._ending.set()

    def close(self) -> None:
        """Stop what is here alone; what runs is abandoned."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._runner.close()

    async def beside(self, event: ChunkPlanned, windows: Windows, *, again: bool = False) -> None:
        """Run the job's shadow, if it has one, on its share of a chunk whose own result is stored.

        Args:
            again: the chunk was run before, and its shadow perhaps too.
        """
        shadow = event.shadow
        chosen = share_of(event)
        if shadow is None or not chosen:
            return
        try:
            with metrics.SHADOW_WAITING.time():
                await self._beside(event, shadow, chosen, windows, again)
        except Exception as e:
            metrics.SHADOW_CHUNKS.labels("failed").inc()
            _log.error("a shadow's result is not stored", chunk_id=event.chunk_id, exc_info=e)

    async def _beside(
        self,
        event: ChunkPlanned,
        shadow: Shadow,
        chosen: tuple[int, ...],
        windows: Windows,
        again: bool,
    ) -> None:
        ids = event.job_id, event.image_id, event.chunk_id
        result, failure = keys.shadow_result(*ids), keys.shadow_failure(*ids)
        try:
            async with asyncio.timeout(_STORE_S):
                if again and (await self._there(result) or await self._there(failure)):
                    metrics.SHADOW_CHUNKS.labels("repeated").inc()
                    return
                if again:
                    await self._note_death(event)
                if not await self._wanted(event.job_id):
                    return
            data = await self._bounded(event, shadow, chosen, windows)
        except UserError as e:
            told = ShadowFailure(
                model=shadow.model, reason=e.reason, detail=_short(e.detail)
            ).model_dump_json()
            metrics.SHADOW_CHUNKS.labels("failed").inc()
            _log.warning(
                "a shadow gave no result", job_id=event.job_id, chunk_id=event.chunk_id,
                model=shadow.model.name, digest=shadow.model.digest, reason=e.reason.value,
                detail=e.detail,
            )  # fmt: skip
            await self._put(failure, told.encode(), "application/json")
            return
        await self._put(result, data, RESULT_TYPE)
        metrics.SHADOW_CHUNKS.labels("done").inc()

    async def _wanted(self, job_id: str) -> bool:
        """Raises ModelRejected: workers died of it."""
        if await self._results.is_cancelled(job_id):
            return False
        if await self._is_fatal(job_id):
            raise _NotNow(
                Reason.UNAVAILABLE,
                f"{_DEATHS} times a worker seems to have ended while it ran: this job runs it no more.",
            )
        return True

    async def _bounded(
        self, event: ChunkPlanned, shadow: Shadow, chosen: tuple[int, ...], windows: Windows
    ) -> bytes:
        """The result's bytes, within the time. Raises UserError: why there are none."""
        digest = shadow.model.digest
        self._require_free(digest)
        attempt = _Attempt()
        task = asyncio.create_task(self._attempt(event, shadow, chosen, windows, attempt))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait(
                {task, ending}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            # the partition is somebody else's now, and this process may go on
            self._leave(task, attempt)
            raise
        finally:
            ending.cancel()
        if task.done():
            return self._outcome(task, digest)
        if self._ending.is_set():
            self._leave(task, attempt)
            raise _NotNow(Reason.UNAVAILABLE, _ENDS)
        what = {"waits": "waited for its turn", "loads": "was loaded", "runs": "ran"}[attempt.stage]
        detail = f"It {what} for longer than the {self._timeout_s:g} s that a chunk waits for it."
        self._leave(task, attempt)
        if attempt.stage == "runs":
            self._set_aside(digest, detail)
        raise _NotNow(Reason.UNAVAILABLE, detail)

    def _leave(self, task: asyncio.Task[bytes], attempt: _Attempt) -> None:
        """Nobody waits for it any more."""
        if attempt.stage == "waits":
            task.cancel()
            return
        # no thread can be stopped, only its next batch: until it ends nothing else is begun
        attempt.late = True
        self._runner.halted.set()
        self._late.add(task)
        task.add_done_callback(self._ended)

    def _outcome(self, task: asyncio.Task[bytes], digest: str) -> bytes:
        try:
            return task.result()
        except _NotNow:
            raise
        except ModelRejected as e:
            if e.reason is not Reason.INFERENCE_FAILED:
                # it would not load for the next chunk either
                self._set_aside(digest, e.detail)
            raise
        except UserError:
            raise
        except ModelUnavailable as e:
            said = f" ({e.told})" if e.told else ""
            detail = f"The server that runs it gave no result{said}."
            self._set_aside(digest, detail)
            raise ModelRejected(Reason.UNAVAILABLE, detail) from e
        except (StoreUnavailable, ObjectMissing) as e:
            raise ModelRejected(
                Reason.UNAVAILABLE, "The object store did not give what it needs."
            ) from e
        except Exception as e:
            _log.error("a shadow failed for a reason of our own", digest=digest, exc_info=e)
            raise ModelRejected(
                Reason.INTERNAL, "Something went wrong on our side; it is in the logs."
            ) from e

    async def _attempt(
        self,
        event: ChunkPlanned,
        shadow: Shadow,
        chosen: tuple[int, ...],
        windows: Windows,
        attempt: _Attempt,
    ) -> bytes:
        pixels, layout = await windows(chosen)
        async with self._turn:
            # an earlier one may have been found wanting meanwhile
            self._require_free(shadow.model.digest)
            attempt.stage = "loads"
            session = await self._models.get(shadow.model)
            if attempt.late:
                raise _NotNow(Reason.UNAVAILABLE, _LATE)
            attempt.stage = "runs"
            ours = event.model_copy(update={"model": shadow.model, "windows": chosen})
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._run, session, ours, pixels, layout
            )

    def _run(
        self,
        session: ModelSession,
        event: ChunkPlanned,
        pixels: Sequence[WindowPixels],
        layout: Layout,
    ) -> bytes:
        """Blocking. Raises ModelRejected (INFERENCE_FAILED), RasterRejected or ModelUnavailable."""
        thresholds = effective_thresholds(session.manifest, event.thresholds)
        try:
            check_fit(event, session)
            lying = [replace(w, data=_laid(w, layout, session.layout)) for w in pixels]
            finish, _ = run(self._runner, session, event, lying, thresholds)
        except ModelRejected as e:
            raise ModelRejected(Reason.INFERENCE_FAILED, e.detail) from e
        return finish(self._max_detections).data

    def _require_free(self, digest: str) -> None:
        if not self._timeout_s:
            raise _NotNow(Reason.UNAVAILABLE, "No shadow is run here.")
        if self._ending.is_set():
            raise _NotNow(Reason.UNAVAILABLE, _ENDS)
        until, why = self._aside.get(digest, (0.0, ""))
        if asyncio.get_running_loop().time() < until:
            raise _NotNow(Reason.UNAVAILABLE, f"It is set aside for a while. {why}")
        self._aside.pop(digest, None)
        if self._late:
            raise _NotNow(Reason.UNAVAILABLE, _LATE)

    def _set_aside(self, digest: str, why: str) -> None:
        self._aside[digest] = (asyncio.get_running_loop().time() + self._aside_s, why)

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self._late.discard(task)
        if not self._late:
            self._runner.halted.clear()
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _NotNow):
            _log.warning("a shadow that took too long failed", error=repr(error))

    async def _note_death(self, event: ChunkPlanned) -> None:
        """Whoever stored the chunk's own result came no further."""
        job_id, mine = event.job_id, uuid.uuid4().bytes
        first = keys.shadow_again(job_id, event.image_id, event.chunk_id)
        # once is no sign of a death: a rebalance takes all chunks from all workers
        if await self._results.put_if_absent(first, mine, "text/plain") == mine:
            return
        for number in range(1, _DEATHS + 1):
            key = keys.shadow_death(job_id, number)
            if await self._results.put_if_absent(key, mine, "text/plain") == mine:
                return

    async def _is_fatal(self, job_id: str) -> bool:
        """Whether workers died of the job's shadow, as of half a minute ago."""
        now = asyncio.get_running_loop().time()
        at, known = self._fatal.get(job_id, (-_ASKED_S, False))
        if not known and now - at >= _ASKED_S:
            known = await self._there(keys.shadow_death(job_id, _DEATHS))
            self._fatal[job_id] = (now, known)
            while len(self._fatal) > _REMEMBERED:
                self._fatal.popitem(last=False)
        return known

    async def _there(self, key: str) -> bool:
        try:
            await self._results.get(key)
        except ObjectMissing:
            return False
        return True

    async def _put(self, key: str, data: bytes, content_type: str) -> None:
        """Store it, also past a short outage. Raises StoreFull, StoreUnavailable or TimeoutError."""
        async with asyncio.timeout(_STORE_S):
            while True:
                try:
                    await self._results.put_if_absent(key, data, content_type)
                    return
                except StoreFull:
                    raise
                except StoreUnavailable:
                    await asyncio.sleep(_AGAIN_S)


def share_of(event: ChunkPlanned) -> tuple[int, ...]:
    """The windows of a chunk that its job's shadow runs on."""
    if event.shadow is None:
        return ()
    return tuple(shadow_windows(event.source.etag, event.windows, event.shadow.share))


def kept(windows: Sequence[WindowPixels], chosen: Collection[int]) -> list[WindowPixels]:
    """These windows alone: the others' memory, of which they are views, may go."""
    if len(chosen) == len(windows):
        return list(windows)
    wanted = frozenset(chosen)
    return [
        replace(w, data=w.data.copy(), valid=None if w.valid is None else w.valid.copy())
        for w in windows
        if w.index in wanted
    ]


def _laid(window: WindowPixels, lies: Layout, wanted: Layout) -> NDArray[np.uint8]:
    if lies == wanted:
        return window.data
    to, of = (0, -1) if wanted == "CHW" else (-1, 0)
    return np.ascontiguousarray(np.moveaxis(window.data, of, to))


def _short(detail: str) -> str:
    return detail if len(detail) <= _LONGEST else f"{detail[:_LONGEST]}…"
