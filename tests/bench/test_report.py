"""The page says of each figure how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import environment
import report


def _page(
    tmp_path: Path, part: dict[str, Any], *rows: dict[str, Any], plot: str = "seconds"
) -> str:
    about = {
        "when": "then",
        "commit": "abc",
        "machine": "a machine",
        "versions": {},
        "about": "So.",
    }
    tables = [{"title": "Merge: all", "rows": list(rows), "plot": plot}]
    report.write([], {"merge": {**about, **part, "tables": tables}}, tmp_path)
    return (tmp_path / "performance.md").read_text()


def _row(rounds: int, name: str = "Frond") -> dict[str, Any]:
    spread = [1.0, 3.0] if rounds > 1 else [2.0, 2.0] if rounds else []
    over = None if rounds else "> 4 GB"
    return {
        "contender": name, "over": over, "seconds": 2.0 if rounds else None, "spread": spread,
        "rounds": rounds,
    }  # fmt: skip


def test_what_was_set_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes a figure; not where the figures went, a folder of somebody's machine."""
    for name in ("BENCH_SCALE", "BENCH_RASTER_SIDES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ROUNDS", "2"), ("NEW", "a b"), ("OUT", "/a/folder"), ("EMPTY", "")):
        monkeypatch.setenv(f"BENCH_{name}", value)
    assert environment.settings() == {"BENCH_NEW": "a b", "BENCH_ROUNDS": "2"}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"settings": {"BENCH_NEW": "a b", "BENCH_ROUNDS": "2"}},
         "`BENCH_NEW='a b' BENCH_ROUNDS=2 make bench ONLY=merge`, then"),
        ({"settings": {}}, "`make bench ONLY=merge`, then"),
        ({}, "`make bench ONLY=merge` (BENCH_ settings not recorded), then"),
    ],
)  # fmt: skip
def test_the_command_is_the_one_that_was_run(
    tmp_path: Path, part: dict[str, Any], told: str
) -> None:
    assert told in _page(tmp_path, part, _row(2))


def test_one_round_is_no_median(tmp_path: Path) -> None:
    """Neither in the table nor beside a bar; who was stopped does not make it two."""
    page = _page(tmp_path, {}, _row(1), _row(0, "the other"))
    assert "One round: its figures, no medians." in page
    assert "| Frond | 2 | 1 |" in page
    assert "median" not in (tmp_path / "img" / "bench" / "merge-all.svg").read_text()


def test_several_rounds_have_a_median_and_a_range(tmp_path: Path) -> None:
    """Also where what took long was run once: its own row says so."""
    page = _page(tmp_path, {"settings": {"BENCH_ROUNDS": "2"}}, _row(2), _row(1, "slow"))
    assert "One round" not in page
    assert "| Frond | 2 (1–3) | 2 |" in page and "| slow | 2 | 1 |" in page
    assert "median and range" in (tmp_path / "img" / "bench" / "merge-all.svg").read_text()


@pytest.mark.parametrize(("rounds", "single"), [("1", True), ("2", False)])
def test_rows_without_rounds_had_those_that_were_asked_for(
    tmp_path: Path, rounds: str, single: bool
) -> None:
    """As the percentiles over the jobs of all rounds."""
    row = {"contender": "Frond", "ms": 5.0, "spread": [4.0, 9.0]}
    page = _page(tmp_path, {"settings": {"BENCH_ROUNDS": rounds}}, row, plot="ms")
    assert ("One round" in page) is single
