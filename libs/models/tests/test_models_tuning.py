"""Threads and batch by measurement: what is taken, what never is, what is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from frond.models import tuning
from frond.models.machine import cores
from frond.models.session import ModelSession, open_graph
from frond.models.testing import blob_model
from frond.models.tuning import Trial, search, tuned

CPU = ("CPUExecutionProvider",)


def neighbours(folder: Path) -> Path:
    """A model whose windows change each other: each sees what its batch has in the middle."""
    n = helper.make_node
    nodes = [
        n("ReduceMean", ["x"], ["all"], axes=[0, 1, 2, 3], keepdims=1),
        n("ReduceMean", ["x"], ["one"], axes=[1, 2, 3], keepdims=1),
        n("Sub", ["one", "all"], ["d"]),
        n("Abs", ["d"], ["a"]),
        n("Clip", ["a", "zero", "top"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "n",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 1, 1])],
        [
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(1), "top"),
        ],
    )  # fmt: skip
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    manifest = {
        "name": "n", "task": "segmentation", "decoder": {"name": "semantic"}, "classes": ["a"],
        "margin": 0, "input": {"size": 16}, "normalization": {"scale": 1 / 255},
    }  # fmt: skip
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@given(
    ms=st.lists(st.floats(0.1, 100), min_size=16, max_size=16),
    same=st.lists(st.booleans(), min_size=16, max_size=16),
)
def test_nothing_is_taken_that_gives_other_bytes(ms: list[float], same: list[bool]) -> None:
    """Whatever the stopwatch says: the plain setting, or one with its bytes, never slower by more
    than a few in a hundred."""
    asked: list[Trial] = []

    def trial(threads: int, batch: int, concurrency: int) -> Trial:
        k, setting = len(asked), {"threads": threads, "batch": batch, "concurrency": concurrency}
        asked.append(Trial(**setting, ms=ms[k], same=same[k] or k == 0))
        return asked[-1]

    best = search(trial, threads=[8, 4, 2], batch=1, most=64, at_once=8)[-1]
    assert best.same
    assert best.ms <= asked[0].ms * 1.03**2


def test_larger_batches_must_be_worth_it() -> None:
    """Twice as fast with 4, no faster with 8: 4, and 16 is not tried."""
    cost = {1: 10.0, 2: 7.0, 4: 5.0, 8: 4.9, 16: 1.0}
    tried = search(
        lambda t, b, _: Trial(threads=t, batch=b, ms=cost[b], same=True),
        threads=[2], batch=1, most=64,
    )  # fmt: skip
    assert [t.batch for t in tried] == [1, 2, 8, 4]


def test_fewer_threads_where_they_do() -> None:
    """Hardware threads that share a core, or a container's share: no more threads than help."""
    cost = {8: 10.0, 4: 10.1, 2: 19.0}
    tried = search(
        lambda t, b, _: Trial(threads=t, batch=b, ms=cost[t], same=True),
        threads=[8, 4, 2], batch=1, most=1,
    )  # fmt: skip
    assert (tried[-1].threads, tried[-1].batch) == (4, 1)


def test_nothing_works() -> None:
    """No trial ends: nothing is taken."""
    assert search(lambda t, b, c: None, threads=[2], batch=1, most=8) == []


def test_what_was_found_is_kept(tmp_path: Path) -> None:
    """The second time nothing is measured; a file that cannot be read, or does not tell its providers,
    is written anew."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    first = tuned(folder, providers=CPU, cache_dir=tmp_path / "c")
    (kept,) = (tmp_path / "c" / "tuning").iterdir()
    found = json.loads(kept.read_text())
    assert found["tried"][-1]["batch"] == found["batch"] == first.batch
    kept.write_text(json.dumps(found | {"batch": 4, "rows_alike": True}))
    second = tuned(folder, providers=CPU, cache_dir=tmp_path / "c")
    assert (second.batch, second.rows_alike) == (4, True)
    before = {k: v for k, v in found.items() if k != "providers"}
    for unreadable in ("{", json.dumps(found | {"concurrency": 0}), json.dumps(before)):
        kept.write_text(unreadable)
        tuned(folder, providers=CPU, cache_dir=tmp_path / "c")
        anew = json.loads(kept.read_text())
        assert anew["tried"] and anew["concurrency"] >= 1
        assert anew["providers"] == list(CPU)


class Elsewhere:
    """ONNX Runtime's session as one on a device, with memory for so many windows a run."""

    def __init__(self, real: Any, room: int = 64) -> None:
        self.real, self.room = real, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", *CPU]

    def run(self, names: Sequence[str], feeds: dict[str, Any]) -> Any:
        if len(next(iter(feeds.values()))) > self.room:
            raise RuntimeError("out of memory")
        return self.real.run(names, feeds)


def test_what_was_found_holds_for_the_providers_that_ran_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that was broken when the model was new, and is mended, or the other way about: the same
    providers are asked for, and what was found with others is measured anew."""
    works = False

    def opened(path: Path, providers: Sequence[str], **more: int) -> Any:
        real = open_graph(path, CPU, threads=more["threads"])
        return Elsewhere(real) if works and "CUDAExecutionProvider" in providers else real

    both = ["CUDAExecutionProvider", *CPU]
    monkeypatch.setattr(tuning.ort, "get_available_providers", lambda: both)
    monkeypatch.setattr("frond.models.session.open_graph", opened)
    folder = blob_model(tmp_path / "m", 64, margin=8)
    for works, providers in ((False, CPU), (True, tuple(both)), (False, CPU)):
        caplog.clear()
        session = tuned(folder, cache_dir=tmp_path / "c", seconds=300)
        assert session.providers == providers
        (kept,) = (tmp_path / "c" / "tuning").iterdir()
        found = json.loads(kept.read_text())
        assert tuple(found["providers"]) == providers
        assert found["batch"] == session.batch != 5
        # of what was kept and of the plain setting, not of each that is tried
        assert len(caplog.messages) <= (0 if works else 2)
        kept.write_text(json.dumps(found | {"batch": 5}))
        assert tuned(folder, cache_dir=tmp_path / "c", seconds=300).batch == 5


def test_a_setting_too_large_for_the_device_is_not_tried_on_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast that says it is: the device stays, with what it has room for."""

    def opened(path: Path, providers: Sequence[str], **more: int) -> Any:
        real = open_graph(path, CPU, threads=more["threads"])
        return Elsewhere(real, 16) if "CUDAExecutionProvider" in providers else real

    both = ["CUDAExecutionProvider", *CPU]
    monkeypatch.setattr(tuning.ort, "get_available_providers", lambda: both)
    monkeypatch.setattr("frond.models.session.open_graph", opened)
    monkeypatch.setattr(tuning, "_ms_a_window", lambda session, _: 100.0 / session.batch)
    folder = blob_model(tmp_path / "m", 64, margin=8)
    session = tuned(folder, cache_dir=tmp_path / "c", seconds=300)
    assert (session.providers, session.batch) == (tuple(both), 16)


def test_no_time_no_measuring(tmp_path: Path) -> None:
    """0 seconds: the plain setting, and nothing is written."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    plain = tuned(folder, providers=CPU, cache_dir=tmp_path / "c", seconds=0)
    assert (plain.batch, plain.threads, plain.rows_alike) == (1, cores(), False)
    assert not (tmp_path / "c").exists()


def test_what_was_asked_for_stays(tmp_path: Path) -> None:
    """The operator's threads and batch, and a batch of ``model.yaml``, are not searched."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    asked = tuned(folder, providers=CPU, threads=1, batch=2, cache_dir=tmp_path / "c")
    assert (asked.threads, asked.batch) == (1, 2)
    fixed = tuned(
        blob_model(tmp_path / "f", 64, margin=8, batch=4), providers=CPU, cache_dir=tmp_path / "c"
    )
    assert fixed.batch == 4


def shared(folder: Path, cache: Path, ms: float, monkeypatch: pytest.MonkeyPatch) -> ModelSession:
    """Tuned, with four cores on which a run takes 10 ms a window and runs at once take ``ms``."""
    for module in ("tuning", "session"):
        monkeypatch.setattr(f"frond.models.{module}.cores", lambda: 4)

    def took(session: ModelSession, _: float) -> float:
        return 10.0 if session.concurrency == 1 else ms / session.concurrency

    monkeypatch.setattr(tuning, "_ms_a_window", took)
    return tuned(folder, providers=CPU, cache_dir=cache, seconds=300)


def test_runs_at_once_where_they_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as it pays for, no more than cores, also where one thread does as well as all; kept
    with the rest. The operator's threads are one run's."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    for halves in ([4], [4, 2, 1]):
        monkeypatch.setattr(tuning, "_halves", lambda _, halves=halves: halves)
        for ms, wanted in ((36.0, 1), (17.0, 4), (19.6, 1)):
            where = tmp_path / f"{ms}-{len(halves)}"
            session = shared(folder, where, ms, monkeypatch)
            assert (session.threads, session.concurrency) == (halves[-1], wanted)
            kept = json.loads(next((where / "tuning").iterdir()).read_text())
            assert kept["concurrency"] == kept["tried"][-1]["concurrency"] == wanted
            assert tuned(folder, providers=CPU, cache_dir=where).concurrency == wanted
    asked = tuned(folder, providers=CPU, threads=4, cache_dir=tmp_path / "asked", seconds=300)
    assert (asked.threads, asked.concurrency) == (4, 1)


def test_runs_at_once_that_give_other_bytes_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast they are."""
    folder, other = blob_model(tmp_path / "m", 64, margin=8), tmp_path / "other.onnx"
    graph = onnx.load(folder / "model.onnx")
    weights = next(i for i in graph.graph.initializer if len(i.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.5, weights.name))
    onnx.save(graph, other)

    def opened(path: Path, *_: object, threads: int = 0, **__: object) -> object:
        return open_graph(other if 0 < threads < 4 else path, CPU)

    monkeypatch.setattr("frond.models.session.open_graph", opened)
    monkeypatch.setattr(tuning, "_halves", lambda _: [4])
    session = shared(folder, tmp_path / "c", 1.0, monkeypatch)
    assert (session.threads, session.concurrency) == (4, 1)


def test_runs_at_once_use_all_cores_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one graph's runs each has a thread of its caller's, and all have one pool: together as many
    as there are cores, whatever fewer a lone run does as well with."""
    opened: list[int] = []

    def counted(path: Path, *_: object, threads: int = 0, **__: object) -> object:
        opened.append(threads)
        return open_graph(path, CPU, threads=1)

    monkeypatch.setattr("frond.models.session.cores", lambda: 16)
    monkeypatch.setattr("frond.models.session.open_graph", counted)
    session = ModelSession(blob_model(tmp_path / "m", 64, margin=8), providers=CPU)
    for threads, concurrency, pool in ((16, 2, 15), (16, 8, 9), (4, 8, 9), (2, 2, 3), (1, 2, None)):
        session.threads = threads
        del opened[:]
        session.share(concurrency)
        assert opened == ([] if pool is None else [pool])


def test_what_may_take_too_much_memory_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is ended for want of memory is told nothing, and its successor would try it again."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    held = iter([0, 100])
    monkeypatch.setattr(tuning, "resident", lambda: next(held))
    monkeypatch.setattr(tuning, "room", lambda: 700.0)
    monkeypatch.setattr(tuning, "_halves", lambda _: [4])
    shared(folder, tmp_path / "c", 1.0, monkeypatch)
    kept = json.loads(next((tmp_path / "c" / "tuning").iterdir()).read_text())
    # three at once of 100, in half of 700; eight threads share one run
    assert {t["concurrency"] * t["batch"] for t in kept["tried"]} == {1, 2}


def test_a_batch_whose_rows_show_gives_way_to_the_best_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its threads, and its runs at once: never to a setting that nobody has tried."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    monkeypatch.setattr(tuning, "_halves", lambda _: [4, 2])
    monkeypatch.setattr(tuning, "_rows_alike", lambda session, _: session.batch == 1)
    for module in ("tuning", "session"):
        monkeypatch.setattr(f"frond.models.{module}.cores", lambda: 4)

    def took(session: ModelSession, _: float) -> float:
        return 10.0 / session.batch / session.concurrency + session.threads / 100

    monkeypatch.setattr(tuning, "_ms_a_window", took)
    session = tuned(folder, providers=CPU, cache_dir=tmp_path / "c", seconds=300)
    kept = json.loads(next((tmp_path / "c" / "tuning").iterdir()).read_text())
    assert any(t["batch"] > 1 for t in kept["tried"])
    found = {"threads": session.threads, "batch": session.batch, "concurrency": session.concurrency}
    assert found == {"threads": 2, "batch": 1, "concurrency": 4}
    assert found in [{k: t[k] for k in found} for t in kept["tried"]]


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_rows_of_convolutions_are_alike(tmp_path: Path, batch: int) -> None:
    """A convolutional graph on a CPU: rows and sizes change nothing, and runs are not filled up."""
    folder = blob_model(tmp_path / "m", 64, margin=8)
    session = tuned(folder, providers=CPU, batch=batch, cache_dir=tmp_path / "c", seconds=300)
    assert session.rows_alike
    window = session.sample(np.random.default_rng(1))
    alone = ModelSession(folder, providers=CPU, batch=1).run([window])
    assert all((session.run([window])[k] == v).all() for k, v in alone.items())


def test_windows_that_change_each_other_are_seen(tmp_path: Path) -> None:
    """A graph that mixes its batch keeps full batches of its own, and gets no other size."""
    folder = neighbours(tmp_path / "m")
    chosen = tuned(folder, providers=CPU, cache_dir=tmp_path / "c")
    assert chosen.batch == 1
    asked = tuned(folder, providers=CPU, batch=4, cache_dir=tmp_path / "d", seconds=300)
    assert not asked.rows_alike
    assert not asked.sizes_alike
