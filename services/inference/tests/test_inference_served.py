"""Models that servers run, in the service: outages are waited out, and keep nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from inference_bench import PLACES, SIZE, Bench, busy
from pydantic import SecretStr, ValidationError

from frond.auth.principal import INSTALLATION
from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.inference import outages
from frond.inference.api import make_app
from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference
from frond.merge import from_ipc
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA
from frond.models.testing_server import Handler, ModelServer, served_folder
from frond.runtime import wait_out
from frond.stack import Endpoints


async def test_chunks_of_a_served_model_are_those_of_a_local_one(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """Row by row, in the results that are stored."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, local, folder, servers=(server.url,))
    session = ModelSession(local)
    rows = []
    for one in (local, folder):
        bench.results.kept.clear()
        told = await bench.worker.handle(bench.chunk(one, session))
        assert told.reason is None, told.detail
        (raw,) = bench.results.kept.values()
        rows.append(from_ipc(raw)[0])
    assert len(rows[0]) >= len(PLACES)
    assert rows[0].boxes.tobytes() == rows[1].boxes.tobytes()
    assert rows[0].scores.tobytes() == rows[1].scores.tobytes()
    bench.close()


async def test_an_outage_of_the_server_is_waited_out(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """While the model is loaded, and while it runs; the chunk is done when the server is well."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,), patience_s=60)
    chunk = bench.chunk(folder, ModelSession(local))
    server.script += [("/infer", busy)]
    with pytest.raises(ModelUnavailable):
        await bench.worker.handle(chunk)
    await bench.models.get(chunk.model)
    server.script += [("/infer", busy)]
    with pytest.raises(ModelUnavailable):
        await bench.worker.handle(chunk)
    server.script += [("/infer", busy)]
    told = await wait_out(lambda: bench.worker.handle(chunk))
    assert told.reason is None
    assert told.detections >= len(PLACES)
    assert not server.script
    bench.close()


async def test_a_server_that_stays_away_fails_its_chunks_in_the_end(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """Others' chunks wait behind them. Once it answers, the next outage has all its time again."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,), patience_s=0.5)
    chunk = bench.chunk(folder, ModelSession(local))
    server.script += [("/infer", busy)] * 100
    with pytest.raises(ModelUnavailable):
        await bench.worker.handle(chunk)
    told = await wait_out(lambda: bench.worker.handle(chunk))
    assert told.reason is Reason.UNAVAILABLE
    assert "once more" in (told.detail or "")
    assert server.url not in (told.detail or "")
    assert "(HTTP 503: busy)" in (told.detail or "")
    # those behind it are not even tried, whenever they were planned; who asks once more has all the
    # time again
    now = datetime.now(UTC)
    bench.worker._patience.seconds = 60.0
    asked = len(server.seen)
    for n, planned in enumerate((now - timedelta(minutes=5), now, None)):
        more = {"chunk_id": f"{n:032x}", "planned_at": planned}
        behind = await bench.worker.handle(chunk.model_copy(update=more))
        assert behind.reason is Reason.UNAVAILABLE
        assert "(HTTP 503: busy)" in (behind.detail or "")
    assert len(server.seen) == asked
    later = chunk.model_copy(update={"job_id": "j-retry-1", "planned_at": now})
    with pytest.raises(ModelUnavailable):
        await bench.worker.handle(later)
    server.script.clear()
    for one in (later, chunk):
        assert (await bench.worker.handle(one)).reason is None
    bench.results.kept.clear()
    server.script += [("/infer", busy)]
    with pytest.raises(ModelUnavailable):
        await bench.worker.handle(chunk)
    bench.close()


@pytest.mark.parametrize("answer", ["well", "refuses"])
async def test_a_job_that_was_given_up_goes_on_when_its_server_answers(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path, answer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One of its chunks is tried now and then; if it gets an answer, all that come after are tried.
    What was done before is told of, whatever the server does."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,), patience_s=0.01)
    done = bench.chunk(folder, ModelSession(local))
    assert (await bench.worker.handle(done)).reason is None
    first, second = (done.model_copy(update={"chunk_id": c * 32}) for c in "ab")
    server.script += [("/infer", busy)] * 100
    given_up = await wait_out(lambda: bench.worker.handle(first))
    assert given_up.reason is Reason.UNAVAILABLE
    assert (await bench.worker.handle(done)).reason is None
    server.script.clear()
    assert (await bench.worker.handle(second)).reason is Reason.UNAVAILABLE
    monkeypatch.setattr(outages, "_TRIED_S", 0.0)
    expected = None
    if answer == "refuses":
        server.script += [("/infer", lambda h: h.answer(400, {"error": "no"}))] * 2
        expected = Reason.INFERENCE_FAILED
    assert (await bench.worker.handle(first)).reason is expected
    monkeypatch.undo()
    assert (await bench.worker.handle(second)).reason is expected
    bench.close()


async def test_a_chunk_that_ends_otherwise_waits_no_more(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """Refused, cancelled or done: what it waited before is nothing to its next time."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,), patience_s=60)
    chunk = bench.chunk(folder, ModelSession(local))
    await bench.models.get(chunk.model)
    waiting = bench.worker._patience._waiting

    async def cancelled(_: str) -> bool:
        return True

    for reason in (Reason.INFERENCE_FAILED, Reason.DISMISSED, None):
        server.script[:] = [("/infer", busy)]
        with pytest.raises(ModelUnavailable):
            await bench.worker.handle(chunk)
        assert list(waiting) == [chunk.chunk_id]
        if reason is Reason.INFERENCE_FAILED:
            server.script += [("/infer", lambda h: h.answer(400, {"error": "no"}))] * 9
        if reason is Reason.DISMISSED:
            bench.results.is_cancelled = cancelled  # type: ignore[method-assign]
        told = await bench.worker.handle(chunk)
        assert told.reason is reason
        assert not waiting
        bench.results.__dict__.pop("is_cancelled", None)
    bench.close()


async def test_what_is_told_of_a_chunk_is_bounded(local: Path, scene: Path, tmp_path: Path) -> None:
    """A graph may have names of any length, and an event must fit a topic."""
    bench = Bench(scene, tmp_path, local)

    async def wordy(_: ModelRef) -> ModelSession:
        raise ModelRejected(Reason.BAD_MODEL, "x" * 2_000_000)

    chunk = bench.chunk(local, ModelSession(local))
    bench.models.get = wordy  # type: ignore[method-assign]
    told = await bench.worker.handle(chunk)
    assert told.reason is Reason.BAD_MODEL
    assert len(told.detail or "") == 2000
    bench.close()


async def test_models_on_servers_cost_no_local_model_its_place(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """A tuned session is dear; one of a server is next to nothing."""
    folders = [
        served_folder(local, tmp_path / f"served-{n}", server.url, timeout_s=n + 1)
        for n in range(4)
    ]
    bench = Bench(scene, tmp_path, local, *folders, servers=(server.url,))
    ref = bench.folders.ref(local)
    session = await bench.models.get(ref)
    for folder in folders:
        await bench.models.get(bench.folders.ref(folder))
    assert await bench.models.get(ref) is session
    bench.close()


async def test_an_outage_is_kept_in_words_alone(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """With the exception go the frames that it went through, which hold a batch of windows."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,))
    server.script += [("/infer", busy)]
    with pytest.raises(ModelUnavailable):
        await bench.models.get(bench.folders.ref(folder))
    (kept,) = bench.models._away.values()
    assert not any(isinstance(one, BaseException) for one in kept)
    bench.close()


async def test_a_server_that_is_not_named_fails_its_chunks(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """With the sentence that names the setting; nothing is sent there."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder)
    told = await bench.worker.handle(bench.chunk(folder, ModelSession(local)))
    assert told.reason is Reason.BAD_MODEL
    assert "FROND_MODEL_SERVERS" in (told.detail or "")
    assert not server.seen
    bench.close()


async def test_a_server_that_hangs_keeps_no_local_model_waiting(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """As many chunks as there are threads for servers hang in it; a local model's goes through."""
    folder = served_folder(local, tmp_path / "served", server.url, timeout_s=300)
    bench = Bench(scene, tmp_path, local, folder, servers=(server.url,), in_flight=8)
    session = ModelSession(local)
    plain = bench.chunk(folder, session)
    await bench.models.get(plain.model)
    hanging, free = threading.Semaphore(0), threading.Event()

    def hang(handler: Handler) -> None:
        hanging.release()
        free.wait(250)
        busy(handler)

    server.script += [("/infer", hang)] * 4
    stuck = [
        asyncio.create_task(bench.worker.handle(plain.model_copy(update={"chunk_id": f"{n:032x}"})))
        for n in range(4)
    ]
    for _ in stuck:
        assert await asyncio.to_thread(hanging.acquire, timeout=60)
    told = await asyncio.wait_for(bench.worker.handle(bench.chunk(local, session)), 60)
    assert told.reason is None
    assert not any(t.done() for t in stuck)
    free.set()
    ended = await asyncio.gather(*stuck, return_exceptions=True)
    assert all(isinstance(e, ModelUnavailable) for e in ended)
    bench.close()


async def test_those_who_wait_for_a_model_share_its_servers_error(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """One time-out for all that waited through it; who comes later asks anew."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,))
    ref = bench.folders.ref(folder)
    free = threading.Event()

    def hang(handler: Handler) -> None:
        free.wait(20)
        busy(handler)

    server.script += [("/infer", hang)]
    asked = [asyncio.create_task(bench.models.get(ref)) for _ in range(3)]
    await asyncio.sleep(0)
    free.set()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(e, ModelUnavailable) for e in ended)
    assert len([p for m, p in server.seen if p.endswith("/infer")]) == 1
    assert (await bench.models.get(ref)).remote
    bench.close()


async def test_predict_answers_503_with_a_time_to_come_back(
    local: Path, server: ModelServer, tmp_path: Path
) -> None:
    """A problem document that tells neither host nor port."""
    session = ModelSession(served_folder(local, tmp_path / "served", server.url))

    class Away:
        async def admit(self, _: str | None) -> Any:
            return INSTALLATION

        async def answer(self, *_: Any, **__: Any) -> Any:
            server.script.append(("/infer", busy))
            return session.run([np.zeros((3, SIZE, SIZE), np.uint8)])

    app = make_app(lambda: Away())  # type: ignore[arg-type,return-value]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.post("/predict", content=b"x")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["reason"] == "unavailable"
    assert "127.0.0.1" not in answer.text


def test_servers_are_base_urls() -> None:
    """Written as one likes; what is none stops the service at its start."""
    settings = InferenceSettings(model_servers=" http://Triton:8000/ ,https://gate/models,")
    assert settings.servers == ("http://triton:8000", "https://gate/models")
    assert InferenceSettings().servers == ()
    with pytest.raises(ValidationError, match="no base URL"):
        InferenceSettings(model_servers="triton:8000")


@pytest.mark.stack
async def test_a_served_model_in_the_wired_service(
    stack: Endpoints, bucket: str, local: Path, server: ModelServer, tmp_path: Path
) -> None:
    """Pushed, fetched, loaded and asked by /predict: the answer of the local model."""
    folder = served_folder(local, tmp_path / "served", server.url)
    made = Inference(
        InferenceSettings(
            s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
            s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket,
            cache_dir=tmp_path / "cache", default_model="blob", api_key=SecretStr("secret"),
            model_servers=server.url, tuning_s=0,
        )
    )  # fmt: skip
    pixels = np.full((128, 128, 3), 90, np.uint8)
    for x, y in PLACES:
        pixels[y : y + 12, x : x + 12] = MAGENTA
    np.save(tmp_path / "image.npy", pixels)
    await made.registry.push(local, alias="here")
    await made.registry.push(folder, alias="there")
    found = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(made.app()), base_url="http://t",
        headers={"Authorization": "Bearer secret"},
    ) as client:  # fmt: skip
        for alias in ("here", "there"):
            answer = await client.post(
                f"/predict?model=blob@{alias}", content=(tmp_path / "image.npy").read_bytes()
            )
            assert answer.status_code == 200, answer.text
            found.append(answer.json()["detections"])
        server.script += [("/infer", busy)]
        away = await client.post(
            "/predict?model=blob@there", content=(tmp_path / "image.npy").read_bytes()
        )
    assert len(found[0]) == len(PLACES)
    assert found[0] == found[1]
    assert away.status_code == 503
    made.close()
