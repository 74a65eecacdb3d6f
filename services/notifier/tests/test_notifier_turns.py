"""A receiver that hangs holds up nobody else's notices, and what waits is held in no memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from notifier_world import completed, job, recorded

from frond.contracts.deliveries import Delivery, Kind, State
from frond.contracts.events import JobCompleted
from frond.notifier.delivery import Answer, Policy
from frond.notifier.outbox import Outbox
from frond.notifier.turns import Turns
from frond.store import ObjectStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EVENT = completed("survey-7")


def notice(to: str, tenant: str | None = None) -> Delivery:
    kind = Kind.WEBHOOK if "//" in to else Kind.EMAIL
    return Delivery.of(EVENT, kind, to, NOW, tenant=tenant)


def taken(*notices: Delivery) -> tuple[Turns, list[bool]]:
    """Whether each of these had to wait while all before it were being attempted."""
    turns = Turns(16)
    waited = []

    async def hold_all() -> None:
        async with AsyncExitStack() as stack:
            for each in notices:
                turn = turns.of(each)
                waited.append(turn.waits)
                if not turn.waits:
                    await stack.enter_async_context(turn.held())

    asyncio.run(hold_all())
    return turns, waited


def test_a_receiver_gets_a_quarter_of_the_places() -> None:
    """Whatever its path; another receiver, and another tenant's notices to this one, go on."""
    hung = [notice(f"https://hung.example/{i}", "acme") for i in range(5)]
    others = [notice("https://up.example/", "acme"), notice("https://HUNG.example/", "beta")]
    _, waited = taken(*hung, *others)
    assert waited == [False] * 4 + [True, False, False]


def test_a_tenant_leaves_places_to_others_whatever_hosts_it_names() -> None:
    many = [notice(f"https://hung-{i}.example/", "acme") for i in range(13)]
    _, waited = taken(*many, notice("https://up.example/", "beta"))
    assert waited == [False] * 12 + [True, False]


def test_a_mail_server_that_hangs_holds_up_no_webhook() -> None:
    """It is one for all: mail to any domain, of any tenant, may hang at once."""
    mails = [notice(f"ana@{i}.example", f"tenant-{i % 6}") for i in range(24)]
    _, waited = taken(*mails, notice("https://up.example/"))
    assert waited == [False] * 16 + [True] * 8 + [False]


def test_an_address_that_cannot_be_one_has_a_turn_too() -> None:
    """The attempt gives it up."""
    assert taken(notice("http://[::1"))[1] == [False]


def test_what_nobody_uses_is_forgotten() -> None:
    """Host names are the users' to invent: only those in use are remembered."""
    turns, _ = taken(*(notice(f"https://{i}.example/", f"tenant-{i}") for i in range(100)))
    gc.collect()
    assert len(turns._shares) == 0


@pytest.mark.stack
async def test_a_receiver_that_hangs_holds_up_nobody_else(store: ObjectStore) -> None:
    """More of its notices than there are places, and they came first: another's goes out at once."""
    over = asyncio.Event()

    async def send(delivery: Delivery, now: datetime) -> Answer:
        if "hung" in delivery.target:
            await over.wait()
        return Answer(State.DELIVERED, "HTTP 200")

    outbox = Outbox(store, {Kind.WEBHOOK: send}, Policy(3, 5.0), concurrency=4)
    for i in range(6):
        await job(store, f"hung-{i}", "http://hung.example/hook")
        await outbox.take(completed(f"hung-{i}"))
    other = await job(store, "other", "http://up.example/hook")
    await outbox.take(completed("other"))
    try:
        async with asyncio.timeout(20):
            assert (await recorded(store, other, lambda d: d.final)).state is State.DELIVERED
    finally:
        over.set()
    await outbox.idle()


@pytest.mark.stack
async def test_what_waits_is_held_in_no_memory(store: ObjectStore) -> None:
    """Neither what waits for its next attempt, for hours perhaps, nor what waits for its turn; it is
    read again."""
    begun, over = asyncio.Event(), asyncio.Event()
    attempted: list[str] = []

    async def send(delivery: Delivery, now: datetime) -> Answer:
        attempted.append(delivery.job_id)
        begun.set()
        await over.wait()
        return Answer(State.PENDING, "HTTP 500")

    outbox = Outbox(store, {Kind.WEBHOOK: send}, Policy(3, 1000.0), concurrency=1)
    known: list[Delivery] = []
    for job_id in ("first", "second"):
        known.append(await job(store, job_id, "http://hung.example/hook"))
        await outbox.take(completed(job_id))
        await begun.wait()
    assert in_memory_beside(known) == {"first"}
    over.set()
    for each in known:
        await recorded(store, each, lambda d: d.attempts == 1)
    assert attempted == ["first", "second"]
    async with asyncio.timeout(20):
        while in_memory_beside(known):  # noqa: ASYNC110 # memory tells nobody
            await asyncio.sleep(0.02)
    await outbox.close(0)


def in_memory_beside(known: Sequence[Delivery]) -> set[str]:
    """The jobs of these of which more events are held than these hold."""
    gc.collect()
    mine, jobs = [d.event for d in known], {d.job_id for d in known}
    found = (o for o in gc.get_objects() if isinstance(o, JobCompleted) and o.job_id in jobs)
    return {o.job_id for o in found if not any(o is m for m in mine)}
