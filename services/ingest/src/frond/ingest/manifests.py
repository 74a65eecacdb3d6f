"""What a job that came in one go consists of, stored once: the outbox of a form and of a retry."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from frond.contracts.errors import ObjectMissing
from frond.contracts.jobs import JobSpec
from frond.ingest import places
from frond.ingest.intake import File
from frond.store import ObjectStore

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


async def manifest_of(store: ObjectStore, spec: JobSpec) -> Manifest | None:
    """What a job consists of, if it came in one go."""
    try:
        found = Manifest.model_validate_json(await store.get(places.manifest(spec.job_id)))
    except ObjectMissing:
        return None
    return found if found.is_of(spec) else None
