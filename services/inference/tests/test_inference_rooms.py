"""Whom a model's server that hangs keeps waiting: those who asked for that model."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from inference_bench import PLACES, SIZE, Bench, busy
from starlette.requests import ClientDisconnect

from frond.contracts.errors import ModelRejected, ModelUnavailable, RasterRejected
from frond.contracts.plan import WindowGrid
from frond.contracts.reasons import Reason
from frond.inference.api import Predictor
from frond.inference.decoding import decode
from frond.inference.pipeline import Runner
from frond.inference.predict import Prediction, most_windows
from frond.inference.settings import InferenceSettings
from frond.models import load_manifest
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA, blob_model
from frond.models.testing_server import Handler, ModelServer, model_server, served_folder
from support.waiting import until


def image(side: int = 128) -> bytes:
    pixels = np.full((side, side, 3), 90, np.uint8)
    for x, y in PLACES:
        pixels[y : y + 12, x : x + 12] = MAGENTA
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


class Desk:
    """A real predictor over a bench's models and threads."""

    def __init__(self, bench: Bench, **settings: int) -> None:
        self._bench = bench
        gate: Any = None
        self._predictor = Predictor(
            InferenceSettings(**settings), bench.models, bench.runner, gate, decode,
            lambda _, new: new,
        )  # fmt: skip
        self.close = self._predictor.close
        self.room = self._predictor._rooms[False].places

    async def ask(
        self,
        folder: Path,
        send: Callable[[], Awaitable[object]] | None = None,
        side: int = 128,
        **more: Any,
    ) -> Prediction:
        """Args:
        send: awaited for the image's bytes.
        side: of the image.
        more: as the predictor takes it.
        """

        async def body(_: int) -> IO[bytes]:
            if send is not None:
                await send()
            return io.BytesIO(image(side))

        ref = self._bench.folders.ref(folder)
        return await self._predictor.answer(body, f"blob@{ref.digest}", None, **more)


class Halting:
    """A runner's requests, of which the first few wait until they may go on."""

    def __init__(self, runner: Runner, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.free, self.calls = threading.Semaphore(0), threading.Event(), 0
        request = runner.request

        def halting(*args: Any) -> Any:
            self.calls += 1
            if self.calls <= first:
                self.begun.release()
                assert self.free.wait(60)
            return request(*args)

        monkeypatch.setattr(runner, "request", halting)

    async def wait(self) -> None:
        """Until one more waits."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=60)


@pytest.fixture
def plain(local: Path, scene: Path, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(scene, tmp_path, local)
    yield bench
    bench.close()


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
    bench.models.capacity = 1
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


async def test_a_request_whose_sender_has_left_stops_after_its_chunk(
    plain: Bench, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free when its thread is, no sooner; its other chunk is not run."""
    desk, halting, left = Desk(plain), Halting(plain.runner, 1, monkeypatch), asyncio.Event()
    asked = asyncio.create_task(desk.ask(local, side=600, gone=left.wait))
    await halting.wait()
    left.set()
    await asyncio.wait((asked,), timeout=0.2)
    assert not asked.done()
    assert desk.room._value == InferenceSettings().predict_at_once - 1
    halting.free.set()
    with pytest.raises(ClientDisconnect):
        await asked
    assert halting.calls == 1
    assert desk.room._value == InferenceSettings().predict_at_once
    # the same image of a sender who stays
    assert len((await desk.ask(local, side=600)).detections) == len(PLACES)
    assert halting.calls > 2
    desk.close()


async def test_whoever_leaves_before_there_is_room_waits_no_more(plain: Bench, local: Path) -> None:
    """Its body is dropped at once."""
    desk, left = Desk(plain), asyncio.Event()
    for _ in range(InferenceSettings().predict_at_once):
        await desk.room.acquire()
    left.set()
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(desk.ask(local, gone=left.wait), 60)
    desk.close()


async def test_one_tenant_takes_half_of_the_room_at_most(
    plain: Bench, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many requests it sends: another's is answered meanwhile."""
    half = InferenceSettings().predict_at_once // 2
    desk, halting = Desk(plain), Halting(plain.runner, half, monkeypatch)
    many = [asyncio.create_task(desk.ask(local, tenant="a")) for _ in range(2 * half)]
    for _ in range(half):
        await halting.wait()
    found = await asyncio.wait_for(desk.ask(local, tenant="b"), 60)
    assert len(found.detections) == len(PLACES)
    assert not any(task.done() for task in many)
    assert halting.calls == half + 1
    halting.free.set()
    assert [len(f.detections) for f in await asyncio.gather(*many)] == [len(PLACES)] * 2 * half
    assert not desk._predictor._rooms[False]._shares
    desk.close()


async def test_where_there_is_one_place_a_tenant_may_have_it(plain: Bench, local: Path) -> None:
    """Half of one is one."""
    desk = Desk(plain, predict_at_once=1)
    found = await asyncio.wait_for(desk.ask(local, tenant="a"), 60)
    assert len(found.detections) == len(PLACES)
    desk.close()


async def test_more_detections_than_an_answer_may_have_are_told_so(
    plain: Bench, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as it is known: the chunks that are left are not run."""
    halting = Halting(plain.runner, 0, monkeypatch)
    desk = Desk(plain, predict_max_detections=len(PLACES) - 1)
    with pytest.raises(RasterRejected, match="higher score, or upload it as a job") as e:
        await desk.ask(local, side=600)
    assert e.value.reason is Reason.TOO_MANY
    assert halting.calls == 1
    desk.close()


@pytest.mark.parametrize(("size", "margin"), [(64, 8), (512, 64), (640, 0), (256, 124)])
def test_an_image_of_all_pixels_that_are_taken_is_not_too_many_windows(
    local: Path, size: int, margin: int
) -> None:
    """At the model's own scale, unless its windows are tiny; what is far narrower, or is to be
    resampled to far more pixels, is."""
    manifest = load_manifest(local)
    manifest = manifest.model_copy(
        update={"input": manifest.input.model_copy(update={"size": size}), "margin": margin}
    )
    most = most_windows(manifest, 64_000_000)

    def windows(width: int, height: int) -> int:
        return WindowGrid(width=width, height=height, size=size, margin=margin).count

    square, wide = windows(8000, 8000), windows(16_000, 4000)
    assert max(square, wide) <= most or most == 10_000
    assert windows(20_000, 20_000) > most
    assert windows(64_000_000, 1) > most
