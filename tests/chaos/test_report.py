"""The report says of each figure what it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from chaos import report
from chaos.figures import Figures
from chaos.runner import Run


def test_what_was_sent_and_what_was_run_are_kept_apart(tmp_path: Path) -> None:
    """Messages on topics, and inputs of the fuzzer that no topic has seen."""
    figures = Figures(messages_fuzzed=2, bytes_fuzzed=30, inputs_fuzzed=4_000, bytes_guided=50_000)
    figures.exits = Counter({"aggregator (status 1)": 3})
    run = Run(tmp_path, seed=1, duration=1, short=True)
    run.outcomes["fuzz"] = figures
    report.write(tmp_path / "reliability.md", run, figures + Figures())
    page = (tmp_path / "reliability.md").read_text(encoding="utf-8")
    assert "30 bytes in 2 messages" in page
    assert "4,000 inputs of 50,000 bytes" in page
    assert "aggregator (status 1) 3" in page
