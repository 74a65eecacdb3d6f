"""Places in open jobs: how many images a job may have, kept also when many requests meet."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.reasons import Reason
from frond.ingest import places
from frond.ingest.context import Ingest, Place
from frond.ingest.problems import Refused


class Room:
    """Places that are held for names, until they are kept or left.

    Requests that bring the same name at once share its place: a sender may try again before its
    first attempt has ended.
    """

    def __init__(self, ingest: Ingest, job_id: str, names: Collection[str] = ()) -> None:
        self._ingest = ingest
        self._job_id = job_id
        self._names = set(names)
        for name in self._names:
            place = ingest.coming.setdefault((job_id, name), Place())
            if not place.requests:
                ingest.counts[job_id] += 1
            place.requests += 1

    def keep(self, names: Iterable[str]) -> None:
        """These have their image for good."""
        for name in self._names.intersection(names):
            self._ingest.coming[self._job_id, name].kept = True

    def leave(self) -> None:
        """Let go of all places; those that nobody kept, and nobody else holds, are free."""
        while self._names:
            at = (self._job_id, self._names.pop())
            place = self._ingest.coming[at]
            place.requests -= 1
            if not place.requests:
                del self._ingest.coming[at]
                if not place.kept:
                    free(self._ingest, self._job_id)


def free(ingest: Ingest, job_id: str) -> None:
    """One image less than was counted."""
    if job_id in ingest.counts:
        ingest.counts[job_id] -= 1


async def make_room(ingest: Ingest, job_id: str, names: Collection[str]) -> Room:
    """Hold places for new images in an open job.

    A job that was created with its size takes images until it has them, one that was sealed takes
    none. The count is exact within this process.

    Raises:
        Refused: job-closed, or too-many.
    """
    try:
        sealed = json.loads(await ingest.store.get(keys.job_sealed(job_id)))
    except ObjectMissing:
        sealed = None
    if sealed is not None and not sealed.get("declared"):
        raise Refused(
            Reason.JOB_CLOSED,
            f"Job {job_id!r} is sealed with {sealed['job_size']} images and takes no more.",
        )
    if job_id not in ingest.counts:
        found = 0
        async for _ in ingest.store.list(places.claims(job_id)):
            found += 1
        ingest.counts.setdefault(job_id, found)
    limit = int(sealed["job_size"]) if sealed else ingest.settings.max_files
    new = sum((job_id, name) not in ingest.coming for name in set(names))
    if ingest.counts[job_id] + new > limit:
        if sealed:
            raise Refused(Reason.JOB_CLOSED, f"Job {job_id!r} has all of its {limit} images.")
        raise Refused(Reason.TOO_MANY, f"A job may have {limit} images here.")
    return Room(ingest, job_id, names)
