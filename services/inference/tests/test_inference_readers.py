"""Rasters that kill, hang or swell whoever reads them: real reader processes, a real store."""

from __future__ import annotations

import asyncio
import ctypes
import io
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image as Picture
from pydantic import SecretStr

from frond.contracts.events import ChunkPlanned
from frond.contracts.ids import digest
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.inference.decoding import Decoded, Image, decode
from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference, StoreResults
from frond.models.testing import MAGENTA, blob_model
from frond.raster import (
    Block,
    PlanRequest,
    WindowPixels,
    chunks_of,
    inspect,
    open_raster,
    plan_image,
    read_block,
)
from frond.stack import Endpoints

pytestmark = pytest.mark.stack

AUTH = {"Authorization": "Bearer secret"}


WIDTHS = {"plain": 800, "segfault": 801, "endless": 802, "greedy": 803, "killed": 804}


def _harm(width: int) -> None:
    """What a raster of this width does to its reader."""
    if width == WIDTHS["segfault"]:
        ctypes.string_at(0)
    if width == WIDTHS["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if width == WIDTHS["endless"]:
        while True:
            pass
    if width == WIDTHS["greedy"]:
        held = []
        while True:
            held.append(bytearray(16 << 20))


def harmful_read(block: Block) -> list[WindowPixels]:
    """As the service's own, but that some rasters do harm."""
    _harm(block.source.width)
    if block.source.uri.startswith("s3://") and "slow" in block.source.uri:
        time.sleep(1000)
    return read_block(block)


def harmful_decode(image: Image) -> Decoded:
    """As the service's own, but that some images do harm."""
    _harm(Picture.open(io.BytesIO(image.data.tobytes())).width)
    return decode(image)


def picture(harm: str = "plain") -> np.ndarray:
    pixels = np.full((400, WIDTHS[harm], 3), 90, np.uint8)
    for x, y in ((20, 30), (101, 67), (200, 210)):
        pixels[y : y + 16, x : x + 16] = MAGENTA
    return pixels


def png(harm: str = "plain") -> bytes:
    out = io.BytesIO()
    Picture.fromarray(picture(harm)).save(out, "png")
    return out.getvalue()


def lost(what: str) -> dict[str, float]:
    """Readers lost, by why."""
    whys = ("died", "killed", "timeout")
    return {why: metrics.READERS_LOST.labels(what, why)._value.get() for why in whys}


@pytest_asyncio.fixture
async def inference(stack: Endpoints, bucket: str, tmp_path: Path) -> AsyncIterator[Inference]:
    made = Inference(
        InferenceSettings(
            s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
            s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket,
            cache_dir=tmp_path / "cache", default_model="blob", api_key=SecretStr("secret"),
            inference_reader_memory_mb=700, inference_read_timeout_s=8,
        ),
        read=harmful_read,
        decode=harmful_decode,
    )  # fmt: skip
    await made.registry.push(blob_model(tmp_path / "model"))
    yield made
    made.close()


@pytest_asyncio.fixture
async def client(inference: Inference) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(inference.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=AUTH) as made:
        yield made


async def chunks(inference: Inference, name: str, folder: Path) -> list[ChunkPlanned]:
    """An image of this name, planned into chunks of one window."""
    store, path = inference.store, folder / "scene.png"
    path.write_bytes(png(name if name in WIDTHS else "plain"))
    key = f"in/{name}.png"
    await store.put_file(key, path)
    there = await store.stat(key)
    model = await inference.registry.resolve("blob")
    with open_raster(str(path)) as dataset:
        plan = plan_image(
            dataset, inspect(dataset),
            PlanRequest(
                job_id="job", image_id=digest(name)[:32], image=store.uri(key), name=name,
                uri=store.uri(key), etag=there.etag, size=there.size, model=model,
                manifest=await inference.registry.manifest(model), windows_per_chunk=1,
            ),
        )  # fmt: skip
    return list(chunks_of(plan))


async def test_windows_read_apart_give_the_same_bytes(inference: Inference, tmp_path: Path) -> None:
    """As if the raster was read in the service's own process."""
    chunk = (await chunks(inference, "plain", tmp_path))[0]
    session = await inference.models.get(chunk.model)
    windows, _ = await inference.worker._reading.windows(chunk, session)
    block = Block(chunk.source, chunk.grid, chunk.windows, session.layout)
    for there, here in zip(windows, read_block(block), strict=True):
        assert there.index == here.index
        assert there.data.tobytes() == here.data.tobytes()
        assert there.data.strides == here.data.strides
        assert (there.valid is None) == (here.valid is None)


@pytest.mark.parametrize(
    ("harm", "reason", "why"),
    [
        ("segfault", Reason.READER_DIED, "died"),
        ("killed", Reason.UNAVAILABLE, "killed"),
        ("endless", Reason.READ_TIMEOUT, "timeout"),
    ],
)
async def test_an_image_that_costs_readers_costs_few(
    inference: Inference, tmp_path: Path, harm: str, reason: Reason, why: str
) -> None:
    """All of its chunks fail for that reason, though only those that were being read when it became
    clear cost a reader; the image beside it is not touched, and its readers go on."""
    # what was killed has been read again after pauses: the worker makes none of its own
    inference.readers._pauses_s, inference.worker._pauses_s = (0.0,), (600.0,)
    before = lost("chunk")
    bad = await chunks(inference, harm, tmp_path)
    good = await chunks(inference, "good", tmp_path)
    assert len(bad) > 4
    order = [c for pair in zip(bad, good, strict=True) for c in pair]
    async with asyncio.timeout(300):
        told = await asyncio.gather(*(inference.worker.handle(c) for c in order))
    assert {t.reason for t in told[0::2]} == {reason}
    assert len({t.detail for t in told[0::2]}) == 1
    assert all(t.windows.failed == t.windows.total for t in told[0::2])
    assert {t.reason for t in told[1::2]} == {None}
    # two readers, two lives each
    assert 2 <= lost("chunk")[why] - before[why] <= 4


async def test_an_image_that_takes_all_memory_is_too_large(
    inference: Inference, tmp_path: Path
) -> None:
    """For its reader, which lives on; the service has lost nothing."""
    inference.worker._pauses_s = ()
    before = lost("chunk")
    bad = (await chunks(inference, "greedy", tmp_path))[0]
    told = await inference.worker.handle(bad)
    assert told.reason is Reason.TOO_LARGE
    assert "700 MiB" in (told.detail or "")
    good = (await chunks(inference, "good", tmp_path))[0]
    assert (await inference.worker.handle(good)).reason is None
    assert lost("chunk") == before


async def test_a_slow_line_is_no_endless_loop(inference: Inference, tmp_path: Path) -> None:
    """An image that takes too long to read in place is read once more from a whole copy."""
    plain = await inference.worker.handle((await chunks(inference, "plain", tmp_path))[0])
    before = lost("chunk")
    told = await inference.worker.handle((await chunks(inference, "slow", tmp_path))[0])
    assert told.reason is None
    assert told.detections == plain.detections
    assert lost("chunk")["timeout"] == before["timeout"] + 1


async def test_copies_stand_side_by_side(inference: Inference, tmp_path: Path) -> None:
    """Each chunk that is judged has its whole copy until it is done with, whoever begins another, be it
    a worker on the same disk."""
    events = [(await chunks(inference, name, tmp_path))[0] for name in ("one", "other")]
    copy = inference.worker._results.copy
    async with copy(events[0].source.uri) as one, copy(events[1].source.uri) as other:
        StoreResults(inference.store, frozenset(), inference.settings.cache)
        assert one != other
        assert [path.stat().st_size for path in (one, other)] == [e.source.size for e in events]
    assert not one.exists()
    assert not other.exists()


@pytest.mark.parametrize(
    ("harm", "status", "reason"),
    [
        ("segfault", 422, "reader-died"),
        ("killed", 503, "unavailable"),
        ("endless", 422, "read-timeout"),
        ("greedy", 413, "too-large"),
    ],
)
async def test_a_decoder_that_ends_ends_one_request(
    client: httpx.AsyncClient, harm: str, status: int, reason: str
) -> None:
    """It is answered with a problem document that says why; what is asked beside it and after it
    is answered as ever, and a .npy needs no decoder."""
    bad, beside = await asyncio.gather(
        client.post("/predict", content=png(harm)),
        client.post("/predict", content=png()),
    )
    assert bad.status_code == status, bad.text
    assert bad.headers["content-type"] == "application/problem+json"
    assert bad.json()["reason"] == reason
    assert bad.json()["detail"]
    after = await client.post("/predict", content=png())
    array = io.BytesIO()
    np.save(array, picture())
    plain = await client.post("/predict", content=array.getvalue())
    for answer in (beside, after, plain):
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["detections"]) == 3
    assert beside.content == after.content


async def test_an_image_of_many_windows_is_decoded_piece_by_piece(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces are what they are together."""
    whole = await client.post("/predict", content=png())
    monkeypatch.setattr("frond.inference.decoding._AT_ONCE", 1)
    array = io.BytesIO()
    np.save(array, picture())
    pieces = await client.post("/predict", content=array.getvalue())
    assert whole.status_code == pieces.status_code == 200
    assert whole.json()["windows"] == pieces.json()["windows"] > 1
    assert whole.json()["detections"] == pieces.json()["detections"]
