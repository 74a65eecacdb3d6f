"""Whom a model's server that hangs keeps waiting: those who asked for that model."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from inference_bench import PLACES, SIZE, Bench, busy

from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.reasons import Reason
from frond.inference.api import Predictor
from frond.inference.decoding import decode
from frond.inference.pipeline import Runner
from frond.inference.predict import Prediction
from frond.inference.settings import InferenceSettings
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA, blob_model
from frond.models.testing_server import Handler, ModelServer, model_server, served_folder
from support.waiting import until


def image() -> bytes:
    pixels = np.full((128, 128, 3), 90, np.uint8)
    for x, y in PLACES:
        pixels[y : y + 12, x : x + 12] = MAGENTA
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


class Desk:
    """A real predictor over a bench's models and threads."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        gate: Any = None
        self._predictor = Predictor(
            InferenceSettings(), bench.models, bench.runner, gate, decode
        )  # fmt: skip
        self.close = self._predictor.close
        self.room = self._predictor._rooms[False].places

    async def ask(
        self, folder: Path, send: Callable[[], Awaitable[object]] | None = None
    ) -> Prediction:
        """Args:
        send: awaited for the image's bytes.
        """

        async def body(_: int) -> IO[bytes]:
            if send is not None:
                await send()
            return io.BytesIO(image())

        ref = self._bench.folders.ref(folder)
        return await self._predictor.answer(body, f"blob@{ref.digest}", None)


async def test_one_server_that_hangs_keeps_no_other_model_waiting(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """With the default settings: as many requests as there is room for, and all but one of the
    chunks, hang in one server; a local model's request and another server's chunk go through."""
    settings = InferenceSettings()
    hanging, free = threading.Semaphore(0), threading.Event()

    def hang(handler: Handler) -> None:
        hanging.release()
        free.wait(250)
        busy(handler)

    with model_server(local) as well:
        sick = served_folder(local, tmp_path / "sick", server.url, timeout_s=300)
        other = served_folder(local, tmp_path / "other", well.url)
        bench = Bench(scene, tmp_path, local, sick, other, servers=(server.url, well.url))
        desk, session = Desk(bench), ModelSession(local)
        for folder in (sick, other):
            await bench.models.get(bench.folders.ref(folder))
        server.script += [("/infer", hang)] * 30
        plain = bench.chunk(sick, session)
        stuck = [
            *(asyncio.create_task(desk.ask(sick)) for _ in range(settings.predict_at_once)),
            *(
                asyncio.create_task(
                    bench.worker.handle(plain.model_copy(update={"chunk_id": f"{n:032x}"}))
                )
                for n in range(settings.chunks_in_flight - 1)
            ),
        ]
        for _ in stuck:
            assert await asyncio.to_thread(hanging.acquire, timeout=60)
        told = await asyncio.wait_for(bench.worker.handle(bench.chunk(other, session)), 60)
        assert told.reason is None
        found = await asyncio.wait_for(desk.ask(local), 60)
        assert len(found.detections) == len(PLACES)
        assert not any(t.done() for t in stuck)
        free.set()
        ended = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(e, ModelUnavailable) for e in ended)
        server.script.clear()
        assert len((await desk.ask(sick)).detections) == len(PLACES)
    desk.close()
    bench.close()


async def test_whoever_waits_holds_no_model(local: Path, scene: Path, tmp_path: Path) -> None:
    """Whose sender is slow, or for whom there is no room yet: no more models are in memory than may be."""
    other = blob_model(tmp_path / "other", size=SIZE, margin=8, version="2")
    bench = Bench(scene, tmp_path, local, other)
    bench.models._capacity = 1
    desk, places = Desk(bench), InferenceSettings().predict_at_once
    wanted, begun, go_on = bench.folders.ref(local), asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        begun.set()
        await go_on.wait()

    async def others_model() -> None:
        await bench.models.get(bench.folders.ref(other))
        gc.collect()

    session = weakref.ref(await bench.models.get(wanted))
    asked = asyncio.create_task(desk.ask(local, slowly))
    await begun.wait()
    await others_model()
    assert session() is None
    for _ in range(places):
        await desk.room.acquire()
    go_on.set()
    await asyncio.to_thread(until, lambda: wanted.digest in bench.models._sessions, 60)
    session = weakref.ref(await bench.models.get(wanted))
    await others_model()
    assert session() is None
    for _ in range(places):
        desk.room.release()
    assert len((await asked).detections) == len(PLACES)
    desk.close()
    bench.close()


async def test_a_server_that_hangs_while_its_model_is_loaded_keeps_no_thread_of_the_loop(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """The store is read in those, and local models are loaded in them."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    sick = served_folder(local, tmp_path / "sick", server.url, timeout_s=300)
    bench = Bench(scene, tmp_path, local, sick, servers=(server.url,))
    free = threading.Event()

    def hang(handler: Handler) -> None:
        free.wait(250)
        busy(handler)

    server.script += [("/infer", hang)]
    stuck = asyncio.create_task(bench.models.get(bench.folders.ref(sick)))
    session = await asyncio.wait_for(bench.models.get(bench.folders.ref(local)), 60)
    assert not session.remote
    assert not stuck.done()
    free.set()
    with pytest.raises(ModelUnavailable):
        await stuck
    bench.close()


async def test_a_request_tells_what_its_models_server_refuses(
    local: Path, server: ModelServer, scene: Path, tmp_path: Path
) -> None:
    """As a run that failed, without the server's address."""
    folder = served_folder(local, tmp_path / "served", server.url)
    bench = Bench(scene, tmp_path, folder, servers=(server.url,))
    desk = Desk(bench)
    await bench.models.get(bench.folders.ref(folder))
    refused = ("/infer", lambda h: h.answer(400, {"error": "too many windows"}))
    server.script += [refused] * 50
    with pytest.raises(ModelRejected, match="too many windows") as e:
        await desk.ask(folder)
    assert e.value.reason is Reason.INFERENCE_FAILED
    assert server.url not in e.value.detail
    desk.close()
    bench.close()


def test_what_a_request_still_asks_for_is_dropped_when_its_server_is_away(
    local: Path, server: ModelServer, tmp_path: Path
) -> None:
    """Its answer is known after the first run: the others would only keep the server from getting well."""
    session = ModelSession(served_folder(local, tmp_path / "served", server.url), batch=2)
    runner, runs, told = Runner(1), 0, threading.Event()

    def away(*_: Any, **__: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs > 1:
            assert told.wait(60)
        raise ModelUnavailable("away")

    session.infer = away  # type: ignore[method-assign]
    windows = [np.zeros((3, SIZE, SIZE), np.uint8)] * 12
    with pytest.raises(ModelUnavailable):
        runner.request(session, windows, session.manifest.thresholds)
    told.set()
    lane = runner._lane(session)
    lane.requests.submit(int).result(60)
    # one may have begun before it was known
    assert runs <= 2
    assert not lane.asked
    runner.close()
