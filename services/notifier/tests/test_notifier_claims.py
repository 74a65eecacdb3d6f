"""Whose an attempt is, however late the store answers; and the record, whoever writes it last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from notifier_world import completed, job, recorded

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind, State
from frond.contracts.errors import StoreUnavailable
from frond.notifier.delivery import Answer, Policy
from frond.notifier.outbox import Outbox
from frond.store import ObjectStore, Stat

pytestmark = pytest.mark.stack

URL = "http://receiver.example/hook"
TAKEN = Answer(State.DELIVERED, "HTTP 200")


class Staged(ObjectStore):
    """A store, and what happens around its calls, once: ``claiming`` to the first claim of an
    attempt, ``after_read`` when an object was read to be replaced."""

    claiming: Callable[[Callable[[], Awaitable[bytes]]], Awaitable[bytes]] | None = None
    after_read: Callable[[], Awaitable[Any]] | None = None

    async def put_if_absent(
        self, key: str, data: bytes, content_type: str = "application/json"
    ) -> bytes:
        if ".attempts/" in key and (staged := self.claiming) is not None:
            self.claiming = None
            return await staged(lambda: ObjectStore.put_if_absent(self, key, data, content_type))
        return await super().put_if_absent(key, data, content_type)

    async def head_bytes(
        self, key: str, length: int, *, bucket: str | None = None
    ) -> tuple[Stat, bytes]:
        found = await super().head_bytes(key, length, bucket=bucket)
        staged, self.after_read = self.after_read, None
        if staged is not None:
            await staged()
        return found


@pytest.fixture
async def staged(store: ObjectStore) -> AsyncIterator[Staged]:
    made = Staged(store.settings)
    yield made
    made.close()


class Clock:
    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def tick(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


async def test_a_claim_is_of_when_it_was_stored(staged: Staged) -> None:
    """After an outage longer than the lease it is no stale one, which another notifier would take
    for lost and make the same attempt."""
    expected = await job(staged, "late", URL)
    clock = Clock()
    claims: list[datetime] = []

    async def away(put: Callable[[], Awaitable[bytes]]) -> bytes:
        clock.tick(60)
        raise StoreUnavailable("away")

    async def send(delivery: Delivery, now: datetime) -> Answer:
        raw = await staged.get(keys.delivery_attempt("late", delivery.id, delivery.attempts + 1))
        claims.append(datetime.fromisoformat(json.loads(raw)["at"]))
        return TAKEN

    staged.claiming = away
    outbox = Outbox(staged, {Kind.WEBHOOK: send}, Policy(3, 0.2), now=clock)
    await outbox.take(completed("late"))
    await outbox.idle()
    assert claims == [clock()]
    record = await recorded(staged, expected, lambda d: d.final)
    assert (record.state, record.attempts) == (State.DELIVERED, 1)


@pytest.mark.parametrize(("took_s", "answered"), [(20, True), (60, True), (60, False)])
async def test_what_would_outlast_its_lease_is_not_sent(
    staged: Staged, took_s: int, answered: bool
) -> None:
    """The store took its time over the claim, or its answer was lost: another notifier may be about
    to make the attempt. It is let go and made anew, be there retries or not."""
    expected = await job(staged, "late", URL)
    clock = Clock()
    sent: list[int] = []

    async def slow(put: Callable[[], Awaitable[bytes]]) -> bytes:
        stored = await put()
        clock.tick(took_s)
        if not answered:
            raise StoreUnavailable("cut off")
        return stored

    async def send(delivery: Delivery, now: datetime) -> Answer:
        sent.append(delivery.attempts + 1)
        return TAKEN

    staged.claiming = slow
    outbox = Outbox(
        staged, {Kind.WEBHOOK: send}, Policy(0, 0.2), lease_s=30, deadline_s=15, now=clock
    )
    await outbox.take(completed("late"))
    await outbox.idle()
    assert sent == [2]
    record = await recorded(staged, expected, lambda d: d.final)
    assert (record.state, record.attempts) == (State.DELIVERED, 2)


@pytest.mark.parametrize("told", [State.DELIVERED, State.PENDING])
async def test_a_late_result_never_takes_a_delivered_one_back(staged: Staged, told: State) -> None:
    """Another notifier writes the record between this one's look at it and its own writing."""
    expected = await job(staged, "both", URL)
    due = None if told is State.DELIVERED else datetime.now(UTC) + timedelta(hours=1)
    written = asyncio.Event()

    async def write() -> None:
        theirs = expected.model_copy(
            update={"state": told, "attempts": 2, "next_attempt": due, "last_answer": "theirs"}
        )
        key = keys.delivery(theirs.job_id, theirs.id)
        await staged.put(key, theirs.model_dump_json().encode())
        written.set()

    async def send(delivery: Delivery, now: datetime) -> Answer:
        staged.after_read = write
        return Answer(State.PENDING, "HTTP 500")

    outbox = Outbox(staged, {Kind.WEBHOOK: send}, Policy(3, 1000.0))
    await outbox.take(completed("both"))
    async with asyncio.timeout(120):
        await written.wait()
    # what is under way is ended first
    await outbox.close(60)
    record = await recorded(staged, expected, lambda d: d.attempts > 0)
    assert (record.state, record.attempts, record.last_answer) == (told, 2, "theirs")


async def test_an_attempt_that_cannot_be_made_counts(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a road makes of an address: the delivery ends, and is not begun anew at each scan."""
    expected = await job(store, "odd", URL)

    async def send(delivery: Delivery, now: datetime) -> Answer:
        raise AttributeError("a fault of a library")

    outbox = Outbox(store, {Kind.WEBHOOK: send}, Policy(1, 0.01))
    await outbox.take(completed("odd"))
    await outbox.idle()
    record = await recorded(store, expected, lambda d: d.final)
    told = "the attempt could not be made; gave up after 2 attempts"
    assert (record.state, record.attempts, record.last_answer) == (State.GAVE_UP, 2, told)
    assert capsys.readouterr().out.count("AttributeError: a fault of a library") == 2
    assert not [found async for found in store.list(f"{keys.DELIVERIES}odd/")]
