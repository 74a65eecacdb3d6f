"""Inference's metrics, one list."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from frond.contracts.jobs import Timings

STAGE: Final = Histogram(
    "frond_inference_stage_seconds", "One chunk, by stage: wait, read, preprocess, run, decode, write",
    ["stage"], buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)  # fmt: skip
CHUNKS: Final = Counter(
    "frond_inference_chunks_total", "Chunks by how they ended: done, repeated, failed", ["outcome"]
)
WINDOWS: Final = Counter("frond_inference_windows_total", "Windows run")
DETECTIONS: Final = Counter("frond_inference_detections_total", "Detections before merging")
READERS_LOST: Final = Counter(
    "frond_inference_readers_lost_total",
    "Reader processes that died or were stopped, by what they read: chunk, predict",
    ["what", "why"],
)
LOADED: Final = Gauge("frond_inference_models_loaded", "Models in memory")
LOADING: Final = Histogram(
    "frond_inference_model_load_seconds", "Fetching, opening and trying out a model",
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300),
)  # fmt: skip
PREDICTIONS: Final = Counter("frond_predictions_total", "POST /predict by status", ["status"])


def observe(timings: Timings) -> None:
    """Record one chunk's stages."""
    for stage in ("wait", "read", "preprocess", "run", "decode", "write"):
        STAGE.labels(stage).observe(getattr(timings, stage))
