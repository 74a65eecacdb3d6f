"""Opaque cursors: where the next page begins."""

from __future__ import annotations

import base64
import binascii
import json

from frond.contracts.reasons import Reason
from frond.ingest.problems import Refused


def write_cursor(*parts: int | str) -> str:
    """A cursor of these sort keys, fit for a URL."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, *kinds: type) -> tuple[int | str, ...] | None:
    """The sort keys of a cursor; None without one. Raises Refused when it is none of ours."""
    if not cursor:
        return None
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        parts = None
    good = (
        isinstance(parts, list)
        and len(parts) == len(kinds)
        and all(type(p) is k for p, k in zip(parts, kinds, strict=True))
        and all(not isinstance(p, int) or abs(p) < 1 << 53 for p in parts)
    )
    if not good:
        raise Refused(
            Reason.BAD_REQUEST, "The cursor is none of ours; begin without one.", status=422
        )
    return tuple(parts)
