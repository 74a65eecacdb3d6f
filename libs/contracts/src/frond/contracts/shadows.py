"""Which windows a shadow has its share in, and what is said where it gave no result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from pydantic import Field

from frond.contracts.jobs import Contract, ModelRef
from frond.contracts.reasons import Reason

_BITS: Final = 64


class ShadowFailure(Contract):
    """Why a chunk has no shadow result: stored where the result would lie."""

    model: ModelRef
    reason: Reason
    detail: str = Field(max_length=2000)


def in_share(etag: str, window: int, share: float) -> bool:
    """Whether a shadow runs on this window.

    A function of the image's content (the ETag of what is read) and the window's index alone: the
    same windows in every run, on every worker, for every shadow; a larger share has those of a
    smaller one and more.
    """
    content = etag.strip('"')
    raw = hashlib.blake2b(
        f"{content} {window}".encode(), digest_size=_BITS // 8, person=b"shadow"
    ).digest()
    return int.from_bytes(raw, "big") < share * (1 << _BITS)


def shadow_windows(etag: str, windows: Iterable[int], share: float) -> list[int]:
    """Those of these windows that are in the share, in their order."""
    return [w for w in windows if in_share(etag, w, share)]
