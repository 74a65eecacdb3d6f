"""A stage behind a topic: its messages are brought to an end as those of every consumer are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from frond.bus import EventProducer, Handling
from frond.contracts.envelope import Envelope
from frond.contracts.topics import Topic

Handle = Callable[[Envelope], Awaitable[None]]
Deliver = Callable[[Any], Awaitable[None]]
"""Takes a message; when it returns, the message may be acknowledged."""


def delivery(
    topic: Topic, handle: Handle, give_up: Handle, producer: EventProducer, group: str
) -> Deliver:
    """Brings a topic's messages to a stage, which sends for itself what comes of them.

    Args:
        handle: takes an event in; may be called again for one it has handled.
        give_up: closes the ledger of an event that could not be handled.
    """

    async def once(envelope: Envelope) -> tuple[()]:
        await handle(envelope)
        return ()

    async def close(envelope: Envelope, _: Exception) -> tuple[()]:
        await give_up(envelope)
        return ()

    return Handling(topic, group, once, producer, give_up=close, service="aggregator").handle
