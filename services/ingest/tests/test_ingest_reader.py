"""The read model's consumer, whose broker answers as slowly as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from prometheus_client import REGISTRY
from sqlalchemy.exc import OperationalError

from frond.contracts import topics
from frond.contracts.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    Outage,
    StoreUnavailable,
)
from frond.ingest.context import Ingest
from frond.ingest.hub import Hub
from frond.ingest.readmodel import consumer, process
from frond.ingest.readmodel.consumer import Reader, keep_read_model
from frond.ingest.settings import IngestSettings
from frond.runtime import Service, patience, wait_out

PARTITION = TopicPartition(topics.IMAGED.named(""), 0)


class Broker:
    """Tells ends as they are when it is asked; ``meanwhile`` happens before the answer is there. ``at``:
    what was read up to."""

    def __init__(self, end: int, at: int = 0) -> None:
        self.end = end
        self.at = at
        self.asked = 0
        self.thrice = asyncio.Event()
        self.meanwhile: Callable[[], None] = lambda: None

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += 1
        ends = dict.fromkeys(partitions, self.end)
        self.meanwhile()
        if self.asked == 3:
            self.thrice.set()
        return ends

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.01)
        return {}

    async def position(self, _: TopicPartition) -> int:
        return self.at

    def partitions_for_topic(self, _: str) -> set[int]:
        return set()


class Told(Hub):
    """``told``: that the read model has caught up."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def reached(self) -> None:
        super().reached()
        self.told.set()


@pytest.fixture
async def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    monkeypatch.setattr(consumer, "_PROBE_EVERY_S", 0.01)
    ingest = Ingest(IngestSettings(DATABASE_PATH=tmp_path / "a.db"))  # type: ignore[call-arg]
    yield Reader(ingest)
    await ingest.close()


def serve(reader: Reader, broker: Broker, at: int) -> None:
    reader.consumer = cast(Any, broker)
    reader.positions = {PARTITION: at}


async def test_what_is_taken_during_a_look_is_no_sign_of_topics_made_anew(reader: Reader) -> None:
    """The ends were told before: a read model that is busy goes on where it is."""
    broker = Broker(end=10)
    serve(reader, broker, 10)

    def take() -> None:
        broker.end += 5
        reader.positions[PARTITION] = broker.end

    broker.meanwhile = take
    watch = asyncio.create_task(reader._watch())
    looked = asyncio.create_task(broker.thrice.wait())
    await asyncio.wait({watch, looked}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert looked.done() and not watch.done()
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def test_topics_that_were_made_anew_are_read_from_their_beginning(reader: Reader) -> None:
    """Their ends lie before what was read."""
    rewound: list[TopicPartition] = []

    async def rewind(partitions: Sequence[TopicPartition]) -> None:
        rewound.extend(partitions)

    reader._rewind = rewind  # type: ignore[method-assign]
    serve(reader, Broker(end=3), 10)
    with pytest.raises(consumer._Silent, match="anew"):
        await asyncio.wait_for(reader._watch(), 10)
    assert rewound == [PARTITION]


async def test_it_is_told_once_that_the_read_model_has_caught_up(reader: Reader) -> None:
    """When all is read that was there at first, also where the last offset is a transaction's marker;
    what came since does not matter."""
    hub = reader.ingest.hub = Told()
    broker = Broker(end=10, at=3)
    serve(reader, broker, 3)
    stop = asyncio.Event()
    running = asyncio.create_task(reader.run(stop))
    await asyncio.wait_for(broker.thrice.wait(), 10)
    broker.end = 20
    await asyncio.sleep(0.1)
    assert not hub.caught_up
    broker.at = 10
    await asyncio.wait_for(hub.told.wait(), 10)
    assert hub.caught_up
    stop.set()
    await running


def waits(of: str = "database") -> float:
    return REGISTRY.get_sample_value("frond_outage_waits_total", {"of": of}) or 0.0


async def test_a_database_that_is_away_is_counted_and_waited_out(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it is met, while the service is not ready: an operator is told which outage it is."""
    ingest, before = reader.ingest, waits()
    service = Service("ingest", ingest.settings)
    met = asyncio.Event()

    async def start(_: Reader) -> None:
        met.set()
        raise OperationalError("SELECT", {}, Exception("the disk is full"))

    monkeypatch.setattr(Reader, "start", start)
    keeping = asyncio.create_task(keep_read_model(service, ingest))
    await asyncio.wait_for(met.wait(), 10)
    await asyncio.sleep(0)
    assert waits() == before + 1
    assert consumer.PART in service.health.waiting_for
    service.stop.set()
    await asyncio.wait_for(keeping, 10)


@pytest.mark.parametrize(
    ("outage", "of"),
    [
        (DatabaseUnavailable("full"), "database"),
        (StoreUnavailable("away"), "store"),
        (BrokerUnavailable("away"), "broker"),
    ],
)
async def test_what_the_keeper_waits_for_is_counted_in_the_service(
    outage: Outage, of: str, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is away, and whoever in its process waits: that has no metrics that anybody asks for."""
    left = [outage]

    async def call() -> None:
        if left:
            raise left.pop()

    monkeypatch.setattr(patience, "_tell", patience._tell)
    monkeypatch.setattr(process, "keep_read_model", lambda *_: wait_out(call))
    before = waits(of)
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(10)
        ours.sendall(process._BEGIN)
        await process._keep(reader.ingest.settings, theirs)
        told = json.loads(ours.recv(1024))
    assert waits(of) == before
    process._hear(Service("ingest", reader.ingest.settings), reader.ingest, told)
    assert waits(of) == before + 1
