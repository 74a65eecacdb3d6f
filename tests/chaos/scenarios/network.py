"""A network that goes wrong between the services, Kafka and MinIO: slow is fine, wrong is not."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from chaos.world import Needs, World
from frond.contracts import topics
from frond.stack.toxiproxy_server import Direction, Proxy

NAME: Final = "network"
ABOUT: Final = (
    "latency, narrow and broken lines, resets, half-open connections and refusals between the"
    " services, Kafka and MinIO"
)
NEEDS: Final = Needs(proxied=True)

_PLACES: Final[tuple[tuple[str, ...], ...]] = (("kafka",), ("s3",), ("kafka", "s3"))
_WAYS: Final[tuple[Direction, ...]] = ("upstream", "downstream")
_AGAIN_S: Final = 300.0
_SHORT_HOLD_S: Final = 4.0


@dataclass(frozen=True)
class Kind:
    """One way in which a line goes wrong.

    Attributes:
        toxic: Toxiproxy's word for it; None: the proxy takes no connections.
        attributes: of the toxic.
        hold_s: for how long, from and to; some only show after a client's deadline.
    """

    name: str
    toxic: str | None
    attributes: tuple[tuple[str, int], ...] = ()
    hold_s: tuple[float, float] = (2.0, 8.0)


_LATENCY: Final = Kind("latency", "latency", (("latency", 300), ("jitter", 250)))
_NARROW: Final = Kind("bandwidth", "bandwidth", (("rate", 40),))
_RESET: Final = Kind("reset", "reset_peer", (("timeout", 0),))
_LATE_RESET: Final = Kind("late reset", "reset_peer", (("timeout", 150),))
_HALF_OPEN: Final = Kind("half-open", "timeout", (("timeout", 0),), (4.0, 45.0))
_SLICES: Final = Kind(
    "slicer", "slicer", (("average_size", 200), ("size_variation", 150), ("delay", 2000))
)
_CUT: Final = Kind("cut off", "limit_data", (("bytes", 20_000),))
_REFUSED: Final = Kind("refused", None, (), (2.0, 15.0))
KINDS: Final = (_LATENCY, _NARROW, _RESET, _LATE_RESET, _HALF_OPEN, _SLICES, _CUT, _REFUSED)


@dataclass(frozen=True)
class Fault:
    """A kind of fault, before which servers, and in which direction."""

    kind: Kind
    places: tuple[str, ...]
    way: Direction


_SHORT: Final = (
    Fault(_RESET, ("kafka", "s3"), "downstream"), Fault(_HALF_OPEN, ("s3",), "downstream"),
    Fault(_LATENCY, ("kafka", "s3"), "upstream"), Fault(_HALF_OPEN, ("kafka",), "upstream"),
    Fault(_CUT, ("s3",), "downstream"), Fault(_REFUSED, ("kafka", "s3"), "upstream"),
)  # fmt: skip


async def run(world: World) -> None:
    """Fault after fault, each between two signs of progress, while small jobs flow."""
    made: Counter[str] = Counter()
    async with world.feeder.flowing(3):
        for fault in _chosen(world):
            await world.progress(topics.DETECTED, 1, _AGAIN_S)
            await _happens(world, fault)
            made[fault.kind.name] += 1
            await world.progress(topics.IMAGED, 1, _AGAIN_S)
    told = ", ".join(f"{kind} {n}" for kind, n in sorted(made.items()))
    world.figures.notes.append(f"network faults by kind: {told}")
    await world.ended(within=_AGAIN_S)


def _chosen(world: World) -> Iterator[Fault]:
    """All of them in an order of chance, again and again while there is time; few in a short run.

    Each kind comes once before any comes twice, and once at least, however little time there is.
    """
    if world.short:
        yield from _SHORT
        return
    met: set[Kind] = set()
    while True:
        left = {kind: _everywhere(kind) for kind in KINDS}
        for faults in left.values():
            world.rng.shuffle(faults)
        while any(left.values()):
            kinds = [kind for kind, faults in left.items() if faults]
            world.rng.shuffle(kinds)
            for kind in kinds:
                yield left[kind].pop()
                met.add(kind)
                if world.time_left <= 0 and len(met) == len(KINDS):
                    return


def _everywhere(kind: Kind) -> list[Fault]:
    # to refuse a connection has no direction
    ways = _WAYS if kind.toxic else _WAYS[:1]
    return [Fault(kind, places, way) for places, way in itertools.product(_PLACES, ways)]


async def _happens(world: World, fault: Fault) -> None:
    proxies = [world.installation.stack.proxies[p] for p in fault.places]
    hold = world.rng.uniform(*fault.kind.hold_s)
    # of some faults half of the connections are spared: then clients must not mix up answers
    toxicity = 1.0 if world.short or world.rng.random() < 0.6 else 0.5
    if world.short:
        hold = min(hold, _SHORT_HOLD_S)
    world.fault(fault.kind.name, places=fault.places, way=fault.way, hold_s=round(hold, 1))
    world.say(f"{fault.kind.name} at {' and '.join(fault.places)}, {fault.way}, {hold:.0f} s")
    try:
        await asyncio.gather(
            *(asyncio.to_thread(_begin, proxy, fault, toxicity) for proxy in proxies)
        )
        await asyncio.sleep(hold)
    finally:
        await asyncio.gather(*(asyncio.to_thread(proxy.reset) for proxy in proxies))
        world.over(fault.kind.name)
    world.say("")


def _begin(proxy: Proxy, fault: Fault, toxicity: float) -> None:
    if fault.kind.toxic is None:
        proxy.disable()
    else:
        proxy.add(fault.kind.toxic, fault.way, toxicity, **dict(fault.kind.attributes))
