"""Turns between jobs."""

from __future__ import annotations

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from frond.bus.fair import FairQueue

JOBS = st.sampled_from("abcde")


class Queueing(RuleBasedStateMachine):
    """Against a model: one plain list a job."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[tuple[str, int]] = FairQueue()
        self.model: dict[str, deque[int]] = defaultdict(deque)
        self.number = 0
        self.waited: dict[str, int] = defaultdict(int)

    @rule(job=JOBS, count=st.integers(1, 5))
    def push(self, job: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.queue.push(job, (job, self.number))
            self.model[job].append(self.number)

    @rule(held=st.frozensets(JOBS))
    def pop(self, held: frozenset[str]) -> None:
        free = [j for j, items in self.model.items() if items and j not in held]
        got = self.queue.pop(lambda job: job in held)
        if not free:
            assert got is None
            return
        assert got is not None
        job, number = got
        assert job in free
        assert number == self.model[job].popleft()  # in order within its job
        for other in free:
            self.waited[other] += 1
        self.waited[job] = 0

    @rule(gone=st.integers(0, 2))
    def drop(self, gone: int) -> None:
        before = len(self.queue)
        dropped = self.queue.drop(lambda item: item[1] % 3 == gone)
        for job, items in self.model.items():
            self.model[job] = deque(n for n in items if n % 3 != gone)
        assert before - dropped == len(self.queue)
        for job in [j for j, items in self.model.items() if not items]:
            self.waited[job] = 0

    @invariant()
    def nothing_lost(self) -> None:
        assert len(self.queue) == sum(map(len, self.model.values()))
        assert self.queue.jobs == sum(bool(items) for items in self.model.values())


TestQueueing = Queueing.TestCase


@given(
    sizes=st.dictionaries(st.text(max_size=5), st.integers(1, 30), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_a_job_waits_for_turns_not_for_sizes(sizes: dict[str, int], order: object) -> None:
    """Whatever order events come in, a job of k events is out within (number of jobs) × k turns,
    and in its own order."""
    arrivals = [job for job, k in sizes.items() for _ in range(k)]
    order.shuffle(arrivals)  # type: ignore[attr-defined]
    queue: FairQueue[tuple[str, int]] = FairQueue()
    numbered: dict[str, int] = defaultdict(int)
    for job in arrivals:
        queue.push(job, (job, numbered[job]))
        numbered[job] += 1
    out: dict[str, list[int]] = defaultdict(list)
    ended: dict[str, int] = {}
    for turn in range(1, len(arrivals) + 1):
        got = queue.pop()
        assert got is not None
        out[got[0]].append(got[1])
        ended[got[0]] = turn
    assert queue.pop() is None
    for job, k in sizes.items():
        assert out[job] == list(range(k))
        assert ended[job] <= len(sizes) * k


def test_a_held_job_keeps_its_turn() -> None:
    """Others pass a job that is held back; it comes first when it no longer is."""
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "b1", "b2"):
        queue.push(item[0], item)
    assert [queue.pop(lambda job: job == "a") for _ in range(3)] == ["b1", "b2", None]
    assert queue.pop() == "a1"
