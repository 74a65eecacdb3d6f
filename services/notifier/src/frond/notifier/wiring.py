"""The notifier's one part: the completion topic in, deliveries out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from frond.bus import EventProducer, Outgoing, consume, ensure_topics
from frond.contracts import topics
from frond.contracts.deliveries import Kind
from frond.contracts.envelope import Envelope
from frond.contracts.events import JobCompleted
from frond.notifier.delivery import Policy
from frond.notifier.outbox import Outbox
from frond.notifier.send import MailSender, WebhookSender, webhook_client
from frond.notifier.settings import NO_SENDER, NotifierSettings
from frond.runtime import Service, get_logger, wait_out
from frond.store import ObjectStore, StoreSettings

_CONCURRENCY = 8
_log = get_logger(__name__)


async def notify(service: Service) -> None:
    """Deliver until the service is asked to stop."""
    settings = service.settings
    if not isinstance(settings, NotifierSettings):
        raise TypeError("the notifier needs NotifierSettings")
    if not settings.webhook_secret.get_secret_value():
        _log.warning("FROND_WEBHOOK_SECRET is empty: webhooks go out without a signature")
    if settings.smtp_url.get_secret_value() and settings.mail_from == NO_SENDER:
        _log.warning(
            f"FROND_MAIL_FROM is not set: many mail servers refuse e-mails from {NO_SENDER}"
        )
    service.health.expect("deliveries", "reading the outbox")
    store = ObjectStore(
        StoreSettings(
            settings.s3_endpoint, settings.s3_access_key,
            settings.s3_secret_key.get_secret_value(), settings.s3_bucket, settings.s3_region,
        )
    )  # fmt: skip
    bootstrap, prefix = settings.kafka_bootstrap, settings.topic_prefix
    producer = EventProducer(bootstrap, prefix, "/frond/notifier")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.close)
        http = await stack.enter_async_context(webhook_client(settings))
        outbox = Outbox(
            store,
            {Kind.WEBHOOK: WebhookSender(settings, http), Kind.EMAIL: MailSender(settings)},
            Policy(
                settings.webhook_max_retries,
                settings.webhook_retry_delay,
                settings.webhook_longest_s,
            ),
            lease_s=settings.lease_s,
            deadline_s=settings.deadline_s,
            public_url=settings.public_url,
        )
        replicas = settings.replication_factor
        await wait_out(
            lambda: ensure_topics(bootstrap, prefix, replication_factor=replicas),
            what="making topics",
        )
        await wait_out(store.ensure_bucket, what="making the bucket")
        await wait_out(producer.start, what="starting the producer")
        stack.push_async_callback(producer.stop)
        found = await wait_out(outbox.resume, what="reading the outbox")
        _log.info("deliveries resumed", pending=found)
        service.health.ready("deliveries")
        scan = asyncio.create_task(_rescan(outbox, settings.rescan_s))
        stack.push_async_callback(outbox.close, settings.deadline_s)
        stack.callback(scan.cancel)

        async def handle(envelope: Envelope) -> Sequence[Outgoing]:
            if isinstance(envelope.event, JobCompleted):
                await outbox.take(envelope.event)
            return ()

        await consume(
            service, topics.COMPLETED, handle, producer=producer, concurrency=_CONCURRENCY
        )


async def _rescan(outbox: Outbox, every_s: float) -> None:
    """Take up what another notifier left behind, for as long as the process lives."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await wait_out(outbox.resume, what="reading the outbox")
        except Exception as e:
            _log.error("the outbox could not be read", exc_info=e)
