"""Bodies that come in: how many of a key, and for how long nothing may come of them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from frond.auth import AtOnce, Bodies, Throttled
from frond.auth.bodies import Message, Receive
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

BODY = {"content-length": "2"}
NO_BODY: dict[str, str] = {}


def piece(more: bool) -> Message:
    return {"type": "http.request", "body": b"x", "more_body": more}


def sender(*messages: Message) -> Receive:
    """Sends these, and nothing more."""
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def test_each_subject_has_as_many_at_once() -> None:
    """One more is refused with when to come; one that is left makes room, also by an error."""
    few = AtOnce(2, "streams", "FROND_X", 3)
    with few.one("b"), ExitStack() as held:
        held.enter_context(few.one("a"))
        with pytest.raises(ZeroDivisionError), few.one("a"):
            raise ZeroDivisionError
        with few.one("a"):
            with pytest.raises(Throttled, match=r"2 streams at once here \(FROND_X\)") as e:
                held.enter_context(few.one("a"))
            assert e.value.retry_after == 3 and e.value.reason is Reason.RATE_LIMITED
        with few.one("a"):
            pass
    any_number = AtOnce(0, "streams", "FROND_X", 3)
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(any_number.one("a"))


async def test_a_silent_body_is_given_up() -> None:
    """With an answer that clients try again at; what is done between the pieces is no silence, nor
    is waiting for the client's leaving once the body is whole."""
    bodies = Bodies(0, 0.2)
    with bodies.of("a", BODY, sender(piece(True), piece(True))) as receive:
        await receive()
        await asyncio.sleep(0.5)
        await receive()
        with pytest.raises(JobRejected, match=r"0\.2 s .*again") as e:
            await asyncio.wait_for(receive(), 10)
        assert e.value.reason is Reason.UNAVAILABLE
    with bodies.of("a", BODY, sender(piece(False))) as receive:
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.6)


async def test_bodies_count_while_they_come_in() -> None:
    """Neither before they are asked for, nor once they are whole or their request has ended."""
    bodies = Bodies(1, 60)
    with (
        bodies.of("a", BODY, sender(piece(True), piece(False))) as first,
        bodies.of("a", BODY, sender(piece(True))) as second,
        bodies.of("a", BODY, sender(piece(True), piece(False))) as third,
        bodies.of("b", BODY, sender(piece(True))) as other,
    ):
        await first()
        with pytest.raises(Throttled):
            await second()
        await other()
        await first()
        await third()
    with bodies.of("a", BODY, sender(piece(True))) as left:
        await left()
    with bodies.of("a", BODY, sender(piece(True))) as last:
        await last()


async def test_what_has_no_body_is_none_of_them() -> None:
    """Whoever streams an answer asks for more of the request, and hears that there is nothing, or
    that the client has left."""
    bodies = Bodies(1, 60)
    empty: Message = {"type": "http.request", "body": b"", "more_body": False}
    with (
        bodies.of("a", BODY, sender(piece(True))) as coming,
        bodies.of("a", NO_BODY, sender(empty, {"type": "http.disconnect"})) as streamed,
        bodies.of("a", {"content-length": "0"}, sender({"type": "http.disconnect"})) as left,
    ):
        await coming()
        assert await streamed() == empty
        assert await streamed() == await left() == {"type": "http.disconnect"}


@pytest.mark.parametrize("headers", [BODY, {"transfer-encoding": "chunked"}])
async def test_bodies_of_which_nothing_comes_count(headers: dict[str, str]) -> None:
    """Whoever sends a head and then nothing holds a place until the silence is long enough."""
    bodies = Bodies(1, 60)
    with (
        bodies.of("a", headers, sender()) as silent,
        bodies.of("a", headers, sender(piece(False))) as other,
    ):
        waiting = asyncio.ensure_future(silent())
        await asyncio.sleep(0)
        with pytest.raises(Throttled):
            await other()
        waiting.cancel()
