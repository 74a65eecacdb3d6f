"""Which partition a key goes to: Kafka's own rule (murmur2), reckoned by words instead of by bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_MIX: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


def place(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    """The partition of a key, as the Java client and aiokafka have it; any where there is no key."""
    if key is None:
        return random.choice(available or partitions)  # noqa: S311 # nothing is kept secret by it
    return partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]


def murmur2(key: bytes) -> int:
    """The 32-bit MurmurHash2 of a key, seeded as Kafka seeds it."""
    length = len(key)
    h = _SEED ^ length
    for k in _words(length // 4).unpack_from(key):
        k = k * _MIX & _WORD
        h = (h * _MIX & _WORD) ^ ((k ^ k >> 24) * _MIX & _WORD)
    if rest := key[length & ~3 :]:
        h = (h ^ int.from_bytes(rest, "little")) * _MIX & _WORD
    h = (h ^ h >> 13) * _MIX & _WORD
    return h ^ h >> 15


@lru_cache(maxsize=1024)
def _words(n: int) -> struct.Struct:
    return struct.Struct(f"<{n}I")
