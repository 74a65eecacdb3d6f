"""Inputs that were once interesting, or broke a law, keep every law; so do the golden events."""

from __future__ import annotations

from pathlib import Path

import pytest

import chaos.scenarios.fuzz
from frond.contracts.carried import CARRIES
from fuzz.consumers import CONSUMERS
from fuzz.registry import CORPUS, TARGETS, seeds

KEPT = sorted(p for p in CORPUS.glob("*/*") if p.is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_the_golden_inputs_keep_the_laws(target: str) -> None:
    """What the fuzzer begins with is handled, twice, without breaking a law."""
    for data in seeds(target):
        TARGETS[target](data)


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_what_was_found_keeps_the_laws(path: Path) -> None:
    """An event handled, or a dead letter with its reason; read again as written; no odd name."""
    TARGETS[path.parent.name](path.read_bytes())


def test_every_topic_that_carries_events_has_a_target() -> None:
    """Whoever reads a topic is fuzzed with it."""
    read = {topic.name for _, taken in CONSUMERS.values() for topic in taken}
    assert read == {name for name, carried in CARRIES.items() if carried}


def test_chaos_runs_every_target() -> None:
    """Its scenario names them, so that it need not load what they load."""
    assert set(chaos.scenarios.fuzz._TARGETS) == set(TARGETS)


def test_every_folder_is_of_a_target() -> None:
    """A corpus that nobody replays would be forgotten."""
    assert {p.parent.name for p in KEPT} <= set(TARGETS)
