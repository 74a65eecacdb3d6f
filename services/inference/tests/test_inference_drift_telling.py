"""Periods of drift that have ended, and how they are told of: no broker, no store."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from drift_bench import OBSERVER, Broker, Clock, draw, drifting, run_image

from frond.contracts.errors import BrokerUnavailable
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.drift import Periods, Tally
from frond.inference import drifting as module
from frond.inference import metrics
from frond.inference.drifting import Drifting
from frond.models.session import ModelSession
from frond.models.testing import blob_model


def ended(watch: Drifting, name: str) -> None:
    """A period of a model of this name has ended, and waits to be told of."""
    model = ModelRef(name=name, digest="ab" * 32)
    periods = Periods(OBSERVER, Clock(), Clock().steady)
    periods.saw(model, ModelManifest(**PLAIN), Tally.empty(3))
    watch._ended(periods.stop())


PLAIN: dict[str, Any] = {
    "name": "plain", "decoder": {"name": "yolo"}, "classes": ("a",), "input": {"size": 64},
    "margin": 8,
}  # fmt: skip


async def test_an_event_that_never_gets_through_holds_up_no_other() -> None:
    """What is no outage is counted, logged and gone; an outage keeps all of them, in order."""
    watch, broker = drifting(), Broker(refused=frozenset({"large"}))
    missed = metrics.DRIFT_MISSED.labels("periods")
    before = missed._value.get()
    for name in ("a", "large", "b"):
        ended(watch, name)
    await watch._send(broker.send)
    assert [e.model.name for e in broker.events] == ["a", "b"]
    assert missed._value.get() == before + 1
    broker.away = 1
    for name in ("c", "d"):
        ended(watch, name)
    with pytest.raises(BrokerUnavailable):
        await watch._send(broker.send)
    await watch.finish(broker.send)
    watch.close()
    assert [e.model.name for e in broker.events][2:] == ["c", "d"]


async def test_the_end_is_a_good_one_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of events that nobody takes, of periods that cannot be ended, of a thread that is gone."""
    watch, broker = drifting(), Broker(refused=frozenset({"large"}))
    ended(watch, "large")
    await watch.finish(broker.send)

    def fails() -> list[DriftObserved]:
        raise ValueError("a bug")

    monkeypatch.setattr(watch._periods, "stop", fails)
    ended(watch, "a")
    await watch.finish(broker.send)
    watch.close()
    await watch.finish(broker.send)
    assert [e.model.name for e in broker.events] == ["a"]


async def test_what_ends_while_its_asker_is_cancelled_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread has taken the period from those that run: it is not lost between the two."""
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    clock = Clock()
    watch, broker = drifting(clock), Broker()
    watch._periods.saw(
        ModelRef(name="late", digest="ab" * 32), ModelManifest(**PLAIN), Tally.empty(3)
    )
    clock.gone += 601
    asked, go = threading.Event(), threading.Event()
    due = watch._periods.due

    def slowly() -> list[DriftObserved]:
        over = due()
        if over:
            asked.set()
            assert go.wait(10)
        return over

    monkeypatch.setattr(watch._periods, "due", slowly)
    telling = asyncio.create_task(watch.tell(broker.send))
    assert await asyncio.to_thread(asked.wait, 10)
    telling.cancel()
    await asyncio.wait({telling})
    go.set()
    await watch.finish(broker.send)
    watch.close()
    assert [(e.model.name, e.ended_by) for e in broker.events] == [("late", "time")]


async def test_a_period_that_ends_while_the_broker_is_away_is_told_of_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time ends it without another window; it is sent once the broker is back, once."""
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    session = ModelSession(blob_model(tmp_path / "m", size=64, margin=8), threads=1)
    clock = Clock()
    watch, broker = drifting(clock, without_reference=True), Broker(away=2)
    sent = asyncio.Event()

    async def send(event: DriftObserved) -> None:
        await broker.send(event)
        sent.set()

    await run_image(watch, session, draw(tmp_path / "a.tif"))
    await watch._ask(list, "")  # all of it is counted
    telling = asyncio.create_task(watch.tell(send))
    clock.gone += 601
    await asyncio.wait_for(sent.wait(), 10)
    telling.cancel()
    await asyncio.wait({telling})
    await watch.finish(broker.send)
    watch.close()
    assert [e.ended_by for e in broker.events] == ["time"]
