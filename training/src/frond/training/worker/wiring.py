"""The worker's one part: requests and drift in, trained versions out."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from frond.bus import EventProducer, consume, ensure_topics
from frond.contracts import topics
from frond.models.registry import Registry
from frond.models.trainings import Trainings
from frond.runtime import Service, get_logger, wait_out
from frond.store import ObjectStore, StoreSettings
from frond.training.worker import drifted
from frond.training.worker.handlers import Handlers
from frond.training.worker.settings import TrainingSettings
from frond.training.worker.trainer import Policy, Trainer
from frond.training.worker.watch import DriftWatch

_log = get_logger(__name__)


async def work(service: Service) -> None:
    """Train until the service is asked to stop. A broker that is away keeps nobody from training."""
    settings = service.settings
    if not isinstance(settings, TrainingSettings):
        raise TypeError("the training worker needs TrainingSettings")
    service.health.expect("training", "making the bucket")
    store = ObjectStore(
        StoreSettings(
            settings.s3_endpoint, settings.s3_access_key,
            settings.s3_secret_key.get_secret_value(), settings.s3_bucket, settings.s3_region,
        )
    )  # fmt: skip
    with contextlib.closing(store):
        await wait_out(store.ensure_bucket, what="making the bucket")
        trainings, registry = Trainings(store), Registry(store)
        trainer = Trainer(trainings, registry, _policy(settings))
        watch = DriftWatch(store, trainings, registry, settings.on_drift, when_drifted(settings))
        service.health.ready("training")
        async with asyncio.TaskGroup() as tasks:
            training = tasks.create_task(trainer.run(service.stop))
            handlers = Handlers(trainings, watch, trainer.wake)
            reading = tasks.create_task(_read(service, settings, handlers))
            # a broker that never comes keeps the worker from nothing, nor from ending
            await training
            _, late = await asyncio.wait({reading}, timeout=settings.training_stop_s)
            for task in late:
                task.cancel()


def when_drifted(settings: TrainingSettings) -> drifted.Policy:
    """When drift asks for training."""
    return drifted.Policy(
        settings.training_drift_periods, timedelta(seconds=settings.training_rest_s)
    )


def _policy(settings: TrainingSettings) -> Policy:
    return Policy(
        program=settings.program, data=settings.training_data, configs=settings.training_configs,
        out=settings.training_out, track=settings.track, max_s=settings.training_max_s,
        attempts=settings.training_attempts, lease_s=settings.training_lease_s,
        progress_s=settings.training_progress_s, look_s=settings.training_look_s,
        stop_s=settings.training_stop_s,
    )  # fmt: skip


async def _read(service: Service, settings: TrainingSettings, handlers: Handlers) -> None:
    """Requests, and drift where it is watched. Their events are handled in a moment: training waits
    for none of them, and no partition for a training."""
    bootstrap, prefix = settings.kafka_bootstrap, settings.topic_prefix
    producer = EventProducer(bootstrap, prefix, "/frond/training")
    replicas = settings.replication_factor
    await wait_out(
        lambda: ensure_topics(bootstrap, prefix, replication_factor=replicas), what="making topics"
    )
    await wait_out(producer.start, what="starting the producer")

    async def requests() -> None:
        await consume(
            service, topics.TRAINING, handlers.requested, producer=producer, concurrency=1
        )

    async def drift() -> None:
        group = settings.group(f"{service.name}-drift")
        await consume(
            service, topics.DRIFT, handlers.observed, producer=producer, concurrency=1, group=group
        )

    try:
        async with asyncio.TaskGroup() as tasks:
            # what makes other services begin anew, a broker that has been silent for long, ends no
            # training: the next consumer is as new as the next process would be
            tasks.create_task(wait_out(requests, what="reading requests for training"))
            if settings.on_drift:
                tasks.create_task(wait_out(drift, what="reading of drift"))
    finally:
        await producer.stop()
