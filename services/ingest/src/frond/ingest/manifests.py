"""What a job that came in one go consists of, stored once: the outbox of a form and of a retry."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from frond.contracts.errors import ObjectMissing
from frond.contracts.jobs import JobSpec
from frond.ingest import desk, places
from frond.ingest.context import Ingest
from frond.ingest.intake import File

RETRY: Final = "retry:"
"""What stands before the id of the job whose images a manifest runs again."""


class Manifest(BaseModel):
    """A job that came in one upload, stored once: what it consists of."""

    content: str
    upload_id: str
    files: list[File]

    def is_of(self, spec: JobSpec) -> bool:
        """Whether this job may have these files: a retry's are its own tenant's alone."""
        kind, colon, retried = self.upload_id.partition(":")
        return not colon or (kind + colon == RETRY and retried == spec.retry_of)


async def seals_itself(ingest: Ingest, job_id: str) -> bool:
    """Whether the images of a job that is not sealed were told in one go, and it takes no others."""
    if await ingest.store.exists(places.listing(job_id)):
        return True
    try:
        raw = await ingest.store.get(places.manifest(job_id))
    except ObjectMissing:
        return False
    return Manifest.model_validate_json(raw).is_of(await desk.spec_of(ingest, job_id))
