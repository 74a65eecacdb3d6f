"""What /metrics tells whoever reaches it, who needs no key: docs/security.md admits all of it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

import frond.aggregator.metrics
import frond.bus.metrics
import frond.inference.metrics
import frond.ingest.metrics
import frond.notifier.metrics
import frond.runtime.health
import frond.runtime.patience
import frond.tiler.metrics

MODULES = (
    frond.aggregator.metrics, frond.bus.metrics, frond.inference.metrics, frond.ingest.metrics,
    frond.notifier.metrics, frond.runtime.health, frond.runtime.patience, frond.tiler.metrics,
)  # fmt: skip
OURS = {
    "kind", "of", "outcome", "part", "partition", "stage", "state", "status", "topic", "type", "verdict",
    "what", "why",
}  # fmt: skip
"""Labels whose values are words of Frond's own."""


def labels(module: object) -> set[str]:
    """Those of a module's metrics."""
    found = (m for m in vars(module).values() if isinstance(m, MetricWrapperBase))
    return {label for metric in found for label in metric._labelnames}


def test_names_in_metrics_are_admitted() -> None:
    """Labels are Frond's own words, at no service anybody's names; but for inference's, of models. Whoever
    adds one adds it to the page."""
    assert labels(frond.inference.metrics) - OURS == {"model", "digest"}
    for module in MODULES:
        if module is not frond.inference.metrics:
            assert labels(module) <= OURS, module
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    open_ones = page.partition("## What is not covered")[2].split("\n- ")
    told = next(item for item in open_ones if "/metrics" in item)
    assert "names of models" in told and "digests" in told
