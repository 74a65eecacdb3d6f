"""The consumer loop under rebalances, crashes and zombies: never a commit past what is durable.

The loop is the real one; beneath it is a broker in memory that keeps what Kafka keeps: logs with
gaps, who owns which partition, and what was committed by an owner.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from frond.bus.consumer import _Loop, _Rebalance
from frond.bus.outbox import Told
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable

PARTITIONS = [TopicPartition(topics.UPLOADED.name, p) for p in range(2)]
WORKERS = 2
Message = SimpleNamespace
Which = tuple[TopicPartition, int]


class Broker:
    def __init__(self) -> None:
        self.log: dict[TopicPartition, list[int]] = {p: [] for p in PARTITIONS}
        self.end: dict[TopicPartition, int] = dict.fromkeys(PARTITIONS, 0)
        self.committed: dict[TopicPartition, int] = {}
        self.owner: dict[TopicPartition, Worker | None] = dict.fromkeys(PARTITIONS)


class Worker:
    """A process: the loop, and as much of AIOKafkaConsumer as it calls."""

    def __init__(self, broker: Broker, effects: set[Which]) -> None:
        self.broker = broker
        self.effects = effects
        self.at: dict[TopicPartition, int] = {}
        self.handling: dict[asyncio.Future[None], Which] = {}
        self.posted: list[tuple[Which, Told]] = []
        self.frozen = False
        service = SimpleNamespace(
            name="copier",
            settings=SimpleNamespace(lookahead=1000, finish_s=0.1), stop=asyncio.Event(),
            health=SimpleNamespace(ready=lambda _: None, fatal=None),
        )  # fmt: skip
        self.loop = _Loop(service, topics.UPLOADED, self, 3, lambda _: False)  # type: ignore[arg-type]
        self.loop.consumer = self
        self.listener = _Rebalance(self.loop)

    # as much of Handling as the hands call

    async def take(self, message: Any) -> Any:
        done = asyncio.get_running_loop().create_future()
        which = (PARTITIONS[message.partition], message.offset)
        self.handling[done] = which
        try:
            await done
        finally:
            del self.handling[done]
        if which in self.effects and which[1] % 5 == 0:
            return None  # seen before: nothing is to be sent
        return which

    def post(self, made: Which, told: Told) -> None:
        self.posted.append((made, told))

    def done(self, made: Which) -> None:
        assert made in self.effects

    async def send_again(self, made: Which, error: BaseException | None) -> None:
        while isinstance(error, BrokerUnavailable):
            answer = asyncio.get_running_loop().create_future()
            mine = made, answer.set_result
            self.posted.append(mine)
            try:
                error = await answer
            finally:
                if mine in self.posted:
                    self.posted.remove(mine)

    def hand_over(self, nth: int) -> None:
        """One message's handler returns; what it made is not durable yet."""
        done = list(self.handling)[nth % len(self.handling)]
        if not done.done():
            done.set_result(None)

    def answer(self, nth: int, refused: bool) -> None:
        """The broker has what was made of one message, or could not take it."""
        which, told = self.posted.pop(nth % len(self.posted))
        if refused:
            told(BrokerUnavailable("no answer"))
        else:
            self.effects.add(which)
            told(None)

    async def getmany(self, *partitions: TopicPartition, max_records: int, **_: Any) -> Any:
        got: dict[TopicPartition, list[Any]] = defaultdict(list)
        for p in partitions:
            for offset in [o for o in self.broker.log[p] if o >= self.at[p]][:max_records]:
                got[p].append(
                    Message(
                        partition=p.partition, offset=offset, key=b"", headers=(),
                        value=b'{"job_id": "job-%d"}' % (offset % 3),
                    )
                )  # fmt: skip
                self.at[p] = offset + 1
            if not any(o >= self.at[p] for o in self.broker.log[p]):
                self.at[p] = self.broker.end[p]
        return got

    async def position(self, partition: TopicPartition) -> int:
        return self.at[partition]

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if any(self.broker.owner[p] is not self for p in offsets):
            raise CommitFailedError
        self.broker.committed.update(offsets)

    async def own(self, partitions: Iterable[TopicPartition]) -> None:
        mine = list(partitions)
        for p in mine:
            self.at[p] = self.broker.committed.get(p, 0)
        await self.listener.on_partitions_assigned(mine)

    async def disown(self) -> None:
        await self.listener.on_partitions_revoked(list(self.loop.trackers))


class Rebalancing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.aio = asyncio.new_event_loop()
        self.broker = Broker()
        self.effects: set[Which] = set()
        self.workers = [self.fresh() for _ in range(WORKERS)]
        self.run(self.assign([0, 1]))
        for p in PARTITIONS:
            self.produce(p, [1, 2, 1, 1, 3])
        self.read()

    def fresh(self) -> Worker:
        async def make() -> Worker:
            return Worker(self.broker, self.effects)

        return self.aio.run_until_complete(make())

    def run(self, work: Any) -> None:
        async def settled() -> None:
            await work
            for _ in range(5):
                await asyncio.sleep(0)

        self.aio.run_until_complete(settled())

    async def assign(self, owners: list[int]) -> None:
        """A rebalance: everybody who lives gives up all and gets a share; a zombie hears nothing."""
        for worker in self.workers:
            if not worker.frozen:
                await worker.disown()
        for p, n in zip(PARTITIONS, owners, strict=True):
            self.broker.owner[p] = None if self.workers[n].frozen else self.workers[n]
        for worker in self.workers:
            if not worker.frozen:
                await worker.own(p for p in PARTITIONS if self.broker.owner[p] is worker)

    @rule(p=st.sampled_from(PARTITIONS), gaps=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def produce(self, p: TopicPartition, gaps: list[int]) -> None:
        for gap in gaps:
            self.broker.log[p].append(self.broker.end[p] + gap - 1)
            self.broker.end[p] += gap

    @rule(p=st.sampled_from(PARTITIONS), offsets=st.integers(1, 3))
    def undo(self, p: TopicPartition, offsets: int) -> None:
        """A transaction ends, or is undone: offsets without a message."""
        self.broker.end[p] += offsets

    @rule()
    def read(self) -> None:
        async def step() -> None:
            for worker in self.workers:
                if worker.loop.trackers:
                    await worker.loop._read()
                worker.loop.hands.look()

        self.run(step())

    @rule(nth=st.integers(0, 9))
    def hand_over(self, nth: int) -> None:
        """Any one of the handlers returns."""
        busy = [w for w in self.workers if w.handling]
        if busy:
            worker = busy[nth % len(busy)]

            async def step() -> None:
                worker.hand_over(nth)

            self.run(step())

    @rule(nth=st.integers(0, 9), refused=st.booleans(), commit=st.booleans())
    def answer(self, nth: int, refused: bool, commit: bool) -> None:
        """Any one of what is on its way anywhere ends; the commit may come at once."""
        busy = [w for w in self.workers if w.posted]
        if busy:
            worker = busy[nth % len(busy)]

            async def step() -> None:
                worker.answer(nth, refused)

            self.run(step())
            if commit:
                self.run(worker.loop.commit())

    @rule(w=st.integers(0, WORKERS - 1))
    def outage(self, w: int) -> None:
        """All that a worker's handlers have made is refused, and the commit comes at once."""
        worker = self.workers[w]

        async def step() -> None:
            for _ in list(worker.handling):
                worker.hand_over(0)
                await asyncio.sleep(0)
            for _ in list(worker.posted):
                worker.answer(0, refused=True)
            await worker.loop.commit()

        self.run(step())

    @rule(w=st.integers(0, WORKERS - 1))
    def commit(self, w: int) -> None:
        self.run(self.workers[w].loop.commit())

    @rule(owners=st.tuples(st.integers(0, WORKERS - 1), st.integers(0, WORKERS - 1)))
    def rebalance(self, owners: tuple[int, int]) -> None:
        self.run(self.assign(list(owners)))

    @rule(w=st.integers(0, WORKERS - 1))
    def crash(self, w: int) -> None:
        """SIGKILL: nothing is committed, nothing is heard of; a new process joins."""
        old, self.workers[w] = self.workers[w], self.fresh()
        self.end(old)
        self.run(self.assign([w, 1 - w]))

    def end(self, worker: Worker) -> None:
        async def kill() -> None:
            worker.loop.hands.close()

        self.run(kill())

    @rule(w=st.integers(0, WORKERS - 1))
    def freeze(self, w: int) -> None:
        """SIGSTOP past the session's end: the group goes on without it."""
        self.workers[w].frozen = True
        self.run(self.assign([1 - w, 1 - w]))

    @rule(w=st.integers(0, WORKERS - 1))
    def thaw(self, w: int) -> None:
        """The zombie goes on with what it had, until it hears of the rebalance."""
        self.workers[w].frozen = False

    @invariant()
    def never_past_what_is_durable(self) -> None:
        for p, committed in self.broker.committed.items():
            lost = [o for o in self.broker.log[p] if o < committed and (p, o) not in self.effects]
            assert not lost, f"{p}: committed {committed}, and {lost} never happened"

    @invariant()
    def never_broken(self) -> None:
        for worker in self.workers:
            assert worker.loop.service.health.fatal is None
            hands = worker.loop.hands
            assert hands.free == 3 - len(worker.handling)
            assert hands.unsent == len(worker.posted)

    def teardown(self) -> None:
        """In calm weather everything that was ever sent happens, and is committed."""
        try:
            for worker in self.workers:
                worker.frozen = False
            self.run(self.assign([0, 1]))
            for _ in range(
                len(self.broker.log[PARTITIONS[0]] + self.broker.log[PARTITIONS[1]]) + 2
            ):
                self.read()
                while any(w.handling or w.posted for w in self.workers):
                    self.hand_over(0)
                    self.answer(0, False, False)
                for w in range(WORKERS):
                    self.commit(w)
            sent = {(p, o) for p, log in self.broker.log.items() for o in log}
            assert self.effects == sent
            assert self.broker.committed == self.broker.end
        finally:
            for task in asyncio.all_tasks(self.aio):
                task.cancel()
            self.run(asyncio.sleep(0))
            self.aio.close()


Rebalancing.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestRebalancing = Rebalancing.TestCase
