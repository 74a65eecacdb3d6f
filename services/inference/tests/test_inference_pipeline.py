"""From a raster's windows to detections in full-image pixels, on a real graph, without services."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from frond.contracts.errors import ModelRejected
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.inference.pipeline import Runner, Spent, _Asked, at_once
from frond.merge import Detections, assemble, merge, to_ipc
from frond.models import WindowDetections
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA, blob_model
from frond.raster import PlanRequest, RasterReader, chunks_of, inspect, open_raster, plan_image

SIDE = 16


def scene(
    path: Path, width: int, height: int, *, seed: int = 1, gsd: float = 0.5, n: int = 40
) -> np.ndarray:
    """A GeoTIFF with magenta squares on a jittered grid; returns their boxes [n, 4]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 110, (3, height, width)).astype(np.uint8)
    cells = [(x, y) for y in range(8, height - 30, 44) for x in range(8, width - 30, 44)]
    boxes = []
    for k in rng.permutation(len(cells))[:n]:
        x, y = (v + int(rng.integers(0, 12)) for v in cells[k])
        pixels[:, y : y + SIDE, x : x + SIDE] = np.array(MAGENTA)[:, None, None]
        boxes.append((x, y, x + SIDE, y + SIDE))
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, gsd, gsd), tiled=True,
        blockxsize=256, blockysize=256, compress="deflate",
    ) as out:  # fmt: skip
        out.write(pixels)
    return np.array(sorted(boxes), dtype=float).reshape(-1, 4)


def plan_of(path: Path, session: ModelSession, windows_per_chunk: int = 8) -> ImagePlan:
    with open_raster(str(path)) as dataset:
        info = inspect(dataset)
        request = PlanRequest(
            job_id="j", image_id="1" * 32, image="s3://bucket/i.tif", name="i", uri=str(path), etag="e",
            size=path.stat().st_size, model=ModelRef(name="blob", digest="0" * 64),
            manifest=session.manifest, windows_per_chunk=windows_per_chunk,
        )  # fmt: skip
        return plan_image(dataset, info, request)


def run(
    path: Path, session: ModelSession, windows_per_chunk: int = 8
) -> tuple[ImagePlan, list[bytes], Detections]:
    plan = plan_of(path, session, windows_per_chunk)
    runner, parts = Runner(), []
    for chunk in chunks_of(plan):
        with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
            windows = reader.read_block(chunk.windows)
        found, spent = runner.detect(
            session, [w.data for w in windows], session.manifest.thresholds
        )
        assert spent.run > 0
        assert len(found) == len(chunk.windows)
        parts.append(assemble(found, windows, plan.grid, plan.source))
    runner.close()
    return plan, [to_ipc(p) for p in parts], merge(Detections.concat(parts), plan.grid, 0.3)


def same_places(found: np.ndarray, truth: np.ndarray, within: float) -> None:
    assert len(found) == len(truth)
    far = np.abs(found[:, None] - truth[None]).max(axis=2)
    assert far.min(axis=0).max() <= within


@pytest.mark.parametrize("size", [(700, 500), (256, 256), (120, 90), (1000, 200)])
def test_every_planted_square_is_found_once(tmp_path: Path, size: tuple[int, int]) -> None:
    """Across windows and their borders, images smaller than a window too: within half a pixel."""
    path = tmp_path / "scene.tif"
    truth = scene(path, *size)
    assert len(truth)
    session = ModelSession(blob_model(tmp_path / "m"), batch=3)
    _, _, merged = run(path, session)
    same_places(merged.boxes, truth, 0.5)


def test_resampled_windows_give_raster_pixels(tmp_path: Path) -> None:
    """At twice the model's GSD windows are scaled; boxes come back in the raster's own pixels."""
    path = tmp_path / "scene.tif"
    truth = scene(path, 500, 400, gsd=0.45, n=20)
    session = ModelSession(blob_model(tmp_path / "m", gsd_m=0.5))
    plan, _, merged = run(path, session)
    assert plan.grid.scale == pytest.approx(0.9, rel=0.01)
    same_places(merged.boxes, truth, 1.0)


def test_the_same_chunk_gives_the_same_bytes(tmp_path: Path) -> None:
    """Twice, with other sessions; and what is found does not depend on how windows are batched."""
    path = tmp_path / "scene.tif"
    scene(path, 700, 500)
    folder = blob_model(tmp_path / "m")
    _, first, merged = run(path, ModelSession(folder, batch=4))
    _, second, _ = run(path, ModelSession(folder, batch=4))
    assert first == second
    _, _, single = run(path, ModelSession(folder, batch=1), windows_per_chunk=3)
    assert len(single) == len(merged)
    np.testing.assert_allclose(single.boxes, merged.boxes, atol=1 / 128)


def test_nothing_is_found_where_pixels_mean_nothing(tmp_path: Path) -> None:
    """A nodata value that looks like an object is no object."""
    path = tmp_path / "scene.tif"
    truth = scene(path, 300, 300, n=10)
    with rasterio.open(path, "r+") as raster:
        valid = np.full((300, 300), 255, np.uint8)
        x, y = truth[0, :2].astype(int)
        valid[y - 2 : y + 18, x - 2 : x + 18] = 0
        raster.write_mask(valid)
    session = ModelSession(blob_model(tmp_path / "m"))
    _, _, merged = run(path, session)
    same_places(merged.boxes, truth[1:], 0.5)


def test_a_failing_model_fails_the_call_and_not_the_runner(tmp_path: Path) -> None:
    """The thread goes on with the next one."""
    session = ModelSession(blob_model(tmp_path / "m"))
    runner = Runner()
    broken = ModelSession(blob_model(tmp_path / "m"))
    broken._outputs = ["no such output"]
    windows = [np.zeros((3, 256, 256), np.uint8)] * 3
    with pytest.raises(ModelRejected, match="could not be run"):
        runner.detect(broken, windows, session.manifest.thresholds)
    assert runner.detect(session, [], session.manifest.thresholds)[0] == []
    found, _ = runner.detect(session, windows, session.manifest.thresholds)
    assert [len(f) for f in found] == [0, 0, 0]
    runner.close()


@pytest.mark.parametrize("chunks", [False, True])
def test_those_beside_each_other_share_runs_and_get_what_they_get_alone(
    tmp_path: Path, chunks: bool
) -> None:
    """What waits when a run begins goes into it; a window's neighbours do not show in its result.
    So do the last windows of chunks, where the model was seen not to care."""
    session = ModelSession(blob_model(tmp_path / "m"), batch=4)
    thresholds = session.manifest.thresholds
    rng = np.random.default_rng(1)
    requests = []
    for n in (1, 1, 3, 5):
        windows = [rng.integers(0, 60, (3, 256, 256)).astype(np.uint8) for _ in range(n)]
        for window in windows:
            x, y = rng.integers(10, 200, 2)
            window[:, y : y + 16, x : x + 16] = np.array(MAGENTA)[:, None, None]
        requests.append(windows)
    runner = Runner()
    alone = [runner.detect(session, windows, thresholds)[0] for windows in requests]
    session.rows_alike = chunks

    def chunk(*call: Any) -> Any:
        return runner.detect(*call)[0]

    began, go, queued = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
    infer, submit, sizes = session.infer, runner._pool.submit, []

    def held(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        sizes.append(n)
        began.release()
        assert go.wait(20)
        return infer(prepared, n, beside=beside)

    def telling(*call: Any, **how: Any) -> Any:
        try:
            return submit(*call, **how)
        finally:
            queued.release()

    session.infer, runner._pool.submit = held, telling  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as threads:
        answers = []
        for windows in requests:
            ask = chunk if chunks else runner.request
            answers.append(threads.submit(ask, session, windows, thresholds))
            for _ in range(0, len(windows), 4):
                assert queued.acquire(timeout=20)
            if len(answers) <= 2:
                assert began.acquire(timeout=20)
        go.set()
        together = [a.result(20) for a in answers]
    assert sizes == [1, 1, 4, 4]
    for ours, theirs in zip(together, alone, strict=True):
        assert [len(one) for one in ours] == [1] * len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.boxes.tobytes() == b.boxes.tobytes()
            assert a.scores.tobytes() == b.scores.tobytes()
    runner.close()


def test_runs_at_once_give_what_one_after_another_does(tmp_path: Path) -> None:
    """A model that is fastest with two runs at once: two of a chunk go on together, one more waits,
    and what they give is in the windows' order and has the same bytes. A lone request's run has all
    threads; beside another it has not, nor has a chunk's ever: its bytes are stored, and depend on
    nothing that goes on at the time."""
    session = ModelSession(blob_model(tmp_path / "m"), threads=2, batch=1)
    rng, thresholds = np.random.default_rng(5), session.manifest.thresholds
    windows = list(rng.integers(0, 200, (7, 3, 256, 256), dtype=np.uint8))
    for n, window in enumerate(windows):
        window[:, 20 : 36 + n, 30:46] = np.array(MAGENTA)[:, None, None]
    runner = Runner()
    alone = runner.detect(session, windows, thresholds)[0]
    session.share(2)
    infer, together, asked = session.infer, threading.Barrier(2, timeout=20), list[bool]()

    def held(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        asked.append(beside)
        # the seventh has nobody
        if len(asked) < len(windows):
            together.wait()
        return infer(prepared, n, beside=beside)

    session.infer = held  # type: ignore[method-assign]
    handed: list[Any] = []
    for found in runner.results(session, windows, thresholds, Spent()):
        handed.append(found)
        assert len(asked) <= len(handed) + 3
    assert asked == [True] * 7
    for ours, theirs in zip(handed, alone, strict=True):
        assert ours.boxes.tobytes() == theirs.boxes.tobytes() and len(ours) == 1
    for way, lone in ((runner.detect, True), (runner.request, False)):
        asked[:] = [True] * 7
        way(session, windows[:1], thresholds)
        assert asked[-1] is lone
    del asked[:]
    with ThreadPoolExecutor(2) as threads:
        for one in [threads.submit(runner.request, session, windows[:1], thresholds) for _ in "ab"]:
            one.result(20)
    assert sorted(asked) == [False, True]
    runner.close()


def test_a_request_does_not_wait_behind_chunks(tmp_path: Path) -> None:
    """However many runs chunks have asked for that have not begun: a request's begins at once."""
    session = ModelSession(blob_model(tmp_path / "m"), threads=2, batch=1)
    session.share(2)
    infer, go, began = session.infer, threading.Event(), threading.Semaphore(0)

    def held(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        # requests' alone do not wait
        if not prepared.max():
            began.release()
            assert go.wait(60)
        return infer(prepared, n, beside=beside)

    session.infer = held  # type: ignore[method-assign]
    thresholds = session.manifest.thresholds
    dark, bright = (np.full((3, 256, 256), v, np.uint8) for v in (0, 255))
    runner = Runner()
    with ThreadPoolExecutor(3) as threads:
        chunks = [threads.submit(runner.detect, session, [dark] * 8, thresholds) for _ in range(3)]
        try:
            for _ in range(2):
                assert began.acquire(timeout=20)
            with ThreadPoolExecutor(1) as requests:
                answer = requests.submit(runner.request, session, [bright], thresholds)
                assert len(answer.result(20)) == 1
            assert not began.acquire(blocking=False)
        finally:
            go.set()
        assert [len(chunk.result(60)[0]) for chunk in chunks] == [8] * 3
    runner.close()


@pytest.mark.parametrize(
    ("requests", "expected"),
    [(True, [[2, 3, 0], [1, 4], []]), (False, [[0, 1, 4], [2, 3], []])],
)
def test_a_run_takes_first_what_it_was_submitted_for(
    tmp_path: Path, requests: bool, expected: list[list[int]]
) -> None:
    """Of requests or of chunks, in the order in which they came; the others' fill up what is free."""
    session = ModelSession(blob_model(tmp_path / "m"), batch=3)
    windows = [np.full((3, 256, 256), n, np.uint8) for n in range(5)]
    runner = Runner()
    runner.close()
    lane = runner._lane(session)
    for n, request in enumerate((False, False, True, True, False)):
        (lane.asked if request else lane.left).append(_Asked(windows[n], request))
    taken = [[int(a.window.max()) for a in lane.take(3, request=requests)] for _ in range(3)]
    assert taken == expected


def test_requests_keep_no_chunk_waiting_for_ever(tmp_path: Path) -> None:
    """What a chunk has left is run, also where more requests wait at any time than a run takes."""
    session = ModelSession(blob_model(tmp_path / "m"), batch=2)
    session.rows_alike = True
    thresholds = session.manifest.thresholds
    dark, bright = (np.full((3, 256, 256), v, np.uint8) for v in (0, 255))
    runner, ended = Runner(), threading.Event()
    infer = session.infer

    def sought_after(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        if not ended.is_set():
            runner._ask(session, [bright] * 2, request=True)
        return infer(prepared, n, beside=beside)

    session.infer = sought_after  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        try:
            for _ in range(4):
                runner._ask(session, [bright] * 2, request=True)
            chunk = threads.submit(runner.detect, session, [dark] * 3, thresholds)
            assert len(chunk.result(20)[0]) == 3
        finally:
            ended.set()
    runner.close()


def test_as_many_chunks_as_fill_the_runs_and_one_more(tmp_path: Path) -> None:
    """A chunk with windows for all runs lets one other in; lone windows as many as there are runs;
    a model that does one run after another, none."""
    session = ModelSession(blob_model(tmp_path / "m"), threads=1, batch=2)
    assert {at_once(session, n) for n in (1, 2, 99)} == {1}
    session.concurrency = 8
    told = [at_once(session, n) for n in (1, 2, 3, 4, 8, 15, 16, 99)]
    assert told == [8, 8, 5, 5, 3, 2, 2, 2]


def test_a_run_that_fails_is_nobody_elses_failure(tmp_path: Path) -> None:
    """A shared run fails: each window gets a run of its own, and only the guilty one is told."""
    session = ModelSession(blob_model(tmp_path / "m"), batch=4)
    infer = session.infer

    def picky(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        if prepared.max() > 254:
            raise ModelRejected(Reason.BAD_MODEL, "too bright")
        return infer(prepared, n, beside=beside)

    session.infer = picky  # type: ignore[method-assign]
    dark, bright = (np.full((3, 256, 256), v, np.uint8) for v in (9, 255))
    runner = Runner()
    thresholds = session.manifest.thresholds
    asked = runner._ask(session, [dark, bright])
    (first,) = runner._shared(session, asked[:1], thresholds, Spent())
    assert isinstance(first, WindowDetections)
    assert not len(first)
    with pytest.raises(ModelRejected, match="too bright"):
        list(runner._shared(session, asked[1:], thresholds, Spent()))
    runner.close()


def test_a_runner_that_is_closed_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A request whose run never began is told so."""
    session = ModelSession(blob_model(tmp_path / "m"), batch=4)
    runner, go, began = Runner(), threading.Event(), threading.Semaphore(0)
    infer = session.infer

    def held(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        began.release()
        assert go.wait(20)
        return infer(prepared, n, beside=beside)

    session.infer = held  # type: ignore[method-assign]
    window = [np.zeros((3, 256, 256), np.uint8)]
    with ThreadPoolExecutor(3) as threads:
        ask = [runner.request, session, window, session.manifest.thresholds]
        running = []
        for _ in range(2):
            running.append(threads.submit(*ask))
            assert began.acquire(timeout=20)
        queued, submit = threading.Event(), runner._pool.submit

        def telling(*call: Any) -> Any:
            run = submit(*call)
            queued.set()
            return run

        runner._pool.submit = telling  # type: ignore[method-assign]
        late = threads.submit(*ask)
        assert queued.wait(20)
        runner.close()
        with pytest.raises(CancelledError):
            late.result(20)
        go.set()
        assert [len(one.result(20)[0]) for one in running] == [0, 0]
