"""Topics lie on as many brokers as the operator said, whichever process makes them first."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("libs/*/src", "services/*/src", "training/src")


def test_whoever_makes_topics_hands_the_number_of_replicas_on() -> None:
    """A call without it makes each topic with one: FROND_REPLICATION_FACTOR changes none that is there."""
    calls = [
        (path, call)
        for folder in SOURCES
        for path in sorted(ROOT.glob(f"{folder}/**/*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "ensure_topics"
    ]
    assert {str(path.relative_to(ROOT).parts[0]) for path, _ in calls} == {
        "libs", "services", "training",
    }  # fmt: skip
    for path, call in calls:
        assert "replication_factor" in {k.arg for k in call.keywords}, (path, call.lineno)
