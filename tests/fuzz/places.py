"""What the consumers' targets find in place: a model, a planned image, a folder, a loop."""

from __future__ import annotations

import atexit
import hashlib
import tempfile
from functools import cache
from pathlib import Path

from frond.contracts import keys
from frond.contracts.events import ChunkDetected, ImageUploaded
from frond.contracts.golden import GOLDEN
from frond.contracts.jobs import JobSpec, ModelRef, WindowCounts
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.merge import Detections, to_ipc
from frond.models.testing import blob_model
from frond.raster.planning import chunks_of
from fuzz.laws import Runner

JOB = "survey-7"
TIFF = b"II*\0" * 20
_ETAG = hashlib.md5(TIFF, usedforsecurity=False).hexdigest()


@cache
def runner() -> Runner:
    """The process's one loop."""
    return Runner()


@cache
def scratch() -> Path:
    """A folder that goes when the process does."""
    folder = tempfile.TemporaryDirectory(prefix="frond-fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def model_folder() -> Path:
    """Where the model's files are written."""
    return scratch() / "blob"


@cache
def model() -> tuple[ModelRef, dict[str, bytes]]:
    """A model, and the objects that it is in the store."""
    folder = blob_model(model_folder(), size=64, margin=8, name="palm-detector")
    # the golden events' digest: a graph's bytes are not the same each time that it is written
    ref = ModelRef(name="palm-detector", digest="ab" * 32, version="1")
    prefix = keys.model_version(ref.name, ref.digest)
    objects = {prefix + p.name: p.read_bytes() for p in folder.iterdir()}
    pointer = f'{{"digest": "{ref.digest}", "version": "1"}}'.encode()
    return ref, {**objects, keys.model_alias(ref.name, "production"): pointer}


def plan_of(job_id: str, image_id: str, image: str, name: str) -> ImagePlan:
    """What the tiler would have planned: six windows in chunks of two, none skipped."""
    grid = WindowGrid(width=150, height=100, size=64, margin=8)
    source = RasterSource(
        uri=image, etag=_ETAG, size=1, bands=(1, 2, 3), dtype="uint8", width=150, height=100
    )
    made = ImagePlan(
        job_id=job_id, image_id=image_id, image=image, name=name, source=source, grid=grid,
        model=model()[0], windows_per_chunk=2, chunks=1,
    )  # fmt: skip
    chunks = sum(1 for _ in made.grid.blocks(made.windows_per_chunk))
    return made.model_copy(update={"chunks": chunks})


@cache
def planned() -> tuple[ImagePlan, tuple[ChunkDetected, ...], dict[str, bytes]]:
    """The golden job's image with its chunks' events and objects, and a spec."""
    event = GOLDEN["image-uploaded-full"]
    assert isinstance(event, ImageUploaded)
    plan = plan_of(JOB, event.image_id, event.image, "north.tif")
    objects = {keys.image_plan(JOB, plan.image_id): plan.model_dump_json().encode()}
    told = []
    for chunk in chunks_of(plan):
        key = keys.chunk_result(JOB, plan.image_id, chunk.chunk_id)
        x = 10.0 * chunk.ordinal
        objects[key] = to_ipc(Detections.of([[x, 5, x + 9, 14]], [0.9], 0, chunk.windows[0]))
        n = len(chunk.windows)
        told.append(
            ChunkDetected(
                job_id=JOB, image_id=plan.image_id, image=plan.image, name=plan.name,
                plan_digest=chunk.plan_digest, chunk_id=chunk.chunk_id, ordinal=chunk.ordinal,
                chunks=chunk.chunks, windows=WindowCounts(total=n, done=n), windows_total=6,
                windows_skipped=0, result=key, detections=1, model=plan.model,
            )
        )  # fmt: skip
    spec = JobSpec(
        job_id=JOB, model=plan.model, webhook_url="https://example.org/hook", email="a@b.org"
    )
    objects[keys.job_spec(JOB)] = spec.model_dump_json().encode()
    return plan, tuple(told), objects
