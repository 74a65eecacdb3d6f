"""What one key may have under way at once, and bodies that stop coming in.

A body in the middle keeps some MiB, and a stream asks the database again and again: neither costs its
sender anything. Counts are a process's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

from frond.auth.limits import Throttled
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class AtOnce:
    """So many of something for each subject; 0 is no limit.

    Args:
        what: of a sentence that tells of it: "bodies under way".
        setting: that has the limit.
        retry_after: seconds after which there may be room.
    """

    def __init__(self, most: int, what: str, setting: str, retry_after: float) -> None:
        self._most = most
        self._what = what
        self._setting = setting
        self._retry_after = retry_after
        self._under_way: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, subject: str) -> Iterator[None]:
        """One more, until it is left. Raises Throttled when there are as many as there may be."""
        if self._most and self._under_way[subject] >= self._most:
            raise Throttled(
                f"Your key may have {self._most} {self._what} at once here ({self._setting}). "
                "Wait as Retry-After says.",
                self._retry_after,
            )
        self._under_way[subject] += 1
        try:
            yield
        finally:
            self._under_way[subject] -= 1
            if not self._under_way[subject]:
                del self._under_way[subject]


class Bodies:
    """The bodies that come in, counted a subject, and given up when nothing more comes of them.

    Args:
        most: for a subject at once; 0: no limit.
        silence_s: how long nothing may come of one.
    """

    def __init__(self, most: int, silence_s: float) -> None:
        self._at_once = AtOnce(most, "bodies under way", "FROND_BODIES_AT_ONCE", 5)
        self._silence_s = silence_s

    @contextlib.contextmanager
    def of(self, subject: str, headers: Mapping[str, str], receive: Receive) -> Iterator[Receive]:
        """A request's ``receive``. A body that its headers announce counts from when it is asked for
        until it is whole or the context is left.

        What is received raises Throttled when there are too many, and JobRejected (UNAVAILABLE) when
        nothing comes for too long. Only waiting for the sender counts, not what is done between.

        Args:
            headers: the request's, by names in lower case.
        """
        counted = contextlib.ExitStack()
        # streamed answers ask for a body, too, to notice a client's leaving
        length = headers.get("content-length", "").strip("0")
        to_count = bool(length) or "transfer-encoding" in headers
        whole = False

        async def received() -> Message:
            nonlocal to_count, whole
            if whole:
                # nothing but the client's leaving can come now
                return await receive()
            if to_count:
                # before it is heard: one of which nothing comes is a body, too
                counted.enter_context(self._at_once.one(subject))
                to_count = False
            message = await self._heard(receive)
            whole = not message.get("more_body", False)
            if whole:
                counted.close()
            return message

        with counted:
            yield received

    async def _heard(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._silence_s):
                return await receive()
        except TimeoutError:
            raise JobRejected(
                Reason.UNAVAILABLE,
                f"Nothing came of this request's body for {self._silence_s:g} s "
                "(FROND_BODY_SILENCE_S). Send it again.",
            ) from None
