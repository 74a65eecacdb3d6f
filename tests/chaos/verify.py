"""After a scenario, from outside: is everything there, once, and nothing else?

Nothing here asks a service for its own counts but the read model, which is held against the
completed events.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import Counter
from typing import Any, Final

import httpx

from chaos import outside
from chaos.figures import Figures
from chaos.installation import API_KEY
from chaos.jobs import EXPECTED, Bad, JobPlan
from chaos.outside import Copy
from chaos.receiver import Delivery
from chaos.world import World
from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.store import ObjectStore

SETTLE_S: Final = 120.0
FUZZ: Final = "fuzz-"
"""What ids of jobs begin with that were made up of rubbish: their events may say anything."""
_CHECKED_AT_ONCE: Final = 8

CHECKS: Final = (
    "every image of every acknowledged job is in its job's summary once, with a reason if it was"
    " spoilt, and in coco.json if it was not",
    "all copies of a job's completed event have one ce_id, the same bytes and headers, and are"
    " equal to the stored one; images = completed + failed",
    "webhook deliveries of a job have one webhook-id, one body and a good signature, and at least"
    " one was taken",
    "every object is byte for byte that of a calm run of the same jobs, and there is no other",
    "no open ledger, no open delivery, no unfinished multipart upload, no dead letter, no helper"
    " process of a worker that has died",
    "every consumer group has committed all topics to their ends; the read model tells of each job"
    " what its completed event tells",
)


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
                _one_ending(figures, job_id, seen)
        slots = asyncio.Semaphore(_CHECKED_AT_ONCE)

        async def check(plan: JobPlan) -> None:
            async with slots:
                await _job(world, store, plan, copies.get(plan.job_id, []))

        plans = world.oracle.plans
        await asyncio.gather(*(check(plans[j]) for j in sorted(world.oracle.acknowledged)))
        await _read_model(world, copies)
        if helped := installation.driven_again():
            figures.notes.append(f"jobs that stood still and were driven again: {helped}×")
        _webhooks(world)
        if not world.dead_letters:
            for told in world.watch.dead_letters[world.dead_before :]:
                figures.lose(f"dead letter: {told}")
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


def _one_ending(figures: Figures, job_id: str, copies: list[Copy]) -> None:
    for what, seen in (
        ("ids", {c.ce_id for c in copies}), ("bodies", {c.value for c in copies}),
        ("headers", {c.headers for c in copies}),
    ):  # fmt: skip
        if len(seen) > 1:
            figures.double(f"job {job_id} has completed events of {len(seen)} different {what}")


async def _job(world: World, store: ObjectStore, plan: JobPlan, copies: list[Copy]) -> None:
    figures, job_id = world.figures, plan.job_id
    if not copies:
        figures.lose(f"job {job_id} has no completed event")
        return
    try:
        stored = await store.get(keys.job_completed(job_id))
        summary = json.loads(await store.get(keys.result(job_id, "summary.json")))
        coco = json.loads(await store.get(keys.result(job_id, "coco.json")))
    except ObjectMissing as e:
        figures.lose(f"job {job_id}: {e}")
        return
    if hashlib.sha256(stored).hexdigest() != copies[0].value:
        figures.double(f"job {job_id}: the sent completed event is not the stored one")
    assert copies[0].event is not None
    _images(figures, plan, copies[0].event, summary, coco)


def _images(
    figures: Figures, plan: JobPlan, event: dict[str, Any], summary: dict[str, Any],
    coco: dict[str, Any],
) -> None:  # fmt: skip
    job_id = plan.job_id
    wanted = {plan.image_id(p): p for p in plan.images}
    good = sum(p.bad is Bad.NO for p in plan.images)
    counts = {"expected": len(wanted), "completed": good, "failed": len(wanted) - good}
    if event["images"] != counts:
        figures.lose(f"job {job_id}: completed event says {event['images']}, not {counts}")
    listed = Counter(i["image_id"] for i in summary["images"])
    told = {i["image_id"]: i for i in summary["images"]}
    drawn = Counter(i["file_name"] for i in coco["images"])
    for image_id, times in listed.items():
        if times > 1 or image_id not in wanted:
            figures.double(f"job {job_id}: image {image_id} is in the summary {times} times")
    for image_id, picture in wanted.items():
        found = told.get(image_id)
        if found is None:
            figures.lose(f"job {job_id}: image {picture.name} is not in the summary")
        elif picture.bad is Bad.NO:
            squares = sum(found["detections"].values())
            if found["status"] != "completed":
                figures.lose(f"job {job_id}: {picture.name} failed: {found['reason']}")
            elif squares != picture.count:
                figures.lose(f"job {job_id}: {picture.name} has {squares} of {picture.count}")
            if (times := drawn[picture.name]) != 1:
                (figures.double if times else figures.lose)(
                    f"job {job_id}: {picture.name} is {times} times in coco.json"
                )
        elif found["status"] != "failed" or found["reason"] not in EXPECTED[picture.bad]:
            figures.lose(
                f"job {job_id}: {picture.name} should have failed, is {found['status']} "
                f"({found['reason']})"
            )


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
    job = answer.json()
    mine = {k: job["images"][k] for k in ("expected", "completed", "failed")}
    if job["status"] != event["status"] or mine != event["images"]:
        return f"{job['status']} {mine}, not {event['status']} {event['images']}"
    return ""


def _webhooks(world: World) -> None:
    for job_id in sorted(world.oracle.plans):
        asked = world.oracle.plans[job_id].webhook
        must = (
            world.receiver_lived and job_id in world.oracle.acknowledged
            and job_id not in world.gave_up
        )  # fmt: skip
        _notices(world.figures, job_id, world.receiver.of(job_id), asked=asked, must=must)


def _notices(
    figures: Figures, job_id: str, got: list[Delivery], *, asked: bool, must: bool
) -> None:
    if not asked:
        if got:
            figures.double(f"job {job_id}: {len(got)} webhooks of a job that asked for none")
        return
    if must and not any(d.answered == "ok" for d in got):
        figures.lose(f"job {job_id}: no webhook was delivered")
    if len({d.webhook_id for d in got}) > 1 or len({d.body for d in got}) > 1:
        figures.double(f"job {job_id}: webhooks of different ids or bodies")
    for bad in (d for d in got if not d.signed):
        figures.lose(f"job {job_id}: a webhook's signature does not fit ({bad.webhook_id})")


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


def compare(
    figures: Figures, plans: dict[str, JobPlan], stormy: dict[str, bytes], calm: dict[str, bytes],
) -> None:  # fmt: skip
    """Hold a scenario's objects against those of the calm run of the same jobs."""

    def mine(key: str) -> bool:
        job_id = outside.job_of(key)
        return job_id is None or job_id in plans

    for key in sorted(stormy):
        if key not in calm:
            figures.lose(f"orphan: {key}, which a calm run does not have")
        elif stormy[key] != calm[key]:
            figures.differ(f"{key} has other bytes than in a calm run")
    for key in sorted(k for k in calm.keys() - stormy.keys() if mine(k)):
        figures.lose(f"missing: {key}, which a calm run has")
