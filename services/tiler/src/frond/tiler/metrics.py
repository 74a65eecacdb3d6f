"""The tiler's metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

IMAGES: Final = Counter(
    "frond_tiler_images_total", "Images by what became of them.", ["outcome"]
)  # planned, empty, again, or the reason code of a rejection
WINDOWS: Final = Counter("frond_tiler_windows_total", "Windows planned.", ["kind"])  # run, skipped
PLANNING: Final = Histogram(
    "frond_tiler_planning_seconds",
    "From opening an image to its plan.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
)
COPIES: Final = Counter("frond_tiler_copies_total", "Tiled copies made of slow rasters.")
READERS_LOST: Final = Counter(
    "frond_tiler_readers_lost_total", "Reader processes that died or were stopped.", ["why"]
)
BACKLOG: Final = Gauge("frond_tiled_backlog", "Chunks waiting for inference, as the tiler sees it")
HOLDING: Final = Gauge(
    "frond_tiler_holding", "Whether planning waits for inference, job by job: 1 or 0"
)


def show_backlog(lag: int, holding: bool) -> None:
    """What was seen of inference just now."""
    BACKLOG.set(lag)
    HOLDING.set(holding)
