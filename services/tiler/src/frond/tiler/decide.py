"""An event in, events out: what the tiler makes of what it was told and found."""

from __future__ import annotations

from collections.abc import Iterator, Set
from datetime import datetime
from typing import Final

from frond.contracts import keys
from frond.contracts.events import Event, ImageEmpty, ImageRejected, ImageUploaded
from frond.contracts.ids import parse_s3_uri
from frond.contracts.jobs import JobSpec, ModelRef, Shadow, Thresholds
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import chunks_of
from frond.tiler.salvage import encodable

_MOST_DETAIL: Final = 2000


def image_name(event: ImageUploaded) -> str:
    """What to call the image in results: its sender's name for it, or its key's last part."""
    if event.name:
        return event.name
    _, key = parse_s3_uri(event.image)
    return key.rstrip("/").rsplit("/", 1)[-1] or key


def refused(
    event: ImageUploaded, buckets: Set[str], own: str, *, cancelled: bool
) -> ImageRejected | None:
    """The rejection of an image that need not even be looked at; None: look at it.

    ``own``: the installation's bucket, where its services keep what is nobody's raster.
    """
    if cancelled:
        return rejected(event, Reason.DISMISSED, "The job was cancelled before this image's turn.")
    bucket, key = parse_s3_uri(event.image)
    if bucket not in buckets:
        return rejected(
            event,
            Reason.BUCKET_NOT_ALLOWED,
            f"Frond may not read from bucket {bucket!r}. Copy the image into an allowed bucket, or "
            "have the operator add this one to FROND_ALLOWED_BUCKETS.",
        )
    internal = key.startswith(keys.INTERNAL) and not key.startswith(keys.job_prefix(event.job_id))
    if bucket == own and internal:
        return rejected(
            event,
            Reason.BUCKET_NOT_ALLOWED,
            f"What lies under {key.partition('/')[0]}/ is kept by Frond itself, and is no raster.",
        )
    return None


def rejected(event: ImageUploaded, reason: Reason, detail: str) -> ImageRejected:
    """The rejection of an image. It travels the road of results, so that the ledger closes."""
    return ImageRejected(
        job_id=event.job_id,
        image_id=event.image_id,
        image=event.image,
        name=image_name(event),
        job_size=event.job_size,
        reason=reason,
        detail=encodable(detail)[:_MOST_DETAIL],
    )


def given_up(event: ImageUploaded) -> ImageRejected:
    """The rejection of an image that we failed on for a reason of our own."""
    return rejected(
        event,
        Reason.INTERNAL,
        "Something went wrong on our side while the image was read. Send it again in another job; "
        "if that fails too, its operator finds why in the tiler's logs, under the image's id.",
    )


def thresholds_of(event: ImageUploaded, spec: JobSpec) -> Thresholds:
    """The image's own thresholds; those that its event leaves open are the job's."""
    return spec.thresholds.model_copy(update=event.thresholds.model_dump(exclude_none=True))


def spec_of(
    event: ImageUploaded, model: ModelRef, now: datetime, shadow: Shadow | None = None
) -> JobSpec:
    """The job that an image begins, if nothing has begun it before."""
    return JobSpec(
        job_id=event.job_id,
        model=model,
        thresholds=event.thresholds,
        webhook_url=event.webhook_url,
        email=event.email,
        tenant=event.tenant,
        created=now,
        shadow=shadow,
    )


def other_tenant(event: ImageUploaded, spec: JobSpec) -> ImageRejected | None:
    """The rejection of an image that was sent for another tenant than its job is of.

    One that names none is the job's where messages alone made the job. Where a key of a tenant did, it
    may be of somebody whose job's id was taken beforehand, and its results would be that tenant's.
    """
    if spec.tenant is None or event.tenant == spec.tenant:
        return None
    if event.tenant is not None:
        detail = "The job is another tenant's than the one that this image names. Send it in another job."
    elif spec.by_key:
        detail = (
            "The job was begun by REST, with a key of a tenant, and this image names no tenant. Send it "
            "in another job; if it is for that one, name the key's tenant in its message (tenant)."
        )
    else:
        return None
    return rejected(event, Reason.CONFLICT, detail)


def completed_spec(spec: JobSpec, event: ImageUploaded) -> JobSpec:
    """The spec with what it lacks of addresses and the image's event has.

    Images of one job come in any order, and a sender may name the webhook in one of them only.
    What is pinned, the model, its shadow and the job's thresholds, never changes. An image that is
    rejected for its tenant adds nothing: whom it names would be told of another's results.
    """
    if other_tenant(event, spec) is not None:
        return spec
    told = {
        field: getattr(event, field)
        for field in ("webhook_url", "email", "tenant")
        if getattr(spec, field) is None and getattr(event, field) is not None
    }
    return spec.model_copy(update=told) if told else spec


def other_model(event: ImageUploaded, spec: JobSpec) -> ImageRejected | None:
    """The rejection of an image that asks for another model than its job has pinned."""
    if event.model is None:
        return None
    name, _, version = event.model.strip().partition("@")
    looks_like_digest = len(version) >= 8 and set(version) <= set("0123456789abcdef")
    if name == spec.model.name and (not looks_like_digest or spec.model.digest.startswith(version)):
        return None
    return rejected(
        event,
        Reason.CONFLICT,
        f"The job runs {spec.model.name}@{spec.model.digest[:12]}, as its first image said; this "
        f"image asks for {event.model[:200]}. Send it in another job.",
    )


def planned(
    plan: ImagePlan, event: ImageUploaded, now: datetime, planning_s: float | None = None
) -> Iterator[Event]:
    """A stored plan's events: its chunks, or the news that it has none.

    The same plan gives the same chunks every time; a job size that was said only now travels too.
    """
    size = event.job_size if event.job_size is not None else plan.job_size
    if plan.chunks == 0:
        yield ImageEmpty(
            job_id=plan.job_id,
            image_id=plan.image_id,
            image=plan.image,
            name=plan.name,
            job_size=size,
            plan_digest=plan.plan_digest,
            windows_total=plan.grid.count,
            windows_skipped=plan.windows_skipped,
        )
        return
    yield from chunks_of(plan.model_copy(update={"job_size": size}), now, planning_s)
