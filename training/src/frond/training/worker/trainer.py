"""The loop: take a run up, see its process through, say how it ended.

A run is its worker's as long as the object says so: every change is made under the ETag of what was
read, so a worker that was held up finds at its next word that the run is somebody else's, and ends
its process. Whether a worker has died is told by its silence, by the watching worker's own clock.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import yaml
from prometheus_client import Counter

from frond.contracts.errors import FrondError, ModelRejected, ObjectMissing, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.contracts.training import TRAINING_ID_PATTERN, TrainingRun, TrainingStatus
from frond.models.registry import Registry
from frond.models.trainings import Trainings
from frond.runtime import get_logger, wait_out
from frond.training.worker import deciding
from frond.training.worker.child import Child
from frond.training.worker.deciding import CANCELLED, Ending, Progress, failed

ENDED: Final = Counter(
    "frond_training_ended_total", "Training runs that ended here, by how.", ["model", "status"]
)
_PROGRESS_BYTES: Final = 1 << 16
_MOST_LOGS: Final = 50
_BEGUN: Final = "begun"
_IN_TURN: Final = 200
_ID: Final = re.compile(TRAINING_ID_PATTERN)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How this worker trains; what the fields mean, ``TrainingSettings`` says."""

    program: tuple[str, ...]
    data: Path
    configs: Path
    out: Path
    track: str = ""
    max_s: float = 24 * 3600.0
    attempts: int = 5
    lease_s: float = 60.0
    progress_s: float = 5.0
    look_s: float = 15.0
    stop_s: float = 10.0


class _Lost(FrondError):
    """The run is another worker's, or was deleted."""


class Trainer:
    """One worker: at most one run at a time.

    Args:
        steady: seconds since some moment; never goes back.
    """

    def __init__(
        self,
        trainings: Trainings,
        registry: Registry,
        policy: Policy,
        *,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.me = secrets.token_hex(8)
        self.wake = asyncio.Event()
        self._trainings = trainings
        self._registry = registry
        self._policy = policy
        self._steady = steady
        # of runs that others have: the ETag, since when it has not changed, and when we last looked
        self._silent: dict[str, tuple[str, float, float]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Train what there is to train until asked to stop; a run under way is handed back."""
        while not stop.is_set():
            self.wake.clear()
            mine = await wait_out(self.next, what="looking for training runs")
            if mine is not None:
                await self._see_through(mine, stop)
                continue
            await wait_out(self._tidy, what="looking at what earlier runs left")
            await self._pause(stop, self.wake)

    async def _pause(self, *until: asyncio.Event) -> None:
        """As long as an idle worker does not look, or until one of these is set."""
        woken = [asyncio.create_task(e.wait()) for e in until]
        await asyncio.wait(woken, timeout=self._policy.look_s, return_when=asyncio.FIRST_COMPLETED)
        for task in woken:
            task.cancel()

    async def next(self) -> TrainingRun | None:
        """Take up the run that was asked for first; None where there is none to take."""
        for training_id in await self._in_turn():
            try:
                run = await self._trainings.change(training_id, self._take)
            except ObjectMissing:
                continue
            if run.status.final:
                await self._close(run)
            elif run.status is TrainingStatus.RUNNING and run.worker == self.me:
                return run
        return None

    async def _in_turn(self) -> list[str]:
        """Runs that have not ended, in the order in which they were asked for."""
        marks = {
            training_id: found.last_modified or _LONG_AGO
            async for training_id, found in self._trainings.waiting()
        }
        self._silent = {i: s for i, s in self._silent.items() if i in marks}
        asked: list[tuple[datetime, str]] = []
        # a mark is written again when its event was sent, so it tells the order but roughly
        for training_id in sorted(marks, key=marks.__getitem__)[:_IN_TURN]:
            try:
                run = await self._trainings.get(training_id)
            except ObjectMissing as e:
                # of a newer version, or not stored yet: its request ends, or the sweeper forgets it
                _log.info("not taken up", training_id=training_id, error=str(e)[:500])
            else:
                asked.append((run.requested, training_id))
        return [training_id for _, training_id in sorted(asked)]

    def _take(self, run: TrainingRun, etag: str) -> TrainingRun | None:
        now = self._steady()
        known, since, looked = self._silent.get(run.training_id, ("", now, now))
        # where we did not look, because the store was away, say, nobody else could say anything
        if known != etag or now - looked > self._policy.look_s + self._policy.lease_s / 2:
            since = now
        self._silent[run.training_id] = etag, since, now
        return deciding.taken(
            run, self.me, datetime.now(UTC), abandoned=now - since >= self._policy.lease_s,
            attempts=self._policy.attempts,
        )  # fmt: skip

    async def _see_through(self, mine: TrainingRun, stop: asyncio.Event) -> None:
        _log.info(
            "training begins", training_id=mine.training_id, model=mine.model,
            recipe=mine.recipe, attempt=mine.attempts,
        )  # fmt: skip
        try:
            ending = await self._trained(mine, stop)
            if ending is None:
                await self._change(mine, deciding.released)
                _log.info("training is handed back", training_id=mine.training_id)
                # where an outage is in its way, it would be in its way again
                await self._pause(stop)
                return
            run = await self._end(mine, ending)
        except _Lost as e:
            _log.warning("a training is somebody else's now", training_id=mine.training_id,
                         error=str(e))  # fmt: skip
            return
        ENDED.labels(run.model, run.status.value).inc()
        log = _log.info if run.status is TrainingStatus.SUCCEEDED else _log.warning
        log(
            "training ended", training_id=run.training_id, model=run.model, status=run.status.value,
            digest=run.result and run.result.digest, detail=run.detail,
        )  # fmt: skip

    async def _trained(self, mine: TrainingRun, stop: asyncio.Event) -> Ending | None:
        """How it ended; None: it has not, and we are asked to, or an outage is in its way."""
        folder = (self._policy.out / mine.training_id).absolute()
        config = (self._policy.configs / f"{mine.recipe}.yaml").absolute()
        if not await asyncio.to_thread(os.path.isfile, config):
            return failed(
                f"This installation's training worker has no config {mine.recipe}.yaml "
                "(FROND_TRAINING_CONFIGS). Put one there, and ask again.",
                Reason.UNKNOWN_RECIPE,
            )
        # in time: it would show when all is trained, and pushed
        name = await asyncio.to_thread(_name_in, config)
        if name is not None and name != mine.model:
            return deciding.other_model(mine, name)
        minutes = mine.overrides.minutes
        if minutes is not None and minutes * 60 >= self._policy.max_s:
            return failed(
                f"{minutes:g} minutes are more than a training may take here "
                f"({self._policy.max_s / 60:g}, FROND_TRAINING_MAX_S). Ask for fewer."
            )
        try:
            resume = await asyncio.to_thread(_begun, folder)
            command = deciding.command(
                mine, self._policy.program, config, self._policy.data.absolute(), folder,
                resume=resume, track=self._policy.track,
            )  # fmt: skip
            child = await Child.start(command, folder, folder / "log.txt")
        except OSError as e:
            return failed(f"The training could not begin: {e.strerror or e}.")
        try:
            said = await self._watch(mine, child, folder, stop)
        finally:
            code = await child.stop(self._policy.stop_s)
        if said is not _BY_ITSELF:
            return None if said is _STOPPED else said
        error = child.last_line("err").decode("utf-8", "replace")
        ending = deciding.ending_of(mine, code, child.last_line("out"), error)
        if ending is None:
            _log.warning("training waits for an outage to end", training_id=mine.training_id,
                         error=error)  # fmt: skip
            return None
        return await wait_out(lambda: self._checked(ending), what="looking for the version")

    async def _watch(
        self, mine: TrainingRun, child: Child, folder: Path, stop: asyncio.Event
    ) -> Ending:
        """See to a process until it ends or is to end; returns why."""
        until = self._steady() + self._policy.max_s
        stopping = asyncio.create_task(stop.wait())
        try:
            while True:
                await asyncio.wait(
                    {child.ended, stopping}, timeout=self._policy.progress_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )  # fmt: skip
                try:
                    run = await self._tell(mine, folder)
                except StoreUnavailable as e:
                    _log.warning("progress is told later", error=str(e))
                    run = mine
                if child.ended.done():
                    # a machine that goes down asks all of its processes to end at once
                    return _STOPPED if stop.is_set() and child.ended.result() else _BY_ITSELF
                if run.cancelled_by is not None:
                    return CANCELLED
                if stop.is_set():
                    return _STOPPED
                if self._steady() > until:
                    return failed(
                        f"It was not done after {self._policy.max_s / 3600:.3g} h "
                        "(FROND_TRAINING_MAX_S). Ask for fewer steps or minutes."
                    )
        finally:
            stopping.cancel()

    async def _tell(self, mine: TrainingRun, folder: Path) -> TrainingRun:
        """Store progress; raises _Lost, StoreUnavailable."""
        text = await asyncio.to_thread(_tail, folder / "progress")
        progress = deciding.progress_of(text) or Progress()
        now = datetime.now(UTC)
        try:
            run = await self._trainings.change(
                mine.training_id, lambda run, _: deciding.told(run, mine, progress, now)
            )
        except ObjectMissing as e:
            raise _Lost(str(e)) from e
        if not deciding.holds(run, mine):
            raise _Lost(f"worker {run.worker}, {run.status.value}")
        return run

    async def _checked(self, ending: Ending) -> Ending:
        """Success, only if the registry has the version: what a process says is not enough."""
        if ending.result is None:
            return ending
        ref = ending.result
        try:
            found = await self._registry.resolve(f"{ref.name}@{ref.digest}")
        except ModelRejected as e:
            return failed(
                f"The process that trained told of a version that is not there: {e.detail}"
            )
        return Ending(ending.status, found, ending.metrics)

    async def _end(self, mine: TrainingRun, how: Ending) -> TrainingRun:
        run = await self._change(mine, lambda run, mine, now: deciding.ended(run, mine, how, now))
        await self._close(run)
        return run

    async def _change(
        self,
        mine: TrainingRun,
        decide: Callable[[TrainingRun, TrainingRun, datetime], TrainingRun | None],
    ) -> TrainingRun:
        """Change our run, however long the store is away. Raises _Lost."""
        now = datetime.now(UTC)
        wanted: TrainingRun | None = None

        def once(run: TrainingRun, _: str) -> TrainingRun | None:
            nonlocal wanted
            if run == wanted:
                # an answer was lost: it is done
                return None
            wanted = decide(run, mine, now)
            return wanted

        try:
            run = await wait_out(
                lambda: self._trainings.change(mine.training_id, once), what="ending a training"
            )
        except ObjectMissing as e:
            raise _Lost(str(e)) from e
        if run != wanted:
            raise _Lost(f"worker {run.worker}, {run.status.value}")
        return run

    async def _close(self, run: TrainingRun) -> None:
        """Nobody looks for it any more; its checkpoints go, its log stays."""
        await wait_out(lambda: self._trainings.close(run.training_id), what="closing a training")
        await asyncio.to_thread(_clear, self._policy.out, run.training_id)

    async def _tidy(self) -> None:
        """Remove what is left here of runs that ended elsewhere: cancelled while they waited, say."""
        for training_id in await asyncio.to_thread(_folders, self._policy.out):
            try:
                if not (await self._trainings.get(training_id)).status.final:
                    continue
            except ObjectMissing:
                # runs are never deleted: this one is of a newer version, or of another installation
                continue
            await asyncio.to_thread(_clear, self._policy.out, training_id)


_BY_ITSELF: Final = Ending(TrainingStatus.RUNNING)
_STOPPED: Final = Ending(TrainingStatus.QUEUED)


def _name_in(config: Path) -> str | None:
    """The model that a config says it trains; what cannot be read, the program judges."""
    try:
        told = yaml.safe_load(config.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    name = told.get("name") if isinstance(told, dict) else None
    return name if isinstance(name, str) else None


def _begun(folder: Path) -> bool:
    """Whether a process was begun here before; from now on one was."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _BEGUN
    if mark.exists():
        return True
    mark.touch()
    return False


def _folders(out: Path) -> list[str]:
    try:
        return [p.name for p in out.iterdir() if _ID.fullmatch(p.name) and p.is_dir()]
    except OSError:
        return []


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _PROGRESS_BYTES))
            return file.read()
    except OSError:
        return b""


def _clear(out: Path, training_id: str) -> None:
    folder, logs = out / training_id, out / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").replace(logs / f"{training_id}.txt")
    except OSError as e:
        _log.info("no log is kept", training_id=training_id, error=str(e))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        kept = sorted(logs.glob("*.txt"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in kept[_MOST_LOGS:]:
            old.unlink(missing_ok=True)
    except OSError as e:
        # another worker that shares the folder removes them as well
        _log.info("old logs stay", error=str(e))
