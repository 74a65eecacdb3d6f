"""A receiver that says 410 wants no more, whatever the job."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from notifier_world import completed, job, recorded
from prometheus_client import REGISTRY

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind, State
from frond.notifier.delivery import Answer, Policy, classify
from frond.notifier.gone import Gone
from frond.notifier.outbox import Outbox
from frond.notifier.send import WebhookSender
from frond.notifier.settings import NotifierSettings
from frond.store import ObjectStore

pytestmark = pytest.mark.stack


def counted(state: str) -> float:
    """Webhooks that came to this, in this process so far."""
    labels = {"kind": Kind.WEBHOOK, "state": state}
    return REGISTRY.get_sample_value("frond_delivery_attempts_total", labels) or 0.0


async def test_410_ends_all_to_this_address(store: ObjectStore, receiver: Any) -> None:
    """Nothing is sent there any more, of no job, by no notifier; other addresses, and other tenants'
    notices, go out. A replay is sent; once it is taken, so is everything else."""
    receiver.script[:] = [410]
    first = await job(store, "first", receiver.url)
    later, again = await job(store, "later", receiver.url), await job(store, "again", receiver.url)
    await job(store, "elsewhere", f"{receiver.url}/other")
    to = json.dumps({"webhook_url": receiver.url, "tenant": "acme"}).encode()
    await store.put(keys.job_notify("of-acme"), to)
    before = counted("refused"), counted("gave-up")
    async with httpx.AsyncClient(trust_env=False) as http:
        senders = {Kind.WEBHOOK: WebhookSender(NotifierSettings(egress_allow="127.0.0.0/8"), http)}

        async def take(*job_ids: str) -> list[str]:
            outbox = Outbox(store, senders, Policy(3, 0.2))
            for job_id in job_ids:
                await outbox.take(completed(job_id))
            await outbox.resume()
            await outbox.idle()
            posts = [receiver.posts.get_nowait() for _ in range(receiver.posts.qsize())]
            return sorted(json.loads(p.body)["data"]["job_id"] for p in posts)

        async def replay(round_: str) -> list[str]:
            mine = first.again(round_, datetime.now(UTC))
            await store.put(keys.delivery(mine.job_id, mine.id), mine.model_dump_json().encode())
            await store.put(keys.delivery_marker(mine.job_id, mine.id), b"{}")
            return await take()

        assert await take("first") == ["first"]
        record = await recorded(store, first, lambda d: d.final)
        assert (record.state, record.attempts) == (State.GAVE_UP, 1)
        assert await take("later", "elsewhere", "of-acme") == ["elsewhere", "of-acme"]
        record = await recorded(store, later, lambda d: d.final)
        assert record.state is State.GAVE_UP
        assert "said 410 on 20" in record.last_answer and "replay" in record.last_answer
        assert (counted("refused"), counted("gave-up")) == (before[0] + 2, before[1])
        receiver.script[:] = [410]
        assert await replay("one") == ["first"]
        assert await store.exists(keys.gone(None, receiver.url))
        assert await replay("two") == ["first"]
        assert not await store.exists(keys.gone(None, receiver.url))
        assert await take("again") == ["again"]
        assert (await recorded(store, again, lambda d: d.final)).state is State.DELIVERED


async def test_a_notice_that_waits_hears_of_a_410_meanwhile(
    store: ObjectStore, receiver: Any
) -> None:
    """It was to be tried again: it is given up, and nothing more is sent."""
    receiver.script[:] = [500]
    waiting = await job(store, "waiting", receiver.url)
    async with httpx.AsyncClient(trust_env=False) as http:
        senders = {Kind.WEBHOOK: WebhookSender(NotifierSettings(egress_allow="127.0.0.0/8"), http)}
        # told long before the next attempt
        outbox = Outbox(store, senders, Policy(3, 5.0))
        await outbox.take(completed("waiting"))
        await recorded(store, waiting, lambda d: d.attempts == 1)
        said = Gone(said=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
        await store.put(keys.gone(None, receiver.url), said.model_dump_json().encode())
        await outbox.idle()
    record = await recorded(store, waiting, lambda d: d.final)
    assert record.state is State.GAVE_UP and "2026-01-02 03:04 UTC" in record.last_answer
    assert receiver.posts.qsize() == 1


async def test_a_replay_opens_what_its_first_notice_closed(
    store: ObjectStore, receiver: Any
) -> None:
    """The first was stored before anything said whose its job is, the replay after: the address is
    asked for as before by the next job that names nobody."""
    receiver.script[:] = [410]
    first = await job(store, "unowned", receiver.url)
    later = await job(store, "unowned-too", receiver.url)
    async with httpx.AsyncClient(trust_env=False) as http:
        senders = {Kind.WEBHOOK: WebhookSender(NotifierSettings(egress_allow="127.0.0.0/8"), http)}
        outbox = Outbox(store, senders, Policy(3, 0.2))
        await outbox.take(completed("unowned"))
        await outbox.idle()
        assert await store.exists(keys.gone(None, receiver.url))
        mine = first.again("one", datetime.now(UTC), "acme")
        assert mine.tenant == "acme"
        await store.put(keys.delivery(mine.job_id, mine.id), mine.model_dump_json().encode())
        await store.put(keys.delivery_marker(mine.job_id, mine.id), b"{}")
        await outbox.resume()
        await outbox.idle()
        assert not await store.exists(keys.gone(None, receiver.url))
        await outbox.take(completed("unowned-too"))
        await outbox.idle()
    assert (await recorded(store, later, lambda d: d.final)).state is State.DELIVERED


@pytest.mark.parametrize(("took_s", "closed"), [(29, True), (31, False)])
async def test_a_410_that_is_told_late_closes_nothing(
    store: ObjectStore, took_s: int, closed: bool
) -> None:
    """Whoever was stopped in its attempt until its lease was over may wake to a receiver that has
    long been mended: another notifier has asked since."""
    await job(store, "late", "http://receiver.example/hook")
    clock = [datetime.now(UTC)]

    async def answered(delivery: Delivery, now: datetime) -> Answer:
        clock[0] += timedelta(seconds=took_s)
        return classify(410, None, now)

    outbox = Outbox(store, {Kind.WEBHOOK: answered}, Policy(3, 0.2), now=lambda: clock[0])
    await outbox.take(completed("late"))
    await outbox.idle()
    assert await store.exists(keys.gone(None, "http://receiver.example/hook")) is closed
