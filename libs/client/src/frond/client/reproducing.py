"""A job, run again and compared: the same images, the same model, and what differs.

The new job has an id of its own, and so have its images, and the plans of those that are read by a tiled copy. Before two
files are compared, the new ids in both are replaced by the old, and so is the version of Frond; all other bytes must be the same. In both: a class, or an
image, may be called as the new job is, and stays the same then. Parquet is compressed: its rows are compared instead, and
what its head says.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from frond.client.errors import FrondClientError, NotReachable
from frond.contracts.jobs import Thresholds
from frond.contracts.plan import ImagePlan

if TYPE_CHECKING:
    from frond.client.client import Client

# beside them lie files of the ledger, which hold measured times
FILES: Final = (
    "coco.json", "detections.geojson", "detections.parquet", "stac.json", "classes.tif",
)  # fmt: skip
# of images that no model was to see: no object that may be read, or another model's or tenant's than the job's
_NO_PART: Final = ("object-missing", "bad-image-uri", "bucket-not-allowed", "conflict")
_LONGEST_NAME: Final = 500
"""Characters of an image's name that REST takes; the ingest topic takes more."""
_PIECE: Final = 1 << 20
_AT_ONCE: Final = 10_000
_AROUND: Final = 30
_PLANS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Compared:
    """One image of both jobs.

    Attributes:
        files: how many of its files were compared.
        differences: file (or "" for the image itself) and what differs; empty: all is the same.
    """

    image: str
    files: int
    differences: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Again:
    """Which images of a job can be run again.

    Attributes:
        images: rows of its summary: they are sent and compared.
        no_part: how many no model was to see, so that there is nothing to compare.
        own_way: how many came by the ingest topic as REST sends none: with thresholds of their own, or
            under a name that is too long. They would differ for that alone.
    """

    images: Sequence[Mapping[str, Any]]
    no_part: int
    own_way: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The job that runs another one again.

    Attributes:
        is_new: False: it was there before, from an interrupted run or by somebody's wish. Nothing
            tells which, so it is not ours to delete.
    """

    job_id: str
    is_new: bool


def again_of(client: Client, summary: Mapping[str, Any]) -> Again:
    """Which images of an ended job can be run again, in the order of its summary."""
    part = [o for o in summary["images"] if o["reason"] not in _NO_PART]
    job_id, thresholds = summary["job_id"], Thresholds.model_validate(summary["thresholds"])

    def is_as_sent(image: Mapping[str, Any]) -> bool:
        name = image["name"]
        if len(name) > _LONGEST_NAME or not name.strip():
            return False
        # thresholds change nothing of an image that failed
        return image["status"] != "completed" or _thresholds(client, job_id, image) == thresholds

    with ThreadPoolExecutor(_PLANS_AT_ONCE) as pool:
        images = [o for o, fits in zip(part, pool.map(is_as_sent, part), strict=True) if fits]
    return Again(images, len(summary["images"]) - len(part), len(part) - len(images))


def begin(
    client: Client,
    summary: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    new_id: str | None = None,
    began: Callable[[str], None] | None = None,
) -> Begun:
    """Start a job of these images of another with the same version of the model and the same thresholds.

    Args:
        new_id: of a job that this began before, which goes on, or of none.
        began: called with its id before it is given an image.

    Returns:
        The job. Where its images are refused, nothing of a new one stays; where nobody answers any
        more, the error tells how to go on.

    Raises:
        FrondClientError: there are none, or no image of the job was ever given a model; one may not be
            read again; ``new_id`` is another job, or the job itself.
    """
    if new_id == summary["job_id"]:
        raise FrondClientError(
            f"Job {new_id} is the one to be reproduced. Choose a name that is free, or none."
        )
    model = summary["model"]
    if not model or not images:
        raise FrondClientError(
            f"Job {summary['job_id']} has no image that a model saw and that can be sent again as it "
            "came: there is nothing to reproduce."
        )
    before = _status(client, new_id) if new_id is not None else None
    if before is not None:
        _require_own(client, before, {o["uri"] for o in images})
    # one that is there with another model, thresholds or addresses is refused
    job = client.create_job(
        new_id, model=f"{model['name']}@{model['digest']}", size=len(images),
        thresholds={k: v for k, v in summary["thresholds"].items() if v is not None},
    )  # fmt: skip
    new_id = str(job["job_id"])
    if began is not None:
        began(new_id)
    begun = Begun(new_id, is_new=before is None)
    if before is not None and before["finished"]:
        return begun
    try:
        for i in range(0, len(images), _AT_ONCE):
            part = [{"image": o["uri"], "name": o["name"]} for o in images[i : i + _AT_ONCE]]
            client.add_objects(new_id, part)
    except FrondClientError as e:
        if e.status is None or isinstance(e, NotReachable):
            e.detail += f" Job {new_id} waits for the rest of its images: go on with --as {new_id}."
        elif begun.is_new:
            drop(client, new_id)
        raise
    return begun


def drop(client: Client, job_id: str) -> None:
    """Delete a new job that :func:`begin` gave; also if somebody has done so meanwhile."""
    try:
        client.delete(job_id)
    except FrondClientError as e:
        if e.status != 404:
            raise


def _thresholds(client: Client, job_id: str, image: Mapping[str, Any]) -> Thresholds:
    """Those that an image was run with: its own where it had some, else its job's."""
    return Thresholds.model_validate(_plan(client, job_id, image)["thresholds"])


def _plan(client: Client, job_id: str, image: Mapping[str, Any]) -> dict[str, Any]:
    return client.read_object(job_id, f"images/{image['image_id']}/plan.json")


def _status(client: Client, job_id: str) -> dict[str, Any] | None:
    try:
        return client.status(job_id)
    except FrondClientError as e:
        if e.status != 404:
            raise
        return None


def _require_own(client: Client, job: Mapping[str, Any], uris: Collection[str]) -> None:
    """Raise FrondClientError unless a job has these images at most, and as many as they are: it is
    given those that it lacks."""
    own = job["images"]["expected"] == len(uris)
    if not own or any(o["image"] not in uris for o in client.images(job["job_id"])):
        raise FrondClientError(
            f"Job {job['job_id']} is another job. Choose a name that is free, or none."
        )


def compare(
    client: Client,
    old: Mapping[str, Any],
    images: Iterable[Mapping[str, Any]],
    new: Mapping[str, Any],
) -> Iterator[Compared]:
    """These images of the old job, one after the other."""
    again = {o["uri"]: o for o in new["images"]}
    for one in images:
        other = again.get(one["uri"])
        if other is None:
            yield Compared(one["name"], 0, (("", "it is not in the new job"),))
            continue
        told = [*_told(one, other)]
        files: Sequence[str] = ()
        if one["status"] == other["status"] == "completed":
            ids = renamed((old, one), (new, other)) | _plans(
                client, (old["job_id"], one), (new["job_id"], other)
            )
            files = _files(client, old["job_id"], one, new["job_id"], other)
            told += _in_files(client, files, (old["job_id"], one), (new["job_id"], other), ids)
        yield Compared(one["name"], len(files), tuple(told))


def renamed(
    one: tuple[Mapping[str, Any], Mapping[str, Any]],
    other: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> dict[bytes, bytes]:
    """What stands for what in the files of an image, new for old, of (summary, image) of both jobs.

    People choose a job's id: it may be a part of an address, or a number. It stands for the job only
    where it is a whole string of JSON, or ends a description.
    """
    (old, image), (new, again) = one, other
    job, job_again = old["job_id"], new["job_id"]
    told = {
        again["image_id"]: image["image_id"],
        f'"{job_again}"': f'"{job}"',
        f' job {job_again}"': f' job {job}"',
        f'"{new["generator"]}"': f'"{old["generator"]}"',
        # a tag of a raster; of another length, all that comes after it lies elsewhere
        f">{new['generator']}<": f">{old['generator']}<",
    }
    return {k.encode(): v.encode() for k, v in told.items()}


def _plans(
    client: Client, one: tuple[str, Mapping[str, Any]], other: tuple[str, Mapping[str, Any]]
) -> dict[bytes, bytes]:
    """The new plan's digest for the old one's, where the plans differ in the place of a tiled copy alone."""
    digest, new_digest = one[1].get("plan_digest"), other[1].get("plan_digest")
    if digest is not None and digest == new_digest:
        return {}
    (digest, plan), (new_digest, new_plan) = (
        _without_place(client, job_id, image) for job_id, image in (one, other)
    )
    return {new_digest.encode(): digest.encode()} if plan == new_plan else {}


def _without_place(client: Client, job_id: str, image: Mapping[str, Any]) -> tuple[str, str]:
    """The digest of an image's plan, and that of the same plan wherever a copy of the image lies."""
    plan = ImagePlan.model_validate(_plan(client, job_id, image))
    if plan.checksum is None:
        return plan.plan_digest, plan.plan_digest
    source = plan.source.model_copy(update={"uri": plan.image})
    return plan.plan_digest, plan.model_copy(update={"source": source}).plan_digest


def _told(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("status", "reason", "checksum", "windows", "detections"):
        a, b = one.get(field), other.get(field)
        if a != b:
            yield "", f"{field} was {_short(a)}, is {_short(b)}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _files(
    client: Client, job: str, one: Mapping[str, Any], new_job: str, other: Mapping[str, Any]
) -> list[str]:
    there = {
        f["name"]
        for job_id, image in ((job, one), (new_job, other))
        for f in client.read_object(job_id, f"images/{image['image_id']}/")["files"]
    }
    return [name for name in FILES if name in there]


def _in_files(
    client: Client,
    files: Sequence[str],
    one: tuple[str, Mapping[str, Any]],
    other: tuple[str, Mapping[str, Any]],
    ids: Mapping[bytes, bytes],
) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="frond-reproduce-") as folder:
        for name in files:
            paths = []
            for side, (job_id, image) in (("old", one), ("new", other)):
                path = Path(folder) / side / name
                try:
                    client.download(job_id, f"images/{image['image_id']}/{name}", path)
                except FrondClientError as e:
                    if e.status != 404:
                        raise
                    yield name, f"only the {'new' if side == 'old' else 'old'} job has it"
                    break
                paths.append(path)
            else:
                differ = differing_rows if name.endswith(".parquet") else differing_bytes
                if what := differ(paths[0], paths[1], ids):
                    yield name, what
            for path in paths:
                path.unlink()


def differing_bytes(old: Path, new: Path, ids: Mapping[bytes, bytes]) -> str:
    """Where two files begin to differ once the new ids are replaced in both; "" when they do not."""
    offset = 0
    a, b = b"", b""
    for more_a, more_b in zip_longest(_replaced(old, ids), _replaced(new, ids), fillvalue=b""):
        a, b = a + more_a, b + more_b
        both = min(len(a), len(b))
        if a[:both] != b[:both]:
            at = next(i for i in range(both) if a[i] != b[i])
            return f"byte {offset + at}: was {_excerpt(a, at)}, is {_excerpt(b, at)}"
        a, b, offset = a[both:], b[both:], offset + both
    if a or b:
        return f"byte {offset}: one of them ends there"
    return ""


def _excerpt(data: bytes, at: int) -> str:
    return repr(data[max(at - _AROUND // 2, 0) : at + _AROUND].decode("utf-8", "replace"))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _replaced(path: Path, ids: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The file's bytes with each key replaced; memory: a piece."""
    pattern, longest, rest = _pattern(ids), max(map(len, ids)), b""
    for piece in _pieces(path):
        rest += piece
        # what begins behind here may go on in the next piece
        safe, at, out = len(rest) - longest, 0, []
        for found in pattern.finditer(rest):
            if found.start() > safe:
                break
            out += [rest[at : found.start()], ids[found.group()]]
            at = found.end()
        end = max(safe, at)
        yield b"".join([*out, rest[at:end]])
        rest = rest[end:]
    yield pattern.sub(lambda found: ids[found.group()], rest)


def differing_rows(old: Path, new: Path, ids: Mapping[bytes, bytes]) -> str:
    """Which column of two Parquet files begins to differ where; "" when none does."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(old) as a, pq.ParquetFile(new) as b:
        if not a.schema_arrow.equals(b.schema_arrow, check_metadata=False):
            return "they have other columns"
        if a.metadata.num_rows != b.metadata.num_rows:
            return f"{a.metadata.num_rows} rows were, {b.metadata.num_rows} are"
        if a.num_row_groups != b.num_row_groups:
            return "their rows lie in other groups"
        row = 0
        for group in range(a.num_row_groups):
            one, other = a.read_row_group(group), b.read_row_group(group)
            if one.num_rows != other.num_rows:
                return "their rows lie in other groups"
            for name in one.schema.names:
                was, is_ = one.column(name), other.column(name)
                if was.equals(is_):
                    continue
                for n, (x, y) in enumerate(zip(was.to_pylist(), is_.to_pylist(), strict=True)):
                    if isinstance(x, str) and isinstance(y, str):
                        x, y = (_sub(v.encode(), ids).decode() for v in (x, y))
                    # NaN is not itself
                    if x != y and not (x != x and y != y):
                        return f"row {row + n}, {name}: was {_short(str(x))}, is {_short(str(y))}"
            row += one.num_rows
        if _sub(_meta(a), ids) != _sub(_meta(b), ids):
            return "their heads differ"
    return ""


def _meta(file: Any) -> bytes:
    found = file.schema_arrow.metadata or {}
    return b"\0".join(k + b"\0" + v for k, v in sorted(found.items()))


def _sub(data: bytes, ids: Mapping[bytes, bytes]) -> bytes:
    return _pattern(ids).sub(lambda found: ids[found.group()], data)


def _pattern(ids: Mapping[bytes, bytes]) -> re.Pattern[bytes]:
    # the longest first: what is told may begin with another one
    return re.compile(b"|".join(map(re.escape, sorted(ids, key=len, reverse=True))))
