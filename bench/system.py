"""The whole system for a measurement: a Kafka and a MinIO of its own, the five services as
processes with their default settings, and a client's view of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from frond.bus import ensure_topics
from frond.contracts import topics
from frond.contracts.events import JobCompleted
from frond.models.registry import Registry
from frond.stack import NativeStack
from frond.store import ObjectStore
from harness import WORK, Contender
from proc import cpu_s, families
from support.services import NAMES, Services, open_store

API_KEY = "bench-key"
SECRET = "whsec_" + "YmVuY2ggYmVuY2ggYmVuY2ggYmVuY2ggYmVuY2g="
OWN = ("aiokafka", "faust-streaming", "minio", "onnxruntime", "numpy", "rasterio")
"""The packages whose versions a measurement of the system tells."""


class System:
    """An installation without running services; a context manager.

    Args:
        name: of its folder under .frond/bench, emptied before and after.
        model: what jobs get that name none.
    """

    def __init__(self, name: str, model: str) -> None:
        self.folder = WORK / f"system-{name}"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "logs").mkdir(parents=True)
        self.stack = NativeStack(self.folder / "stack")
        self.env = {
            **self.stack.endpoints.env(),
            "FROND_TOPIC_PREFIX": "",
            "FROND_S3_BUCKET": "frond",
            "FROND_CACHE_DIR": str(self.folder / "cache"),
            "DATABASE_PATH": str(self.folder / "ingest.db"),
            "FROND_DEFAULT_MODEL": model,
            "FROND_API_KEY": API_KEY,
            "FROND_WEBHOOK_SECRET": SECRET,
            "FROND_EGRESS_ALLOW": "127.0.0.1",
        }
        self._jobs = 0

    def __enter__(self) -> Self:
        self.stack.start(lambda _: None)
        try:
            asyncio.run(self._prepare())
        except BaseException:
            self.stack.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _prepare(self) -> None:
        await ensure_topics(self.env["FROND_KAFKA_BOOTSTRAP"])
        store = self.store()
        await store.ensure_bucket()
        store.close()

    def store(self) -> ObjectStore:
        """The bucket; for one event loop, whoever asks closes it."""
        return open_store(self.env)

    def push(self, folder: Path) -> None:
        """A model into the registry."""

        async def work() -> None:
            store = self.store()
            await Registry(store).push(folder, alias="production")
            store.close()

        asyncio.run(work())

    def put(self, key: str, what: Path | bytes) -> str:
        """An object; returns its URI."""
        return self.put_all({key: what})[0]

    def put_all(self, objects: dict[str, Path | bytes]) -> list[str]:
        """Objects, several at once; returns their URIs."""

        async def work() -> list[str]:
            store, slots = self.store(), asyncio.Semaphore(16)

            async def one(key: str, what: Path | bytes) -> str:
                async with slots:
                    if isinstance(what, bytes):
                        await store.put(key, what, "image/tiff")
                    else:
                        await store.put_file(key, what, "image/tiff")
                return store.uri(key)

            try:
                return await asyncio.gather(*(one(k, v) for k, v in objects.items()))
            finally:
                store.close()

        return asyncio.run(work())

    def new_job(self) -> str:
        """A job id that was never used."""
        self._jobs += 1
        return f"bench-{self._jobs:05d}"

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[Running]:
        """The services (all five where none is named), ready; stopped on leaving."""
        services = Services(self.env, self.folder / "logs")
        services.start(*names)
        try:
            await services.ready()
            running = Running(self, services)
            async with running.listening():
                yield running
        except BaseException as e:
            # the folder will be gone
            for name in services.processes:
                e.add_note(f"--- {name}\n{services.tail(name)[-1500:]}")
            raise
        finally:
            await asyncio.to_thread(services.close)


@dataclass
class Ended:
    """A job's completed event, and when it was seen (``time.time``)."""

    at: float
    event: JobCompleted


@dataclass
class Running:
    """The system while its services run."""

    system: System
    services: Services
    _ended: dict[str, asyncio.Future[Ended]] = field(
        default_factory=lambda: defaultdict(asyncio.get_running_loop().create_future)
    )
    http: httpx.AsyncClient = field(init=False)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        url = self.services.url("ingest") if "ingest" in self.services.ports else "http://-"
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.system.env["FROND_KAFKA_BOOTSTRAP"], enable_auto_commit=False,
            auto_offset_reset="earliest",
        )  # fmt: skip
        await consumer.start()
        task = None
        try:
            name, partitions = topics.COMPLETED.name, range(topics.COMPLETED.partitions)
            consumer.assign([TopicPartition(name, p) for p in partitions])
            await consumer.seek_to_end()
            task = asyncio.create_task(self._hear(consumer))
            async with httpx.AsyncClient(
                base_url=url, timeout=120, trust_env=False,
                headers={"Authorization": f"Bearer {API_KEY}"},
            ) as self.http:  # fmt: skip
                yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await consumer.stop()

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        async for message in consumer:
            at = time.time()
            event = JobCompleted.model_validate_json(message.value)
            if not self._ended[event.job_id].done():
                self._ended[event.job_id].set_result(Ended(at, event))

    async def completed(self, job_id: str, within: float) -> Ended:
        """A job's end, which must be without errors."""
        try:
            ended = await asyncio.wait_for(asyncio.shield(self._ended[job_id]), within)
        except TimeoutError:
            raise RuntimeError(f"{job_id} did not end in {within:.0f} s") from None
        if ended.event.outcome != "completed":
            raise RuntimeError(f"{job_id}: {ended.event.model_dump_json()[:1000]}")
        return ended

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request to the REST service, answered with 2xx."""
        return (await self.http.request(method, path, **more)).raise_for_status()

    async def start_job(self, uri: str, **wish: Any) -> str:
        """A job with an object, or with everything under a prefix."""
        job_id = self.system.new_job()
        await self.ask("POST", "/start-job", json={"s3_url": uri, "job_id": job_id, **wish})
        return job_id

    async def run_job(self, uri: str, within: float, **wish: Any) -> Ended:
        """:meth:`start_job`, and wait for its end."""
        return await self.completed(await self.start_job(uri, **wish), within)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by process name; those of a service's children are its own."""
        roots = {name: p.pid for name, p in self.services.processes.items()}
        roots |= self.system.stack.pids()
        return {name: sum(map(cpu_s, pids)) for name, pids in families(roots).items()}


def contender(name: str, work: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> Contender:
    """Frond's whole system as a contender: ``work`` starts it, measures, and stops it."""
    return Contender(name, "", {}, frond=True, call=lambda: asyncio.run(work()))


class Timed:
    """What a measured stretch took: seconds, CPU seconds by process and together."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._cpu = running.cpu()
        self.began = time.time()

    def figures(self, ended: float | None = None) -> dict[str, Any]:
        seconds = (ended or time.time()) - self.began
        spent = {k: v - self._cpu.get(k, 0.0) for k, v in self._running.cpu().items()}
        own = sum(v for k, v in spent.items() if k in NAMES)
        return {"seconds": seconds, "cpu": own, **{f"cpu {k}": v for k, v in spent.items()}}


def stages(event: JobCompleted) -> dict[str, float]:
    """The completed event's own account of where its time went."""
    return {f"stage {k}": v for k, v in event.timings.model_dump().items()}


def told(one: Contender) -> str:
    """Where a contender's time went, in words; medians of its rounds."""
    if one.over or not one.rounds:
        return ""
    keys = one.rounds[0]
    cpu = ", ".join(f"{k[4:]} {one.median(k):.3g}" for k in keys if k.startswith("cpu "))
    parts = ", ".join(f"{k[6:]} {one.median(k):.3g}" for k in keys if k.startswith("stage "))
    said = f"CPU seconds by process: {cpu}. " if cpu else ""
    if parts:
        said += f"Seconds by stage, of work that partly overlaps: {parts}."
    return said


def endpoints_json(system: System) -> str:
    """For contenders in processes of their own."""
    return json.dumps(system.env)
