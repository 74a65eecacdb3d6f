"""Shadows beside chunks: apart from them, never in their way. No broker, no store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from inference_bench import SIZE
from shadow_bench import SHARE, Made

from frond.contracts import keys
from frond.contracts.shadows import shadow_windows
from frond.inference import metrics
from frond.inference import shadowing as module
from frond.inference.shadowing import kept
from frond.masks import MaskFile
from frond.merge import from_ipc
from frond.models.testing import colour_model
from frond.raster import WindowPixels


async def test_results_are_kept_apart(made: Made, scene: Path) -> None:
    """The job's own result has the bytes that it has without a shadow; the shadow's holds its windows
    alone, names its digest, and is what that version gives as a job's own."""
    plain = await made.handle(made.plain)
    bytes_without = made.results.kept.pop(made.key())
    assert made.results.kept == {}
    told = await made.handle()
    assert told.model_dump(exclude={"timings"}) == plain.model_dump(exclude={"timings"})
    assert made.results.kept.keys() == {made.key(), made.shadow_key()}
    assert made.results.kept[made.key()] == bytes_without
    rows, about = from_ipc(made.results.kept[made.shadow_key()])
    chosen = shadow_windows(made.chunk.source.etag, made.chunk.windows, SHARE)
    assert 0 < len(chosen) < len(made.chunk.windows)
    assert about["model_digest"] == made.chunk.shadow.model.digest
    assert about["windows"] == str(len(chosen))

    as_own = made.another(1).model_copy(
        update={"model": made.chunk.shadow.model, "shadow": None, "windows": tuple(chosen)}
    )
    await made.handle(as_own)
    assert made.results.kept[made.shadow_key()] == made.results.kept[made.key(as_own)]
    assert set(rows.windows.tolist()) <= set(chosen) and len(rows)


async def test_a_killed_worker_leaves_nothing_out(made: Made) -> None:
    """Killed once its own result was stored: whoever is given the chunk next runs the shadow alone, on
    pixels that are read again, and gives the same bytes; the third time nothing is run."""
    await made.handle()
    whole = dict(made.results.kept)
    del made.results.kept[made.shadow_key()]
    told = await made.handle()
    assert told.timings.run == 0
    c = made.chunk
    first = keys.shadow_again(c.job_id, c.image_id, c.chunk_id)
    assert made.results.kept.keys() - whole.keys() == {first}
    del made.results.kept[first]
    assert made.results.kept == whole
    asked = made.models.asked
    await made.handle()
    assert made.models.asked == asked
    # both at once, of which one is a zombie
    made.results.kept.clear()
    await asyncio.gather(made.handle(), made.handle())
    made.results.kept.pop(first, None)
    assert made.results.kept == whole


async def test_when_none_is_run(made: Made) -> None:
    """A cancelled job's; a chunk with no window in the share; where the operator wants none."""
    none = made.chunk.model_copy(update={"shadow": made.chunk.shadow.model_copy(
        update={"share": 1e-12})})  # fmt: skip
    await made.handle(none)
    assert made.results.kept.keys() == {made.key()}
    made.results.kept.clear()
    answers = iter((False, False, False, True))

    async def cancelled(job_id: str) -> bool:
        return next(answers)

    made.results.is_cancelled = cancelled  # type: ignore[method-assign]
    await made.handle()
    assert made.results.kept.keys() == {made.key()}
    del made.results.is_cancelled
    made.shadowing._timeout_s = 0
    await made.handle(made.another(1))
    assert "No shadow" in made.failure(made.another(1)).detail
    assert made.models.asked == 0


async def test_nothing_of_it_is_counted_as_the_jobs(made: Made) -> None:
    """Windows, chunks and detections of the metrics are those without a shadow."""

    def figures() -> list[float]:
        return [
            metrics.WINDOWS._value.get(), metrics.DETECTIONS._value.get(),
            metrics.CHUNKS.labels("done")._value.get(),
        ]  # fmt: skip

    counted = []
    for chunk in (made.plain, made.chunk):
        made.results.kept.clear()
        before = figures()
        await made.handle(chunk)
        counted.append([b - a for a, b in zip(before, figures(), strict=True)])
    assert counted[0] == counted[1]


async def test_masks(scene: Path, tmp_path: Path) -> None:
    """Of a segmentation the shadow's masks of its windows alone."""
    own = colour_model(tmp_path / "c1", size=SIZE)
    other = colour_model(tmp_path / "c2", size=SIZE, version="2", score=0.6)
    made = Made(scene, tmp_path, own, other)
    await made.handle(made.plain)
    without = made.results.kept.pop(made.key())
    await made.handle()
    assert made.results.kept[made.key()] == without
    with (
        MaskFile.of(without) as all_,
        MaskFile.of(made.results.kept[made.shadow_key()]) as some,
    ):
        assert some.windows == shadow_windows("e", made.chunk.windows, SHARE)
        for window in some.windows:
            assert np.array_equal(some.planes(window), all_.planes(window))
    made.shadowing.close()
    made.bench.close()


def test_other_windows_memory_goes() -> None:
    """What is kept is no view of the chunk's pixels, unless all of them are."""
    whole = np.zeros((4, 3, 8, 8), np.uint8)
    windows = [WindowPixels(n, whole[n], np.ones((8, 8), bool)) for n in range(4)]
    some = kept(windows, (1, 3))
    assert [w.index for w in some] == [1, 3]
    assert not any(np.shares_memory(w.data, whole) for w in some)
    assert all(np.shares_memory(w.data, whole) for w in kept(windows, (0, 1, 2, 3)))


def test_pixels_lie_as_the_shadow_takes_them() -> None:
    """A model of NHWC beside one of NCHW, either way."""
    data = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    window = WindowPixels(0, data, None)
    turned = module._laid(window, "CHW", "HWC")
    assert turned.shape == (4, 4, 3) and turned[1, 2, 0] == data[0, 1, 2]
    back = module._laid(WindowPixels(0, turned, None), "HWC", "CHW")
    assert np.array_equal(back, data) and back.flags.c_contiguous
