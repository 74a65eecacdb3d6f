"""The report says of each figure what it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from chaos import report
from chaos.figures import Figures
from chaos.runner import FULL_S, Run
from chaos.scenarios import SCENARIOS


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


@pytest.mark.parametrize(
    ("only", "duration", "whole"),
    [(list(SCENARIOS), FULL_S, True), (["fuzz"], FULL_S, False), (list(SCENARIOS), 100, False)],
)
def test_a_run_of_less_than_the_whole_says_so(
    tmp_path: Path, only: list[str], duration: float, whole: bool
) -> None:
    """A page of one scenario, or of a short time, is not taken for the proof."""
    run = Run(tmp_path, seed=1, duration=duration, short=False)
    run.outcomes.update({name: Figures() for name in only})
    report.write(tmp_path / "reliability.md", run, Figures())
    page = (tmp_path / "reliability.md").read_text(encoding="utf-8")
    assert ("Less than the whole" not in page) is whole
