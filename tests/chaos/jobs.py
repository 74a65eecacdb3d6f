"""What is submitted: a pure function of the seed and the job's number.

The same plan given to another installation with a bucket of the same name makes the same image ids,
and so the same objects, byte for byte.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.contracts.reasons import Reason
from support.planted import planted

BUCKET: Final = "frond"
FLIGHTS: Final = "flights/"
FUZZ: Final = "fuzz-"
"""What ids of jobs begin with that are made up of rubbish: their events may say anything."""
NUMBERS: Final = 10_000
"""Each scenario has this many job numbers of its own."""


class Door(StrEnum):
    """How a job gets in."""

    PUT = "put"
    """POST /jobs, PUT each image, POST /seal."""
    PREFIX = "prefix"
    """Objects first, then POST /start-job with their prefix."""
    TOPIC_SIZE = "topic-size"
    """Objects first, then an event an image on the ingest topic, each with ``job_size``."""
    TOPIC_SEAL = "topic-seal"
    """The same without a size; a JobSealed event at the end."""


DOORS: Final = tuple(Door)


class Bad(StrEnum):
    """How an image is spoilt; the value says it in the object's name."""

    NO = "good"
    TEXT = "text"
    TRUNCATED = "truncated"


EXPECTED: Final = {
    Bad.TEXT: {Reason.NOT_A_RASTER},
    Bad.TRUNCATED: {Reason.TRUNCATED, Reason.CORRUPT, Reason.NOT_A_RASTER},
}


@dataclass(frozen=True)
class Picture:
    """One image: ``count`` squares planted in ``side``² pixels."""

    name: str
    seed: int
    side: int = 256
    count: int = 3
    bad: Bad = Bad.NO

    def data(self) -> bytes:
        """Its bytes; the same at each call."""
        if self.bad is Bad.TEXT:
            return f"this is no raster: {self.name}".encode()
        whole = planted(self.name, self.seed, side=self.side, count=self.count).data
        return whole[: len(whole) // 2] if self.bad is Bad.TRUNCATED else whole


@dataclass(frozen=True)
class JobPlan:
    """A job that a client submits.

    Attributes:
        webhook: whether it asks to be told when it is done.
    """

    job_id: str
    door: Door
    images: tuple[Picture, ...]
    webhook: bool = True

    @property
    def prefix(self) -> str:
        """Where its objects lie for the doors that take objects."""
        return f"{FLIGHTS}{self.job_id}/"

    def key(self, picture: Picture) -> str:
        """The object key of a raster, whichever way it got there."""
        if self.door is Door.PUT:
            return keys.job_upload(self.job_id, picture.name)
        return self.prefix + picture.name

    def uri(self, picture: Picture) -> str:
        return f"s3://{BUCKET}/{self.key(picture)}"

    def image_id(self, picture: Picture) -> str:
        return image_id(self.job_id, self.uri(picture))


def job_id(seed: int, number: int) -> str:
    return f"chaos-{seed}-{number:06d}"


def plan(
    seed: int, number: int, *, door: Door | None = None, images: int | None = None, side: int | None = None,
    count: int = 3, bad: int | None = None, webhook: bool = True,
) -> JobPlan:  # fmt: skip
    """The job of this number.

    Args:
        door: by default they take turns.
        images: by default 2 to 5, by chance.
        side: pixels; by default one in five has several chunks of windows, the others one window.
        bad: how many of them are spoilt; by default one in every third job.
    """
    rng = random.Random(f"{seed}/{number}")
    size = rng.randint(2, 5) if images is None else images
    if bad is None:
        bad = int(number % 3 == 2 and size > 1)
    spoilt = set(rng.sample(range(size), bad))
    kinds = (Bad.TEXT, Bad.TRUNCATED)
    pictures = []
    for i in range(size):
        kind = kinds[(number + i) % 2] if i in spoilt else Bad.NO
        # some of many windows, so that chunks are merged; most of one, so that there are many
        large = side is None and (number + i) % 5 == 0
        pictures.append(
            Picture(
                f"{kind}-{i:05d}.tif", number * NUMBERS + i, side=600 if large else side or 256,
                count=9 if large else count, bad=kind,
            )
        )  # fmt: skip
    return JobPlan(
        job_id(seed, number), door or DOORS[number % len(DOORS)], tuple(pictures), webhook
    )
