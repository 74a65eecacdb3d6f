"""What ``make bench`` keeps and writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results and page lie, in place of the figures of record."""
    for name, path in (("_RESULTS", "results.json"), ("_DETAILS", "details.json"), ("_HOME", "")):
        monkeypatch.setattr(run, name, tmp_path / path)
    monkeypatch.setattr(run, "_DOCS", tmp_path)
    monkeypatch.setattr(run, "WORK", tmp_path)
    return tmp_path


def _line(case: str, unit: str, theirs: Any, met: bool | None, **more: Any) -> dict[str, Any]:
    return {
        "name": "merge", "case": case, "ours": 1.0, "theirs": theirs, "unit": unit, "ratio": None,
        "target": "> 0.8", "met": met, "cpu_ratio": None, **more,
    }  # fmt: skip


def test_the_page_alone_is_judged_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without measuring: a cap on memory meets no target in time. What had a figure keeps its verdict,
    which was made of more digits than are recorded, and what was undecided stays so."""
    lines = [
        _line("memory cap", "s", "> 4 GB", True, cpu_ratio=0.0),
        _line("time cap", "s", "> 60 s (60 s of CPU)", True, cpu_ratio=1642.0),
        _line("held", "MB", "> 4 GB", True),
        _line("a try", "s", "> 60 s (60 s of CPU)", None, cpu_ratio=1642.0),
        _line("close", "s", 0.8, True, ratio=0.8, cpu_ratio=0.8),
        _line("alone", "s", None, True),
    ]
    (home / "results.json").write_text(json.dumps(lines))
    monkeypatch.setattr(sys, "argv", ["run.py", "page"])
    run.main()
    told = {x["case"]: x["met"] for x in json.loads((home / "results.json").read_text())}
    assert told == {
        "memory cap": None, "time cap": True, "held": True, "a try": None, "close": True, "alone": True,
    }  # fmt: skip
    page = " ".join((home / "performance.md").read_text().split())
    assert "4 comparisons met their target, 0 fell short, 2 could not be decided." in page
    assert "2 of those that met it have no figure of the other's" in page


def test_a_run_is_recorded_with_its_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the page gives the command that was run, not one that gives other figures."""
    rows = [{"contender": "Frond", "seconds": 1.0, "spread": [1.0, 1.0], "rounds": 1}]
    table = {"title": "Merge", "rows": rows, "plot": "seconds"}
    case = SimpleNamespace(ABOUT="So.", OWN=("numpy",), run=lambda: iter([([], table)]))
    monkeypatch.setitem(sys.modules, "cases.merge", case)
    monkeypatch.setattr(sys, "argv", ["run.py", "merge"])
    monkeypatch.setenv("BENCH_ROUNDS", "1")
    run.main()
    details = json.loads((home / "details.json").read_text())
    assert details["merge"]["settings"]["BENCH_ROUNDS"] == "1"
    assert "BENCH_ROUNDS=1 make bench ONLY=merge`" in (home / "performance.md").read_text()
