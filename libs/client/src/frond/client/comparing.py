"""A job's model beside its shadow: what both made of the same windows, read by REST as the job's owner may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from frond.client.errors import FrondClientError
from frond.contracts import keys
from frond.contracts.events import ChunkPlanned
from frond.contracts.plan import ImagePlan
from frond.contracts.shadows import ShadowFailure, shadow_windows
from frond.evaluation.agreement import BoxAgreement, Classes, MaskAgreement
from frond.evaluation.difference import DiffGeoJson
from frond.masks import MaskFile
from frond.merge import from_ipc
from frond.raster import chunks_of

if TYPE_CHECKING:
    from frond.client.client import Client

_AT_ONCE: Final = 4
_UNKNOWN: Final = "Nothing is known of it: its worker was killed, or the store took no more."
_UNSUNG: Final = "Other reasons."
_REASONS: Final = 50

OnImage = Callable[[int], None]
"""Told how many images are compared."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The windows of a chunk that its shadow has its share in, and what is stored of them."""

    windows: list[int]
    own: bytes
    shadow: bytes | None
    why_not: str


def compare(
    client: Client, job_id: str, out: Path | None = None, on_image: OnImage | None = None
) -> dict[str, Any]:
    """Compare the windows of a job's completed images that its shadow has its share in.

    Memory: a few chunks, and the summary of a job that has ended. One that runs is compared as far as
    it has come.

    Args:
        out: where the GeoJSON goes; one that is there stays where this fails.

    Raises:
        FrondClientError: there is no such job, it has no shadow, or the service is behind.
    """
    job = client.status(job_id)
    shadow = job.get("shadow")
    if shadow is None:
        raise FrondClientError(
            f"Job {job_id} has no shadow. Give the next one: frond upload --shadow NAME@VERSION, or "
            "frond models shadow NAME VERSION for all jobs of production."
        )
    own, other = (_manifest(client, ref) for ref in (job["model"], shadow["model"]))
    classes = Classes(own["classes"], other["classes"])
    told: dict[str, Any] = {
        "job_id": job_id, "status": job["status"], "task": own["task"], "model": job["model"],
        "shadow": shadow, "images": 0, "windows": 0, "chunks": 0, "chunks_without": 0,
    }  # fmt: skip
    ended = _completed(client, job_id) if job["finished"] else None
    reasons: Counter[str] = Counter()
    about = {k: told[k] for k in ("job_id", "task", "model", "shadow")}
    boxes, masks = BoxAgreement(classes), MaskAgreement(classes)
    of_pixels = own["task"] == "segmentation"
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))
        diff = None
        if out is not None:
            sink = stack.enter_context(_whole(out))
            diff = stack.enter_context(DiffGeoJson(sink, about, classes.names))
        for image in client.images(job_id, "completed"):
            if ended is not None and image["image_id"] not in ended:
                continue
            plan = _plan(client, job_id, image["image_id"])
            scores = _score(own, plan), _score(other, plan)
            if diff is not None:
                diff.image(plan)
            for chunk in _chunks(client, plan, shadow["share"], pool):
                told["chunks"] += 1
                if chunk.shadow is None:
                    told["chunks_without"] += 1
                    known = chunk.why_not in reasons or len(reasons) < _REASONS
                    reasons[chunk.why_not if known else _UNSUNG] += 1
                    continue
                told["windows"] += len(chunk.windows)
                if of_pixels:
                    _masks(masks, plan, chunk, diff, scores)
                else:
                    _boxes(boxes, plan, chunk, diff)
            told["images"] += 1
            if on_image is not None:
                on_image(told["images"])
        if ended is not None and told["images"] < len(ended):
            raise FrondClientError(
                f"Job {job_id} has ended with {len(ended)} images, and the service tells of "
                f"{told['images']} so far. Try again in a few seconds."
            )
        if diff is not None:
            diff.finish()
    told["reasons"] = [{"reason": why, "chunks": n} for why, n in reasons.most_common()]
    return told | (masks.figures() if of_pixels else boxes.figures())


def _completed(client: Client, job_id: str) -> frozenset[str]:
    """The images that an ended job completed with. Such as came beyond its size are worked on as well,
    and are none of its results."""
    images = client.summary(job_id)["images"]
    return frozenset(o["image_id"] for o in images if o["status"] == "completed")


@contextmanager
def _whole(out: Path) -> Iterator[BinaryIO]:
    """A file that appears when the block ends well; nothing is left of one that does not."""
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as sink:
            yield sink
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _boxes(total: BoxAgreement, plan: ImagePlan, chunk: _Chunk, diff: DiffGeoJson | None) -> None:
    assert chunk.shadow is not None
    own, shadow = from_ipc(chunk.own)[0], from_ipc(chunk.shadow)[0]
    for window in chunk.windows:
        told = total.add(plan.grid, window, own, shadow)
        if diff is not None:
            diff.finds(plan, window, told)


def _masks(
    total: MaskAgreement,
    plan: ImagePlan,
    chunk: _Chunk,
    diff: DiffGeoJson | None,
    scores: tuple[float, float],
) -> None:
    assert chunk.shadow is not None
    with MaskFile.of(chunk.own) as own, MaskFile.of(chunk.shadow) as shadow:
        for window in chunk.windows:
            disagrees = total.add(plan.grid, window, own, shadow, scores)
            if diff is not None and disagrees is not None:
                diff.window(plan, window, disagrees)


def _manifest(client: Client, ref: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = client.registry.version(f"{ref['name']}@{ref['digest']}")["manifest"]
    return found


def _score(manifest: Mapping[str, Any], plan: ImagePlan) -> float:
    asked = plan.thresholds.score
    return float(manifest["thresholds"]["score"] if asked is None else asked)


def _plan(client: Client, job_id: str, image_id: str) -> ImagePlan:
    raw = client.read(job_id, _below(keys.image_plan(job_id, image_id), job_id))
    return ImagePlan.model_validate_json(raw)


def _chunks(
    client: Client, plan: ImagePlan, share: float, pool: ThreadPoolExecutor
) -> Iterator[_Chunk]:
    """A few are fetched at a time."""

    def fetched(asked: tuple[ChunkPlanned, list[int]]) -> _Chunk:
        return _fetched(client, *asked)

    wanted = (
        (chunk, windows)
        for chunk in chunks_of(plan)
        if (windows := shadow_windows(plan.source.etag, chunk.windows, share))
    )
    while some := list(islice(wanted, _AT_ONCE)):
        yield from pool.map(fetched, some)


def _fetched(client: Client, chunk: ChunkPlanned, windows: list[int]) -> _Chunk:
    ids = chunk.job_id, chunk.image_id, chunk.chunk_id
    shadow = _read(client, chunk.job_id, keys.shadow_result(*ids))
    if shadow is None:
        note = _read(client, chunk.job_id, keys.shadow_failure(*ids))
        why = _UNKNOWN if note is None else ShadowFailure.model_validate_json(note).detail
        return _Chunk(windows, b"", None, why)
    own = client.read(chunk.job_id, _below(keys.chunk_result(*ids), chunk.job_id))
    return _Chunk(windows, own, shadow, "")


def _read(client: Client, job_id: str, key: str) -> bytes | None:
    try:
        return client.read(job_id, _below(key, job_id))
    except FrondClientError as e:
        if e.status != 404:
            raise
        return None


def _below(key: str, job_id: str) -> str:
    """An object's name among the job's results: images/{id}/…"""
    return key.removeprefix(keys.job_prefix(job_id))
