"""The committed OpenAPI document is the one that ingest serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from openapi_spec_validator import validate

COMMITTED = Path(__file__).parents[2] / "contracts" / "openapi.json"


def test_the_committed_document_is_the_served_one() -> None:
    """`make contracts` was run, and the document is valid OpenAPI."""
    served = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "frond.ingest.openapi"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(served) == json.loads(COMMITTED.read_text())
    validate(json.loads(served))


def test_every_error_is_a_problem_document() -> None:
    """Each operation's 4xx and 5xx answers are application/problem+json (RFC 9457)."""
    document = json.loads(COMMITTED.read_text())
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation.get("responses", {}).items():
                if status[0] in "45" and answer.get("content"):
                    assert list(answer["content"]) == ["application/problem+json"], (
                        method, path, status,
                    )  # fmt: skip
