"""What goes wrong with a shadow is the shadow's alone. No broker, no store."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from inference_bench import reading
from shadow_bench import Held, Made

from frond.contracts import keys
from frond.contracts.errors import (
    ModelRejected,
    ModelUnavailable,
    RasterRejected,
    StoreFull,
    StoreUnavailable,
)
from frond.contracts.reasons import Reason
from frond.inference import metrics, wiring
from frond.inference import shadowing as module
from frond.raster import Block, WindowPixels
from support.clock import Clock


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelRejected(Reason.BAD_MODEL, "no graph"), Reason.BAD_MODEL),
        (ModelUnavailable("http://10.0.0.1 is away", "HTTP 503"), Reason.UNAVAILABLE),
    ],
)
async def test_a_shadow_that_does_not_load(made: Made, error: Exception, reason: Reason) -> None:
    """Is noted with its reason, and not asked for again for a while; every chunk is done."""

    def fails() -> None:
        raise error

    made.models.trouble = fails
    for number in range(3):
        assert (await made.handle(made.another(number))).reason is None
    assert made.models.asked == 1
    notes = [made.failure(made.another(n)) for n in range(3)]
    assert notes[0].reason is reason
    assert notes[0].model == made.chunk.shadow.model
    assert all("10.0.0.1" not in n.detail for n in notes)
    assert "set aside" in notes[2].detail
    assert made.shadow_key(made.another(0)) not in made.results.kept
    # it is noted: the chunk that comes again does not try it again
    made.models.trouble = lambda: None
    made.shadowing._aside.clear()
    await made.handle(made.another(0))
    assert made.models.asked == 1
    await made.handle(made.another(7))
    assert made.shadow_key(made.another(7)) in made.results.kept


async def test_a_bug_of_ours_fails_no_chunk(made: Made) -> None:
    """Whatever is raised."""

    def fails() -> None:
        raise ZeroDivisionError

    made.models.trouble = fails
    assert (await made.handle()).reason is None
    assert made.failure().reason is Reason.INTERNAL


async def test_a_shadow_that_hangs(made: Made) -> None:
    """Chunks wait for it no longer than they may, once; while its run has not ended none is begun, of
    any shadow; its late result is not taken; afterwards all is as before."""
    made.shadowing._timeout_s, made.shadowing._aside_s = 5.0, 0.0
    held = Held(await made.bench.models.get(made.chunk.shadow.model))
    both = [made.another(1), made.another(2)]
    runs = asyncio.create_task(made.handle(both[0]))
    assert await asyncio.to_thread(held.began.wait, 60)
    made.shadowing._timeout_s = 0.3
    await asyncio.wait_for(asyncio.gather(runs, made.handle(both[1])), 60)
    assert {made.failure(c).reason for c in both} == {Reason.UNAVAILABLE}
    assert ["turn" in made.failure(c).detail for c in both] == [False, True]
    # longer than this test may take: no chunk waits behind the run
    made.shadowing._timeout_s = 600.0
    assert (await made.handle(made.another(3))).reason is None
    assert "has not ended" in made.failure(made.another(3)).detail
    assert held.runs == 1
    (late,) = made.shadowing._late
    held.go.set()
    await asyncio.wait({late}, timeout=30)
    assert (await made.handle(made.another(4))).reason is None
    assert made.shadow_key(made.another(4)) in made.results.kept
    assert not any(made.shadow_key(c) in made.results.kept for c in both)


async def test_one_that_took_too_long_is_set_aside(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a job does not wait for each of its chunks."""
    clock = Clock(monkeypatch)
    held = Held(await made.bench.models.get(made.chunk.shadow.model))
    handled = asyncio.create_task(made.handle(made.another(1)))
    assert await asyncio.to_thread(held.began.wait, 60)
    clock.forward(made.shadowing._timeout_s)
    await handled
    held.go.set()
    (late,) = made.shadowing._late
    await asyncio.wait({late}, timeout=30)
    await made.handle(made.another(2))
    assert "set aside" in made.failure(made.another(2)).detail
    # of six windows, one a run
    assert held.runs == 1
    assert not made.shadowing._runner.halted.is_set()


async def test_a_slow_download_is_no_reason_to_set_it_aside(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks go on meanwhile; once it is loaded the next one has it."""
    clock = Clock(monkeypatch)
    begun, loaded = asyncio.Event(), asyncio.Event()

    def load() -> Any:
        begun.set()
        return loaded.wait()

    made.models.trouble = load
    handled = asyncio.create_task(made.handle(made.another(1)))
    await begun.wait()
    clock.forward(made.shadowing._timeout_s)
    await handled
    assert "loaded" in made.failure(made.another(1)).detail
    await made.handle(made.another(2))
    (late,) = made.shadowing._late
    loaded.set()
    await asyncio.wait({late}, timeout=30)
    await made.handle(made.another(3))
    assert made.shadow_key(made.another(3)) in made.results.kept
    assert made.models.asked == 2


async def test_a_partition_that_is_taken_away(made: Made) -> None:
    """While a shadow runs: its run ends with its batch, and until then nothing waits behind it."""
    held = Held(await made.bench.models.get(made.chunk.shadow.model))
    handled = asyncio.create_task(made.handle(made.another(1)))
    assert await asyncio.to_thread(held.began.wait, 60)
    handled.cancel()
    await asyncio.wait({handled})
    # longer than this test may take: no chunk waits behind the run
    made.shadowing._timeout_s = 600.0
    assert (await made.handle(made.another(2))).reason is None
    assert "has not ended" in made.failure(made.another(2)).detail
    (late,) = made.shadowing._late
    held.go.set()
    await asyncio.wait({late}, timeout=30)
    # of six windows, one a run
    assert held.runs == 1
    await made.handle(made.another(3))
    assert made.shadow_key(made.another(3)) in made.results.kept
    assert made.shadow_key(made.another(1)) not in made.results.kept


async def test_a_worker_that_is_asked_to_end(made: Made) -> None:
    """No chunk waits for its shadow any more, running, in its turn or new: each is done, and noted."""
    held = Held(await made.bench.models.get(made.chunk.shadow.model))
    chunks = [made.another(n) for n in range(3)]
    handled = [asyncio.create_task(made.handle(c)) for c in chunks[:2]]
    await asyncio.to_thread(held.began.wait, 120)
    made.shadowing.give_up()
    done, late = await asyncio.wait(handled, timeout=120)
    assert not late and {t.result().reason for t in done} == {None}
    assert (await made.handle(chunks[2])).reason is None
    assert ["asked to end" in made.failure(c).detail for c in chunks] == [True] * 3
    held.go.set()


async def test_a_drain_ends_before_its_time_is_up(made: Made) -> None:
    """Shadows are waited for until then, and no longer; nothing is given up before."""
    wired = SimpleNamespace(
        shadows=made.shadowing, settings=SimpleNamespace(finish_s=wiring._SHADOWLESS_S + 0.3)
    )
    service: Any = SimpleNamespace(stop=asyncio.Event())
    held = Held(await made.bench.models.get(made.chunk.shadow.model))
    async with wiring.Inference._giving_up(wired, service):  # type: ignore[arg-type]
        handled = asyncio.create_task(made.handle(made.another(1)))
        await asyncio.to_thread(held.began.wait, 120)
        began = time.monotonic()
        service.stop.set()
        assert (await asyncio.wait_for(handled, 120)).reason is None
        assert time.monotonic() - began >= 0.3
    assert "asked to end" in made.failure(made.another(1)).detail
    held.go.set()


@pytest.mark.parametrize("silent", ["get", "is_cancelled"])
async def test_a_store_that_falls_silent(
    made: Made, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the chunk's own result is stored: nobody waits for as long as the store's own time-outs."""
    monkeypatch.setattr(module, "_STORE_S", 0.3)
    put, asked = made.results.put_if_absent, getattr(made.results, silent)
    stored = False

    async def seen(key: str, data: bytes, kind: str) -> bytes:
        nonlocal stored
        stored = True
        return await put(key, data, kind)

    async def answers(what: str) -> Any:
        return await (asyncio.Event().wait() if stored else asked(what))

    made.results.put_if_absent = seen  # type: ignore[method-assign]
    setattr(made.results, silent, answers)
    told = await asyncio.wait_for(made.handle(), 20)
    assert told.reason is None
    assert made.results.kept.keys() == {made.key()}


async def test_a_rebalance_is_no_death(made: Made) -> None:
    """It takes all chunks from all workers: those that it cuts off are run again, however many."""
    cut = [made.another(n) for n in range(module._DEATHS + 2)]
    for chunk in cut:
        await made.handle(chunk)
        del made.results.kept[made.shadow_key(chunk)]
    for chunk in cut:
        made.shadowing.close()
        made.begin_anew()
        await made.handle(chunk)
        assert made.shadow_key(chunk) in made.results.kept


async def test_workers_that_die_of_a_shadow(made: Made) -> None:
    """A job loses no more than a few to it: it is not run any more then, by anybody, and that is told;
    other jobs' shadows are."""

    begun, died = asyncio.Event(), 0

    def hang() -> Any:
        begun.set()
        return asyncio.Event().wait()

    made.models.trouble = hang
    for _ in range(20):
        made.shadowing.close()
        made.begin_anew()
        begun.clear()
        handled, runs = (asyncio.create_task(c) for c in (made.handle(), begun.wait()))
        await asyncio.wait({handled, runs}, return_when=asyncio.FIRST_COMPLETED)
        runs.cancel()
        if handled.done():
            break
        handled.cancel()
        await asyncio.wait({handled})
        died += 1
    # the first return of a chunk does not count
    assert died == module._DEATHS + 1 and handled.result().reason is None
    assert "no more" in made.failure().detail
    assert (await made.handle(made.another(1))).reason is None
    assert "no more" in made.failure(made.another(1)).detail
    made.models.trouble = lambda: None
    other = made.another(2).model_copy(update={"job_id": "other"})
    await made.handle(other)
    assert made.shadow_key(other) in made.results.kept


async def test_a_read_that_fails_is_the_shadows_alone(made: Made) -> None:
    """Of a chunk that was run before; the image's other chunks are read as ever."""
    await made.handle()
    del made.results.kept[made.shadow_key()]
    troubles = [RasterRejected(Reason.READER_DIED, "it died")]

    async def read(block: Block) -> list[WindowPixels]:
        if troubles:
            raise troubles.pop()
        return await reading(block)

    made.bench.worker._reading._read = read
    assert (await made.handle()).reason is None
    assert made.failure().reason is Reason.READER_DIED
    assert (await made.handle(made.another(1))).reason is None


@pytest.mark.parametrize("error", [StoreFull("full"), StoreUnavailable("away")])
async def test_a_store_that_takes_nothing_more(
    made: Made, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk, whose own result is there, is told of within the bound."""
    monkeypatch.setattr(module, "_STORE_S", 0.3)
    put = made.results.put_if_absent

    async def full(key: str, data: bytes, kind: str) -> bytes:
        if keys.SHADOW in key:
            raise error
        return await put(key, data, kind)

    made.results.put_if_absent = full  # type: ignore[method-assign]
    told = await asyncio.wait_for(made.handle(), 20)
    assert told.reason is None
    assert made.results.kept.keys() == {made.key()}


async def test_a_short_outage_leaves_nothing_out(made: Made) -> None:
    """It is written when the store is there again."""
    put, away = made.results.put_if_absent, [StoreUnavailable("away")]

    async def later(key: str, data: bytes, kind: str) -> bytes:
        if keys.SHADOW in key and away:
            raise away.pop()
        return await put(key, data, kind)

    made.results.put_if_absent = later  # type: ignore[method-assign]
    await made.handle()
    assert made.shadow_key() in made.results.kept


async def test_too_many_detections_are_the_shadows_alone(made: Made) -> None:
    """And counted, as every other failure."""
    made.shadowing._max_detections = 0
    before = metrics.SHADOW_CHUNKS.labels("failed")._value.get()
    assert (await made.handle()).detections > 0
    assert made.failure().reason is Reason.TOO_MANY
    assert metrics.SHADOW_CHUNKS.labels("failed")._value.get() == before + 1
