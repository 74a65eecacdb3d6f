"""Webhook receivers that are down, fail, hang, ask for patience, lead inside, or want no more."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from chaos.jobs import FLIGHTS, JobPlan
from chaos.receiver import Delivery
from chaos.world import Mode, Needs, World
from frond.contracts import keys
from frond.contracts.deliveries import Delivery as Stored
from frond.contracts.events import ImageUploaded

NAME: Final = "receivers"
ABOUT: Final = (
    "a webhook receiver that is down for many attempts, answers 500, hangs, asks to wait, redirects "
    "to an inside address or says 410; notifiers are killed meanwhile"
)
NEEDS: Final = Needs(
    workers={"notifier": 2}, env={"FROND_EGRESS_ALLOW": "127.0.0.1", "FROND_DEADLINE_S": "2"}
)

_INSIDE: Final = "127.0.0.2"
"""No public address, and not on the operator's list."""
_WAIT_S: Final = 4
_BAD: Final = (Mode.ERROR, Mode.HANG, Mode.BUSY, Mode.REDIRECT)


class Inside:
    """A server that nothing must reach: it writes down every connection."""

    def __init__(self) -> None:
        seen = self.seen = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                # a connection is too much already, whatever is said on it
                seen.append(repr(self.client_address))

        self._server = ThreadingHTTPServer((_INSIDE, 0), Handler)
        self.url = f"http://{_INSIDE}:{self._server.server_port}/latest/meta-data/"

    @contextmanager
    def listening(self) -> Iterator[Inside]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


async def run(world: World) -> None:
    """Each kind of trouble once, then by chance until the time is over; then the receiver is well."""
    with Inside().listening() as inside:
        await _asked_inside(world, inside)
        await _down(world)
        for mode in _BAD:
            await _bad(world, mode, inside)
        await _gone(world)
        while not world.short and world.time_left > 60:
            step = world.rng.choice([Mode.DOWN, *_BAD])
            await (_down(world) if step is Mode.DOWN else _bad(world, step, inside))
        await world.ended()
        for address in inside.seen:
            world.figures.double(f"the inside address was reached from {address}")


async def _jobs(world: World) -> list[JobPlan]:
    """Some small jobs, ended but for their webhooks."""
    plans = [world.feeder.next(images=1, bad=0) for _ in range(2 if world.short else 4)]
    for plan in plans:
        await world.feeder.submit(plan)
    await world.ended([p.job_id for p in plans])
    return plans


async def _down(world: World) -> None:
    """Nobody listens for so many attempts as would take hours; both notifiers die on the way."""
    world.receiver.behave(Mode.DOWN)
    world.fault("receiver", mode=Mode.DOWN.value)
    plans = await _jobs(world)
    for attempts in (2, 4, 6) if world.short else (3, 6, 9, 12, 15):
        await _attempted(world, [p.job_id for p in plans], attempts)
        world.installation.kill(world.rng.choice(world.installation.names("notifier")))
    await _well_again(world, plans)


async def _bad(world: World, mode: Mode, inside: Inside) -> None:
    """Answers that ask for another attempt; a notifier dies while one is under way."""
    world.receiver.behave(mode, location=inside.url, retry_after=_WAIT_S)
    world.fault("receiver", mode=mode.value)
    plans = await _jobs(world)
    for more in (1, 2):
        await _told(world, plans, mode, more)
        world.installation.kill(world.rng.choice(world.installation.names("notifier")))
    await _told(world, plans, mode, 3)
    if mode is Mode.BUSY:
        for plan in plans:
            _waited(world, plan, world.receiver.of(plan.job_id))
    await _well_again(world, plans)


async def _gone(world: World) -> None:
    """410: nothing more is sent there, of these jobs and of later ones, whoever starts again; until
    a replay is taken."""
    world.receiver.behave(Mode.GONE)
    world.fault("receiver", mode=Mode.GONE.value)
    plans = await _jobs(world)
    await _settled(world, [p.job_id for p in plans])
    if not any(_answered(world, p, Mode.GONE) for p in plans):
        world.figures.lose("no webhook was sent to a receiver that says 410")
    world.receiver.behave(Mode.OK)
    counts = {p.job_id: len(world.receiver.of(p.job_id)) for p in plans}
    names = world.installation.names("notifier")
    for name in names:
        world.installation.kill(name)
    await world.installation.ready(*names)
    later = await _jobs(world)
    await _settled(world, [p.job_id for p in later])
    counts |= dict.fromkeys((p.job_id for p in later), 0)
    for job_id, count in counts.items():
        more = len(world.receiver.of(job_id)) - count
        if more:
            world.figures.double(f"{more} deliveries of {job_id} after its receiver said 410")
        world.gave_up.add(job_id)
    await _replayed(world, plans[0])
    await _well_again(world, await _jobs(world))


async def _replayed(world: World, plan: JobPlan) -> None:
    """One job's webhook is asked for once more and taken: its receiver wants all of them again."""
    job_id = plan.job_id
    while not (await world.feeder.ask("GET", f"/jobs/{job_id}")).json()["finished"]:  # noqa: ASYNC110
        await asyncio.sleep(0.3)  # the read model announces what it has read to nobody
    answer = await world.feeder.ask(
        "POST", f"/jobs/{job_id}/webhooks/replay", headers={"Idempotency-Key": "gone"}
    )
    (notice,) = answer.json()["webhooks"]
    # a calm run has no such round
    world.strangers += [keys.delivery(job_id, notice["id"]), f"{keys.deliveries(job_id)}rounds/1"]
    await _told(world, [plan], Mode.OK, 1)
    store = world.installation.store()
    try:
        async with asyncio.timeout(60):
            while await store.exists(keys.gone(None, world.receiver.url)):  # noqa: ASYNC110
                await asyncio.sleep(0.3)
    finally:
        store.close()


async def _asked_inside(world: World, inside: Inside) -> None:
    """A webhook that names an inside address: refused at the door; by topic, the job runs untold."""
    world.fault("receiver", mode="inside")
    plan = world.feeder.next(images=1, bad=0, webhook=False)
    body = {"job_id": f"{plan.job_id}-inside", "webhook_url": inside.url}
    try:
        await world.feeder.ask("POST", "/jobs", json=body)
    except AssertionError as e:
        if "422" not in str(e):
            raise
    else:
        world.figures.lose(f"the REST door takes {inside.url} for a webhook")
    job_id, picture = f"{plan.job_id}-inside", plan.images[0]
    key = f"{FLIGHTS}{job_id}/{picture.name}"
    # no client was told that it would be delivered
    world.strangers += [f"{p}{job_id}/*" for p in (keys.JOBS, FLIGHTS)]
    store = world.installation.store()
    await store.put(key, picture.data())
    event = ImageUploaded(
        job_id=job_id, image=store.uri(key), name=picture.name, job_size=1,
        webhook_url=inside.url,
    )  # fmt: skip
    store.close()
    await world.feeder.send([event])
    await world.ended([job_id])
    await _settled(world, [job_id])


# -- waiting ---------------------------------------------------------------------------------------


async def _stored(world: World, job_ids: Iterable[str]) -> dict[str, Stored]:
    """The notices of these jobs as the notifiers keep them."""
    store = world.installation.store()
    try:
        found: dict[str, Stored] = {}
        for job_id in job_ids:
            prefix = f"{keys.job_prefix(job_id)}deliveries/"
            async for item in store.list(prefix):
                if item.key.endswith(".json"):
                    found[job_id] = Stored.model_validate_json(await store.get(item.key))
        return found
    finally:
        store.close()


async def _attempted(world: World, job_ids: list[str], attempts: int) -> None:
    """Wait until every job's webhook was attempted so often."""
    async with asyncio.timeout(180):
        while True:
            found = await _stored(world, job_ids)
            if len(found) == len(job_ids) and all(d.attempts >= attempts for d in found.values()):
                return
            await asyncio.sleep(0.3)  # nothing announces an attempt that nobody answered


async def _settled(world: World, job_ids: list[str]) -> None:
    """Wait until every job's webhook has come to an end."""
    async with asyncio.timeout(180):
        while True:
            found = await _stored(world, job_ids)
            if len(found) == len(job_ids) and all(d.final for d in found.values()):
                return
            await asyncio.sleep(0.3)


async def _told(world: World, plans: list[JobPlan], mode: Mode, times: int) -> None:
    """Wait until every job's webhook was answered so often in this way."""
    async with asyncio.timeout(180):
        while any(len(_answered(world, p, mode)) < times for p in plans):
            await world.watch.any_change(0.2)  # the receiver is a thread of its own


def _answered(world: World, plan: JobPlan, mode: Mode) -> list[Delivery]:
    return [d for d in world.receiver.of(plan.job_id) if d.answered == mode.value]


async def _well_again(world: World, plans: list[JobPlan]) -> None:
    world.receiver.behave(Mode.OK)
    await _told(world, plans, Mode.OK, 1)


def _waited(world: World, plan: JobPlan, deliveries: list[Delivery]) -> None:
    """``Retry-After`` is honoured: no attempt comes sooner after the one before."""
    for one, other in itertools.pairwise(deliveries):
        pause = other.at - one.at
        # timestamps are taken by two processes
        if one.answered == Mode.BUSY.value and pause < _WAIT_S - 0.5:
            world.figures.double(f"{plan.job_id}: tried again after {pause:.1f} s, not {_WAIT_S}")
