"""Who was stopped has no figure, and is beaten only by what is known of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import CAP_MB, ROOT, Contender, entry, interleave, judged

_GREEDY = """
import resource, time

def holds(mb):
    def work():
        until, held = time.process_time() + 0.1, bytearray(mb << 20)
        while time.process_time() < until:
            pass
        held[:] = bytes([1]) * len(held)
        time.sleep(0.5)
        return {"addresses": resource.getrlimit(resource.RLIMIT_AS)[0]}
    return work

def matrix(seconds):
    def work():
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        return {"kept": len(bytearray(1 << 45))}
    return work
"""


@pytest.fixture
def greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders that want memory, in processes as all are."""
    contenders = tmp_path / "bench" / "contenders"
    contenders.mkdir(parents=True)
    for name in ("worker.py", "proc.py"):
        shutil.copy(ROOT / "bench" / name, tmp_path / "bench")
    (contenders / "greedy.py").write_text(_GREEDY)
    monkeypatch.setattr(harness, "ROOT", tmp_path)


def _stopped(over: str, **more: Any) -> Contender:
    one = Contender("numpy", "", {}, **more)
    one.over = over
    return one


def _frond(**figures: float) -> Contender:
    return Contender("Frond", "", {}, rounds=[{"cpu": 2000.0, **figures}])


def _judged(
    ours: Contender, theirs: Contender, figure: str = "seconds", target: float = 0.8
) -> Any:
    unit = "s" if figure == "seconds" else "MB"
    return entry("a", "b", ours, theirs, figure, unit, target)["met"]


def test_a_memory_cap_says_nothing_of_time() -> None:
    """Frond took a quarter of an hour; who was refused its memory might have taken a second."""
    assert _judged(_frond(seconds=1000.0), _stopped("> 4 GB")) is None


@pytest.mark.parametrize("over", ["> 4 GB", "> 60 s (60 s of CPU)"])
def test_burnt_time_decides_for_and_never_against(over: str) -> None:
    """It would have taken no less than it had when it was stopped; how much more, nobody knows."""
    assert _judged(_frond(seconds=1000.0), _stopped(over, burnt=1700.0)) is True
    assert _judged(_frond(seconds=1000.0), _stopped(over, burnt=1500.0)) is None


def test_who_failed_is_not_beaten() -> None:
    assert _judged(_frond(seconds=1.0), _stopped("failed: no such file")) is None
    assert _judged(_frond(added=1.0), _stopped("failed: no such file"), "added") is None


@pytest.mark.parametrize("figure", ["seconds", "added"])
def test_frond_that_was_stopped_has_missed(figure: str) -> None:
    """Whatever became of the other."""
    ours = _stopped("> 4 GB")
    unit = "s" if figure == "seconds" else "MB"
    for other in (_stopped("> 4 GB"), _frond(seconds=3.0, added=5.0)):
        line = entry("a", "b", ours, other, figure, unit, 1.0)
        assert line["met"] is False
        assert judged(line) == line


def test_a_memory_cap_decides_of_memory() -> None:
    """It held the cap, its own: more than Frond did, or who knows."""
    ours = _frond(held=8000.0)
    assert _judged(ours, _stopped("> 4 GB"), "held", 1) is None
    assert _judged(ours, _stopped("> 16 GB", cap_mb=16384.0), "held", 1) is True
    assert _judged(_frond(added=10.0), _stopped("> 60 s", held=21.0), "added", 2) is True
    assert _judged(_frond(added=10.0), _stopped("> 60 s", held=19.0), "added", 2) is None


def test_a_case_sets_its_own_cap(greedy: None) -> None:
    """Who holds more than it may is stopped, and what it burnt is known; who may hold as much goes
    through, with addresses for it."""
    little = Contender("little", "greedy:holds", {"mb": 300}, frond=True, cap_mb=100.0)
    much = Contender("much", "greedy:holds", {"mb": 300}, frond=True, cap_mb=16 * 1024.0)
    interleave([little, much], rounds=1)
    assert little.over == little.too_much and little.burnt > 0
    assert much.over is None and much.too_much == "> 16 GB"
    assert much.rounds[0]["addresses"] > 16 << 30


def test_a_refused_matrix_tells_what_was_burnt_before(greedy: None) -> None:
    one = Contender("all pairs", "greedy:matrix", {"seconds": 0.3}, frond=True)
    interleave([one], rounds=1)
    assert one.over == one.too_much == "> 4 GB" and not one.rounds
    assert 0.3 <= one.burnt < 10


def test_no_cap_is_beyond_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short it is the rival that is stopped, not whom the kernel picks."""
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (8 << 30) // 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    assert harness.spared(16 * 1024) == 6 * 1024
    assert harness.spared(5000) == 5000
    assert harness.spared(100) == CAP_MB


def test_what_is_on_record_is_judged_so() -> None:
    """No line of results.json says of a target in time that it was met where nothing decides it."""
    lines = json.loads((ROOT / "bench" / "results.json").read_text())
    assert [x["case"] for x in lines if x["met"] and not judged(x)["met"]] == []
