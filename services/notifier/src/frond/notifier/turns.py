"""Whose turn it is to be attempted: some at once, and nobody's attempts in all places.

A receiver that answers nothing holds a place until the deadline. So e-mail and webhooks have places of
their own, and of these one receiver gets a quarter for each tenant, one tenant at most three quarters.
"""

from __future__ import annotations

from asyncio import Semaphore
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from frond.contracts.deliveries import Delivery, Kind


class Turn:
    """What an attempt has to hold while it is made."""

    def __init__(self, needed: Sequence[Semaphore]) -> None:
        self._needed = needed

    @property
    def waits(self) -> bool:
        """Whether it would have to be waited for now."""
        return any(each.locked() for each in self._needed)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in self._needed:
                await stack.enter_async_context(each)
            yield


class Turns:
    """The turns of one process.

    Args:
        at_once: attempts at once, of each kind.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._kinds = {kind: Semaphore(at_once) for kind in Kind}
        # a share is there for as long as a turn holds it: there are as many as are used
        self._shares: WeakValueDictionary[tuple[str | None, ...], Semaphore] = WeakValueDictionary()

    def of(self, delivery: Delivery) -> Turn:
        """The turn of a delivery's next attempt: the narrowest share is taken first, so that whoever
        waits for it keeps nobody else from his."""
        kind, tenant = delivery.kind, delivery.tenant
        return Turn(
            (
                self._share((kind, tenant, _receiver(delivery)), self._at_once // 4),
                self._share((kind, tenant), self._at_once * 3 // 4),
                self._kinds[kind],
            )
        )

    def _share(self, of: tuple[str | None, ...], places: int) -> Semaphore:
        share = self._shares.get(of)
        if share is None:
            share = self._shares[of] = Semaphore(max(places, 1))
        return share


def _receiver(delivery: Delivery) -> str:
    """Who answers: the host of a webhook; all e-mail goes to the operator's one server."""
    if delivery.kind is Kind.EMAIL:
        return ""
    try:
        return urlsplit(delivery.target).hostname or ""
    except ValueError:
        # such an address is given up by the attempt
        return ""
