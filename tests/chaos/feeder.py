"""A client of the system: submits jobs through each door, and tries again as clients do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx

from chaos import jobs
from chaos.figures import Figures
from chaos.installation import Installation
from chaos.jobs import Door, JobPlan, Picture
from chaos.oracle import Oracle
from chaos.watch import Watch
from frond.bus import EventProducer, Outgoing
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable, StoreUnavailable
from frond.contracts.events import Event, ImageUploaded, JobSealed
from frond.store import ObjectStore

T = TypeVar("T")

_AT_ONCE: Final = 8
_PAUSE_S: Final = 0.3
_PATIENCE_S: Final = 600.0
_LET_GO_S: Final = 60.0


class Feeder:
    """Submits jobs.

    Args:
        seed: of the run.
        first: the first job number that is this feeder's.
        webhook_url: where jobs ask to be told.

    Attributes:
        env: how this client reaches the system; directly, past any proxy.
    """

    def __init__(
        self,
        installation: Installation,
        oracle: Oracle,
        figures: Figures,
        watch: Watch,
        *,
        seed: int,
        first: int,
        webhook_url: str,
    ) -> None:
        self.installation = installation
        self.oracle = oracle
        self.figures = figures
        self.watch = watch
        self.seed = seed
        self.webhook_url = webhook_url
        self._number = first
        self._turn = 0
        key = installation.env.get("FROND_API_KEY", "")
        self._http = httpx.AsyncClient(
            timeout=20, trust_env=False, headers={"Authorization": f"Bearer {key}"} if key else {}
        )
        self._store: ObjectStore | None = None
        self._producer: EventProducer | None = None
        self._connecting = asyncio.Lock()

    # -- plans ---------------------------------------------------------------------------------

    def next(self, **wish: Any) -> JobPlan:
        """The next job; ``wish`` as :func:`chaos.jobs.plan` takes it."""
        self._number += 1
        return jobs.plan(self.seed, self._number, **wish)

    def big(self, images: int) -> JobPlan:
        """A job of many small scenes, by way of the ingest topic; two of them are spoilt."""
        return self.next(images=images, door=Door.TOPIC_SIZE, bad=2)

    # -- submitting ----------------------------------------------------------------------------

    async def submit(self, plan: JobPlan) -> None:
        """Submit a job. Returns once all of it is acknowledged, however long that takes.

        Raises:
            AssertionError: it was refused, or not acknowledged in ten minutes.
        """
        if plan.job_id not in self.oracle.plans:
            await asyncio.to_thread(self.oracle.submitting, plan)
        if plan.door is Door.PUT:
            await self._by_put(plan)
        else:
            await self._each(plan.images, lambda p: self._put_object(plan, p))
            if plan.door is Door.PREFIX:
                await self._by_prefix(plan)
            else:
                await self._by_topic(plan)
        if plan.job_id not in self.oracle.acknowledged:
            self.figures.jobs += 1
            self.figures.images += len(plan.images)
            self.oracle.acknowledge(plan)

    @asynccontextmanager
    async def flowing(
        self, at_once: int = 2, *, doors: Sequence[Door] = (), pause_s: float = 0.0
    ) -> AsyncIterator[None]:
        """While this lasts, small jobs are submitted, never more than so many of them open.

        What is being submitted at its end is submitted to its end.

        Args:
            doors: taken in turn; by default as :func:`chaos.jobs.plan` has it.
            pause_s: before each.
        """
        stop = asyncio.Event()
        flow = asyncio.create_task(self._flow(stop, at_once, doors, pause_s))
        try:
            yield
        except BaseException:
            # half a submission would leave an open job
            stop.set()
            await asyncio.wait({flow}, timeout=_LET_GO_S)
            flow.cancel()
            raise
        stop.set()
        await flow

    async def _flow(
        self, stop: asyncio.Event, at_once: int, doors: Sequence[Door], pause_s: float
    ) -> None:
        mine: set[str] = set()
        turns = itertools.cycle(doors or (None,))
        while not stop.is_set():
            if len(mine - self.watch.ended) >= at_once:
                await self.watch.any_change(1.0)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
            plan = self.next(door=next(turns))
            mine.add(plan.job_id)
            await self.submit(plan)

    def open_jobs(self) -> set[str]:
        """Acknowledged jobs whose completed event was not seen yet."""
        return self.oracle.acknowledged - self.watch.ended

    async def close(self) -> None:
        await self._http.aclose()
        if self._producer is not None:
            await self._producer.stop()
        if self._store is not None:
            self._store.close()

    # -- doors ---------------------------------------------------------------------------------

    def _hook(self, plan: JobPlan) -> str | None:
        return self.webhook_url if plan.webhook else None

    async def begin(self, plan: JobPlan) -> None:
        """The first step of a job by REST: it is there, and open for images."""
        body = {"job_id": plan.job_id, "webhook_url": self._hook(plan)}
        await self.ask("POST", "/jobs", json=body)

    async def _by_put(self, plan: JobPlan) -> None:
        job = quote(plan.job_id)
        await self.begin(plan)

        async def put(picture: Picture) -> None:
            data = await asyncio.to_thread(picture.data)
            await self.ask("PUT", f"/jobs/{job}/images/{quote(picture.name)}", content=data)

        await self._each(plan.images, put)
        await self.ask("POST", f"/jobs/{job}/seal", json={})

    async def _by_prefix(self, plan: JobPlan) -> None:
        body = {
            "s3_url": f"s3://{jobs.BUCKET}/{plan.prefix}", "job_id": plan.job_id,
            "webhook_url": self._hook(plan),
        }  # fmt: skip
        await self.ask("POST", "/start-job", json=body)

    async def _by_topic(self, plan: JobPlan) -> None:
        sized = plan.door is Door.TOPIC_SIZE
        size = len(plan.images)
        events: list[Event] = [
            ImageUploaded(
                job_id=plan.job_id, image=plan.uri(p), name=p.name, webhook_url=self._hook(plan),
                job_size=size if sized else None,
            )
            for p in plan.images
        ]  # fmt: skip
        if not sized:
            events.append(JobSealed(job_id=plan.job_id, job_size=size))
        await self.send(events)

    # -- one step, until it is done ------------------------------------------------------------

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request to any ingest process, again while it is unavailable. The answer is 2xx.

        Raises:
            AssertionError: the answer is an error that trying again does not mend.
        """
        end = time.monotonic() + _PATIENCE_S
        told = "no answer"
        while time.monotonic() < end:
            urls = [self.installation.url(n) for n in self.installation.names("ingest")]
            self._turn += 1
            try:
                answer = await self._http.request(
                    method, urls[self._turn % len(urls)] + path, **more
                )
            except (httpx.TransportError, ZeroDivisionError) as e:
                told = repr(e)
                await asyncio.sleep(_PAUSE_S)
                continue
            if answer.is_success:
                return answer
            told = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code >= 500 and not _is_civil(answer):
                self.figures.lose(f"{method} {path} was answered {told}")
            again = answer.status_code >= 500 or "retry-after" in answer.headers
            if not again:
                raise AssertionError(f"{method} {path} was refused: {told}")
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError(f"{method} {path} was not answered in time: {told}")

    async def send(self, events: Iterable[Event]) -> None:
        """Events on the ingest topic, as a publisher of its own sends them."""
        await self._until_taken(
            lambda: self._send([Outgoing(topics.UPLOADED, e) for e in events]), BrokerUnavailable
        )

    async def _send(self, events: list[Outgoing]) -> None:
        async with self._connecting:
            if self._producer is None:
                bootstrap = self.installation.stack.direct.kafka_bootstrap
                producer = EventProducer(bootstrap, "", "/chaos")
                await producer.start()
                self._producer = producer
        await self._producer.send(events)

    async def _put_object(self, plan: JobPlan, picture: Picture) -> None:
        data = await asyncio.to_thread(picture.data)
        if self._store is None:
            self._store = self.installation.store()
        store = self._store
        await self._until_taken(
            lambda: store.put(plan.key(picture), data, "image/tiff"), StoreUnavailable
        )

    async def _until_taken(self, step: Callable[[], Awaitable[T]], outage: type[Exception]) -> T:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await step()
            except outage as e:
                if time.monotonic() > end:
                    raise AssertionError(f"not taken in time: {e}") from e
                await asyncio.sleep(_PAUSE_S)

    async def _each(
        self, pictures: Iterable[Picture], work: Callable[[Picture], Awaitable[None]]
    ) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(picture: Picture) -> None:
            async with slots:
                await work(picture)

        await asyncio.gather(*(one(p) for p in pictures))


def _is_civil(answer: httpx.Response) -> bool:
    """An outage is told as one: a problem document, and when to come again; nothing else is."""
    return (
        answer.status_code in (503, 507)
        and "retry-after" in answer.headers
        and answer.headers.get("content-type") == "application/problem+json"
    )
