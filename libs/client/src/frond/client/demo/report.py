"""What the demo says at its end: tables, and the list of what had to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from frond.client.cli import show
from frond.client.demo.compare import Score


@dataclass(frozen=True)
class Check:
    """One thing that had to hold."""

    what: str
    holds: bool
    told: str


def figures(job: Mapping[str, Any], seconds: float) -> None:
    """Images, windows and detections of a job."""
    images, windows = job["images"], job["windows"]
    model = job.get("model") or {}
    rows: list[tuple[str, object]] = [
        ("images", images["expected"]),
        ("  completed", images["completed"]),
        ("  failed", images["failed"]),
        ("windows", windows["total"]),
        ("  run", windows["done"]),
        ("  skipped, nothing but nodata", windows["skipped"]),
        ("  failed", windows["failed"]),
        *((f"detections: {c}", n) for c, n in sorted(job["detections"].items())),
        ("seconds, upload to completed", f"{seconds:.1f}"),
    ]
    show.table([f"{model.get('name', '')} {model.get('version', '')}".strip(), "count"], rows,
               right="count")  # fmt: skip


def failures(job: Mapping[str, Any]) -> None:
    """The failed images, each with its reason."""
    rows = [(f["name"], f["reason"], f["detail"]) for f in job["failures"]]
    show.table(["failed image", "reason", "what is wrong"], rows)


def scores(all_of_it: Score, by_kind: Mapping[str, Score], offsets: Sequence[float]) -> None:
    """Recall and precision on the planted palms."""
    rows = [
        (kind, s.planted, s.hits, s.found, f"{s.recall:.3f}", f"{s.precision:.3f}")
        for kind, s in [*by_kind.items(), ("all scenes", all_of_it)]
    ]
    show.table(
        ["generated scenes", "planted", "found", "detections", "recall", "precision"], rows,
        right="planted found detections recall precision",
    )  # fmt: skip
    out = show.console()
    out.print(
        "These scenes are drawn by a program; figures on real imagery are in the model card.",
        style="dim",
    )
    if offsets:
        out.print(
            f"On the map, in GeoJSON: half of the palms lie within {median(offsets):.2f} m of where "
            f"they were planted, all within {max(offsets):.2f} m.",
            style="dim",
        )


def checks(found: Sequence[Check]) -> bool:
    """Say what holds and what does not; returns whether all of it does."""
    out = show.console()
    for check in found:
        sign, colour = ("✓", "green") if check.holds else ("✗", "red")
        out.print(f"[{colour}]{sign}[/] {check.what}: ", end="")
        out.print(check.told, markup=False)
    return all(c.holds for c in found)
