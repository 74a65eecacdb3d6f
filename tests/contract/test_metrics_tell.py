"""What /metrics tells whoever reaches it, who needs no key: docs/security.md admits all of it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src"), ROOT / "training/src"]
MAKES = re.compile(r"^from prometheus_client\b|^import prometheus_client\b", re.MULTILINE)
OURS = {
    "kind", "of", "outcome", "part", "partition", "stage", "state", "status", "topic", "type", "verdict",
    "what", "why",
}  # fmt: skip
"""Labels whose values are words of Frond's own."""
NAMES = {
    "frond.inference.metrics": {"model", "digest"},
    "frond.training.worker.trainer": {"model"},
}
"""Labels whose values are somebody's names, by module."""


def modules() -> list[str]:
    """Those that have to do with metrics, wherever they lie."""
    return [
        ".".join(path.relative_to(source).with_suffix("").parts)
        for source in SOURCES
        for path in sorted(source.glob("**/*.py"))
        if MAKES.search(path.read_text())
    ]


def labels(module: str) -> set[str]:
    """Those of a module's metrics."""
    found = (m for m in vars(import_module(module)).values() if isinstance(m, MetricWrapperBase))
    return {label for metric in found for label in metric._labelnames}


def test_names_in_metrics_are_admitted() -> None:
    """Labels are Frond's own words, at no service anybody's names; but for inference's and the training
    worker's, of models. Whoever adds one adds it to the page."""
    told = {module: labels(module) - OURS for module in modules()}
    assert {module: names for module, names in told.items() if names} == NAMES
    page = (ROOT / "docs/security.md").read_text()
    open_ones = page.partition("## What is not covered")[2].split("\n- ")
    admitted = next(item for item in open_ones if "/metrics" in item)
    assert "names of models" in admitted and "digests" in admitted
    assert "at the training worker's those of models" in " ".join(admitted.split())
