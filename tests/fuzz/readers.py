"""Readers of bytes that are no events: stored objects, forms, manifests, names, dead letters.

Each may refuse with the error that its contract names, and with no other.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from frond.contracts import keys
from frond.contracts.errors import JobRejected, ModelRejected, UserError
from frond.contracts.ids import check_job_id, parse_s3_uri
from frond.contracts.plan import ImagePlan, WindowGrid
from frond.runtime.egress import Egress
from fuzz.laws import Broken, checked
from fuzz.raw import unpack

Target = Callable[[bytes], None]
_GRID = WindowGrid(width=4000, height=4000, size=640, margin=64)


def arrow(data: bytes) -> None:
    """a chunk's result"""
    from frond.merge import from_ipc, merge, to_ipc

    try:
        rows, metadata = from_ipc(data)
    except ValueError:
        return
    again, told = from_ipc(to_ipc(rows, metadata))
    assert to_ipc(again, told) == to_ipc(rows, metadata) and told == metadata
    try:
        once = merge(rows, _GRID, 0.5)
    except ValueError:
        return
    assert to_ipc(merge(once, _GRID, 0.5)) == to_ipc(once)


def plan(data: bytes) -> None:
    """plan.json"""
    from frond.raster.planning import chunks_of

    try:
        found = ImagePlan.model_validate_json(data)
    except ValidationError:
        return
    if ImagePlan.model_validate_json(found.model_dump_json(exclude_none=True)) != found:
        raise Broken(f"{found!r} does not come back")
    assert len(found.plan_digest) == 32
    try:
        chunks = list(itertools.islice(chunks_of(found), 50))
    except ValueError:
        return
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))


def objects(data: bytes) -> None:
    """every other JSON object; the first byte chooses which"""
    from frond.aggregator.ending import Roster
    from frond.aggregator.images import ChunkFailure
    from frond.contracts.deliveries import Delivery
    from frond.contracts.jobs import ImageOutcome, JobSpec
    from frond.models.registry import Alias

    kinds: tuple[type[BaseModel], ...] = (
        Roster, JobSpec, ImageOutcome, ChunkFailure, Delivery, Alias,
    )  # fmt: skip
    kind = kinds[data[0] % len(kinds)] if data else Roster
    try:
        found = kind.model_validate_json(data[1:])
    except ValidationError:
        return
    if kind.model_validate_json(found.model_dump_json()) != found:
        raise Broken(f"{found!r} does not come back")
    if isinstance(found, Roster):
        try:
            assert all(len(i) == 32 for i in found.ids())
        except ValueError:
            return


def manifest(data: bytes) -> None:
    """model.yaml"""
    from frond.models.folder import parse_manifest

    try:
        found = parse_manifest(data)
    except ModelRejected as e:
        assert e.detail.encode()
        return
    told = found.model_dump_json()
    json.loads(told, parse_constant=lambda c: _fail(f"{c} in {told}"))


def multipart(data: bytes) -> None:
    """a form: boundary, then body, given whole and in pieces"""
    from frond.ingest.multipart import FormReader, PartBegan, PartData, boundary_of
    from frond.ingest.names import display_name

    head, _, body = data.partition(b"\n")

    def read(step: int) -> tuple[Any, ...] | str:
        try:
            reader = FormReader(boundary_of(head.decode("latin-1")))
            steps: list[Any] = []
            for start in range(0, len(body), step):
                for one in reader.feed(body[start : start + step]):
                    if isinstance(one, PartData) and steps and isinstance(steps[-1], PartData):
                        steps[-1] = PartData(steps[-1].data + one.data)
                    else:
                        steps.append(one)
                        if isinstance(one, PartBegan) and one.filename:
                            display_name(one.filename)
            reader.finish()
        except UserError as e:
            return e.reason.value
        return tuple(steps)

    whole = read(len(body) + 1)
    if len(body) < 2000:
        in_pieces = read(3)
        if in_pieces != whole:
            raise Broken(f"in pieces {in_pieces!r}, whole {whole!r}")


def names(data: bytes) -> None:
    """job ids, addresses of objects, names of files, addresses to tell"""
    from frond.ingest.cursors import read_cursor
    from frond.ingest.names import check_email, check_webhook, display_name, distinct, numbered
    from frond.ingest.ranges import Unsatisfiable, etag_matches, parse_range

    # \xff stands for a lone surrogate, which HTTP and JSON can bring
    text = "\ud800".join(p.decode("utf-8", "replace") for p in data.split(b"\xff"))
    _refusing(lambda: check_job_id(text), JobRejected)
    if (parsed := _refusing(lambda: parse_s3_uri(text), JobRejected)) is not None:
        bucket, key = parsed
        assert f"s3://{bucket}/{key}" == text
        assert ".." not in PurePosixPath(key).parts and "\0" not in key
    safe = keys.safe_name(text)
    if (
        not 0 < len(safe) <= 160 or "/" in safe or "\\" in safe or ".." in safe
        or safe != safe.strip(" .") or any(ord(c) < 32 for c in safe)
        or len(safe.encode()) > 255
    ):  # fmt: skip
        raise Broken(f"a file called {safe!r}")
    shown = _refusing(lambda: display_name(text), UserError)
    if shown is not None:
        assert shown.encode() and numbered(shown, 2) != shown
        assert len({*distinct([(shown, "a"), (shown, "b"), (shown, "c")])}) == 3
    _refusing(lambda: check_webhook(text, Egress("")), UserError)
    _refusing(lambda: check_email(text, Egress("")), UserError)
    _refusing(lambda: read_cursor(text, int, str), UserError)
    found = _refusing(lambda: parse_range(text, 100), Unsatisfiable)
    assert found is None or 0 <= found.offset < found.offset + found.length <= 100
    etag_matches(text, "e")


def deadletters(data: bytes) -> None:
    """what lies on the dead-letter topic, and letters made of any message"""
    from frond.bus import DeadLetter

    for m in unpack(data):
        headers = [(k, v or b"") for k, v in m.headers]
        letter = DeadLetter.from_message(m.key, m.value, headers)
        again = DeadLetter.from_message(letter.key, letter.value, letter.to_headers())
        assert again.id == letter.id and again.value == m.value and again.headers == letter.headers


def _refusing(call: Callable[[], Any], error: type[Exception]) -> Any:
    try:
        return call()
    except error as e:
        str(e).encode()
        return None


def _fail(what: str) -> None:
    raise Broken(what)


def _checked(target: Target) -> Target:
    def run(data: bytes) -> None:
        checked(lambda: target(data))

    run.__doc__ = target.__doc__
    return run


READERS: dict[str, Target] = {
    t.__name__: _checked(t) for t in (arrow, plan, objects, manifest, multipart, names, deadletters)
}
