"""Training runs: asked for once, in one order, changed by one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.ids import digest
from frond.contracts.training import (
    TrainingOverrides,
    TrainingRequest,
    TrainingRun,
    TrainingStatus,
)
from frond.models.trainings import Trainings, event_of, same_request, to_be_cancelled
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def wanted(n: int = 0, **more: Any) -> TrainingRequest:
    told = {
        "training_id": digest("t", str(n)), "model": "palm-detector", "recipe": "palm",
        "requested": NOW + timedelta(seconds=n),
    }  # fmt: skip
    return TrainingRequest.model_validate({**told, **more})


@pytest.mark.parametrize(
    "bad",
    [
        {"alias": "production"},
        {"recipe": "roofs"},
        {"recipe": "palm-../x"},
        {"recipe": "palm/x"},
        {"model": "a/b"},
        {"training_id": "../x"},
        {"overrides": {"seed": True}},
        {"overrides": {"steps": "12"}},
        {"overrides": {"minutes": 0}},
        {"why": "x" * 2001},
    ],
)
def test_what_is_no_request(bad: dict[str, Any]) -> None:
    """Nothing that promotes, leads out of a folder, or is no number."""
    with pytest.raises(ValidationError):
        wanted(**bad)


def test_an_event_is_its_request() -> None:
    """Whoever tells it, and however far the run is, it is one event."""
    one = wanted(overrides=TrainingOverrides(seed=3))
    run = TrainingRun(**dict(one), status=TrainingStatus.RUNNING, step=4)
    assert event_of(run) == event_of(one) and event_of(run).event_id == event_of(one).event_id
    assert run.request() == one
    assert same_request(one, wanted(overrides=TrainingOverrides(seed=3), requested_by="me"))
    assert not same_request(one, wanted())


def test_who_waits_ends_at_once_and_who_runs_is_asked_to() -> None:
    """Cancelling twice says nothing new, and what has ended stays as it ended."""
    run = TrainingRun(**dict(wanted()))
    ended = to_be_cancelled(run, "me", NOW)
    assert ended is not None and ended.status is TrainingStatus.CANCELLED and ended.ended == NOW
    assert to_be_cancelled(ended, "you", NOW) is None
    running = run.model_copy(update={"status": TrainingStatus.RUNNING})
    asked = to_be_cancelled(running, "me", NOW)
    assert asked is not None
    assert (asked.status, asked.cancelled_by) == (TrainingStatus.RUNNING, "me")
    assert to_be_cancelled(asked, "you", NOW) is None

    # its worker is no more, and no other one came
    later = NOW + timedelta(hours=2)
    over = to_be_cancelled(asked, "you", later)
    assert over is not None and (over.status, over.cancelled_by, over.ended) == (
        TrainingStatus.CANCELLED, "me", later,
    )  # fmt: skip
    lives = asked.model_copy(update={"updated": later - timedelta(minutes=59)})
    assert to_be_cancelled(lives, "you", later) is None


@pytest.fixture
async def store(stack: Endpoints, bucket: str) -> AsyncIterator[ObjectStore]:
    made = ObjectStore(StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket))
    yield made
    made.close()


@pytest.mark.stack
async def test_a_run_is_begun_once(store: ObjectStore) -> None:
    """The first request counts, told twice or by two; a run that has ended is looked for no more."""
    trainings = Trainings(store)
    first = wanted(why="a new sensor")
    runs = await asyncio.gather(*(trainings.begin(first) for _ in range(4)))
    other = await trainings.begin(wanted(why="another"))
    assert {r.why for r in [*runs, other]} == {"a new sensor"}
    assert [i async for i, _ in trainings.waiting(untold=True)] == [first.training_id]
    await trainings.told(first.training_id)
    assert [i async for i, _ in trainings.waiting(untold=True)] == []
    assert [i async for i, _ in trainings.waiting()] == [first.training_id]
    ended = await trainings.cancel(first.training_id, "me")
    assert ended.status is TrainingStatus.CANCELLED
    assert await trainings.begin(first) == ended
    assert [i async for i, _ in trainings.waiting()] == []
    with pytest.raises(ObjectMissing):
        await trainings.cancel(digest("none"), "me")


@pytest.mark.stack
async def test_of_two_that_change_a_run_nothing_is_lost(store: ObjectStore) -> None:
    """Each is asked again from what the other one left."""
    trainings = Trainings(store)
    run = await trainings.begin(wanted())

    async def one_more(who: str) -> None:
        def decide(run: TrainingRun, _: str) -> TrainingRun:
            return run.model_copy(update={"attempts": run.attempts + 1, "worker": who})

        await trainings.change(run.training_id, decide)

    await asyncio.gather(*(one_more(who) for who in "abcde"))
    assert (await trainings.get(run.training_id)).attempts == 5


@pytest.mark.stack
async def test_pages_are_newest_first(store: ObjectStore) -> None:
    """Every run once over all pages, in the order of requests; one that cannot be read is left out."""
    trainings = Trainings(store)
    runs = [await trainings.begin(wanted(n)) for n in (2, 0, 4, 1, 3)]
    await store.put(keys.training_run(runs[3].training_id), b"{}")
    seen: list[str] = []
    after: str | None = None
    pages = 0
    while True:
        page, after = await trainings.page(after, 2)
        seen += [r.training_id for r in page]
        pages += 1
        if after is None:
            break
    assert seen == [wanted(n).training_id for n in (4, 3, 2, 0)] and pages == 3
    assert await trainings.page(None, 5) == (await trainings.page(None, 100))
