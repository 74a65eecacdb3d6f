"""Marks are asked of the store every few seconds until they are there, and then never again."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from frond.store import Marks, ObjectStore


class Shelf:
    """Of a store what marks need, counting questions."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.asked = 0
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def exists(self, key: str) -> bool:
        self.asked += 1
        self.begun.set()
        found = key in self.there
        await self.gate.wait()
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("frond.store.marks.time.monotonic", lambda: now[0])
    return now


def marks_of(shelf: Shelf, most: int = 10) -> Marks:
    return Marks(cast(ObjectStore, shelf), keep_s=2.0, most=most)


async def test_a_mark_that_is_not_there_is_asked_for_again_after_a_while(
    clock: list[float],
) -> None:
    """That it is not there is believed for ``keep_s`` and no longer; that it is, for good."""
    shelf = Shelf()
    marks = marks_of(shelf)
    assert not await marks.there("a")
    shelf.there.add("a")
    clock[0] += 1.9
    assert not await marks.there("a")
    assert shelf.asked == 1
    clock[0] += 0.1
    assert await marks.there("a")
    clock[0] += 1e6
    assert await marks.there("a")
    assert marks.known("a")
    assert shelf.asked == 2


async def test_what_this_process_made_is_there_also_for_a_question_under_way(
    clock: list[float],
) -> None:
    """An answer from before a mark was made does not undo it."""
    shelf = Shelf()
    marks = marks_of(shelf)
    shelf.gate.clear()
    asking = asyncio.create_task(marks.there("a"))
    await shelf.begun.wait()
    marks.made("a")
    shelf.gate.set()
    await asking
    assert marks.known("a")
    assert await marks.there("a")


async def test_it_holds_no_more_than_it_may(clock: list[float]) -> None:
    """Memory is a constant, however many jobs there are."""
    shelf = Shelf()
    marks = marks_of(shelf, most=2)
    for key in ("a", "b", "c"):
        await marks.there(key)
    await marks.there("c")
    assert shelf.asked == 3
    await marks.there("a")
    assert shelf.asked == 4
