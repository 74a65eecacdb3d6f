"""What the tiler asks of a job, and what it need not."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from frond.contracts import keys
from frond.contracts.events import ImageUploaded
from frond.contracts.jobs import JobSpec, ModelRef
from frond.models.registry import Registry
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings
from frond.tiler.jobs import Jobs

pytestmark = pytest.mark.stack

JOB = "survey-9"
HOOK = "https://example.org/hook"
SPEC = JobSpec(job_id=JOB, model=ModelRef(name="palms", digest="a" * 64), webhook_url=HOOK)


class Asked(ObjectStore):
    """A store that counts what it is asked."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.times: Counter[str] = Counter()

    async def get(self, key: str, *, bucket: str | None = None) -> bytes:
        self.times[key] += 1
        return await super().get(key, bucket=bucket)

    async def exists(self, key: str) -> bool:
        self.times[key] += 1
        return await super().exists(key)


@pytest.fixture
async def store(stack: Endpoints, bucket: str) -> AsyncIterator[Asked]:
    asked = Asked(StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket))
    await asked.ensure_bucket()
    yield asked
    asked.close()


def image(**more: object) -> ImageUploaded:
    return ImageUploaded.model_validate({"job_id": JOB, "image": "s3://frond/in/a.tif", **more})


async def test_a_job_is_asked_for_once_by_all_who_come_together(store: Asked) -> None:
    """A seal and images that come at once share the answers, and what follows asks no more."""
    await store.put(keys.job_spec(JOB), SPEC.model_dump_json().encode())
    await store.put(keys.open_marker(JOB), b"")
    jobs = Jobs(store, Registry(store))
    await asyncio.gather(*(jobs.look(JOB) for _ in range(5)))
    assert not await jobs.completed(JOB)
    assert not await jobs.cancelled(JOB)
    await jobs.open(JOB)
    assert await jobs.pinned(image()) == SPEC
    assert set(store.times.values()) == {1}
    assert set(store.times) == {
        keys.job_spec(JOB), keys.open_marker(JOB), keys.job_sealed(JOB), keys.job_completed(JOB),
        keys.job_cancelled(JOB),
    }  # fmt: skip


async def test_a_job_that_nothing_is_known_of_is_opened(store: Asked) -> None:
    """What is not there yet is put, whoever has looked before."""
    jobs = Jobs(store, Registry(store))
    await jobs.look(JOB)
    await jobs.open(JOB)
    await jobs.sealed_once(JOB, 3)
    assert await store.get(keys.open_marker(JOB)) == b""
    assert json.loads(await store.get(keys.job_sealed(JOB))) == {"job_size": 3}
    assert await jobs.seal(JOB, 4) == 3


async def test_a_deleted_job_is_known_by_what_is_left_of_it(store: Asked) -> None:
    """Cancelled, and neither open nor ended. One that was never cancelled costs no question more."""
    for cancelled, is_open, completed in itertools.product((False, True), repeat=3):
        made = {
            keys.job_cancelled(JOB): cancelled, keys.open_marker(JOB): is_open,
            keys.job_completed(JOB): completed,
        }  # fmt: skip
        for key, there in made.items():
            await (store.put(key, b"") if there else store.delete(key))
        store.times.clear()
        gone = await Jobs(store, Registry(store)).deleted(JOB)
        assert gone == (cancelled and not is_open and not completed)
        assert cancelled or keys.open_marker(JOB) not in store.times


async def test_addresses_that_the_job_has_are_not_kept_twice(store: Asked) -> None:
    """Beside a job's spec only what it lacks is worth a note: it may never get it."""
    await store.put(keys.job_spec(JOB), SPEC.model_dump_json().encode())
    jobs = Jobs(store, Registry(store))
    await jobs.look(JOB)
    await jobs.keep_addresses(image(webhook_url=HOOK))
    assert not await store.exists(keys.job_notify(JOB))
    await jobs.keep_addresses(image(webhook_url=HOOK, email="gis@example.org"))
    assert json.loads(await store.get(keys.job_notify(JOB)))["email"] == "gis@example.org"


@pytest.mark.parametrize("tenant", [None, "beta"])
async def test_an_image_that_is_rejected_for_its_tenant_names_nobody(
    store: Asked, tenant: str | None
) -> None:
    """Whoever it names as to be told would be told of another tenant's results."""
    spec = JobSpec(job_id=JOB, model=SPEC.model, tenant="acme", by_key=True)
    await store.put(keys.job_spec(JOB), spec.model_dump_json().encode())
    jobs = Jobs(store, Registry(store))
    await jobs.look(JOB)
    other = image(webhook_url=HOOK, tenant=tenant)
    await jobs.keep_addresses(other)
    assert await jobs.pinned(other) == spec
    assert not await store.exists(keys.job_notify(JOB))
    assert JobSpec.model_validate_json(await store.get(keys.job_spec(JOB))) == spec


async def test_a_spec_that_is_none_troubles_only_whoever_needs_it(store: Asked) -> None:
    """A seal can be handled all the same."""
    await store.put(keys.job_spec(JOB), b"{}")
    jobs = Jobs(store, Registry(store))
    await jobs.look(JOB)
    assert await jobs.seal(JOB, 2) == 2
    with pytest.raises(ValueError, match="validation error"):
        await jobs.pinned(image())
