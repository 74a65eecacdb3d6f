"""What a listing of a job's objects says of where it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

from frond.contracts import keys
from frond.store import Listed


@dataclass
class Survey:
    """Where a job stands, as far as names tell.

    Attributes:
        finished: packed ids of the images that have an outcome.
        planned: the images that have a plan and no outcome: image id → ids of the chunks that
            are done or failed.
        inputs: ids of images that were sent and have neither plan nor outcome.
        refused: ids of images that ingest refused and that have no outcome.
        completed: whether the completed event is stored.
        cancelled: whether the job was cancelled.
        objects: how many there are.
        newest: when the last of them was written.
    """

    finished: set[bytes] = field(default_factory=set)
    planned: dict[str, set[str]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    completed: bool = False
    cancelled: bool = False
    objects: int = 0
    newest: datetime | None = None

    @property
    def fingerprint(self) -> tuple[int, datetime | None]:
        """Changes when anything is written."""
        return self.objects, self.newest

    def lacks(self, image_id: str) -> bool:
        """Whether this is an image's id, and there is no outcome of it."""
        packed = _packed(image_id)
        return packed is not None and packed not in self.finished


async def survey(job_id: str, listing: AsyncIterator[Listed]) -> Survey:
    """Read a listing of everything under the job's prefix, in the order of keys."""
    found = Survey()
    prefix = keys.job_prefix(job_id)
    image = _Image("")
    async for item in listing:
        found.objects += 1
        if item.last_modified and (found.newest is None or item.last_modified > found.newest):
            found.newest = item.last_modified
        folder, _, rest = item.key.removeprefix(prefix).partition("/")
        if folder == "images":
            name, _, rest = rest.partition("/")
            if name != image.id:
                image.settle(found)
                image = _Image(name)
            image.take(rest)
        elif folder == "inputs":
            found.inputs.append(rest.removesuffix(".json"))
        elif folder == "refused":
            found.refused.append(rest.removesuffix(".json"))
        elif not rest:
            found.completed |= folder == "completed.json"
            found.cancelled |= folder == "cancelled"
    image.settle(found)
    found.inputs = [i for i in found.inputs if i not in found.planned and found.lacks(i)]
    found.refused = [i for i in found.refused if found.lacks(i)]
    return found


class _Image:
    def __init__(self, image_id: str) -> None:
        self.id = image_id
        self.chunks: set[str] = set()
        self.planned = self.finished = False

    def take(self, rest: str) -> None:
        self.planned |= rest == "plan.json"
        self.finished |= rest == "outcome.json"
        if rest.startswith("chunks/"):
            self.chunks.add(rest.removeprefix("chunks/").partition(".")[0])

    def settle(self, found: Survey) -> None:
        packed = _packed(self.id)
        if packed is None:
            return
        if self.finished:
            found.finished.add(packed)
        elif self.planned:
            found.planned[self.id] = self.chunks


def _packed(image_id: str) -> bytes | None:
    try:
        packed = bytes.fromhex(image_id)
    except ValueError:
        return None
    return packed if len(packed) == 16 else None
