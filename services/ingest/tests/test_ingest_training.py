"""Training runs by REST: accepted once, told of, listed, cancelled; for admins alone."""

# ruff: noqa: ASYNC110, ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ingest_world import Tenants, refused

from frond.auth import Principal, Scope
from frond.contracts import keys, topics
from frond.contracts.envelope import decode
from frond.contracts.events import TrainingRequested
from frond.contracts.ids import digest
from frond.contracts.training import TrainingRequest, TrainingRun, TrainingStatus
from frond.ingest import training
from frond.ingest.context import Ingest
from frond.ingest.cursors import write_cursor
from frond.models.trainings import Trainings, event_of
from frond.stack import NativeStack
from frond.store import ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack

BODY = {"model": "palm-detector", "recipe": "palm", "why": "a new sensor"}


async def told(env: dict[str, str]) -> list[TrainingRequested]:
    """Every event on the topic, up to its end of now."""
    name = topics.TRAINING.named(env["FROND_TOPIC_PREFIX"])
    consumer = AIOKafkaConsumer(bootstrap_servers=env["FROND_KAFKA_BOOTSTRAP"], group_id=None)
    await consumer.start()
    try:
        parts = [TopicPartition(name, p) for p in range(topics.TRAINING.partitions)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        found: list[TrainingRequested] = []
        while any([await consumer.position(p) < ends[p] for p in parts]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                for m in messages:
                    event = decode(topics.TRAINING, m.value, m.headers).event
                    assert isinstance(event, TrainingRequested)
                    found.append(event)
        return found
    finally:
        await consumer.stop()


async def waiting(store: ObjectStore, *, untold: bool = False) -> set[str]:
    return {i async for i, _ in Trainings(store).waiting(untold=untold)}


def start(api: httpx.Client, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post("/training", json={**BODY, **more}, headers=headers)


async def test_a_run_is_accepted_and_told_of(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """202 with its address; it is in the store, waits, and one event says what was asked for."""
    answer = start(api, overrides={"minutes": 30, "seed": 7})
    assert answer.status_code == 202, answer.text
    run = TrainingRun.model_validate(answer.json())
    assert answer.headers["location"] == f"{door.url}/training/{run.training_id}"
    assert run.status is TrainingStatus.QUEUED and run.alias == "staging"
    assert run.requested_by == "installation" and run.overrides.minutes == 30
    assert api.get(f"/training/{run.training_id}").json() == answer.json()
    assert await Trainings(store).get(run.training_id) == run
    assert run.training_id in await waiting(store)
    assert run.training_id not in await waiting(store, untold=True)
    events = [e for e in await told(door.env) if e.training_id == run.training_id]
    # once more where the sweeper came by before it was noted: the same
    assert events and all(e == event_of(run) for e in events)


def test_the_same_key_is_the_same_run(api: httpx.Client) -> None:
    """Sent again, the first run is the answer, as it stands now; another request is refused."""
    key = secrets.token_hex(8)
    first, again = start(api, key), start(api, key)
    assert first.json() == again.json() and again.status_code == 202
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert "another request" in refused(start(api, key, recipe="palm-night"), 422, "conflict")
    api.delete(f"/training/{first.json()['training_id']}")
    assert start(api, key).json()["status"] == "cancelled"
    # without a key each request is a run of its own
    assert start(api).json()["training_id"] != start(api).json()["training_id"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"alias": "production"}, "promote"),
        ({"alias": "3f9c02ab"}, "digest"),
        ({"recipe": "roofs"}, "recipe"),
        ({"recipe": "palm-../../x"}, "recipe"),
        ({"model": "../keys"}, "model"),
        ({"overrides": {"epochs": 3}}, "epochs"),
        ({"overrides": {"steps": 0}}, "steps"),
        ({"overrides": {"seed": True}}, "seed"),
        ({"cheap": True}, "cheap"),
        ({"why": "x" * 2001}, "why"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    api: httpx.Client, more: dict[str, Any], says: str
) -> None:
    """422 with a sentence that names it; nothing that moves production is taken."""
    assert says in refused(start(api, **more), 422, "bad-request")


def test_runs_are_listed_newest_first(api: httpx.Client) -> None:
    """Each once, over all pages."""
    mine = [start(api).json()["training_id"] for _ in range(3)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = api.get("/training", params=query).json()
        seen += [r["training_id"] for r in page["training"]]
        assert len(page["training"]) <= 2
        if not page["next_cursor"]:
            break
        assert page["links"][1]["rel"] == "next"
        query["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen))
    assert [i for i in seen if i in mine] == mine[::-1]
    for cursor in ("x", write_cursor(1, "\x00"), write_cursor("x", "y"), write_cursor(-1, "a/b")):
        answer = api.get("/training", params={"cursor": cursor})
        assert "cursor" in refused(answer, 422, "bad-request")


async def test_cancelling(api: httpx.Client, store: ObjectStore) -> None:
    """What waits ends at once; what runs is asked to end; what has ended otherwise is a conflict."""
    trainings = Trainings(store)
    waits = start(api).json()["training_id"]
    for _ in range(2):
        answer = api.delete(f"/training/{waits}")
        assert answer.status_code == 202 and answer.json()["status"] == "cancelled"
    assert waits not in await waiting(store)

    runs = start(api).json()["training_id"]

    def set_to(status: TrainingStatus) -> Any:
        return lambda run, _: run.model_copy(update={"status": status})

    await trainings.change(runs, set_to(TrainingStatus.RUNNING))
    told = api.delete(f"/training/{runs}").json()
    assert (told["status"], told["cancelled_by"]) == ("running", "installation")
    await trainings.change(runs, set_to(TrainingStatus.SUCCEEDED))
    assert "ended" in refused(api.delete(f"/training/{runs}"), 409, "conflict")
    for unknown in ("0" * 32, "x", "..", "%00"):
        assert refused(api.get(f"/training/a{unknown}"), 404, "not-found")
        assert refused(api.delete(f"/training/a{unknown}"), 404, "not-found")


async def test_a_token_may_name_anybody(here: Ingest, store: ObjectStore) -> None:
    """What no JSON can hold is no reason to let a training run on."""
    run = await Trainings(store).begin(
        TrainingRequest(
            training_id=digest("odd", secrets.token_hex(8)), model="blob", recipe="palm",
            requested=training.now(),
        )
    )  # fmt: skip
    odd = Principal("jwt:\ud800\x00", None, frozenset({Scope.ADMIN}))
    ended = await training.cancel(here, run.training_id, odd)
    assert (ended.status, ended.cancelled_by) == (TrainingStatus.CANCELLED, "jwt:?\ufffd")


def test_training_is_for_admins(tenants: Tenants) -> None:
    """A tenant's key neither asks for training nor sees that anything is trained."""
    for client in (tenants.acme, tenants.reads, tenants.submits):
        assert start(client).status_code == 403
        assert client.get("/training").status_code == 403


async def test_what_was_never_told_is_told_by_the_sweeper(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """Killed after the run was stored, and killed before it was listed: told of, listed, once."""
    request = TrainingRequest(
        training_id=digest("killed", secrets.token_hex(8)), model="blob", recipe="palm",
        requested=training.now(),
    )  # fmt: skip
    await store.put_if_absent(keys.training_open(request.training_id), b"{}")
    run = TrainingRun(**dict(request))
    await store.put_if_absent(
        keys.training_run(request.training_id), run.model_dump_json().encode()
    )

    async def swept() -> bool:
        return request.training_id not in await waiting(store, untold=True)

    async with asyncio.timeout(120):
        while not await swept():
            await asyncio.sleep(0.2)
    listed = api.get("/training").json()["training"]
    assert request.training_id in [r["training_id"] for r in listed]
    found = [e for e in await told(door.env) if e.training_id == request.training_id]
    assert found and {e.event_id for e in found} == {event_of(run).event_id}
    assert request.training_id in await waiting(store)


async def test_a_request_that_died_is_forgotten(
    here: Ingest, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark without a run promises nothing: it goes, but not while its request may be under way; nor
    does that of a run which this version cannot read."""
    here.settings.sweep_after_seconds = 0
    died, newer = (digest(name, secrets.token_hex(8)) for name in ("died", "newer"))
    for training_id in (died, newer):
        await store.put_if_absent(keys.training_open(training_id), b"{}")
    await store.put(keys.training_run(newer), b'{"status": "paused"}')
    assert await training.sweep(here) == 0
    assert {died, newer} <= await waiting(store)
    monkeypatch.setattr(training, "_NEVER_BEGUN_S", -60.0)
    assert await training.sweep(here) == 0
    found = await waiting(store)
    assert died not in found and newer in found
    await store.delete(keys.training_open(newer))


def test_no_answer_is_a_promise(private_stack: NativeStack, start_door: Any, tmp_path: Any) -> None:
    """The broker away: 503, and once it is back the same key makes one run."""
    with start_door(private_stack.endpoints, tmp_path) as door, door.client() as api:
        private_stack.kafka.kill()
        answer = start(api, "one")
        assert answer.status_code == 503 and answer.json()["reason"] == "unavailable"
        private_stack.kafka.start()
        until(lambda: start(api, "one").status_code == 202, 150)
        assert len(api.get("/training").json()["training"]) == 1
