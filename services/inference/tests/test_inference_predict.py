"""POST /predict: any readable image in, detections or problem details out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from pydantic import SecretStr
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from frond.auth import Bodies, KeyStore, Scope
from frond.inference import api
from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference
from frond.models.testing import MAGENTA, blob_model
from frond.runtime import Service
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings
from support.waiting import until

pytestmark = pytest.mark.stack

PLACES = ((20, 30), (101, 67), (200, 210), (63, 180))
AUTH = {"Authorization": "Bearer secret"}


@pytest.fixture
def more() -> dict[str, Any]:
    """Further settings."""
    return {}


@pytest.fixture
def inference(
    stack: Endpoints, bucket: str, topic_prefix: str, tmp_path: Path, more: dict[str, Any]
) -> Iterator[Inference]:
    made = Inference(
        InferenceSettings(
            s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
            s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket,
            kafka_bootstrap=stack.kafka_bootstrap, topic_prefix=topic_prefix,
            cache_dir=tmp_path / "cache", default_model="blob", api_key=SecretStr("secret"),
            predict_max_bytes=4 << 20, predict_max_pixels=2_000_000, **more,
        )
    )  # fmt: skip
    yield made
    made.close()


@pytest_asyncio.fixture
async def client(inference: Inference, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    await inference.registry.push(blob_model(tmp_path / "model"))
    transport = httpx.ASGITransport(inference.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=AUTH) as made:
        yield made


def picture(side: int = 256) -> np.ndarray:
    pixels = np.full((side, side, 3), 90, np.uint8)
    for x, y in PLACES:
        pixels[y : y + 16, x : x + 16] = MAGENTA
    return pixels


def encoded(kind: str, pixels: np.ndarray, crs: str | None = "EPSG:32650") -> bytes:
    out = io.BytesIO()
    if kind == "npy":
        np.save(out, pixels)
    elif kind == "tif":
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=3,
                dtype=pixels.dtype.name, crs=crs,
                transform=Affine(0.4, 0.3, 500_000, 0.3, -0.4, 100_000),
            ) as sink:  # fmt: skip
                sink.write(pixels.transpose(2, 0, 1))
            return bytes(memory.read())
    else:
        Image.fromarray(pixels).save(out, kind, **({"quality": 98} if kind == "jpeg" else {}))
    return out.getvalue()


def boxes(answer: httpx.Response) -> list[list[float]]:
    return sorted(d["bbox"] for d in answer.json()["detections"])


@pytest.mark.parametrize("kind", ["npy", "tif", "png", "jpeg"])
async def test_every_format_gives_the_planted_squares(client: httpx.AsyncClient, kind: str) -> None:
    """To within a pixel, with class, score and the model that found them."""
    answer = await client.post("/predict", content=encoded(kind, picture()))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["width"], body["height"]) == (256, 256)
    assert body["model"]["name"] == "blob"
    assert len(body["model"]["digest"]) == 64
    expected = sorted([x, y, 16, 16] for x, y in PLACES)
    np.testing.assert_allclose(boxes(answer), expected, atol=1.0)
    scores = [d["score"] for d in body["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert {d["class"] for d in body["detections"]} == {"blob"}


async def test_map_coordinates_follow_all_six_terms(client: httpx.AsyncClient) -> None:
    """A rotated GeoTIFF: centres on the map are those of the squares."""
    answer = await client.post("/predict", content=encoded("tif", picture()))
    body = answer.json()
    assert body["crs"] == "EPSG:32650"
    transform = Affine(0.4, 0.3, 500_000, 0.3, -0.4, 100_000)
    expected = sorted(transform @ (x + 8, y + 8) for x, y in PLACES)
    np.testing.assert_allclose(sorted(d["center"] for d in body["detections"]), expected, atol=0.5)
    for found in body["detections"]:
        ring = found["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        assert found["lonlat"][0] == pytest.approx(117, abs=0.01)


async def test_a_transform_without_a_crs_gives_coordinates_in_units_unknown(
    client: httpx.AsyncClient,
) -> None:
    """As files of a job do: no CRS is named, a note says so, and no longitude is made up."""
    body = (await client.post("/predict", content=encoded("tif", picture(), crs=None))).json()
    assert body["crs"] is None and any("units unknown" in n for n in body["notes"])
    assert len(body["detections"]) == len(PLACES)
    for found in body["detections"]:
        assert found["center"][0] > 499_000 and found["geometry"] is not None
        assert found["lonlat"] is None


async def test_an_image_without_a_place_has_none(client: httpx.AsyncClient) -> None:
    """Pixels only, and a note that says so."""
    body = (await client.post("/predict", content=encoded("png", picture()))).json()
    assert body["crs"] is None
    assert body["notes"]
    assert all(d["center"] is None and d["geometry"] is None for d in body["detections"])


async def test_larger_images_are_seen_in_windows_and_merged(client: httpx.AsyncClient) -> None:
    """A square on the border of windows is found once."""
    pixels = picture(900)
    for x, y in ((184, 184), (215, 500), (380, 380), (570, 300)):
        pixels[y : y + 16, x : x + 16] = MAGENTA
    answer = await client.post("/predict", content=encoded("png", pixels))
    assert answer.json()["windows"] > 9
    assert len(boxes(answer)) == len(PLACES) + 4


async def test_axes_of_an_array_may_come_either_way(client: httpx.AsyncClient) -> None:
    """rows×columns×bands and bands×rows×columns, other byte orders, other types."""
    pixels = picture()
    plain = boxes(await client.post("/predict", content=encoded("npy", pixels)))
    for other in (pixels.transpose(2, 0, 1), np.asfortranarray(pixels)):
        assert boxes(await client.post("/predict", content=encoded("npy", other))) == plain
    wide = (pixels.astype(">u2")) * 100
    assert len(boxes(await client.post("/predict", content=encoded("npy", wide)))) == len(PLACES)


async def test_requests_beside_each_other_do_not_mix(client: httpx.AsyncClient) -> None:
    """Each gets its own answer, and the same one as alone."""
    empty = encoded("png", np.full((256, 256, 3), 90, np.uint8))
    full = encoded("png", picture())
    answers = await asyncio.gather(
        *(client.post("/predict", content=full if i % 2 else empty) for i in range(12))
    )
    assert [len(boxes(a)) for a in answers] == [0, len(PLACES)] * 6
    assert len({a.content for a in answers}) == 2


async def test_model_and_score_may_be_asked_for(client: httpx.AsyncClient) -> None:
    """By reference; the bar by number."""
    image = encoded("png", picture())
    ref = (await client.post("/predict", content=image)).json()["model"]["digest"]
    same = await client.post(f"/predict?model=blob@{ref[:8]}", content=image)
    assert same.status_code == 200
    none = await client.post("/predict?score=0.9999", content=image)
    assert none.json()["detections"] == []


@pytest.mark.parametrize("kind", ["npy", "png"])
async def test_a_scale_that_is_given_counts(
    client: httpx.AsyncClient, inference: Inference, tmp_path: Path, kind: str
) -> None:
    """An image twice as fine as the model is seen at half its size, and told of in its own pixels;
    without it, pixels are taken as they are and nothing is known of their size."""
    await inference.registry.push(blob_model(tmp_path / "scaled", name="scaled", gsd_m=0.5))
    image = encoded(kind, picture().repeat(2, axis=0).repeat(2, axis=1))
    answer = await client.post("/predict?model=scaled&gsd_m=0.25", content=image)
    assert answer.status_code == 200, answer.text
    expected = sorted([2 * x, 2 * y, 32, 32] for x, y in PLACES)
    np.testing.assert_allclose(boxes(answer), expected, atol=2.0)
    assert answer.json()["gsd_m"] == 0.25
    plain = await client.post("/predict?model=scaled", content=image)
    assert plain.json()["gsd_m"] is None
    assert plain.json()["windows"] > answer.json()["windows"] == 1


async def test_an_image_that_is_to_be_more_windows_than_are_taken_is_refused(
    client: httpx.AsyncClient, inference: Inference, tmp_path: Path
) -> None:
    """A scale that makes many pixels of few is; as many pixels as are taken are not too many windows."""
    await inference.registry.push(blob_model(tmp_path / "scaled", name="scaled", gsd_m=0.5))
    answer = await client.post("/predict?model=scaled&gsd_m=4", content=encoded("png", picture()))
    assert (answer.status_code, answer.json()["reason"]) == (413, "too-many")
    assert "upload it as a job" in answer.json()["detail"]
    largest = encoded("png", picture(1414))
    answer = await client.post("/predict?model=scaled&gsd_m=0.5", content=largest)
    assert answer.status_code == 200, answer.text


async def test_a_sender_who_leaves_gets_nothing_computed(
    client: httpx.AsyncClient, inference: Inference
) -> None:
    """Once its body is there it is looked at whether anybody still waits for the answer."""
    assert (await client.post("/predict", content=encoded("png", picture()))).status_code == 200
    messages = [
        {"type": "http.request", "body": encoded("png", picture()), "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", AUTH["Authorization"].encode())]
    scope = {
        "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict",
        "query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    await inference.app()(scope, receive, send)
    assert sent[0]["status"] == 400


def _gray(height: int, width: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize(
    ("body", "query", "status", "reason"),
    [
        (b"", "", 422, "empty-file"),
        (b"hello", "", 422, "not-a-raster"),
        (b"<VRTDataset>", "", 422, "driver-not-allowed"),
        (b"II*\x00\x10\x00", "", 422, "truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 50, "", 422, "corrupt"),
        (b"\x93NUMPY\x01\x00garbage", "", 422, "corrupt"),
        (b"0" * (5 << 20), "", 413, "too-large"),
        (_gray(2000, 2000), "", 413, "too-large"),
        (_gray(10, 10), "?score=2", 422, "bad-request"),
        (_gray(10, 10), "?gsd_m=0", 422, "bad-request"),
        (_gray(10, 10), "?gsd_m=inf", 422, "bad-request"),
        (_gray(10, 10), "?model=palms", 404, "unknown-model"),
        (_gray(10, 10), "?model=" + "x" * 300, 422, "bad-request"),
    ],
)
async def test_bad_requests_get_problem_details(
    client: httpx.AsyncClient, body: bytes, query: str, status: int, reason: str
) -> None:
    """RFC 9457: type, title, status, a sentence; never a stack trace."""
    answer = await client.post("/predict" + query, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["reason"] == reason
    assert problem["status"] == status
    assert problem["detail"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), complex), np.zeros(9), np.zeros((0, 5, 3)), np.zeros((2, 3, 4, 5)),
        np.array(["a"]),
    ],
    ids=str,
)  # fmt: skip
async def test_arrays_that_are_no_image_are_refused(
    client: httpx.AsyncClient, array: np.ndarray
) -> None:
    """422 with the shape or type there is."""
    answer = await client.post("/predict", content=encoded("npy", array))
    assert answer.status_code == 422
    assert answer.json()["reason"] in ("unsupported-dtype", "corrupt")


async def test_an_array_of_too_few_bands_is_refused(client: httpx.AsyncClient) -> None:
    """The model's bands are named."""
    answer = await client.post("/predict", content=encoded("npy", np.zeros((50, 60, 2), np.uint8)))
    assert (answer.status_code, answer.json()["reason"]) == (422, "missing-bands")


async def test_the_key_is_asked_for(client: httpx.AsyncClient) -> None:
    """401 without it or with another."""
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
        answer = await client.post("/predict", content=encoded("png", picture()), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_stored_key_needs_the_scope(
    client: httpx.AsyncClient, stack: Endpoints, bucket: str
) -> None:
    """A key that was made for submitting predicts; one for reading is told what it lacks."""
    store = ObjectStore(
        StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket), threads=2
    )
    for scope, status in ((Scope.SUBMIT, 200), (Scope.READ, 403)):
        _, key = await KeyStore(store).create("n", tenant="acme", scopes=[scope])
        headers = {"Authorization": f"Bearer {key}"}
        answer = await client.post("/predict", content=encoded("png", picture()), headers=headers)
        assert answer.status_code == status, answer.text
    assert answer.json()["reason"] == "forbidden" and "submit" in answer.json()["detail"]
    store.close()


@pytest.mark.parametrize("more", [{"request_rate": 0.1}])
async def test_a_key_may_send_so_many_requests_a_second(client: httpx.AsyncClient) -> None:
    """Some at once are taken; then 429, when to come back, and which setting said so."""
    answers = [await client.post("/predict", content=encoded("png", picture())) for _ in range(10)]
    first, last = answers[0], answers[-1]
    assert (first.status_code, last.status_code) == (200, 429), last.text
    assert last.json()["reason"] == "rate-limited" and "FROND_REQUEST_RATE" in last.json()["detail"]
    assert 1 <= int(last.headers["retry-after"]) <= 10


@pytest.mark.parametrize("more", [{"upload_rate": 1000}])
async def test_bodies_are_read_at_a_keys_rate(
    client: httpx.AsyncClient, inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body is waited for as its bytes are more than the rate; further ones, while it is far behind, are
    refused."""
    waits: list[float] = []

    async def waited(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(inference.predictor._rates, "_sleep", waited)
    body = encoded("npy", picture())
    first = await client.post("/predict", content=body)
    assert first.status_code == 200, first.text
    # 64 KiB may come at once
    assert max(waits) == pytest.approx((len(body) - (64 << 10)) / 1000, abs=30)
    second = await client.post("/predict", content=body)
    assert second.status_code == 429, second.text
    assert "FROND_UPLOAD_RATE" in second.json()["detail"]
    assert int(second.headers["retry-after"]) > 1


async def test_a_form_is_told_to_be_no_form(client: httpx.AsyncClient) -> None:
    """curl -F is the commonest mistake."""
    answer = await client.post("/predict", files={"file": encoded("png", picture())})
    assert answer.status_code == 400
    assert "--data-binary" in answer.json()["detail"]


async def test_slow_senders_keep_nobody_waiting(
    client: httpx.AsyncClient, inference: Inference
) -> None:
    """As many as there is room for send half their image and pause; another is answered."""
    data = encoded("png", picture())
    begun = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield data[:100]
        begun.release()
        await go_on.wait()
        yield data[100:]

    async with asyncio.timeout(60):
        room = inference.predictor._settings.predict_at_once
        slow = [asyncio.create_task(client.post("/predict", content=slowly())) for _ in range(room)]
        for _ in slow:
            await begun.acquire()
        assert len(boxes(await client.post("/predict", content=data))) == len(PLACES)
        go_on.set()
        for answer in await asyncio.gather(*slow):
            assert len(boxes(answer)) == len(PLACES)


async def test_senders_that_say_nothing_more_are_given_up(
    client: httpx.AsyncClient, inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told to send it again; one more than a key may have is told to wait."""
    data = encoded("png", picture())
    begun = asyncio.Event()

    async def stopping() -> AsyncIterator[bytes]:
        yield data[:100]
        begun.set()
        await asyncio.Event().wait()
        yield data[100:]

    async with asyncio.timeout(60):
        monkeypatch.setattr(inference.predictor, "_bodies", Bodies(1, 600))
        silent = asyncio.create_task(client.post("/predict", content=stopping()))
        await begun.wait()
        above = await client.post("/predict", content=data)
        assert above.status_code == 429 and int(above.headers["retry-after"]) > 0
        silent.cancel()
        await asyncio.wait({silent})
        monkeypatch.setattr(inference.predictor, "_bodies", Bodies(1, 0.5))
        given_up = await client.post("/predict", content=stopping())
        assert given_up.status_code == 503 and "Send it again" in given_up.json()["detail"]
        assert int(given_up.headers["retry-after"]) > 0
        assert len(boxes(await client.post("/predict", content=data))) == len(PLACES)


async def test_requests_are_answered_while_the_service_drains(
    client: httpx.AsyncClient, inference: Inference
) -> None:
    """Chunks are done before the last request is: it finds its model and its decoder all the same."""
    await asyncio.to_thread(inference.close_chunks)
    answer = await client.post("/predict", content=encoded("png", picture()))
    assert answer.status_code == 200
    assert len(boxes(answer)) == len(PLACES)


async def test_what_an_alias_means_is_asked_now_and_then(
    client: httpx.AsyncClient, inference: Inference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version answers once the old answer is too old, and an unknown one is asked for each
    time: it may be pushed any moment."""
    image = encoded("npy", picture())

    async def digest(model: str = "blob") -> str | None:
        answer = await client.post(f"/predict?model={model}", content=image)
        return answer.json()["model"]["digest"] if answer.status_code == 200 else None

    monkeypatch.setattr(api, "_REF_S", 1000.0)
    first = await digest()
    assert await digest("other") is None
    pushed = await inference.registry.push(blob_model(tmp_path / "second", version="2"))
    other = await inference.registry.push(blob_model(tmp_path / "other", name="other"))
    assert await digest("other") == other.digest
    assert await digest() == first != pushed.digest
    monkeypatch.setattr(api, "_REF_S", 0.0)
    # it is loaded meanwhile
    await digest()
    await asyncio.gather(*inference.warming._loading.values())
    assert await digest() == pushed.digest


async def test_a_broken_version_takes_no_answering_ones_place(
    client: httpx.AsyncClient, inference: Inference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was promoted untried: whoever asks for `production` is answered by the version before, and
    whoever asks for it is told what is wrong with it."""
    monkeypatch.setattr(api, "_REF_S", 0.0)
    image = encoded("npy", picture())
    first = (await client.post("/predict", content=image)).json()["model"]["digest"]
    folder = blob_model(tmp_path / "broken", version="2")
    (folder / "model.onnx").write_bytes(b"no graph")
    pushed = await inference.registry.push(folder)
    for _ in range(3):
        answer = await client.post("/predict", content=image)
        assert (answer.status_code, answer.json()["model"]["digest"]) == (200, first)
        await asyncio.gather(*inference.warming._loading.values())
    told = await client.post(f"/predict?model=blob@{pushed.digest}", content=image)
    assert told.status_code == 422
    assert told.json()["reason"] == "bad-model"


async def test_a_promoted_version_is_loaded_before_anybody_asks(
    client: httpx.AsyncClient, inference: Inference, tmp_path: Path
) -> None:
    """While the service runs, where an earlier version has been at work."""
    await client.post("/predict", content=encoded("npy", picture()))
    service = Service("inference", inference.settings)
    running = asyncio.create_task(inference.consume_chunks(service))
    await asyncio.to_thread(until, lambda: inference.warming._pointed)
    pushed = await inference.registry.push(blob_model(tmp_path / "second", version="2"))
    await asyncio.to_thread(until, lambda: inference.models.holds(pushed))
    service.stop.set()
    await running
