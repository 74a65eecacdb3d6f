"""The notifier on a real broker, a real store, real receivers; killed and started again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from notifier_world import completed, job, recorded
from pydantic import SecretStr
from standardwebhooks import Webhook

from frond.bus import EventProducer, Outgoing, ensure_topics
from frond.contracts import keys, topics
from frond.contracts.deliveries import Delivery, Kind, State
from frond.contracts.jobs import JobSpec, ModelRef
from frond.contracts.signing import tenant_secrets
from frond.notifier.delivery import Answer, Policy
from frond.notifier.outbox import Outbox
from frond.notifier.send import WebhookSender
from frond.notifier.settings import NotifierSettings
from frond.notifier.wiring import _rescan
from frond.store import ObjectStore

pytestmark = pytest.mark.stack

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Notifier:
    """A notifier process."""

    def __init__(self, env: dict[str, str], port: int, log: Path) -> None:
        self.env = {**env, "FROND_HTTP_PORT": str(port)}
        self.port = port
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "frond.notifier"], env=self.env, stdout=out, stderr=out
            )

    async def start(self) -> None:
        self.launch()
        assert self.process is not None
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(180):
            while True:
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                with suppress(httpx.HTTPError):
                    if (await http.get(f"http://127.0.0.1:{self.port}/ready")).is_success:
                        return
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def notifier(
    service_env: dict[str, str], free_port: Callable[[], int], tmp_path: Path
) -> Iterator[Notifier]:
    env = {
        **service_env,
        "FROND_WEBHOOK_SECRET": SECRET,
        "WEBHOOK_RETRY_DELAY": "0.5",
        "FROND_DEADLINE_S": "8",
        "FROND_LEASE_S": "12",
    }
    made = Notifier(env, free_port(), tmp_path / "notifier.log")
    yield made
    made.kill()


async def send(env: dict[str, str], *job_ids: str) -> None:
    bootstrap, prefix = env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"]
    await ensure_topics(bootstrap, prefix)
    producer = EventProducer(bootstrap, prefix, "/test")
    await producer.start()
    await producer.send([Outgoing(topics.COMPLETED, completed(j)) for j in job_ids])
    await producer.stop()


async def next_post(receiver: Any) -> Any:
    return await asyncio.to_thread(receiver.next)


async def gone(store: ObjectStore, key: str) -> None:
    async with asyncio.timeout(120):
        while await store.exists(key):  # noqa: ASYNC110 # the store tells nobody
            await asyncio.sleep(0.02)


async def test_two_failures_then_success(
    notifier: Notifier, store: ObjectStore, service_env: dict[str, str], receiver: Any
) -> None:
    """Every attempt is signed anew under one id; at the end the record says delivered."""
    receiver.script[:] = [500, 503]
    expected = await job(store, "survey-7", receiver.url)
    await notifier.start()
    await send(service_env, "survey-7")
    posts = [await next_post(receiver) for _ in range(3)]
    assert {p.headers["webhook-id"] for p in posts} == {expected.event_id}
    for post in posts:
        body = Webhook(SECRET).verify(post.body, post.headers)
        assert body["data"]["job_id"] == "survey-7"
        assert body["data"]["detections"] == {"palm": 7}
    record = await recorded(store, expected, lambda d: d.final)
    assert (record.state, record.attempts) == (State.DELIVERED, 3)
    await gone(store, keys.delivery_marker("survey-7", expected.id))
    assert receiver.posts.empty()


async def test_a_kill_between_attempts_loses_nothing(
    notifier: Notifier, store: ObjectStore, service_env: dict[str, str], receiver: Any
) -> None:
    """SIGKILL after a failed attempt: the next notifier goes on where the first had come to."""
    receiver.script[:] = [500, 500]
    expected = await job(store, "survey-8", receiver.url)
    notifier.env["WEBHOOK_RETRY_DELAY"] = "3"
    await notifier.start()
    await send(service_env, "survey-8")
    await next_post(receiver)
    before = await recorded(store, expected, lambda d: d.attempts == 1)
    notifier.kill()
    assert before.next_attempt is not None
    notifier.env["WEBHOOK_RETRY_DELAY"] = "0.2"
    await notifier.start()
    await next_post(receiver)
    assert datetime.now(UTC) >= before.next_attempt
    last = await next_post(receiver)
    Webhook(SECRET).verify(last.body, last.headers)
    record = await recorded(store, expected, lambda d: d.final)
    assert (record.state, record.attempts) == (State.DELIVERED, 3)


async def test_a_kill_during_an_attempt_makes_it_again(
    notifier: Notifier, store: ObjectStore, service_env: dict[str, str], receiver: Any
) -> None:
    """Nobody knows whether it arrived; it comes again under the same id, and counts as one."""
    receiver.gate.clear()
    expected = await job(store, "survey-9", receiver.url)
    await notifier.start()
    await send(service_env, "survey-9")
    first = await next_post(receiver)
    notifier.kill()
    receiver.gate.set()
    await notifier.start()
    again = await next_post(receiver)
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    record = await recorded(store, expected, lambda d: d.final)
    assert (record.state, record.attempts) == (State.DELIVERED, 2)


async def test_the_same_event_twice_is_one_delivery(store: ObjectStore, receiver: Any) -> None:
    """Two notifiers at once, and the same event again later: one request."""
    await job(store, "survey-1", receiver.url)
    async with httpx.AsyncClient(trust_env=False) as http:
        senders = {Kind.WEBHOOK: WebhookSender(NotifierSettings(egress_allow="127.0.0.0/8"), http)}
        outboxes = [Outbox(store, senders, Policy(3, 0.2)) for _ in range(3)]
        await asyncio.gather(*(o.take(completed("survey-1")) for o in outboxes))
        await asyncio.gather(*(o.idle() for o in outboxes))
        await outboxes[0].take(completed("survey-1"))
        await outboxes[0].idle()
        assert await outboxes[1].resume() == 0
    assert receiver.posts.qsize() == 1


async def test_an_event_that_the_broker_lost_is_told_all_the_same(
    notifier: Notifier, store: ObjectStore, receiver: Any
) -> None:
    """A job has ended and nothing is on the topic: the note beside it has the webhook sent, once."""
    expected = await job(store, "survey-10", receiver.url)
    await store.put(
        keys.job_completed("survey-10"), completed("survey-10").model_dump_json().encode()
    )
    for job_id in ("survey-10", "deleted"):
        await store.put(keys.untold_marker(job_id), b"{}")
    await notifier.start()
    post = await next_post(receiver)
    assert post.headers["webhook-id"] == expected.event_id
    assert (await recorded(store, expected, lambda d: d.final)).attempts == 1
    for job_id in ("survey-10", "deleted"):
        await gone(store, keys.untold_marker(job_id))
    assert receiver.posts.empty()


async def test_what_cannot_be_read_holds_up_its_own_job_alone(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """A torn spec, a torn event: both are told in the log, and the jobs behind them are taken up."""
    sent: list[str] = []

    async def send(delivery: Delivery, now: datetime) -> Answer:
        sent.append(delivery.job_id)
        return Answer(State.DELIVERED, "HTTP 200")

    for job_id in ("torn-event", "torn-spec", "whole"):
        await job(store, job_id, "http://receiver.example/hook")
        event = completed(job_id).model_dump_json().encode()
        await store.put(keys.job_completed(job_id), event)
        await store.put(keys.untold_marker(job_id), b"{}")
    await store.put(keys.job_spec("torn-spec"), b"")
    await store.put(keys.job_completed("torn-event"), event[:50])
    outbox = Outbox(store, {Kind.WEBHOOK: send}, Policy(3, 0.2))
    await outbox.resume()
    await outbox.idle()
    assert sent == ["whole"]
    told = capsys.readouterr().out
    assert "job_id=torn-event" in told and "job_id=torn-spec" in told
    for job_id in ("torn-event", "torn-spec"):
        await store.delete(keys.untold_marker(job_id))


async def test_a_scan_that_fails_is_not_the_last_one(store: ObjectStore) -> None:
    """Whatever a round meets: without the next ones, nothing that was left behind is taken up."""
    again = asyncio.Event()

    class Failing(Outbox):
        rounds = 0

        async def resume(self) -> int:
            self.rounds += 1
            if self.rounds < 3:
                raise ValueError("out of the blue")
            again.set()
            return 0

    scan = asyncio.create_task(_rescan(Failing(store, {}, Policy(3, 0.2)), 0.01))
    async with asyncio.timeout(20):
        await again.wait()
    scan.cancel()


async def test_a_job_without_a_spec_tells_whom_its_images_named(
    store: ObjectStore, receiver: Any
) -> None:
    """Every image was refused, so nothing was pinned; a spec's own address goes before."""
    elsewhere = f"{receiver.url}/other"
    for job_id, url in (("refused", receiver.url), ("pinned", elsewhere), ("partly", receiver.url)):
        stored = json.dumps({"webhook_url": url, "email": None}).encode()
        await store.put(keys.job_notify(job_id), stored)
    await job(store, "pinned", receiver.url)
    await job(store, "partly")
    async with httpx.AsyncClient(trust_env=False) as http:
        outbox = Outbox(
            store,
            {Kind.WEBHOOK: WebhookSender(NotifierSettings(egress_allow="127.0.0.0/8"), http)},
            Policy(3, 0.2),
        )
        for job_id in ("refused", "pinned", "partly"):
            await outbox.take(completed(job_id))
        await outbox.idle()
    posts = [receiver.next() for _ in range(3)]
    assert {json.loads(p.body)["data"]["job_id"] for p in posts} == {"refused", "pinned", "partly"}
    assert {p.path for p in posts} == {"/hook"}
    assert receiver.posts.empty()


async def test_a_notice_is_its_tenants(store: ObjectStore, receiver: Any) -> None:
    """By spec or by its images alone: stored with the tenant, and signed with this tenant's secret."""
    to = {"webhook_url": receiver.url, "tenant": "acme"}
    spec = JobSpec(job_id="by-spec", model=ModelRef(name="m", digest="0" * 64), **to)
    await store.put(keys.job_spec("by-spec"), spec.model_dump_json().encode())
    await store.put(keys.job_notify("by-images"), json.dumps(to).encode())
    async with httpx.AsyncClient(trust_env=False) as http:
        sender = WebhookSender(
            NotifierSettings(egress_allow="127.0.0.0/8", webhook_secret=SecretStr(SECRET)), http
        )
        outbox = Outbox(store, {Kind.WEBHOOK: sender}, Policy(3, 0.2))
        for job_id in ("by-spec", "by-images"):
            await outbox.take(completed(job_id))
        await outbox.idle()
    for post in (receiver.next(), receiver.next()):
        Webhook(tenant_secrets(SECRET, "acme")).verify(post.body, post.headers)


async def test_a_notice_keeps_the_links_it_was_promised_with(
    store: ObjectStore, receiver: Any
) -> None:
    """The notifier is started again with another FROND_PUBLIC_URL between two attempts: the same
    bytes under the same id."""
    receiver.script[:] = [500]
    expected = await job(store, "moved", receiver.url)
    async with httpx.AsyncClient(trust_env=False) as http:

        def started(public_url: str) -> Outbox:
            set_ = NotifierSettings(egress_allow="127.0.0.0/8", public_url=public_url)
            senders = {Kind.WEBHOOK: WebhookSender(set_, http)}
            return Outbox(store, senders, Policy(3, 2.0), public_url=public_url)

        old = started("https://old.example")
        await old.take(completed("moved"))
        await recorded(store, expected, lambda d: d.attempts == 1)
        await old.close(5)
        new = started("https://new.example")
        await new.take(completed("moved"))
        await new.idle()
    posts = [receiver.next() for _ in range(2)]
    assert posts[0].body == posts[1].body and b"https://old.example/status/moved" in posts[0].body


async def test_a_job_deleted_meanwhile_ends_its_deliveries(
    store: ObjectStore, receiver: Any
) -> None:
    """Nothing is written below a job that is no more, and its marker goes."""
    receiver.script[:] = [500]
    expected = await job(store, "survey-3", receiver.url)
    async with httpx.AsyncClient(trust_env=False) as http:
        outbox = Outbox(
            store,
            {Kind.WEBHOOK: WebhookSender(NotifierSettings(egress_allow="127.0.0.0/8"), http)},
            # deleted long before the next attempt
            Policy(3, 5.0),
        )
        await outbox.take(completed("survey-3"))
        await recorded(store, expected, lambda d: d.attempts == 1)
        await store.delete_prefix(keys.job_prefix("survey-3"))
        await outbox.idle()
    assert [o.key async for o in store.list("")] == []
    assert receiver.posts.qsize() == 1


async def test_an_email_by_real_smtp(
    notifier: Notifier, store: ObjectStore, service_env: dict[str, str], mailbox: Any
) -> None:
    """Greylisted once, then taken; a job without addresses asks for nothing. That nobody said whom
    e-mails come from is told at the start."""
    mailbox.script[:] = ["450 come back later"]
    expected = await job(store, "survey-4", email="ana@example.org")
    await job(store, "silent")
    notifier.env["FROND_SMTP_URL"] = mailbox.url
    await notifier.start()
    assert "FROND_MAIL_FROM is not set" in notifier.log.read_text()
    await send(service_env, "silent", "survey-4", "unknown-job")
    mail = await asyncio.to_thread(mailbox.mails.get, timeout=60)
    assert mail["subject"] == "Frond: job survey-4 has completed"
    assert "7 palm" in mail.get_content()
    record = await recorded(store, expected, lambda d: d.final)
    assert (record.state, record.attempts) == (State.DELIVERED, 2)
    raw = json.loads(await store.get(keys.delivery("survey-4", expected.id)))
    assert raw["kind"] == "email"
