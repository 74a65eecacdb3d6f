"""N detections of one image, each object once: Frond against SAHI, supervision and geodeep."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data import stored
from harness import ROUNDS, WORK, Contender, entry, interleave, limit

IOU = 0.5
SIZES = (10_000, 100_000, 1_000_000)
GROWTH = (500_000, 1_000_000, 2_000_000)
LIMIT_1M_S, LIMIT_DOUBLING = 3.0, 2.3
_GROWTH_ROUNDS = 5

ABOUT = """\
Detections of one image as overlapping windows give them (`bench/data.py`: 640² windows, margin 64;
every object as each window that keeps it sees it, an error of 0.8 pixel, 3 classes), *scattered*
(boxes cover 5 % of the ground) and *crowded* (they cover it four times over). Threshold: IoU 0.5.
All get the same boxes, as the arrays that each likes best; what is timed is the call alone, in a
process of its own, warmed up (numba has compiled). A contender that needs more than 60 s or 4 GB
is stopped and listed as such.

- **Frond**: `frond.merge.merge`. It matches only boxes of *different* windows (within a window the
  model's own NMS has decided), so it does less than the others, which is what it is made for.
- **Frond, plain NMS**: the same function on the same boxes, each said to come from a window of its
  own: greedy NMS by class over all boxes. This is the same algorithm as SAHI's and supervision's
  NMS, and the column *differ* counts rows kept by one and not by the other.
- **SAHI**: `batched_nms` and `batched_greedy_nmm` on arrays, without the Python object a box that
  `get_sliced_prediction` makes of each. Both of its CPU backends at 10,000; above that
  the numpy one (a spatial index in Shapely), which was the faster at 100,000 too.
- **supervision**: `Detections.with_nms`, which holds the IoU of all pairs in float64.
- **geodeep**: `non_max_suppression_fast`, then `non_max_kdtree`: over all classes at once, so it
  keeps fewer; there is nothing to compare row by row.

*Added MB* is the peak of resident memory during the call above what the process held before it;
below a few MB it says little, for what the process had freed before is used again unseen.
*CPU s* tells on a busy machine what the wall clock does not.
"""


def _contenders(n: int, path: Path) -> list[Contender]:
    def one(name: str, target: str, frond: bool = False, **more: Any) -> Contender:
        keep = WORK / f"kept-{target.replace(':', '-')}-{more.get('backend', '')}.npy"
        keep.unlink(missing_ok=True)
        args = {"path": str(path), "iou": IOU, "keep": str(keep), **more}
        return Contender(name, target, args, frond)

    found = [
        one("Frond", "frond_merge:windows", frond=True),
        one("Frond, plain NMS", "frond_merge:plain_nms", frond=True),
        one("SAHI NMS (numpy)", "sahi_merge:nms", backend="numpy"),
        one("SAHI GREEDYNMM (numpy)", "sahi_merge:greedy_nmm", backend="numpy"),
    ]
    if n <= 10_000:
        found += [
            one("SAHI NMS (numba)", "sahi_merge:nms", backend="numba"),
            one("SAHI GREEDYNMM (numba)", "sahi_merge:greedy_nmm", backend="numba"),
        ]
    return [
        *found,
        one("supervision NMS", "supervision_merge:nms"),
        one("geodeep", "geodeep_merge:detect"),
    ]


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document, case by case."""
    for n in SIZES:
        for kind in ("scattered", "crowded"):
            print(f"  merge {n} {kind}", flush=True)
            every = _contenders(n, stored(n, kind, WORK))
            interleave(every)
            case = f"{n} {kind}"
            differ = {c.name: _differ(every[1], c) for c in every[1:] if "NMS" in c.name}
            lines: list[dict[str, Any]] = []
            for other in every[2:]:
                lines += [
                    entry("merge", f"{case}, time, vs {other.name}", every[0], other, "seconds", "s", 1),
                    entry("merge", f"{case}, added memory, vs {other.name}", every[0], other, "added", "MB", 1),
                ]  # fmt: skip
            rival = every[2]
            lines += [
                entry("merge", f"{case}, time, plain NMS vs {rival.name}", every[1], rival, "seconds", "s", 1),
                entry("merge", f"{case}, added memory, plain NMS vs {rival.name}", every[1], rival, "added", "MB", 1),
            ]  # fmt: skip
            lines.append(_same(case, rival.name, differ[rival.name]))
            yield lines, _table(f"Merge: {n:,} detections, {kind}", every, differ)
    yield _growth()


def _differ(ours: Contender, other: Contender) -> int | None:
    mine, theirs = Path(ours.args["keep"]), Path(other.args["keep"])
    if ours is other or other.over or not theirs.exists():
        return None
    return len(np.setxor1d(np.load(mine), np.load(theirs)))


def _same(case: str, rival: str, differ: int | None) -> dict[str, Any]:
    return {
        "name": "merge", "case": f"{case}, rows kept differently, plain NMS vs {rival}",
        "ours": differ, "theirs": 0, "unit": "rows", "ratio": None, "target": "0",
        "met": None if differ is None else differ == 0,
    }  # fmt: skip


def _growth() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines, rows = [], []
    for kind in ("scattered", "crowded"):
        print(f"  merge growth {kind}", flush=True)
        every = [
            Contender(
                f"{n:,} {kind}", "frond_merge:windows",
                {"path": str(stored(n, kind, WORK)), "iou": IOU, "keep": ""}, True,
            )
            for n in GROWTH
        ]  # fmt: skip
        # a quotient of two short times: by few rounds it tells of the machine
        interleave(every, rounds=_GROWTH_ROUNDS * ROUNDS)
        cpu = [c.median("cpu") or float("nan") for c in every]
        worst = max(b / a for a, b in pairwise(cpu))
        million = cpu[GROWTH.index(1_000_000)]
        lines += [
            limit(
                "merge",
                f"1000000 {kind}, CPU time",
                million,
                LIMIT_1M_S,
                "s",
                every[GROWTH.index(1_000_000)].spread("cpu"),
            ),
            limit(
                "merge", f"{kind}, CPU time when N doubles, worst step", worst, LIMIT_DOUBLING, "×"
            ),
        ]
        rows += _table("", every, {})["rows"]
    return lines, {"title": "Merge: growth of Frond alone", "rows": rows, "plot": "seconds"}


def _table(title: str, every: list[Contender], differ: dict[str, int | None]) -> dict[str, Any]:
    rows = [
        {
            "contender": c.name,
            "over": c.over,
            "seconds": c.median("seconds"),
            "spread": c.spread("seconds"),
            "CPU s": c.median("cpu"),
            "added MB": c.median("added"),
            "kept": c.median("kept"),
            "differ": differ.get(c.name),
            "rounds": len(c.rounds),
        }
        for c in every
    ]
    return {"title": title, "rows": rows, "plot": "seconds"}
