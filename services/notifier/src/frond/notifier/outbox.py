"""Deliveries on their way: stored before they are promised, attempted until they end.

The record of a delivery lies beside its job; a marker under ``deliveries/`` is there until it has
ended. Each attempt is claimed by an object that can be put only once, so several notifiers, or a
notifier and its own zombie, never make the same attempt. A claim that was never followed by a
result (its notifier was killed) counts as a failed attempt once its lease is over. Nothing is sent
that could take longer than its lease.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind, State
from frond.contracts.errors import ObjectMissing, Outage
from frond.contracts.events import JobCompleted
from frond.notifier import metrics
from frond.notifier.delivery import Addresses, Answer, Policy, after, deliveries_of
from frond.notifier.gone import find_gone, note_gone
from frond.notifier.send import Sender
from frond.notifier.turns import Turns
from frond.runtime import crash_point, get_logger, wait_out
from frond.store import ObjectStore

_LOOK_AGAIN_S: Final = 1.0
# no record is as large
_MOST_BYTES: Final = 1 << 30
_log = get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class _Taken(NamedTuple):
    """A delivery that was promised just now: its record as it is stored, its marker under way."""

    delivery: Delivery
    marking: asyncio.Future[None]


class _Claim(NamedTuple):
    """Whose an attempt is, and when it counts as lost if nothing has come of it."""

    ours: bool
    until: datetime


class Outbox:
    """All deliveries that this process attends to.

    Args:
        senders: one for each kind.
        lease_s: how long an attempt belongs to the notifier that began it; longer than any
            attempt may take.
        deadline_s: how long an attempt may take.
        public_url: the base of links, for notices that are promised from now on.
        now: the clock.
        concurrency: attempts at once, of each kind.
    """

    def __init__(
        self,
        store: ObjectStore,
        senders: Mapping[Kind, Sender],
        policy: Policy,
        *,
        lease_s: float = 30.0,
        deadline_s: float = 15.0,
        public_url: str | None = None,
        now: Callable[[], datetime] = utc_now,
        concurrency: int = 16,
    ) -> None:
        self.store = store
        self.senders = senders
        self.policy = policy
        self.lease_s = lease_s
        self.deadline_s = deadline_s
        self.public_url = public_url
        self.now = now
        self.name = secrets.token_hex(8)
        self._turns = Turns(concurrency)
        # what was stored just now and need not be read; whatever waits is read again
        self._fresh: dict[tuple[str, str], Delivery] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._attempting: set[asyncio.Task[None]] = set()
        self._closing = False
        # the jitter is not for secrets
        self._random = random.Random()  # noqa: S311

    async def take(self, event: JobCompleted) -> None:
        """Promise what a completed job asks for. When this returns, it is stored.

        An event that was taken before promises nothing new.
        """
        to, noted = await asyncio.gather(
            self._addresses(keys.job_spec(event.job_id)),
            self._addresses(keys.job_notify(event.job_id)),
        )
        if not to.complete:
            # a job of which every image was refused has no spec
            to = to.filled(noted)
        for fresh in deliveries_of(event, to, self.now(), self.public_url):
            stored = Delivery.model_validate_json(
                await self.store.put_if_absent(
                    keys.delivery(fresh.job_id, fresh.id), fresh.model_dump_json().encode()
                )
            )
            crash_point("notifier.delivery-stored")
            if not stored.final:
                # until there is a marker, the event counts as unread: the first attempt need not wait
                marking = asyncio.ensure_future(self._mark(stored))
                self.attend(stored.job_id, stored.id, _Taken(stored, marking))
                await marking
        await self.store.delete(keys.untold_marker(event.job_id))
        crash_point("notifier.untold-deleted")

    async def _mark(self, delivery: Delivery) -> None:
        marker = keys.delivery_marker(delivery.job_id, delivery.id)
        await self.store.put_if_absent(marker, b"{}")
        crash_point("notifier.marker-stored")

    async def _addresses(self, key: str) -> Addresses:
        try:
            return Addresses.model_validate_json(await self.store.get(key))
        except ObjectMissing:
            return Addresses()

    async def resume(self) -> int:
        """Attend to every delivery that has a marker; returns how many there are.

        Jobs that have ended and whose event never came here are taken, too.
        """
        count = 0
        async for found in self.store.list(keys.UNTOLD):
            job_id = found.key.removeprefix(keys.UNTOLD)
            try:
                await self._take_untold(job_id)
            except Outage:
                raise
            except Exception as e:
                # a record that cannot be read holds up its own job alone
                _log.error("a job's end cannot be told", job_id=job_id, error=str(e)[:500])
        async for found in self.store.list(keys.DELIVERIES):
            parts = found.key.split("/")
            if len(parts) == 3:
                self.attend(parts[1], parts[2])
                count += 1
        return count

    async def _take_untold(self, job_id: str) -> None:
        try:
            raw = await self.store.get(keys.job_completed(job_id))
        except ObjectMissing:
            # the job was deleted
            await self.store.delete(keys.untold_marker(job_id))
            crash_point("notifier.untold-dropped")
        else:
            await self.take(JobCompleted.model_validate_json(raw))

    def attend(self, job_id: str, delivery_id: str, taken: _Taken | None = None) -> None:
        """See a delivery through to its end, in the background."""
        which = (job_id, delivery_id)
        if which in self._tasks:
            return
        if taken is not None:
            self._fresh[which] = taken.delivery
        marking = taken and taken.marking
        task = asyncio.create_task(self._see_through(job_id, delivery_id, marking))
        self._tasks[which] = task
        metrics.PENDING.set(len(self._tasks))
        task.add_done_callback(partial(self._ended, which))

    def _ended(self, which: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._tasks.pop(which, None)
        self._fresh.pop(which, None)
        metrics.PENDING.set(len(self._tasks))
        if not task.cancelled() and (error := task.exception()) is not None:
            # its marker stays, so the next scan takes it up again
            _log.error("a delivery was dropped", job_id=which[0], id=which[1], exc_info=error)

    async def idle(self) -> None:
        """Wait until every delivery attended to has ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self, patience_s: float) -> None:
        """Let attempts that are under way end; what waits stays in the store."""
        self._closing = True
        for task in set(self._tasks.values()) - self._attempting:
            task.cancel()
        if self._attempting:
            await asyncio.wait(self._attempting, timeout=patience_s)
        for task in list(self._tasks.values()):
            task.cancel()

    async def _see_through(
        self, job_id: str, delivery_id: str, marking: asyncio.Future[None] | None
    ) -> None:
        marker = keys.delivery_marker(job_id, delivery_id)
        while not self._closing:
            wait_s = await self._look(job_id, delivery_id)
            if wait_s is None:
                if marking is not None:
                    # a marker that came after this would be looked at for nothing
                    await asyncio.wait({marking})
                await wait_out(lambda: self.store.delete(marker), what="ending a delivery")
                crash_point("notifier.marker-deleted")
                return
            # then look again: its job may have been deleted, another notifier may be at it
            await asyncio.sleep(wait_s)

    async def _look(self, job_id: str, delivery_id: str) -> float | None:
        """Attempt what is due; returns how long to look away, None: it has ended.

        What waits, for its time or its turn, is not held in memory meanwhile.
        """
        found = await self._due(job_id, delivery_id)
        if not isinstance(found, Delivery):
            return found
        turn = self._turns.of(found)
        if turn.waits:
            found = None
        async with turn.held():
            found = found or await self._due(job_id, delivery_id)
            if not isinstance(found, Delivery):
                return found
            me = self._tasks[job_id, delivery_id]
            self._attempting.add(me)
            try:
                return await self._attempt(found)
            finally:
                self._attempting.discard(me)

    async def _due(self, job_id: str, delivery_id: str) -> Delivery | float | None:
        """A delivery that is due; else in how many seconds it is, None: it has ended."""
        delivery = await self._load(job_id, delivery_id)
        if delivery is None or delivery.final:
            return None
        now = self.now()
        early_s = ((delivery.next_attempt or now) - now).total_seconds()
        return early_s if early_s > 0 else delivery

    async def _load(self, job_id: str, delivery_id: str) -> Delivery | None:
        if (fresh := self._fresh.pop((job_id, delivery_id), None)) is not None:
            return fresh
        key = keys.delivery(job_id, delivery_id)
        try:
            return Delivery.model_validate_json(
                await wait_out(lambda: self.store.get(key), what="reading a delivery")
            )
        except ObjectMissing:
            return None

    async def _attempt(self, delivery: Delivery) -> float:
        """Make the next attempt, unless another notifier does; returns how long to look away."""
        number = delivery.attempts + 1
        unwanted, claim = await asyncio.gather(
            find_gone(self.store, delivery), self._claim(delivery, number)
        )
        left_s = (claim.until - self.now()).total_seconds()
        if not claim.ours and left_s > 0:
            return min(left_s, _LOOK_AGAIN_S)
        if not claim.ours:
            answer = Answer(State.PENDING, "the notifier was stopped during the attempt")
        elif unwanted is not None:
            answer = unwanted
        elif left_s < self.deadline_s:
            # another notifier might take it for lost, and send, before this one has its answer
            answer = Answer(State.PENDING, "not sent: the store answered too late", made=False)
        else:
            crash_point("notifier.attempt-claimed")
            answer = await self._send(delivery)
            crash_point("notifier.posted")
            await note_gone(self.store, delivery, answer, self.now, claim.until)
        done = after(delivery, answer, self.policy, self.now(), self._random.random())
        metrics.attempted(delivery.kind, answer.state, done.state)
        log = _log.info if done.state is State.DELIVERED else _log.warning
        log(
            "delivery attempt", job_id=delivery.job_id, id=delivery.id, kind=delivery.kind,
            attempt=number, state=done.state, answer=done.last_answer,
            next_attempt=done.next_attempt and done.next_attempt.isoformat(),
        )  # fmt: skip
        await self._record(done)
        crash_point("notifier.result-stored")
        return 0.0

    async def _send(self, delivery: Delivery) -> Answer:
        try:
            return await self.senders[delivery.kind](delivery, self.now())
        except Exception as e:
            # an attempt without an end would be made again at each scan, for ever, and never counted
            _log.error(
                "an attempt could not be made", job_id=delivery.job_id, id=delivery.id,
                kind=delivery.kind, exc_info=e,
            )  # fmt: skip
            return Answer(State.PENDING, "the attempt could not be made")

    async def _claim(self, delivery: Delivery, number: int) -> _Claim:
        key = keys.delivery_attempt(delivery.job_id, delivery.id, number)

        async def put() -> bytes:
            # as it is now, however long the store was away before
            mine = json.dumps({"by": self.name, "at": self.now().isoformat()})
            return await self.store.put_if_absent(key, mine.encode())

        stored = json.loads(await wait_out(put, what="claiming an attempt"))
        # our own of before, without a result, is ours: nothing was sent
        ours = stored["by"] == self.name
        return _Claim(ours, datetime.fromisoformat(stored["at"]) + timedelta(seconds=self.lease_s))

    async def _record(self, done: Delivery) -> None:
        """Store the result, unless a later attempt has already told more."""
        key = keys.delivery(done.job_id, done.id)

        async def write() -> bool:
            try:
                stat, raw = await self.store.head_bytes(key, _MOST_BYTES)
            except ObjectMissing:
                return True  # the job was deleted meanwhile
            stored = Delivery.model_validate_json(raw)
            if stored.state is State.DELIVERED:
                return True
            if done.state is not State.DELIVERED and stored.attempts >= done.attempts:
                return True
            return await self.store.replace(key, done.model_dump_json().encode(), stat.etag)

        # refused: another notifier has just told something; look again
        while not await wait_out(write, what="recording an attempt"):
            pass
