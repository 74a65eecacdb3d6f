"""After a scenario, from outside: is everything there, once, and nothing else?

Nothing here asks a service for its own counts but the read model, which is held against the
completed events. What is seen here is judged in :mod:`chaos.verdict`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from typing import Any, Final

import httpx

from chaos import outside, verdict
from chaos.installation import API_KEY
from chaos.jobs import FUZZ, JobPlan
from chaos.outside import Copy
from chaos.world import World
from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.store import ObjectStore

SETTLE_S: Final = 120.0
_CHECKED_AT_ONCE: Final = 8


async def verify(world: World, others: set[str]) -> dict[str, bytes]:
    """Count what is lost or doubled into the world's figures.

    Args:
        others: jobs that an earlier scenario brought into the same installation.

    Returns:
        The digests of this scenario's objects, for the comparison with the calm run.
    """
    figures, installation = world.figures, world.installation
    bootstrap = installation.stack.direct.kafka_bootstrap
    for name in installation.everything():
        installation.thaw(name)
    try:
        await installation.ready()
    except (AssertionError, TimeoutError) as e:
        figures.lose(f"the installation does not come back: {e}")
        return {}
    store = installation.store()
    try:
        await _ended(world)
        world.say("waiting until nothing is open")
        await _settled(world, store, others)
        for pid, name in installation.orphans().items():
            figures.lose(f"orphan: process {pid} of a {name} that has died")
        world.say("reading the completed topic and the jobs' results")
        copies = await outside.completed_copies(bootstrap)
        for job_id, earlier in world.copies_before.items():
            copies[job_id] = earlier + copies.get(job_id, [])
        for job_id in copies.keys() - world.oracle.plans.keys() - others:
            if not outside.matches(keys.job_completed(job_id), world.strangers):
                figures.double(f"job {job_id} ended and nobody submitted it")
        for job_id, seen in copies.items():
            # those of earlier scenarios too: a job may be told again at any time
            if not job_id.startswith(FUZZ):
                verdict.one_ending(figures, job_id, seen)
        slots = asyncio.Semaphore(_CHECKED_AT_ONCE)

        async def check(plan: JobPlan) -> None:
            async with slots:
                await _job(world, store, plan, copies.get(plan.job_id, []))

        plans = world.oracle.plans
        await asyncio.gather(*(check(plans[j]) for j in sorted(world.oracle.acknowledged)))
        await _read_model(world, copies)
        verdict.driven(figures, installation.driven_again(), world.robbed)
        _webhooks(world)
        world.rubbish.judge(figures, await outside.dead_letters(bootstrap))
        return await _objects(world, store, others)
    finally:
        store.close()


async def _ended(world: World) -> None:
    # those that are missing are told by name where their copies are looked for
    with contextlib.suppress(AssertionError):
        await world.ended(within=SETTLE_S)


async def _settled(world: World, store: ObjectStore, others: set[str]) -> None:
    def mine(key: str) -> bool:
        return (
            (outside.job_of(key) or "") not in others
            and not outside.matches(key, world.strangers)
            and (world.receiver_lived or not key.startswith(keys.DELIVERIES))
        )

    deadline = time.monotonic() + SETTLE_S
    bootstrap = world.installation.stack.direct.kafka_bootstrap
    while left := await outside.unsettled(store, bootstrap, mine):
        if time.monotonic() > deadline:
            for what in left:
                world.figures.lose(what)
            return
        await asyncio.sleep(0.5)  # commits and markers announce themselves to nobody


async def _job(world: World, store: ObjectStore, plan: JobPlan, copies: list[Copy]) -> None:
    figures, job_id = world.figures, plan.job_id
    if not copies:
        figures.lose(f"job {job_id} has no completed event")
        return
    try:
        stored = await store.get(keys.job_completed(job_id))
        headers = await store.get(f"{keys.job_prefix(job_id)}completed.headers.json")
        summary = json.loads(await store.get(keys.result(job_id, "summary.json")))
        coco = json.loads(await store.get(keys.result(job_id, "coco.json")))
    except ObjectMissing as e:
        figures.lose(f"job {job_id}: {e}")
        return
    value = hashlib.sha256(stored).hexdigest()
    verdict.as_stored(figures, job_id, copies[0], value, outside.stored_headers(headers))
    assert copies[0].event is not None
    verdict.images(figures, plan, copies[0].event, summary, coco)


async def _read_model(world: World, copies: dict[str, list[Copy]]) -> None:
    """Every ingest process tells of each job what its completed event tells."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    deadline = time.monotonic() + SETTLE_S
    async with httpx.AsyncClient(timeout=20, trust_env=False, headers=headers) as http:
        for name in world.installation.names("ingest"):
            for job_id in sorted(world.oracle.acknowledged & copies.keys()):
                event = copies[job_id][0].event
                assert event is not None
                while told := await _tells(http, world.installation.url(name), job_id, event):
                    if time.monotonic() > deadline:
                        world.figures.lose(f"{name} tells otherwise of job {job_id}: {told}")
                        break
                    await asyncio.sleep(0.3)  # the read model announces what it has read to nobody


async def _tells(http: httpx.AsyncClient, url: str, job_id: str, event: dict[str, Any]) -> str:
    """What is wrong with what GET /jobs/{id} says; empty when nothing is."""
    try:
        answer = await http.get(f"{url}/jobs/{job_id}")
    except httpx.TransportError as e:
        return repr(e)
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text[:200]}"
    return verdict.told_otherwise(answer.json(), event)


def _webhooks(world: World) -> None:
    spans = verdict.causes(world.oracle.noted)
    for job_id in sorted(world.oracle.plans):
        asked = world.oracle.plans[job_id].webhook
        must = (
            world.receiver_lived and job_id in world.oracle.acknowledged
            and job_id not in world.gave_up
        )  # fmt: skip
        got = world.receiver.of(job_id)
        verdict.notices(world.figures, job_id, got, asked=asked, least=int(must), spans=spans)
    known = world.oracle.plans.keys() | world.guests
    got = world.receiver.deliveries[world.posted_before :]
    world.posted_judged = world.posted_before + len(got)
    verdict.strays(world.figures, got, known)


async def _objects(world: World, store: ObjectStore, others: set[str]) -> dict[str, bytes]:
    uploads = await asyncio.to_thread(outside.unfinished_uploads, world.installation.drive)
    for upload in uploads:
        world.figures.lose(f"orphan: an unfinished multipart upload {upload}")

    def wanted(key: str) -> bool:
        return (outside.job_of(key) or "") not in others and not outside.matches(
            key, world.strangers
        )

    found = await outside.digests(
        store, wanted, lambda n: world.say(f"{n} objects read") if n % 2000 == 0 else None
    )
    world.figures.objects += len(found)
    return found
