"""Places in open jobs: how many images a job may have, kept also when many requests meet."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.reasons import Reason
from frond.ingest import intake, places
from frond.ingest.context import Ingest, Look, Place
from frond.ingest.manifests import seals_itself
from frond.ingest.problems import Refused


class Room:
    """Places that are held for names, until they are kept or left.

    Requests that bring the same name at once share its place: a sender may try again before its
    first attempt has ended. A name that is claimed already has the place that it was counted with.
    """

    def __init__(
        self, ingest: Ingest, job_id: str, names: Collection[str], claimed: Collection[str]
    ) -> None:
        self._ingest = ingest
        self._job_id = job_id
        self._names = set(names)
        for name in self._names:
            at = (job_id, name)
            if at not in ingest.coming:
                ingest.coming[at] = Place(kept=name in claimed)
                if name not in claimed:
                    ingest.counts[job_id] += 1
            elif ingest.coming[at].lost and job_id in ingest.counts:
                ingest.coming[at].lost = False
                ingest.counts[job_id] += 1
            ingest.coming[at].requests += 1

    def _held(self, names: Iterable[str]) -> list[Place]:
        return [self._ingest.coming[self._job_id, n] for n in self._names.intersection(names)]

    def over(self, size: int) -> bool:
        """Whether there are more places than a job of this size has, or one of these was given up."""
        lost = any(place.lost for place in self._held(self._names))
        return lost or self._ingest.counts.get(self._job_id, 0) > size

    def fit(self, names: Iterable[str], size: int) -> bool:
        """Whether these have their places in a job that was given its size after they were held.

        Where there are too many the first to ask gives its own up, until the rest have theirs.
        """
        # nothing is awaited: of two that ask at once, the second one sees what the first gave up
        counts, held = self._ingest.counts, self._held(names)
        if self._job_id not in counts:
            return True
        lost = [place for place in held if place.lost]
        if counts[self._job_id] + len(lost) <= size:
            counts[self._job_id] += len(lost)
            for place in lost:
                place.lost = False
            return True
        for place in held:
            if not place.lost and not place.kept:
                place.lost = True
                counts[self._job_id] -= 1
        return False

    def keep(self, names: Iterable[str]) -> None:
        """These have their image for good."""
        for place in self._held(names):
            place.kept = True

    def give_back(self, names: Iterable[str]) -> None:
        """These were claimed, and are no more: free, unless one of those who hold them claims them
        again before the last of them leaves."""
        for place in self._held(names):
            place.kept = False

    def doubt(self, names: Iterable[str]) -> None:
        """Whether these are claimed is not known: the job's images are counted again."""
        for place in self._held(names):
            place.unsure = True

    def leave(self) -> None:
        """Let go of all places; those that nobody kept, and nobody else holds, are free."""
        counts = self._ingest.counts
        while self._names:
            at = (self._job_id, self._names.pop())
            place = self._ingest.coming[at]
            place.requests -= 1
            if place.requests:
                continue
            del self._ingest.coming[at]
            for look in self._ingest.looking.get(self._job_id, ()):
                look.left.add(at[1])
            if place.unsure:
                counts.pop(self._job_id, None)
            elif not (place.kept or place.lost) and self._job_id in counts:
                counts[self._job_id] -= 1


async def make_room(ingest: Ingest, job_id: str, names: Collection[str]) -> Room:
    """Hold places for images in an open job: names that are claimed have theirs already.

    A job that was created with its size takes new names until it has them, one that was sealed
    takes none. The count is exact within this process.

    Raises:
        Refused: job-closed, or too-many.
    """
    look = Look()
    ingest.looking.setdefault(job_id, set()).add(look)
    try:
        return await _make_room(ingest, job_id, set(names), look)
    finally:
        ingest.looking[job_id].discard(look)
        if not ingest.looking[job_id]:
            del ingest.looking[job_id]


async def _make_room(ingest: Ingest, job_id: str, names: set[str], look: Look) -> Room:
    refusal: Refused | None = None
    claimed: set[str] = set()
    unknown = names
    while True:
        look.left.clear()
        found = await _claimed(ingest, job_id, unknown)
        if refusal is not None and not found:
            raise refusal
        claimed = (claimed - unknown) | found
        try:
            await _require_room(ingest, job_id, names - claimed)
        except Refused as e:
            # a name may have been claimed while this was asked, by an attempt before this one
            refusal, unknown = e, names - (claimed - look.left)
            continue
        # from the count to the places nothing is awaited. Whoever held a name when it was looked at,
        # and has left since, may have claimed it or given it back; those that are held still, share
        # their place
        refusal, unknown = None, names & look.left
        if not unknown:
            return Room(ingest, job_id, names, claimed)


async def _claimed(ingest: Ingest, job_id: str, names: Collection[str]) -> set[str]:
    async def there(name: str) -> bool:
        try:
            return (await ingest.store.stat(places.claim(job_id, name))).size > 0
        except ObjectMissing:
            return False

    unique = sorted(set(names))
    found = await intake.in_parallel(unique, there)
    return {name for name, is_there in zip(unique, found, strict=True) if is_there}


async def _sealed(ingest: Ingest, job_id: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(await ingest.store.get(keys.job_sealed(job_id))))
    except ObjectMissing:
        return None


async def _require_room(ingest: Ingest, job_id: str, names: Collection[str]) -> None:
    if not names:
        return
    ask = partial(_sealed, ingest, job_id)
    try:
        # who is let in is judged once more when the name is claimed
        await _require_fit(ingest, job_id, names, await ingest.lately(keys.job_sealed(job_id), ask))
    except Refused:
        await _require_fit(ingest, job_id, names, await ask())


async def _require_fit(
    ingest: Ingest, job_id: str, names: Collection[str], sealed: dict[str, Any] | None
) -> None:
    if sealed is not None and not sealed.get("declared"):
        raise Refused(
            Reason.JOB_CLOSED,
            f"Job {job_id!r} is sealed with {sealed['job_size']} images and takes no more.",
        )
    while job_id not in ingest.counts:
        await _count(ingest, job_id)
    most = ingest.settings.max_files
    # a size that a job has from the ingest topic is no leave to pass the limit here
    size = int(sealed["job_size"]) if sealed else most
    limit = min(size, most)
    coming = [ingest.coming.get((job_id, name)) for name in names]
    new = sum(place is None or place.lost for place in coming)
    if ingest.counts[job_id] + new > limit:
        if sealed and size <= most:
            raise Refused(Reason.JOB_CLOSED, f"Job {job_id!r} has all of its {limit} images.")
        raise Refused(Reason.TOO_MANY, f"A job may have {limit} images here.")


async def _count(ingest: Ingest, job_id: str) -> None:
    """Count the job's names: those that are claimed, and those that requests hold meanwhile."""

    def held() -> list[tuple[str, Place]]:
        return [(places.claim(job_id, n), p) for (j, n), p in ingest.coming.items() if j == job_id]

    async with ingest.counting:
        if job_id in ingest.counts:
            return
        if await seals_itself(ingest, job_id):
            raise Refused(
                Reason.CONFLICT,
                f"The images of job {job_id!r} are still being read in; it takes no others.",
            )
        before = held()
        listed = ingest.store.list(places.claims(job_id))
        found = {claim.key async for claim in listed if claim.size}
        # one that was claimed behind the listing's back
        found |= {k for k, p in before + held() if p.requests or p.kept or p.unsure}
        found -= {k for k, p in held() if p.lost}
        ingest.counts[job_id] = len(found)
