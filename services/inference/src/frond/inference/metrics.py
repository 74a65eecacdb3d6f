"""Inference's metrics, one list."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from frond.contracts.events import DriftObserved
from frond.contracts.jobs import Timings
from frond.drift.naming import FINDS, SCORES, parts_of

STAGE: Final = Histogram(
    "frond_inference_stage_seconds", "One chunk, by stage: wait, read, preprocess, run, decode, write",
    ["stage"], buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)  # fmt: skip
CHUNKS: Final = Counter(
    "frond_inference_chunks_total", "Chunks by how they ended: done, repeated, failed", ["outcome"]
)
DEATHS: Final = Counter(
    "frond_inference_deaths_total", "Processes that died, as found by the one that came after"
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
WARMED: Final = Counter(
    "frond_inference_models_warmed_total",
    "Versions loaded because an alias points at them, before work of theirs: done, failed",
    ["outcome"],
)
# an alert on the increase of a series sees its first event only if it was there before
for _outcome in ("done", "failed"):
    WARMED.labels(_outcome)
PREDICTIONS: Final = Counter("frond_predictions_total", "POST /predict by status", ["status"])

SHADOW_CHUNKS: Final = Counter(
    "frond_shadow_chunks_total",
    "Chunks' shadows by how they ended: done, repeated, failed",
    ["outcome"],
)  # fmt: skip
# as above
for _outcome in ("done", "repeated", "failed"):
    SHADOW_CHUNKS.labels(_outcome)
SHADOW_WINDOWS: Final = Counter("frond_shadow_windows_total", "Windows run by shadows")
SHADOW_WAITING: Final = Histogram(
    "frond_shadow_wait_seconds", "How long a chunk, stored already, waited for its shadow",
    buckets=(0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300),
)  # fmt: skip
SHADOWS_LOADED: Final = Gauge("frond_shadow_models_loaded", "Shadows in memory")

_OF: Final = ["model", "digest", "what"]
DRIFT_PSI: Final = Gauge(
    "frond_drift_psi", "Population stability index of the last period: band 1…, scores, finds", _OF
)
DRIFT_KS: Final = Gauge(
    "frond_drift_ks", "Kolmogorov-Smirnov distance of the last period: band 1…, scores, finds", _OF
)
DRIFT_VERDICT: Final = Gauge(
    "frond_drift_verdict", "Of the last period: 0 unknown, 1 stable, 2 shifting, 3 drifted", _OF
)
DRIFT_ENDED: Final = Gauge(
    "frond_drift_period_end_timestamp_seconds", "When the last period ended", ["model", "digest"]
)
DRIFT_PERIODS: Final = Counter(
    "frond_drift_periods_total", "Periods by what is made of them", ["model", "verdict"]
)
DRIFT_WINDOWS: Final = Counter(
    "frond_drift_windows_total", "Windows looked at for drift", ["model"]
)
DRIFT_MISSED: Final = Counter(
    "frond_drift_missed_total", "Not looked at, or not told of: windows, periods", ["what"]
)


def observe(timings: Timings) -> None:
    """Record one chunk's stages."""
    for stage in ("wait", "read", "preprocess", "run", "decode", "write"):
        STAGE.labels(stage).observe(getattr(timings, stage))


def observe_drift(event: DriftObserved) -> None:
    """Record the period that has ended."""
    name, digest = event.model.name, event.model.digest[:12]
    parts = dict(parts_of(event))
    # what an earlier period said of parts that this one says nothing of must not stand beside its time
    for what in (*parts, *(w for w in (SCORES, FINDS) if w not in parts)):
        told = parts.get(what)
        DRIFT_VERDICT.labels(name, digest, what).set(told.verdict.rank if told else 0)
        figures = (told.psi, told.ks) if told else (None, None)
        for gauge, value in zip((DRIFT_PSI, DRIFT_KS), figures, strict=True):
            if value is None:
                gauge.remove(name, digest, what)
            else:
                gauge.labels(name, digest, what).set(value)
    DRIFT_ENDED.labels(name, digest).set(event.ended.timestamp())
    DRIFT_PERIODS.labels(name, event.verdict.value).inc()
    DRIFT_WINDOWS.labels(name).inc(event.windows)
