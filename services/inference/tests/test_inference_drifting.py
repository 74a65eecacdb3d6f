"""Drift, from chunks that are run to events: no broker, no store."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from drift_bench import OBSERVER, Broker, Clock, draw, drifting, plan_of, run_image

from frond.contracts.drift import BandCompared, Compared, DriftBounds, DriftVerdict
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.drift import Length
from frond.drift.manifest import write_reference
from frond.drift.reference import measure
from frond.inference import drifting as module
from frond.inference import metrics
from frond.inference.pipeline import Runner
from frond.inference.settings import InferenceSettings
from frond.inference.worker import Worker
from frond.models.session import ModelSession
from frond.models.testing import blob_model, colour_model
from frond.raster import (
    Block,
    RasterReader,
    WindowPixels,
    chunks_of,
)


def with_reference(folder: Path, image: Path) -> ModelSession:
    write_reference(folder, measure(folder, [image], threads=1).reference)
    return ModelSession(folder, threads=1)


@pytest.mark.parametrize("make", [blob_model, colour_model], ids=["boxes", "masks"])
async def test_live_windows_are_told_of_beside_the_training_data(
    tmp_path: Path, make: object
) -> None:
    """Images like those of the training data are stable, brighter ones have drifted; what is stored
    for a chunk is the same whether somebody looks on or not."""
    folder = make(tmp_path / "m", size=64, margin=8)  # type: ignore[operator]
    session = with_reference(folder, draw(tmp_path / "train.tif"))
    told = {}
    for name, grey in (("like", 90), ("bright", 160)):
        watch, broker = drifting(), Broker()
        path = draw(tmp_path / f"{name}.tif", grey, seed=2)
        stored = await run_image(watch, session, path)
        await watch.finish(broker.send)
        watch.close()
        (told[name],) = broker.events
        unwatched = await run_image(drifting(share=0.0), session, path)
        assert stored == unwatched
    like, bright = told["like"], told["bright"]
    assert like.windows == like.windows_run == like.windows_scored > 50
    assert [b.band for b in like.bands] == [1, 2, 3]
    assert {b.verdict for b in like.bands} == {DriftVerdict.STABLE} == {like.verdict}
    assert {b.verdict for b in bright.bands} == {DriftVerdict.DRIFTED} == {bright.verdict}
    assert like.scores is not None and like.scores.verdict is DriftVerdict.STABLE
    assert like.scores.values > 0
    if session.manifest.task == "segmentation":
        assert like.finds is None  # each pixel has a score
    else:
        assert like.finds is not None and like.finds.verdict is DriftVerdict.STABLE
    gauge = metrics.DRIFT_VERDICT.labels(session.manifest.name, "ab" * 6, "band 1")
    assert gauge._value.get() == DriftVerdict.DRIFTED.rank


async def test_a_model_that_finds_nothing_is_told_of(tmp_path: Path) -> None:
    """Where its training images had something in most windows: it has no scores to compare."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    session = with_reference(folder, draw(tmp_path / "train.tif"))
    watch, broker = drifting(), Broker()
    await run_image(watch, session, draw(tmp_path / "a.tif", seed=2, things=False))
    await watch.finish(broker.send)
    watch.close()
    (event,) = broker.events
    assert event.scores is not None and event.scores.verdict is DriftVerdict.UNKNOWN
    assert event.finds is not None and event.finds.live == (event.windows_scored, 0)
    assert event.finds.verdict is DriftVerdict.DRIFTED is event.verdict


async def test_without_a_reference_nothing_is_looked_at_unless_asked_for(tmp_path: Path) -> None:
    """By default such a model costs nothing; with ``all`` its histograms are told of."""
    session = ModelSession(blob_model(tmp_path / "m", size=64, margin=8), threads=1)
    path = draw(tmp_path / "a.tif")
    for without, events in ((False, 0), (True, 1)):
        watch, broker = drifting(without_reference=without), Broker()
        await run_image(watch, session, path)
        await watch.finish(broker.send)
        watch.close()
        assert len(broker.events) == events
    assert broker.events[0].verdict is DriftVerdict.UNKNOWN
    assert broker.events[0].scores is not None


async def test_a_job_with_a_higher_threshold_has_no_say_in_scores(tmp_path: Path) -> None:
    """It shows its best finds alone, which are not what the reference holds; its pixels count."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    session = with_reference(folder, draw(tmp_path / "train.tif"))
    for score, scored in ((0.9, False), (0.2, True)):
        watch, broker = drifting(), Broker()
        await run_image(watch, session, tmp_path / "train.tif", score)
        await watch.finish(broker.send)
        watch.close()
        (event,) = broker.events
        assert (event.scores is not None) is scored
        assert event.bands[0].verdict is DriftVerdict.STABLE
    # those below the model's own threshold are left out
    assert event.scores is not None and not any(event.scores.live[:50])


async def test_a_reference_of_a_lower_threshold_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the manifest's threshold was raised since, scores and finds are not looked at; the log
    says so once a version, and says nothing of a job that asks for more."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    session = with_reference(folder, draw(tmp_path / "train.tif"))
    said: list[str] = []
    monkeypatch.setattr(module._log, "warning", lambda text, **_: said.append(text))
    plan = plan_of(tmp_path / "train.tif", session)
    event = next(iter(chunks_of(plan)))
    plain = session.manifest
    higher = plain.thresholds.model_copy(update={"score": plain.thresholds.score + 0.2})
    raised = plain.model_copy(update={"thresholds": higher})
    watch = drifting()
    assert watch.look(event, plain, higher) is not None
    assert said == []
    for _ in range(3):
        assert watch.look(event, raised, higher) is not None
    watch.close()
    assert len(said) == 1 and "frond models reference" in said[0]


async def test_looking_on_never_holds_up_or_fails_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counting that fails is logged and forgotten; chunks that come faster than they are counted
    are not kept; a thread that is gone is no error."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    session = ModelSession(folder, threads=1)
    path = draw(tmp_path / "a.tif")

    def fails(*_: object) -> None:
        raise ValueError("a bug")

    watch, broker = drifting(without_reference=True), Broker()
    monkeypatch.setattr(watch._periods, "saw", fails)
    await run_image(watch, session, path)
    await watch.finish(broker.send)
    assert broker.events == [] and watch._waiting == 0

    missed = metrics.DRIFT_MISSED.labels("windows")
    before = missed._value.get()
    monkeypatch.setattr(module, "_WAITING", 0)
    await run_image(watch, session, path)
    assert missed._value.get() > before
    monkeypatch.setattr(module, "_WAITING", 4)
    watch.close()
    assert len(await run_image(watch, session, path)) > 0


class Memory:
    """Results in memory; every raster is there, and nothing is cancelled."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes:
        if key not in self.kept:
            raise ObjectMissing(key)
        return self.kept[key]

    async def put_if_absent(self, key: str, data: bytes, content_type: str) -> bytes:
        return self.kept.setdefault(key, data)

    def check(self, uri: str) -> None: ...

    async def etag(self, uri: str) -> str:
        return "e"

    def copy(self, uri: str) -> AbstractAsyncContextManager[Path]:
        raise AssertionError("nothing is damaged")

    async def is_cancelled(self, job_id: str) -> bool:
        return False


class One:
    """The only model."""

    def __init__(self, session: ModelSession) -> None:
        self.session = session

    async def get(self, ref: ModelRef) -> ModelSession:
        return self.session


async def test_the_worker_has_each_chunk_looked_at_once(tmp_path: Path) -> None:
    """When it was run and stored; a chunk whose result is there is not run, and does not count."""
    session = ModelSession(blob_model(tmp_path / "m", size=64, margin=8), threads=1)
    path = draw(tmp_path / "a.tif")
    watch, broker, results, runner = drifting(without_reference=True), Broker(), Memory(), Runner()

    async def read(block: Block) -> list[WindowPixels]:
        with RasterReader(block.source, block.grid, layout=block.layout) as reader:
            return reader.read_block(block.windows)

    worker = Worker(results, One(session), runner, read, pauses_s=(), watch=watch)
    chunks = list(chunks_of(plan_of(path, session)))
    for event in [*chunks, *chunks]:
        told = await worker.handle(event)
        assert told.reason is None
    await watch.finish(broker.send)
    for one in (watch, worker, runner):
        one.close()
    (seen,) = broker.events
    assert seen.windows == seen.windows_run == sum(len(c.windows) for c in chunks)
    assert seen.windows_scored == seen.windows
    assert len(results.kept) == len(chunks) > 1


def gauges(what: str) -> dict[str, float]:
    """What /metrics says of a part of the model "gauged"."""
    return {
        sample.name: sample.value
        for gauge in (metrics.DRIFT_VERDICT, metrics.DRIFT_PSI, metrics.DRIFT_KS)
        for family in gauge.collect()
        for sample in family.samples
        if (sample.labels["model"], sample.labels["what"]) == ("gauged", what)
    }


def test_gauges_say_nothing_that_the_last_period_does_not() -> None:
    """Of a part that it has no figures of there is no figure, and its verdict is unknown: the time
    beside them is the last period's."""
    part = Compared(
        live=(1, 9), reference=(9, 1), values=10, observed=100, observed_reference=100, ks=0.8,
        psi=3.5, verdict=DriftVerdict.DRIFTED,
    )  # fmt: skip
    event = DriftObserved(
        model=ModelRef(name="gauged", digest="cd" * 32), observer=OBSERVER, started=Clock.now,
        ended=Clock.now, ended_by="time", windows=100, windows_run=400, scores=part, finds=part,
        bands=[BandCompared(band=1, **dict(part)), BandCompared(band=1, **dict(part))],
        verdict=DriftVerdict.DRIFTED,
    )  # fmt: skip
    full = {"frond_drift_verdict": 3, "frond_drift_psi": 3.5, "frond_drift_ks": 0.8}
    metrics.observe_drift(event)
    names = ("band 1 (input 1)", "band 1 (input 2)", "scores", "finds")
    assert [gauges(name) for name in names] == [full] * 4
    few = BandCompared(band=1, live=(1, 9), values=10)
    metrics.observe_drift(
        event.model_copy(update={"scores": None, "finds": None, "bands": (event.bands[0], few)})
    )
    assert gauges(names[0]) == full
    assert [gauges(name) for name in names[1:]] == [{"frond_drift_verdict": 0}] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PERIOD_S", "inf"),
        ("PERIOD_S", "nan"),
        ("PERIOD_S", "1e9"),
        ("PERIOD_WINDOWS", "99999999999"),
        ("MIN_WINDOWS", "99999999999"),
        ("PSI_SHIFTING", "nan"),
        ("PSI_DRIFTED", "inf"),
        ("PSI_DRIFTED", "0.05"),
        ("PSI_SHIFTING", "0.3"),
        ("ALPHA", "nan"),
        ("SHARE", "nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """And not by the first chunk, nor never."""
    monkeypatch.setenv(f"FROND_DRIFT_{name}", value)
    with pytest.raises(ValueError, match=f"(?i)drift_{name}"):
        InferenceSettings()


def test_settings_have_the_librarys_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds and lengths are declared once; an empty word is none."""
    monkeypatch.setenv("FROND_DRIFT", "")
    settings = InferenceSettings()
    assert settings.drift == "reference"
    assert (settings.drift_bounds, settings.drift_length) == (DriftBounds(), Length())
