"""Versions that are promoted are loaded beside the work, and take it over once they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from inference_bench import SIZE, Bench

from frond.contracts.errors import ModelRejected, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.inference import metrics, warming
from frond.inference.models import ModelCache
from frond.inference.warming import Warming
from frond.models.aliases import Alias
from frond.models.session import ModelSession
from frond.models.testing import blob_model
from support.waiting import until


class Pointers:
    """Aliases of one process; ``away``: how often the store does not answer before it does."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], str] = {}
        self.away = 0

    async def get(self, name: str, alias: str) -> Alias | None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("restarting")
        digest = self.there.get((name, alias))
        return None if digest is None else Alias(digest=digest)


class World:
    """Two versions of ``blob``, of which ``production`` is the first."""

    def __init__(self, bench: Bench, old: ModelRef, new: ModelRef) -> None:
        self.bench, self.models, self.old, self.new = bench, bench.models, old, new
        self.aliases = Pointers()
        self.point(old)
        self.warming = Warming(self.models, self.aliases)

    def point(self, ref: ModelRef, alias: str = "production") -> None:
        self.aliases.there["blob", alias] = ref.digest

    async def settled(self) -> None:
        await asyncio.gather(*self.warming._loading.values())


@pytest.fixture
def world(scene: Path, tmp_path: Path, own: Path) -> Iterator[World]:
    other = blob_model(tmp_path / "other", size=SIZE, margin=8, version="2")
    bench = Bench(scene, tmp_path, own, other)
    yield World(bench, bench.folders.ref(own), bench.folders.ref(other))
    bench.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Models are opened while it is set."""
    free, opens = threading.Event(), ModelCache._open
    free.set()

    def waiting(self: ModelCache, folder: Path) -> ModelSession:
        assert free.wait(60)
        return opens(self, folder)

    monkeypatch.setattr(ModelCache, "_open", waiting)
    yield free
    free.set()


def broken(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[str]:
    """Let the next loads fail so; the digests that were tried."""
    tried: list[str] = []
    left, get = list(errors), ModelCache.get

    async def failing(self: ModelCache, ref: ModelRef) -> ModelSession:
        tried.append(ref.digest)
        if left:
            raise left.pop(0)
        return await get(self, ref)

    monkeypatch.setattr(ModelCache, "get", failing)
    return tried


async def test_what_production_moves_to_is_loaded_before_anybody_asks(world: World) -> None:
    """The old version stays: jobs that began with it go on."""
    await world.models.get(world.old)
    await world.warming.look()
    assert not world.warming._loading
    done = metrics.WARMED.labels("done")._value.get()
    world.point(world.new)
    await world.warming.look()
    await world.settled()
    assert world.models.holds(world.new) and world.models.holds(world.old)
    assert metrics.WARMED.labels("done")._value.get() == done + 1


async def test_other_moves_load_nothing(world: World) -> None:
    """Of a model that this process runs nothing of, of another alias, at first sight, and where one
    model alone is kept."""
    await world.warming.look()
    world.point(world.new)
    await world.warming.look()
    await world.models.get(world.old)
    await world.warming.look()
    assert not world.warming._loading
    world.point(world.old, "staging")
    await world.warming.look()
    world.point(world.new, "staging")
    await world.warming.look()
    assert not world.warming._loading
    world.models.capacity = 1
    world.point(world.old)
    await world.warming.look()
    assert not world.warming._loading


async def test_the_old_version_answers_until_the_new_one_is_loaded(
    world: World, gate: threading.Event
) -> None:
    """Nobody waits for the load; what is in memory already, and what replaces a version that is not
    in memory itself, answers at once."""
    old, new, choose = world.old, world.new, world.warming.choose
    assert choose(old, new) == new
    assert not world.warming._loading
    await world.models.get(old)
    gate.clear()
    assert choose(old, new) == choose(old, new) == old
    assert len(world.warming._loading) == 1
    gate.set()
    await world.settled()
    assert choose(old, new) == new
    assert choose(new, old) == old


async def test_one_that_cannot_be_loaded_takes_nobodys_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as failed, and not tried again with each request."""
    await world.models.get(world.old)
    refused = ModelRejected(Reason.BAD_MODEL, "ONNX Runtime cannot load model.onnx.")
    tried = broken(monkeypatch, refused)
    failed = metrics.WARMED.labels("failed")._value.get()
    for _ in range(3):
        assert world.warming.choose(world.old, world.new) == world.old
        await world.settled()
    assert tried == [world.new.digest]
    assert metrics.WARMED.labels("failed")._value.get() == failed + 1
    # a device that had no room may have some by then
    monkeypatch.setattr(world.warming, "_not_before", {})
    world.warming.begin(world.new)
    await world.settled()
    assert world.warming.choose(world.old, world.new) == world.new


async def test_outages_are_waited_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the store while aliases are looked at, and while the version is fetched."""
    await world.models.get(world.old)
    monkeypatch.setattr(warming, "_LOOK_S", 0.01)
    monkeypatch.setattr(warming, "_AWAY_S", 0.01)
    await world.warming.look()
    world.point(world.new)
    world.aliases.away = 3
    tried = broken(monkeypatch, StoreUnavailable("restarting"))
    watching = asyncio.create_task(world.warming.watch())
    await asyncio.to_thread(until, lambda: world.models.holds(world.new))
    assert tried == [world.new.digest] * 2
    watching.cancel()
    await asyncio.wait({watching})


async def test_the_end_of_the_watch_leaves_what_is_being_loaded(
    world: World, gate: threading.Event
) -> None:
    """A process that ends does not wait for it."""
    await world.models.get(world.old)
    watching = asyncio.create_task(world.warming.watch())
    gate.clear()
    await asyncio.sleep(0)
    world.warming.begin(world.new)
    (loading,) = world.warming._loading.values()
    await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.wait({watching, loading}, timeout=30)
    assert loading.cancelled()
