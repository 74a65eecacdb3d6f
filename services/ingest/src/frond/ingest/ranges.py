"""HTTP ranges (RFC 9110 §14): one range of bytes, the whole, or a refusal."""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE_RANGE = re.compile(r"^bytes=([0-9]{0,18})-([0-9]{0,18})$")


class Slice(NamedTuple):
    """Bytes [offset, offset + length) of an object."""

    offset: int
    length: int


class Unsatisfiable(Exception):
    """The range starts behind the object's end: 416."""


def parse_range(header: str | None, size: int) -> Slice | None:
    """The slice that a Range header asks for; None: answer with the whole object.

    What RFC 9110 lets a server ignore is ignored: other units, malformed or several ranges.

    Raises:
        Unsatisfiable: nothing of the range is in an object of ``size`` bytes.
    """
    m = _ONE_RANGE.match((header or "").strip().replace(" ", ""))
    if m is None or (not m.group(1) and not m.group(2)):
        return None
    first, last = m.group(1), m.group(2)
    if not first:
        n = min(int(last), size)
        if n == 0:
            raise Unsatisfiable
        return Slice(size - n, n)
    start = int(first)
    stop = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Slice(start, stop - start)


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this ETag (weak comparison)."""
    if not header:
        return False
    tags = {t.strip().removeprefix("W/").strip('"') for t in header.split(",")}
    return "*" in tags or etag in tags
