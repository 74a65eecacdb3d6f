"""Looks on at what is run, for drift: beside the work, bounded, and never in its way. Knows no Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from frond.contracts.errors import BrokerUnavailable
from frond.contracts.events import ChunkPlanned, DriftObserved
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.drift import Look, Periods, floor_of
from frond.inference import metrics
from frond.models.session import ModelSession
from frond.raster import WindowPixels
from frond.runtime import get_logger

Send = Callable[[DriftObserved], Awaitable[object]]
"""Sends an event to whoever keeps it. Raises BrokerUnavailable."""
Counting = Future[list[DriftObserved]]

EVERY_S: Final = 5.0
_LAST_WORD_S: Final = 5.0
# a chunk's windows are 25 MB; a millisecond later they are counted
_WAITING: Final = 4
# periods of an outage of the broker: of all models, and at an hour each
_UNTOLD: Final = 200
# each once, as long as there are not very many
_WARNED: Final = 1000
_log = get_logger(__name__)


class Drifting:
    """Counts windows in a thread of its own, which alone touches ``periods``.

    Args:
        share: of the windows, how many are looked at.
        without_reference: whether models without a reference are looked at, too.
    """

    def __init__(self, periods: Periods, *, share: float, without_reference: bool = False) -> None:
        self._periods = periods
        self._share = share
        self._without = without_reference
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drift")
        self._waiting = 0
        self._untold: deque[DriftObserved] = deque()
        self._warned: set[str] = set()

    def look(
        self, event: ChunkPlanned, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> Look | None:
        """What to keep of a chunk while it runs; None: nothing."""
        if self._share <= 0 or (manifest.reference is None and not self._without):
            return None
        known = manifest.reference
        compares = known is not None and (known.scores or known.windows_with_finds is not None)
        floor: float | None = known.score if known and compares else floor_of(manifest)
        if manifest.task != "segmentation" and floor is not None:
            if known and compares and manifest.thresholds.score > floor:
                self._warn(event.model, manifest.thresholds.score, floor)
            if thresholds.score > floor:
                # who asks for better finds alone shows no others: they would look like drift
                floor = None
        return Look(event.image_id, event.windows, self._share, floor)

    def seen(
        self,
        event: ChunkPlanned,
        session: ModelSession,
        look: Look,
        windows: Sequence[WindowPixels],
    ) -> None:
        """Count a chunk that was run: soon, and not here. From the event loop's thread alone."""
        if self._waiting >= _WAITING:
            metrics.DRIFT_MISSED.labels("windows").inc(len(windows))
            return

        def count() -> list[DriftObserved]:
            manifest = session.manifest
            tally = look.tally(windows, session.layout, len(manifest.bands))
            return self._periods.saw(event.model, manifest, tally)

        loop = asyncio.get_running_loop()
        try:
            counted = self._thread.submit(count)
        except RuntimeError:
            return  # closed: the process ends
        self._waiting += 1
        counted.add_done_callback(lambda done: _soon(loop, self._counted, done))

    def _counted(self, done: Counting) -> None:
        self._waiting -= 1
        self._take(done, "a chunk could not be looked at for drift")

    async def tell(self, send: Send) -> None:
        """Send the periods that end, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self._ask(
                    self._periods.due, "the periods of drift could not be looked through"
                )
                await self._send(send)
            except BrokerUnavailable as e:
                _log.warning("drift is told of later", error=str(e), periods=len(self._untold))
            except Exception as e:
                _log.error("drift could not be told of", exc_info=e)

    async def finish(self, send: Send) -> None:
        """End what runs, and tell of it if that takes no longer than a few seconds. Raises nothing:
        a process that has done its work ends well whatever becomes of drift."""
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                await self._ask(self._periods.stop, "the periods of drift could not be ended")
                await self._send(send)
        except (BrokerUnavailable, TimeoutError) as e:
            _log.warning("drift is not told of at the end", error=str(e))
        except Exception as e:
            _log.error("drift could not be told of", exc_info=e)
        if self._untold:
            metrics.DRIFT_MISSED.labels("periods").inc(len(self._untold))
            _log.warning("periods of drift are not told of", periods=len(self._untold))

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ended(self, events: Sequence[DriftObserved]) -> None:
        for event in events:
            metrics.observe_drift(event)
            _log.info(
                "drift", model=event.model.name, digest=event.model.digest,
                verdict=event.verdict.value, windows=event.windows, ended_by=event.ended_by,
            )  # fmt: skip
            self._untold.append(event)
        while len(self._untold) > _UNTOLD:
            self._untold.popleft()
            metrics.DRIFT_MISSED.labels("periods").inc()

    async def _send(self, send: Send) -> None:
        while self._untold:
            event = self._untold[0]
            try:
                await send(event)
            except (BrokerUnavailable, TimeoutError):
                raise  # it will be back
            except Exception as e:
                # no outage: it would never get through, and nothing behind it either
                metrics.DRIFT_MISSED.labels("periods").inc()
                _log.error("a period of drift cannot be told of", id=event.event_id, exc_info=e)
            # the oldest may have made room meanwhile
            if self._untold and self._untold[0] is event:
                self._untold.popleft()

    async def _ask(self, call: Callable[[], list[DriftObserved]], failed: str) -> None:
        """Have the thread do it, and take what ends by it: also where whoever waits is cancelled, for
        what has ended is no longer with ``periods``."""
        loop = asyncio.get_running_loop()
        taken = asyncio.Event()

        def take(done: Counting) -> None:
            try:
                self._take(done, failed)
            finally:
                taken.set()

        self._thread.submit(call).add_done_callback(lambda done: _soon(loop, take, done))
        await taken.wait()

    def _take(self, done: Counting, failed: str) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            _log.error(failed, exc_info=error)
        else:
            self._ended(done.result())

    def _warn(self, model: ModelRef, threshold: float, floor: float) -> None:
        if model.digest not in self._warned and len(self._warned) < _WARNED:
            self._warned.add(model.digest)
            _log.warning(
                "scores are not compared: thresholds.score was raised above reference.score; "
                "`frond models reference` measures them anew",
                model=model.name, digest=model.digest, threshold=threshold, reference=floor,
            )  # fmt: skip


def _soon(
    loop: asyncio.AbstractEventLoop, call: Callable[[Counting], None], done: Counting
) -> None:
    # a loop that has ended waits for nothing
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, done)
