"""The worker as a process, on the real Kafka and MinIO; what it starts counts instead of learning."""

# ruff: noqa: ASYNC110 (the store tells nobody that an object has changed)
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from frond.bus import Outgoing
from frond.contracts import keys, topics
from frond.contracts.drift import DriftVerdict
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.contracts.training import TrainingStatus
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.stack import NativeStack
from frond.stack import testing as stack_testing
from support.trainers import MODEL, World, a_world

pytestmark = pytest.mark.stack

S = TrainingStatus


@pytest.fixture
async def world(service_env: dict[str, str], tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(service_env, tmp_path) as made:
        yield made


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while alive(pid):
            await asyncio.sleep(0.05)


async def test_a_run_ends_with_a_version(world: World) -> None:
    """Asked for by an event: trained, pushed as staging, and production stays where it was."""
    registry = Registry(world.store)
    before = await registry.push(blob_model(world.folder / "blob", name=MODEL, version="0"))
    world.start()
    run = await world.ended(await world.ask(overrides={"steps": 8, "seed": 3}))
    assert run.status is S.SUCCEEDED, run.detail
    assert (run.step, run.steps, run.metrics) == (8, 8, {"score": 0.9})
    assert run.result == await registry.resolve(f"{MODEL}@staging")
    assert run.result is not None and run.result.version == "3"
    assert await registry.resolve(MODEL) == before
    assert run.started is not None and run.ended is not None and run.attempts == 1
    # checkpoints go, once nobody looks for the run any more; the log is there
    async with asyncio.timeout(60):
        while [p.name for p in (world.folder / "out").iterdir()] != ["logs"]:
            await asyncio.sleep(0.05)
    assert (world.folder / "out" / "logs" / f"{run.training_id}.txt").read_text()


async def test_an_event_that_comes_again_trains_nothing(world: World) -> None:
    """Told five times, before, while and after: one process. A lost event only delays a run."""
    training_id = await world.ask()
    for _ in range(2):
        await world.ask()
    world.start()
    await world.ask()
    first = await world.ended(training_id)
    await world.ask()
    untold = await world.ended(await world.ask(2, tell=False))
    assert untold.status is S.SUCCEEDED
    assert await world.trainings.get(training_id) == first
    assert len(world.lives()) == 2


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "palm-full": ({"fails_at": 3}, "The disk is full."),
    "palm-killed": ({"dies_at": 3}, "SIGKILL"),
    "palm-liar": ({"lies": True}, "not there"),
    "palm-unnamed": ({"name": None, "pushes": "roofs"}, "trains roofs"),
}


async def test_a_failure_says_why(world: World) -> None:
    """Each once, with a sentence; the run after them is not touched by it."""
    asked = {}
    for n, (name, (config, _)) in enumerate(FAILURES.items(), 1):
        world.config(name, **config)
        asked[name] = await world.ask(n, recipe=name)
    world.start()
    last = await world.ask()
    for name, (_, says) in FAILURES.items():
        run = await world.ended(asked[name])
        assert (run.status, run.reason) == (S.FAILED, Reason.TRAINING_FAILED), name
        assert says in (run.detail or ""), name
    assert (await world.ended(last)).status is S.SUCCEEDED
    assert len(world.lives()) == len(FAILURES) + 1


async def test_an_outage_destroys_nothing(world: World) -> None:
    """A process that finds the store away is started again, not at once, where it was: until it can
    push, and that counts as no death."""
    world.config(away=True)
    world.start(FROND_TRAINING_LOOK_S="1", FROND_TRAINING_ATTEMPTS="1")
    began = time.monotonic()
    training_id = await world.ask(overrides={"steps": 5})
    async with asyncio.timeout(120):
        while len(world.lives()) < 3:
            await asyncio.sleep(0.05)
    assert time.monotonic() - began > 2
    world.config()
    run = await world.ended(training_id)
    assert run.status is S.SUCCEEDED and run.attempts == 1, run
    assert [life["first"] for life in world.lives()] == [0, *[5] * (len(world.lives()) - 1)]


async def test_what_cannot_begin(world: World) -> None:
    """No such config, no such program, too long: each is told, none is tried again."""
    world.start(FROND_TRAINING_MAX_S="15")
    run = await world.ended(await world.ask(recipe="palm-none"))
    assert (run.status, run.reason) == (S.FAILED, Reason.UNKNOWN_RECIPE)
    world.config("palm-other", name="roofs")
    other = await world.ended(await world.ask(3, recipe="palm-other"))
    assert other.status is S.FAILED and "trains roofs" in (other.detail or "")
    long = await world.ended(await world.ask(4, overrides={"minutes": 1}))
    assert long.status is S.FAILED and "FROND_TRAINING_MAX_S" in (long.detail or "")
    assert world.lives() == []
    world.config("palm-slow", pause=0.2)
    slow = await world.ended(await world.ask(1, recipe="palm-slow", overrides={"steps": 500}))
    assert slow.status is S.FAILED and "FROND_TRAINING_MAX_S" in (slow.detail or "")
    await gone(world.lives()[0]["pid"])
    world.workers[0].send_signal(signal.SIGTERM)
    assert world.workers[0].wait(30) == 0
    world.start(FROND_TRAINING_PROGRAM="/no/such/program")
    none = await world.ended(await world.ask(2))
    assert none.status is S.FAILED and "FROND_TRAINING_PROGRAM" in (none.detail or "")


async def test_a_killed_workers_run_is_gone_on_with(world: World) -> None:
    """Its process dies with it; the next worker resumes from the checkpoint, after the lease."""
    world.config(waits_at=5)
    world.start()
    training_id = await world.ask(overrides={"steps": 10})
    await world.when(training_id, lambda r: r.step == 5)
    world.workers[0].kill()
    world.workers[0].wait(30)
    await gone(world.lives()[0]["pid"])
    world.config()
    world.start()
    run = await world.ended(training_id)
    assert run.status is S.SUCCEEDED and run.attempts == 2, run
    first, second = world.lives()
    assert not first["resume"] and second["resume"] and second["first"] == 5


async def test_a_worker_that_is_asked_to_end_hands_back(world: World) -> None:
    """At once, whatever its process does with SIGTERM, and it counts as no death."""
    world.config(waits_at=3, deaf=True)
    world.start(FROND_TRAINING_ATTEMPTS="1", FROND_TRAINING_LEASE_S="60")
    training_id = await world.ask(overrides={"steps": 10})
    await world.when(training_id, lambda r: r.step == 3)
    world.workers[0].send_signal(signal.SIGTERM)
    assert world.workers[0].wait(30) == 0
    back = await world.trainings.get(training_id)
    assert (back.status, back.worker, back.attempts) == (S.QUEUED, None, 0)
    assert not alive(world.lives()[0]["pid"])
    world.config()
    world.start(FROND_TRAINING_ATTEMPTS="1", FROND_TRAINING_LEASE_S="60")
    run = await world.ended(training_id)
    assert run.status is S.SUCCEEDED and world.lives()[1]["first"] == 3, run


async def test_a_machine_that_goes_down_fails_nothing(world: World) -> None:
    """Worker and process are asked to end at once, and the process is the faster one."""
    world.config(pause=0.1)
    # it looks at the process when that ends, or is told to stop; not in between
    world.start(FROND_TRAINING_PROGRESS_S="20", FROND_TRAINING_LEASE_S="60")
    training_id = await world.ask(overrides={"steps": 5000})
    async with asyncio.timeout(120):
        while not world.lives():
            await asyncio.sleep(0.05)
    world.workers[0].send_signal(signal.SIGTERM)
    # the worker may have ended it before
    with contextlib.suppress(ProcessLookupError):
        os.kill(world.lives()[0]["pid"], signal.SIGKILL)
    assert world.workers[0].wait(30) == 0
    back = await world.trainings.get(training_id)
    assert (back.status, back.attempts) == (S.QUEUED, 0), back.detail


async def test_a_cancelled_run_stops(world: World) -> None:
    """Its process is gone when it is told to be cancelled; one that waited is never begun."""
    world.config(pause=0.1, deaf=True)
    world.start()
    runs, waits = await world.ask(overrides={"steps": 5000}), await world.ask(1)
    await world.when(runs, lambda r: (r.step or 0) >= 2)
    assert (await world.trainings.cancel(waits, "me")).status is S.CANCELLED
    assert (await world.trainings.cancel(runs, "me")).status is S.RUNNING
    run = await world.ended(runs)
    assert (run.status, run.cancelled_by, run.result) == (S.CANCELLED, "me", None)
    assert not alive(world.lives()[0]["pid"])
    await world.ended(waits)
    world.config()
    assert (await world.ended(await world.ask(2))).status is S.SUCCEEDED
    assert len(world.lives()) == 2


async def test_two_workers_train_a_run_once(world: World) -> None:
    """Side by side, each run is one worker's, and both have work."""
    world.config(pause=0.05)
    world.start()
    world.start()
    asked = [await world.ask(n, overrides={"steps": 10, "seed": n}) for n in range(4)]
    runs = [await world.ended(i) for i in asked]
    assert {r.status for r in runs} == {S.SUCCEEDED} and len(world.lives()) == 4
    assert len({r.worker for r in runs}) == 2


async def test_a_zombie_stops_when_it_wakes(world: World) -> None:
    """A worker that was frozen longer than its lease finds its run taken: it ends its process, says
    nothing, and takes up the next run."""
    world.config(pause=0.1)
    frozen = world.start()
    training_id = await world.ask(overrides={"steps": 5000})
    await world.when(training_id, lambda r: (r.step or 0) >= 2)
    frozen.send_signal(signal.SIGSTOP)
    world.start(FROND_TRAINING_OUT=str(world.folder / "elsewhere"))
    taken = await world.when(training_id, lambda r: r.attempts == 2)
    frozen.send_signal(signal.SIGCONT)
    await gone(world.lives()[0]["pid"])
    now = await world.when(training_id, lambda _: len(world.lives()) == 2)
    assert (now.worker, now.attempts) == (taken.worker, 2) and alive(world.lives()[1]["pid"])
    world.config()
    other = await world.ended(await world.ask(1))
    assert other.status is S.SUCCEEDED and other.worker != taken.worker
    await world.trainings.cancel(training_id, "me")
    assert (await world.ended(training_id)).attempts == 2


async def test_what_earlier_runs_left_is_removed(world: World) -> None:
    """Of a run that was cancelled while it waited; what may go on, what is nobody's, and what another
    installation may have left (or this one, were the bucket's name misspelt) stays."""
    out = world.folder / "out"
    cancelled = await world.ask(tell=False)
    await world.trainings.cancel(cancelled, "me")
    slow = await world.ask(1, recipe="palm-slow", overrides={"steps": 5000})
    world.config("palm-slow", pause=0.1)
    for name in (cancelled, "f" * 32, "notes"):
        (out / name).mkdir(parents=True)
    world.start()
    await world.when(slow, lambda r: (r.step or 0) >= 1)
    world.start()
    async with asyncio.timeout(120):
        while (out / cancelled).exists():
            await asyncio.sleep(0.1)
    assert {p.name for p in out.iterdir()} == {slow, "f" * 32, "notes", "logs"}
    await world.trainings.cancel(slow, "me")
    assert (await world.ended(slow)).status is S.CANCELLED


async def test_a_broker_that_is_away_keeps_nobody_from_training(
    private_stack: NativeStack, service_env: dict[str, str], tmp_path: Path
) -> None:
    """What runs goes on, what waits is taken up; once it is back, events are heard again."""
    endpoints = private_stack.endpoints
    with stack_testing.fresh_bucket(endpoints) as bucket:
        own = stack_testing.environment(endpoints, stack_testing.new_prefix(), bucket)
        async with a_world({**service_env, **own}, tmp_path) as world:
            world.config(waits_at=2)
            # longer than the test takes: an event says that it is time to look, or the end of a run
            world.start(FROND_TRAINING_LOOK_S="600")
            runs = await world.ask(overrides={"steps": 4})
            await world.when(runs, lambda r: r.step == 2)
            private_stack.kafka.kill()
            world.config()
            os.kill(world.lives()[0]["pid"], signal.SIGUSR1)
            waits = await world.ask(1, tell=False, overrides={"steps": 2})
            assert (await world.ended(runs)).status is S.SUCCEEDED
            assert (await world.ended(waits)).status is S.SUCCEEDED
            private_stack.kafka.start()
            told = await world.ask(2)
            done = await world.when(told, lambda r: r.status.final, within=150)
            assert done.status is S.SUCCEEDED and len(world.lives()) == 3


def drifted(ref: ModelRef, hours_ago: float, verdict: DriftVerdict = DriftVerdict.DRIFTED) -> Any:
    ended = datetime.now(UTC) - timedelta(hours=hours_ago)
    return Outgoing(
        topics.DRIFT,
        DriftObserved(
            model=ref, observer="0" * 32, started=ended - timedelta(hours=1), ended=ended,
            ended_by="time", windows=100, windows_run=400, verdict=verdict,
        ),
    )  # fmt: skip


async def test_drift_asks_for_training(world: World) -> None:
    """After the second period in succession, of the version in production, once however often it is
    told; by drift, as anybody's request. Other models and versions ask for nothing."""
    registry = Registry(world.store)
    ref = await registry.push(blob_model(world.folder / "one", name=MODEL, version="1"))
    old = await registry.push(blob_model(world.folder / "old", name=MODEL, version="0"), "old")
    roofs = await registry.push(blob_model(world.folder / "roofs", name="roofs"))
    world.start(FROND_TRAINING_ON_DRIFT=f"{MODEL}:palm")
    for one in (roofs, old, ref):
        for hours_ago in (3, 2, 2, 1, 0):
            await world.producer.send(drifted(one, hours_ago))

    async with asyncio.timeout(120):
        while not (found := (await world.trainings.page(None, 10))[0]):
            await asyncio.sleep(0.1)
    run = await world.ended(found[0].training_id)
    assert (run.status, run.requested_by, run.alias) == (S.SUCCEEDED, "drift", "staging")
    assert ref.digest[:12] in run.why and run.recipe == "palm"
    state = keys.training_drift(ref.digest)
    async with asyncio.timeout(60):
        while json.loads(await world.store.get(state))["count"] < 4:
            await asyncio.sleep(0.1)
    assert [r.training_id for r in (await world.trainings.page(None, 10))[0]] == [run.training_id]
    assert await registry.resolve(MODEL) == ref
