"""``BENCH_SCALE``: the benchmarks that run the whole system at a share of their size, for trying."""

from __future__ import annotations

import os
from typing import Any, Final

SCALE: Final = float(os.environ.get("BENCH_SCALE", "1"))
if not 0 < SCALE <= 1:
    raise SystemExit("BENCH_SCALE is a share of a benchmark's size: above 0, at most 1.")
_TOLD: Final = f" (a try at {SCALE:g} of its size)" if SCALE < 1 else ""


def count(full: int, least: int = 1) -> int:
    """That many things at full size."""
    return max(least, round(full * SCALE))


def side(full: int, least: int = 1024) -> int:
    """The side of a square whose area is scaled."""
    return max(least, round(full * SCALE**0.5))


def marked(
    lines: list[dict[str, Any]], table: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Say of scaled results that they are: in the case's name; and none of them meets a target."""
    if not _TOLD:
        return lines, table
    lines = [{**x, "case": x["case"] + _TOLD, "met": None} for x in lines]
    return lines, {**table, "title": table["title"] + _TOLD}
