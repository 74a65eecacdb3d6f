from __future__ import annotations

from datetime import UTC, datetime

import pytest

from frond.contracts.envelope import encode
from frond.contracts.events import ChunkPlanned, ImageEmpty, ImageUploaded
from frond.contracts.jobs import JobSpec, ModelRef, Thresholds
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.tiler.decide import (
    completed_spec,
    given_up,
    image_name,
    other_model,
    other_tenant,
    planned,
    refused,
    rejected,
    spec_of,
    thresholds_of,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)
IMAGE = "1" * 32
MODEL = ModelRef(name="m", digest="0" * 64)


def uploaded(**kwargs: object) -> ImageUploaded:
    return ImageUploaded.model_validate(
        {"job_id": "survey-7", "image": "s3://frond/a/b/scene 1.tif", **kwargs}
    )


def plan(chunks: int, job_size: int | None = None) -> ImagePlan:
    grid = WindowGrid(width=1000, height=1000, size=256, margin=32)
    return ImagePlan(
        job_id="survey-7", image_id=IMAGE, image="s3://frond/x.tif", name="x.tif",
        job_size=job_size,
        source=RasterSource(
            uri="s3://frond/x.tif", etag="e", size=1, bands=(1, 2, 3), dtype="uint8",
            width=1000, height=1000,
        ),
        grid=grid, model=MODEL, windows_per_chunk=8, chunks=chunks,
    )  # fmt: skip


def test_names() -> None:
    """The sender's name, else the last part of the key."""
    assert image_name(uploaded()) == "scene 1.tif"
    assert image_name(uploaded(name="North 4")) == "North 4"


def test_refused_at_the_door() -> None:
    """Cancelled jobs and foreign buckets; everything else is looked at."""
    event = uploaded(job_size=3)
    assert refused(event, {"frond"}, "frond", cancelled=False) is None
    cancelled = refused(event, {"frond"}, "frond", cancelled=True)
    assert cancelled is not None and cancelled.reason is Reason.DISMISSED
    foreign = refused(event, {"other"}, "frond", cancelled=False)
    assert foreign is not None and foreign.reason is Reason.BUCKET_NOT_ALLOWED
    assert "'frond'" in foreign.detail
    assert (foreign.image_id, foreign.job_size) == (event.image_id, 3)


@pytest.mark.parametrize(
    "key", ["keys/0.tif", "models/m/x.tif", "open/x.tif", "deliveries/a/b.tif", "untold/j",
            "deleted/j", "jobs/other/images/i/cog.tif", "jobs/j10/results/x.tif"]
)  # fmt: skip
def test_what_the_services_keep_is_no_raster(key: str) -> None:
    """In the installation's bucket, and nowhere else; the job's own objects are its own."""
    event = uploaded().model_copy(update={"image": f"s3://frond/{key}", "job_id": "j1"})
    no = refused(event, {"frond"}, "frond", cancelled=False)
    assert no is not None and no.reason is Reason.BUCKET_NOT_ALLOWED
    assert refused(event, {"frond"}, "another", cancelled=False) is None
    mine = event.model_copy(update={"image": "s3://frond/jobs/j1/x.tif"})
    assert refused(mine, {"frond"}, "frond", cancelled=False) is None
    sent = event.model_copy(update={"image": "s3://frond/uploads/u/x.tif"})
    assert refused(sent, {"frond"}, "frond", cancelled=False) is None


def test_an_image_of_another_tenant() -> None:
    """Rejected when both are named and differ; whoever names none is trusted, where messages made the
    job."""
    mine = JobSpec(job_id="j", model=MODEL, tenant="acme")
    assert other_tenant(uploaded(tenant="acme"), mine) is None
    assert other_tenant(uploaded(), mine) is None
    assert other_tenant(uploaded(tenant="x"), JobSpec(job_id="j", model=MODEL)) is None
    no = other_tenant(uploaded(tenant="beta"), mine)
    assert no is not None and no.reason is Reason.CONFLICT and "acme" not in no.detail


@pytest.mark.parametrize("tenant", ["acme", "default"])
def test_an_image_of_nobody_in_a_job_that_a_key_began(tenant: str) -> None:
    """The id may have been taken beforehand, to see the results: rejected, and told what to name.
    A job of the installation's own key, whoever is named for it later, takes it."""
    keyed = JobSpec(job_id="j", model=MODEL, tenant=tenant, by_key=True)
    no = other_tenant(uploaded(), keyed)
    assert no is not None and no.reason is Reason.CONFLICT
    assert "(tenant)" in no.detail and tenant not in no.detail.replace("(tenant)", "")
    assert other_tenant(uploaded(tenant=tenant), keyed) is None
    assert other_tenant(uploaded(tenant="beta"), keyed) is not None
    installations = JobSpec(job_id="j", model=MODEL)
    assert other_tenant(uploaded(), installations) is None
    later = completed_spec(installations, uploaded(tenant=tenant))
    assert later.tenant == tenant and other_tenant(uploaded(), later) is None


def test_a_rejection_sent_twice_is_one_event() -> None:
    a = rejected(uploaded(), Reason.TRUNCATED, "x.")
    b = rejected(uploaded(), Reason.TRUNCATED, "x.")
    assert a.event_id == b.event_id


def test_the_spec_takes_what_the_image_says() -> None:
    event = uploaded(webhook_url="http://x", email="a@b", thresholds=Thresholds(score=0.4))
    spec = spec_of(event, MODEL, NOW)
    assert (spec.webhook_url, spec.email, spec.thresholds.score) == ("http://x", "a@b", 0.4)
    assert (spec.model, spec.created) == (MODEL, NOW)


def test_addresses_are_taken_from_whichever_image_names_them() -> None:
    """What is there already stays, and what is pinned never changes."""
    spec = spec_of(uploaded(email="a@b"), MODEL, NOW)
    late = uploaded(email="c@d", webhook_url="http://x", thresholds=Thresholds(score=0.9))
    full = completed_spec(spec, late)
    assert (full.email, full.webhook_url) == ("a@b", "http://x")
    assert (full.thresholds, full.model) == (spec.thresholds, MODEL)
    assert completed_spec(full, late) is full
    keyed = spec.model_copy(update={"tenant": "acme", "by_key": True})
    assert completed_spec(keyed, late) is keyed
    assert completed_spec(keyed, uploaded(tenant="beta", webhook_url="http://b")) is keyed
    mine = completed_spec(keyed, uploaded(tenant="acme", webhook_url="http://x"))
    assert mine.webhook_url == "http://x"


@pytest.mark.parametrize("model", [None, "m", "m@production", "m@00000000", "m@" + "0" * 64])
def test_the_pinned_model_serves(model: str | None) -> None:
    assert other_model(uploaded(model=model), spec_of(uploaded(), MODEL, NOW)) is None


@pytest.mark.parametrize("model", ["n", "n@production", "m@12345678"])
def test_another_model_is_a_conflict(model: str) -> None:
    """An image is never run in silence with a model that it did not ask for."""
    no = other_model(uploaded(model=model), spec_of(uploaded(), MODEL, NOW))
    assert no is not None and no.reason is Reason.CONFLICT


def test_a_plan_becomes_the_same_chunks_every_time() -> None:
    """Ids depend on the plan alone; a job size said later travels with them."""
    first = list(planned(plan(3), uploaded(), NOW))
    again = list(planned(plan(3), uploaded(job_size=9), datetime.now(UTC)))
    assert all(isinstance(e, ChunkPlanned) for e in first)
    assert [e.event_id for e in first] == [e.event_id for e in again]
    assert {e.job_size for e in again if isinstance(e, ChunkPlanned)} == {9}


@pytest.mark.parametrize(("said", "stored", "told"), [(None, 4, 4), (2, 4, 2), (None, None, None)])
def test_a_plan_without_chunks_is_an_empty_image(
    said: int | None, stored: int | None, told: int | None
) -> None:
    (event,) = planned(plan(0, stored), uploaded(job_size=said), NOW)
    assert isinstance(event, ImageEmpty)
    assert event.job_size == told
    assert event.windows_total == 25


def test_an_images_own_thresholds_come_first() -> None:
    """What its event leaves open is the job's, said by whichever image began it."""
    first = uploaded(thresholds={"score": 0.3, "nms_iou": 0.4})
    spec = spec_of(first, MODEL, NOW)
    assert thresholds_of(uploaded(), spec) == spec.thresholds
    other = uploaded(thresholds={"score": 0.0, "merge_iou": 0.2})
    assert thresholds_of(other, spec) == Thresholds(score=0.0, nms_iou=0.4, merge_iou=0.2)


def test_a_rejection_can_always_be_sent() -> None:
    """And says the same each time: nothing of one run of ours is in it."""
    no = rejected(uploaded(), Reason.CORRUPT, "bad \udc80 byte" + "x" * 9999)
    assert len(encode(no, source="/t").value) < 5000
    assert given_up(uploaded()) == given_up(uploaded())
    assert given_up(uploaded()).reason is Reason.INTERNAL


def test_the_first_chunk_tells_how_long_planning_took() -> None:
    """Once an image: the sum over its chunks is the time that was spent, however many it has."""
    first, *others = planned(plan(3), uploaded(), NOW, 0.25)
    assert isinstance(first, ChunkPlanned) and first.planning_s == 0.25
    assert others
    assert all(isinstance(c, ChunkPlanned) and c.planning_s is None for c in others)
