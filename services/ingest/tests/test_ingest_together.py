"""One question for many who ask at once: nobody is given an answer older than their asking."""

from __future__ import annotations

import asyncio
import gc

import pytest

from frond.ingest.together import Together


class Question:
    """Counts how often it is asked; is answered when ``open`` is set, with its number."""

    def __init__(self) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        self.begun.set()
        await self.open.wait()
        return number


async def test_who_comes_while_it_is_asked_shares_the_next_one() -> None:
    """An answer that was under way says nothing of what its late askers did before they asked."""
    together, question = Together(), Question()
    first = asyncio.create_task(together.ask("job", question))
    await question.begun.wait()
    later = [asyncio.create_task(together.ask("job", question)) for _ in range(5)]
    question.open.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 5
    assert await together.ask("job", question) == 3


async def test_questions_do_not_wait_for_others() -> None:
    """One job's store that hangs keeps no other job's images waiting."""
    together, hangs, other = Together(), Question(), Question()
    other.open.set()
    waiting = asyncio.create_task(together.ask("a", hangs))
    await hangs.begun.wait()
    assert await together.ask("b", other) == 1
    hangs.open.set()
    assert await waiting == 1


async def test_all_who_share_an_error_are_told_of_it_and_the_next_asks_anew() -> None:
    """An outage ends the requests that met it, and no later one."""
    together, question = Together(), Question()

    async def fails() -> int:
        await question()
        raise OSError("away")

    first = asyncio.create_task(together.ask("job", question))
    await question.begun.wait()
    both = [asyncio.create_task(together.ask("job", fails)) for _ in range(2)]
    question.open.set()
    assert await first == 1
    assert [type(e) for e in await asyncio.gather(*both, return_exceptions=True)] == [OSError] * 2
    assert await together.ask("job", question) == 3


async def test_who_is_cancelled_leaves_the_others_their_answer() -> None:
    """A client that hangs up takes nobody else's answer along."""
    together, question = Together(), Question()
    first = asyncio.create_task(together.ask("job", question))
    await question.begun.wait()
    gone = asyncio.create_task(together.ask("job", question))
    stays = asyncio.create_task(together.ask("job", question))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    question.open.set()
    assert await first == 1
    assert await stays == 2


async def test_a_question_that_hangs_keeps_no_later_one_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever comes after one whose answer does not come is asked for after a while, and the late
    answer still reaches who waits for it."""
    monkeypatch.setattr("frond.ingest.together._PATIENCE_S", 0.01)
    together, question = Together(), Question()
    first = asyncio.create_task(together.ask("job", question))
    await question.begun.wait()
    later = Question()
    later.open.set()
    assert await asyncio.wait_for(together.ask("job", later), 10) == 1
    question.open.set()
    assert await first == 1
    assert await together.ask("job", later) == 2


async def test_an_error_that_nobody_waits_for_any_more_is_no_noise() -> None:
    """A client that hung up before the store failed leaves no complaint of asyncio's behind."""
    together, question = Together(), Question()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))

    async def fails() -> int:
        await question()
        raise OSError("away")

    gone = asyncio.create_task(together.ask("job", fails))
    await question.begun.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    (answer,) = together._under_way.values()
    question.open.set()
    await asyncio.wait({answer})
    del answer, gone
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
